//! What one update costs, against the raw engine calls for the same images, in one run.
//!
//! Both are measured in turn, so that whatever else the machine does hits both. Two ratios are printed, each of
//! medians: the time without service (last answer of the old version to first answer of the new one, asked every 5 ms),
//! and the whole. The raw sequence stands for somebody who does by hand what has to be done: look for the image, create
//! the new container and a guard, stop, start, remove.
//!
//! Both guards sit on the default bridge, on which the container may be alone: a bridge whose last container stops forgets
//! its neighbours, and who asks while the new container comes up waits a second for the kernel to look for it again.
//!
//! Then the time without service of an update with 1 GiB in its volume, of which 1 % changes after the first pass of the
//! snapshot, against one with an empty volume: at most 1.5 times as long. A snapshot that began at the stop would copy it all.
//!
//! Argument: `--rounds N` (default 15; a third of that for the gigabyte).

#[path = "shared/asker.rs"]
mod asker;
#[path = "../tests/engine/embedded.rs"]
#[expect(dead_code, reason = "the bench uses a part of what the tests share")]
mod embedded;
#[path = "shared/guard.rs"]
mod guard;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use asker::Asker;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptions,
};
use fleet_core::ports::{NoProgress, Progress, ProgressSink};
use fleet_core::update::{Outcome, Step};
use fleet_testkit::{Image, Lab};

/// Pause between two questions of the probe.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Files in the volume that is not empty, and bytes of each.
const FILES: usize = 1024;
const FILE_BYTES: usize = 1 << 20;
/// Files that change between the first pass and the stop: 1 %.
const CHANGED: usize = FILES / 100;

type Result<T> = anyhow::Result<T>;

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Cost {
    down: Duration,
    whole: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let measured = std::env::args().any(|arg| arg == "--bench");
    let rounds = if measured { rounds().unwrap_or(15) } else { 1 };
    let docker = Docker::connect_with_local_defaults()?
        .negotiate_version()
        .await?;
    let (mut raw, mut fleet) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        raw.push(raw_calls(&docker).await?);
        fleet.push(by_fleet(Volume::Empty).await?);
        eprintln!(
            "round {}: raw {:?}, fleet {:?}",
            round + 1,
            raw[round],
            fleet[round]
        );
    }
    let down = (
        median(&raw, |cost| cost.down),
        median(&fleet, |cost| cost.down),
    );
    let whole = (
        median(&raw, |cost| cost.whole),
        median(&fleet, |cost| cost.whole),
    );
    println!(
        "time without service: raw {:?}, fleet {:?}, ratio {:.2}",
        down.0,
        down.1,
        ratio(down)
    );
    println!(
        "whole update:         raw {:?}, fleet {:?}, ratio {:.2}",
        whole.0,
        whole.1,
        ratio(whole)
    );
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for round in 0..rounds.div_ceil(3) {
        empty.push(by_fleet(Volume::Empty).await?);
        full.push(by_fleet(Volume::Gigabyte).await?);
        eprintln!(
            "round {}: empty volume {:?}, 1 GiB {:?}",
            round + 1,
            empty[round],
            full[round]
        );
    }
    let down = (
        median(&empty, |cost| cost.down),
        median(&full, |cost| cost.down),
    );
    println!(
        "time without service: empty volume {:?}, 1 GiB with 1 % changed {:?}, ratio {:.2} (at most 1.5)",
        down.0,
        down.1,
        ratio(down)
    );
    Ok(())
}

fn rounds() -> Option<usize> {
    let mut args = std::env::args().skip_while(|arg| arg != "--rounds");
    args.nth(1)?.parse().ok()
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> Duration) -> Duration {
    let mut values: Vec<_> = costs.iter().map(of).collect();
    values.sort();
    values[values.len() / 2]
}

fn ratio((raw, fleet): (Duration, Duration)) -> f64 {
    fleet.as_secs_f64() / raw.as_secs_f64()
}

/// A lab with both images, a volume and a free port of the host.
struct Stage {
    lab: Lab,
    old: String,
    new: String,
    volume: String,
    port: u16,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new("bench");
        let old = lab.import("app:1", &Image::new("1", ""));
        let new = lab.import("app:2", &Image::new("2", ""));
        let volume = lab.volume("data");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            lab,
            old,
            new,
            volume,
            port,
        })
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn start_old(&self) -> fleet_testkit::Container {
        let publish = format!("127.0.0.1:{}:8080", self.port);
        let run = self
            .lab
            .run("web")
            .managed()
            .options(&["--publish", &publish]);
        let web = run.volume(&self.volume, "/data").start(&self.old);
        web.wait_up();
        web
    }
}

/// What the instance has in its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Volume {
    Empty,
    Gigabyte,
}

async fn by_fleet(volume: Volume) -> Result<Cost> {
    let stage = Stage::new()?;
    let web = stage.start_old();
    let folder = PathBuf::from(stage.lab.mountpoint(&stage.volume));
    if volume == Volume::Gigabyte {
        for file in 0..FILES {
            write_random(&folder, file)?;
        }
    }
    let fleet = embedded::Embedded::new().await;
    let changes = Changes { folder };
    let progress: &dyn ProgressSink = match volume {
        Volume::Empty => &NoProgress,
        Volume::Gigabyte => &changes,
    };
    let asker = Asker::start(stage.address(), "2", ASK_EVERY);
    let start = Instant::now();
    let report = fleet
        .update_watched(&[&web.name], &stage.new, progress)
        .await?;
    let whole = start.elapsed();
    anyhow::ensure!(report.outcome == Some(Outcome::Committed), "{report:?}");
    Ok(Cost {
        down: asker.end()?,
        whole,
    })
}

/// Writes to the volume once the first pass is over.
struct Changes {
    folder: PathBuf,
}

impl ProgressSink for Changes {
    fn report(&self, progress: Progress) {
        if let Progress::Step { step, .. } = progress
            && step == Step::CreateCandidate.label()
        {
            for file in (0..FILES).step_by(FILES / CHANGED).take(CHANGED) {
                write_random(&self.folder, file).expect("the volume can be written to");
            }
        }
    }
}

/// Writes a file anew, with content that does not compress.
fn write_random(folder: &Path, file: usize) -> Result<()> {
    let mut content = vec![0; FILE_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut content)?;
    let mut out = fs::File::create(folder.join(format!("file-{file}")))?;
    Ok(out.write_all(&content)?)
}

async fn raw_calls(docker: &Docker) -> Result<Cost> {
    let stage = Stage::new()?;
    let web = stage.start_old();
    let asker = Asker::start(stage.address(), "2", ASK_EVERY);
    let start = Instant::now();
    docker.inspect_image(&stage.new).await?;
    let new = create(docker, &stage, "web2", &stage.new, true).await?;
    // The guard: created from the old image, given its program, started.
    let guard = create(docker, &stage, "guard", &stage.old, false).await?;
    guard::give_program(docker, &guard).await?;
    docker
        .start_container(&guard, None::<StartContainerOptions>)
        .await?;
    docker
        .stop_container(&web.id, None::<StopContainerOptions>)
        .await?;
    docker
        .start_container(&new, None::<StartContainerOptions>)
        .await?;
    let down = asker.end()?;
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker
        .remove_container(&web.id, Some(RemoveContainerOptionsBuilder::new().build()))
        .await?;
    docker.remove_container(&guard, Some(force)).await?;
    Ok(Cost {
        down,
        whole: start.elapsed(),
    })
}

async fn create(
    docker: &Docker,
    stage: &Stage,
    name: &str,
    image: &str,
    publish: bool,
) -> Result<String> {
    let binding = PortBinding {
        host_ip: Some("127.0.0.1".to_owned()),
        host_port: Some(stage.port.to_string()),
    };
    let ports = publish.then(|| [("8080/tcp".to_owned(), Some(vec![binding]))].into());
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        host_config: Some(HostConfig {
            binds: Some(vec![format!("{}:/data", stage.volume)]),
            port_bindings: ports,
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new()
        .name(&stage.lab.name(name))
        .build();
    Ok(docker.create_container(Some(options), body).await?.id)
}
