//! Snapshot and restore against `tar`, as ratios within one run.
//!
//! `cargo bench --bench snapshot` (as root, with a Docker engine) fills a volume of about 850 MB (half text, a
//! quarter random, 20,000 small files), then measures, best of three each:
//! - a snapshot against `docker run … tar cf` into a folder, and against the same followed by the sync without which a
//!   power cut takes the archive,
//! - a restore with verification against `rm -rf`, `tar xf` of the plain tar and `sync`,
//! - the second pass with 1 % changed since the first, against a snapshot of an empty volume,
//! - the peak of memory, also on many small files (`FLEET_BENCH_FILES`, default 100,000).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet_core::ids::{InstanceId, InstanceName, SnapshotId, VolumeName};
use fleet_core::model::{Consistency, VolumeSource};
use fleet_core::ports::{NoProgress, SnapshotRequest, SnapshotStore};
use fleet_core::time::Timestamp;
use fleet_docker::volume::{LocalSnapshotStore, PreCopy, SnapshotOptions};

const ROUNDS: u8 = 3;

/// Makes a volume's content: text, random bytes, small files. The text is the source code of the crates that cargo has
/// fetched for this project. (Words of random letters, drawn as often as words are, compress to 0.37 at the fastest
/// level of zstd; such text to 0.22.)
const FILL: &str = r#"
import os, pathlib, random
random.seed(1)
cargo = pathlib.Path(os.environ.get('CARGO_HOME') or pathlib.Path.home() / '.cargo')
def text(size):
    out, have = [], 0
    for path in sorted((cargo / 'registry/src').rglob('*.rs')):
        content = path.read_bytes()
        # Tables of numbers are no text.
        if len(content) < 200000:
            out.append(content); have += len(content)
        if have >= size:
            return b''.join(out)[:size]
    raise SystemExit(f'expected {size} bytes of source code below {cargo}, found {have}')
block = text(32 << 20)
for n in range(50):
    with open(f'text-{n}', 'wb') as f:
        at = random.randrange(len(block) - (8 << 20)); f.write(block[at:at + (8 << 20)])
for n in range(20):
    with open(f'random-{n}', 'wb') as f:
        f.write(os.urandom(10 << 20))
for d in range(200):
    os.mkdir(f'small-{d}')
    for n in range(100):
        at = random.randrange(len(block) - 20000)
        with open(f'small-{d}/{n}', 'wb') as f:
            f.write(block[at:at + random.randrange(2000, 19000)])
"#;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let volume = DockerVolume::new()?;
    let image = TarImage::new()?;
    let dir = tempfile::tempdir()?;
    let data = volume.mountpoint()?;
    sh(
        &data,
        &format!("python3 -c \"$(cat <<'END'\n{FILL}\nEND\n)\""),
    )?;
    sh(&data, "sync -f .")?;
    let size: u64 = sh(&data, "du -sb . | cut -f1")?.trim().parse()?;
    println!("volume: {} MB", size / 1_000_000);

    let plain = dir.path().join("plain");
    std::fs::create_dir(&plain)?;
    let run = format!(
        "docker run --rm -v {}:/v:ro -v {}:/out {} tar cf /out/v.tar -C /v .",
        volume.0,
        plain.display(),
        image.0
    );
    let tar = |script: &str| {
        best(ROUNDS, || {
            // Removing what was not written yet costs the disk nothing.
            sh(dir.path(), "rm -f plain/v.tar; sync -f .")?;
            timed(|| sh(dir.path(), script))
        })
    };
    let by_docker = tar(&run)?;
    let by_docker_durable = tar(&format!("{run}; sync plain/v.tar"))?;

    let store = open(&dir.path().join("snapshots"), PreCopy::Never)?;
    let source = source("bench", &data)?;
    reset_peak()?;
    let mut by_fleet = Duration::MAX;
    let mut archive = 0;
    for n in 0..ROUNDS {
        let ask = request(n, &source)?;
        let begun = Instant::now();
        let info = store.take(&ask, &NoProgress).await?;
        by_fleet = by_fleet.min(begun.elapsed());
        archive = info.archive_bytes();
    }
    let peak = peak_bytes()?;
    ratio(
        "docker run tar / snapshot (at least 3)",
        by_docker,
        by_fleet,
    );
    ratio(
        "docker run tar and sync / snapshot, which is durable",
        by_docker_durable,
        by_fleet,
    );
    println!(
        "archive / volume (at most 0.45): {:.2}",
        archive as f64 / size as f64
    );
    println!("peak of memory (at most 128 MiB): {} MiB", peak >> 20);

    let by_tar = best(ROUNDS, || {
        timed(|| {
            sh(
                &data,
                &format!(
                    "find . -mindepth 1 -maxdepth 1 -exec rm -rf {{}} +; tar xf {}/v.tar; sync -f .",
                    plain.display()
                ),
            )
        })
    })?;
    let mut restored = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        store
            .restore(
                &request(0, &source)?.id,
                std::slice::from_ref(&source),
                &NoProgress,
            )
            .await?;
        restored = restored.min(begun.elapsed());
    }
    ratio(
        "restore / rm, tar xf, sync (at most 1.25)",
        restored,
        by_tar,
    );
    second_pass(&dir.path().join("delta"), &data, &source).await?;
    many_files(dir.path()).await
}

async fn second_pass(snapshots: &Path, data: &Path, full: &VolumeSource) -> Result<()> {
    let store = open(snapshots, PreCopy::Always)?;
    let empty_dir = tempfile::tempdir()?;
    let empty = source("empty", empty_dir.path())?;
    let (mut changed, mut nothing) = (Duration::MAX, Duration::MAX);
    for n in 0..ROUNDS {
        let ask = request(10 + n, full)?;
        store.pre_copy(&ask, &NoProgress).await?;
        sh(
            data,
            "head -c 8000000 /dev/urandom > text-0; for i in {1..200}; do echo x >> small-$((i % 200))/1; done",
        )?;
        let begun = Instant::now();
        store.take(&ask, &NoProgress).await?;
        changed = changed.min(begun.elapsed());
        let ask = request(20 + n, &empty)?;
        let begun = Instant::now();
        store.take(&ask, &NoProgress).await?;
        nothing = nothing.min(begun.elapsed());
    }
    println!("second pass, 1 % changed: {changed:.0?}; snapshot of an empty volume: {nothing:.0?}");
    Ok(())
}

async fn many_files(dir: &Path) -> Result<()> {
    let count: u64 = std::env::var("FLEET_BENCH_FILES").map_or(Ok(100_000), |text| text.parse())?;
    let data = dir.join("many");
    std::fs::create_dir(&data)?;
    for n in 0..count {
        let folder = data.join(format!("d{}", n / 1000));
        if n % 1000 == 0 {
            std::fs::create_dir(&folder)?;
        }
        std::fs::write(folder.join(format!("file-{n}")), n.to_string())?;
    }
    let store = open(&dir.join("many-snapshots"), PreCopy::Always)?;
    let source = source("many", &data)?;
    reset_peak()?;
    let ask = request(30, &source)?;
    let begun = Instant::now();
    store.pre_copy(&ask, &NoProgress).await?;
    let first = begun.elapsed();
    store.take(&ask, &NoProgress).await?;
    let second = begun.elapsed() - first;
    store.restore(&ask.id, &[source], &NoProgress).await?;
    println!(
        "{count} small files: first pass {first:.1?}, second {second:.1?}, peak of memory with restore (at most 256 MiB): {} MiB",
        peak_bytes()? >> 20
    );
    Ok(())
}

fn open(dir: &Path, pre_copy: PreCopy) -> Result<LocalSnapshotStore> {
    let options = SnapshotOptions {
        pre_copy,
        ..SnapshotOptions::default()
    };
    Ok(LocalSnapshotStore::open(dir, options)?)
}

fn source(name: &str, path: &Path) -> Result<VolumeSource> {
    Ok(VolumeSource {
        name: VolumeName::new(name)?,
        driver: "local".to_owned(),
        mountpoint: path.to_str().context("a path in UTF-8")?.to_owned(),
        options: [].into(),
        labels: [].into(),
    })
}

fn request(n: u8, volume: &VolumeSource) -> Result<SnapshotRequest> {
    let now = Timestamp::from_millis(1_700_000_000_000 + i64::from(n));
    Ok(SnapshotRequest {
        id: SnapshotId::new(now, [n; 10]),
        instance: InstanceId::local(InstanceName::new("bench")?),
        update: None,
        volumes: vec![volume.clone()],
        consistency: Consistency::Clean,
        now,
        engine_id: "bench".to_owned(),
        spec: None,
    })
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn best(rounds: u8, mut round: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        best = best.min(round()?);
    }
    Ok(best)
}

fn ratio(what: &str, a: Duration, b: Duration) {
    println!(
        "{what}: {:.2} ({a:.2?} / {b:.2?})",
        a.as_secs_f64() / b.as_secs_f64()
    );
}

fn reset_peak() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn peak_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .context("VmHWM")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib << 10)
}

fn sh(dir: &Path, script: &str) -> Result<String> {
    let out = Command::new("bash")
        .args(["-euc", script])
        .current_dir(dir)
        .output()?;
    ensure!(
        out.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(String::from_utf8(out.stdout)?)
}

/// A volume of the engine's, removed at the end.
struct DockerVolume(String);

impl DockerVolume {
    fn new() -> Result<Self> {
        let name = format!("fleet-bench-{}", std::process::id());
        sh(Path::new("/"), &format!("docker volume create {name}"))?;
        Ok(Self(name))
    }

    fn mountpoint(&self) -> Result<PathBuf> {
        let ask = format!("docker volume inspect -f '{{{{.Mountpoint}}}}' {}", self.0);
        Ok(sh(Path::new("/"), &ask)?.trim().into())
    }
}

impl Drop for DockerVolume {
    fn drop(&mut self) {
        let _ = sh(Path::new("/"), &format!("docker volume rm -f {}", self.0));
    }
}

/// An image that holds this machine's `tar` and its libraries, removed at the end.
struct TarImage(String);

impl TarImage {
    fn new() -> Result<Self> {
        let name = format!("fleet-bench-tar:{}", std::process::id());
        let files = "/bin/tar $(ldd /bin/tar | grep -o '/[^ ]*')";
        sh(
            Path::new("/"),
            &format!("tar -chP {files} | docker import - {name}"),
        )?;
        Ok(Self(name))
    }
}

impl Drop for TarImage {
    fn drop(&mut self) {
        let _ = sh(Path::new("/"), &format!("docker rmi -f {}", self.0));
    }
}
