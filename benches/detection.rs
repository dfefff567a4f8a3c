//! What one cycle of detection costs over 100, 1,000 and 10,000 instances of ten references: real client, real store, a
//! registry of the bench's own that counts, a fake engine.
//!
//! Asserts ten HEAD requests a cycle whatever the number of instances, and that ten times as many instances take at most
//! 12 times as long.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet_core::crash::NoCrashPoints;
use fleet_core::engine::{Fleet, FleetOptions, FleetPorts};
use fleet_core::image::Digest;
use fleet_core::ports::UpdatePorts;
use fleet_core::testing::{FakeEntropy, FakeHost, image, instance};
use fleet_docker::registry::{RegistryClient, RegistryOptions};
use fleet_sqlite::{OpenOptions, SqliteStore};

type Result<T> = anyhow::Result<T>;

const REFERENCES: usize = 10;
/// Instances; without `cargo bench` fewer, only to show that it builds and runs.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
const SIZES_SHORT: [usize; 3] = [10, 50, 100];
const TIME_GROWTH_MAX: f64 = 12.0;
/// The fastest of so many cycles counts.
const RUNS: usize = 3;

/// A registry with one release under each tag, which counts what it is asked.
#[derive(Debug, Default)]
struct Registry {
    /// Bodies by the end of their path, with their content type.
    shelf: Mutex<BTreeMap<String, (&'static str, Vec<u8>)>>,
    heads: AtomicUsize,
    gets: AtomicUsize,
}

impl Registry {
    /// Starts it; gives its address.
    fn start(self: &Arc<Self>) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let registry = Arc::clone(self);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let registry = Arc::clone(&registry);
                // A client that goes away ends its own conversation only.
                std::thread::spawn(move || registry.converse(&stream));
            }
        });
        Ok(address)
    }

    fn converse(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        while let Some(first) = lines.next().transpose()? {
            // No request of the client has a body: the empty line ends it.
            while lines
                .next()
                .transpose()?
                .is_some_and(|line| !line.is_empty())
            {}
            let mut writer = stream;
            writer.write_all(&self.answer(&first))?;
        }
        Ok(())
    }

    fn answer(&self, first: &str) -> Vec<u8> {
        let mut words = first.split(' ');
        let is_head = words.next() == Some("HEAD");
        let counter = if is_head { &self.heads } else { &self.gets };
        counter.fetch_add(1, Ordering::Relaxed);
        let path = words.next().unwrap_or_default();
        let shelf = self.shelf.lock().expect("no panic holds it");
        let Some((kind, body)) = shelf.get(path) else {
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        };
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\r\n",
            body.len(),
            Digest::of(body),
        )
        .into_bytes();
        if !is_head {
            answer.extend_from_slice(body);
        }
        answer
    }

    /// Puts a release under the tag `1` of a repository.
    fn publish(&self, repository: &str) {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","author":"{repository}","rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let config = config.into_bytes();
        let digest = Digest::of(&config);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest,
                "size": config.len(),
            },
            "layers": [],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut shelf = self.shelf.lock().expect("no panic holds it");
        let mut put = |path: String, kind, body: &[u8]| {
            shelf.insert(format!("/v2/{repository}/{path}"), (kind, body.to_vec()));
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        put("manifests/1".to_owned(), kind, &manifest);
        put(
            format!("manifests/{}", Digest::of(&manifest)),
            kind,
            &manifest,
        );
        put(
            format!("blobs/{digest}"),
            "application/octet-stream",
            &config,
        );
    }
}

/// A fleet of so many instances, all of them behind.
async fn fleet_of(instances: usize, address: &str, folder: &std::path::Path) -> Result<Fleet> {
    let host = FakeHost::new(1);
    let reference = |number: usize| format!("{address}/app{}:1", number % REFERENCES);
    for number in 0..REFERENCES {
        host.load(image(&reference(number)));
    }
    for number in 0..instances {
        let name = format!("app-{number:05}");
        host.run(instance(&name).image(&reference(number)).without_volumes());
    }
    let store = SqliteStore::open(
        folder.join(format!("{instances}.db")),
        OpenOptions::default(),
    )?;
    let store = Arc::new(store);
    let engine = Arc::new(host.engine());
    let ports = FleetPorts {
        update: UpdatePorts {
            runtime: engine.clone(),
            images: engine,
            snapshots: Arc::new(host.snapshots()),
            probe: Arc::new(host.probe()),
            journal: store.clone(),
            clock: Arc::new(host.clock()),
            entropy: Arc::new(FakeEntropy::default()),
            crash: Arc::new(NoCrashPoints),
        },
        releases: Arc::new(RegistryClient::new(RegistryOptions {
            requests_per_second: 1_000,
            ..RegistryOptions::default()
        })?),
        events: store.clone(),
        configs: store.clone(),
        settings: store.clone(),
        availability: store,
        verifier: None,
    };
    Ok(Fleet::new(ports, FleetOptions::default()))
}

/// What a cycle took; it asks ten times, and finds every instance behind.
async fn cycle(fleet: &Fleet, registry: &Registry, instances: usize) -> Result<Duration> {
    registry.heads.store(0, Ordering::Relaxed);
    let begun = Instant::now();
    let findings = fleet.check("bench").await?;
    let took = begun.elapsed();
    let behind = findings.iter().filter(|finding| finding.is_offered());
    assert_eq!(behind.count(), instances, "{:?}", findings.first());
    assert_eq!(registry.heads.load(Ordering::Relaxed), REFERENCES);
    Ok(took)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let short = !std::env::args().any(|argument| argument == "--bench");
    let sizes = if short { SIZES_SHORT } else { SIZES };
    // Nobody installed one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = Arc::new(Registry::default());
    let address = registry.start()?;
    for number in 0..REFERENCES {
        registry.publish(&format!("app{number}"));
    }
    let folder = tempfile::tempdir()?;
    let mut fastest = Vec::new();
    for instances in sizes {
        let fleet = fleet_of(instances, &address, folder.path()).await?;
        // The first one has news for everybody: it writes an event for each.
        let news = cycle(&fleet, &registry, instances).await?;
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.push(cycle(&fleet, &registry, instances).await?);
        }
        let time = times.into_iter().min().unwrap_or_default();
        println!(
            "{instances:>6} instances of {REFERENCES} references: {:>8.1} ms a cycle, {:>8.1} ms with news for all, {REFERENCES} HEAD requests each",
            millis(time),
            millis(news),
        );
        fastest.push(time);
    }
    println!(
        "GET requests in all: {}",
        registry.gets.load(Ordering::Relaxed)
    );
    let [_, some, many] = fastest[..] else {
        anyhow::bail!("three sizes");
    };
    let growth = many.as_secs_f64() / some.as_secs_f64();
    println!(
        "ten times as many instances take {growth:.1} times as long (at most {TIME_GROWTH_MAX})"
    );
    // Small fleets are too fast to measure.
    anyhow::ensure!(
        short || growth <= TIME_GROWTH_MAX,
        "expected at most {TIME_GROWTH_MAX} times, found {growth:.1}"
    );
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
