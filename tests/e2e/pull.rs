//! Images that cannot be had: the container is never stopped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fleet_testkit::{Container, Fleet, Image, Lab, Registry, docker};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A running instance whose image is in a registry.
fn instance(lab: &Lab, registry: &Registry) -> Container {
    let repository = lab.name("app");
    let local = lab.import("v1", &Image::new("1", ""));
    registry.push(&local, &format!("{repository}:1"));
    docker(&["rmi", &local]);
    let image = registry.reference(&format!("{repository}:1"));
    docker(&["pull", "--quiet", &image]);
    let container = lab
        .run("web")
        .managed()
        .label("fleet.source", "registry")
        .volume(&lab.volume("data"), "/data")
        .start(&image);
    container.wait_up();
    container
}

/// An update that must end with 1 without the container having been stopped.
#[track_caller]
fn never_stopped(lab: &Lab, container: &Container, image: &str) {
    let before = container.inspect();
    let (code, report) = Fleet::new().update(&container.name, image, &[]);
    assert_eq!(code, 1, "{report}");
    let outcome = report["outcome"].as_str().unwrap_or_default();
    assert!(matches!(outcome, "failed" | "refused"), "{report}");
    assert!(
        report["reason"].as_str().is_some_and(|why| !why.is_empty()),
        "{report}"
    );
    assert!(report["downtime_ms"].is_null(), "{report}");
    let after = container.inspect_by_name();
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(after["State"]["StartedAt"], before["State"]["StartedAt"]);
    assert_eq!(
        after["HostConfig"]["RestartPolicy"],
        before["HostConfig"]["RestartPolicy"]
    );
    assert_eq!(lab.containers(), [container.name.clone()]);
}

#[test]
fn an_image_that_is_not_there_leaves_the_container_alone() {
    let lab = Lab::new("missing");
    let mut registry = Registry::start();
    let container = instance(&lab, &registry);
    let repository = registry.reference(&lab.name("app"));
    never_stopped(&lab, &container, &format!("{repository}:no-such-tag"));
    let digest = format!("sha256:{}", "ab".repeat(32));
    never_stopped(&lab, &container, &format!("{repository}@{digest}"));
    never_stopped(
        &lab,
        &container,
        &registry.reference("no/such/repository:1"),
    );
    registry.stop();
    never_stopped(&lab, &container, &format!("{repository}:1"));
}

#[test]
fn an_image_for_another_platform_leaves_the_container_alone() {
    let lab = Lab::new("platform");
    let registry = Registry::start();
    let container = instance(&lab, &registry);
    let repository = lab.name("app");
    let foreign = push_for_arm(&lab, &registry, &format!("{repository}:arm"));
    never_stopped(&lab, &container, &foreign);
}

/// Pushes an image whose config says that it is for another platform: same layers, another architecture.
fn push_for_arm(lab: &Lab, registry: &Registry, name: &str) -> String {
    let local = lab.import("arm", &Image::new("2", ""));
    registry.push(&local, name);
    docker(&["rmi", &local]);
    let reference = registry.reference(name);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let copy = format!("dir:{}", folder.path().display());
    let remote = format!("docker://{reference}");
    skopeo(&["copy", "--src-tls-verify=false", &remote, &copy]);

    let manifest_path = folder.path().join("manifest.json");
    let mut manifest = read_json(&manifest_path);
    let digest = manifest["config"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let blob = |digest: &str| folder.path().join(digest.trim_start_matches("sha256:"));
    let mut config = read_json(&blob(&digest));
    let arm = std::env::consts::ARCH == "aarch64";
    config["architecture"] = json!(if arm { "s390x" } else { "arm64" });
    let bytes = config.to_string().into_bytes();
    let changed = sha256(&bytes);
    fs::write(blob(&changed), &bytes).expect("the config can be written");
    manifest["config"]["digest"] = json!(changed);
    manifest["config"]["size"] = json!(bytes.len());
    fs::write(&manifest_path, manifest.to_string()).expect("the manifest can be written");
    skopeo(&["copy", "--dest-tls-verify=false", &copy, &remote]);
    reference
}

fn sha256(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("sha256:{hex}")
}

fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the file can be read");
    serde_json::from_str(&text).expect("the file is JSON")
}

#[track_caller]
fn skopeo(args: &[&str]) {
    let output = Command::new("skopeo")
        .args(["--insecure-policy"])
        .args(args)
        .output();
    let output = output.expect("skopeo is installed; scripts/setup.sh installs it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Forwards to the registry, and cuts every connection once so many bytes have come back.
struct Cutter {
    port: u16,
    limit: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Cutter {
    fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("an address").port();
        let limit = Arc::new(AtomicU64::new(u64::MAX));
        let done = Arc::new(AtomicBool::new(false));
        let (shared, over) = (Arc::clone(&limit), Arc::clone(&done));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(server) = TcpStream::connect(&to) else {
                    continue;
                };
                let limit = Arc::clone(&shared);
                thread::spawn(move || forward(client, server, &limit));
            }
        });
        Self { port, limit, done }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn forward(client: TcpStream, server: TcpStream, limit: &AtomicU64) {
    let up = (client.try_clone(), server.try_clone());
    if let (Ok(mut from), Ok(mut to)) = up {
        thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    let (mut from, mut to) = (server, client);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let left = limit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            Some(if left == u64::MAX {
                left
            } else {
                left.saturating_sub(count as u64)
            })
        });
        if left.is_ok_and(|left| left < count as u64) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Both sides see the end at once.
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_registry_that_goes_down_in_mid_pull_leaves_the_container_alone() {
    let lab = Lab::new("cut");
    let registry = Registry::start();
    let cutter = Cutter::start(registry.address());
    let repository = lab.name("app");
    let random: Vec<u8> = (0..4_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for (version, filler) in [("1", b"small".to_vec()), ("2", random)] {
        let local = lab.import(
            &format!("v{version}"),
            &Image::new(version, "").file("filler", filler),
        );
        registry.push(&local, &format!("{repository}:{version}"));
        docker(&["rmi", &local]);
    }
    let through = format!("127.0.0.1:{}/{repository}", cutter.port);
    docker(&["pull", "--quiet", &format!("{through}:1")]);
    let container = lab
        .run("web")
        .managed()
        .label("fleet.source", "registry")
        .volume(&lab.volume("data"), "/data")
        .start(&format!("{through}:1"));
    container.wait_up();
    cutter.limit.store(400_000, Ordering::SeqCst);
    never_stopped(&lab, &container, &format!("{through}:2"));
    cutter.limit.store(u64::MAX, Ordering::SeqCst);
    let (code, report) = Fleet::new().update(&container.name, &format!("{through}:2"), &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
}
