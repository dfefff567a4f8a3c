//! Images that cannot be had: the container is never stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use fleet_testkit::{Container, Fleet, Image, Lab, PrivateEngine, Registry, docker};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cutter::Cutter;

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

/// An update that must end with 1 without the container having been stopped; gives the reason.
#[track_caller]
fn never_stopped(lab: &Lab, container: &Container, image: &str) -> String {
    let before = container.inspect();
    let (code, report) = Fleet::new().update(&container.name, image, &[]);
    assert_eq!(code, 1, "{report}");
    let outcome = report["outcome"].as_str().unwrap_or_default();
    assert!(matches!(outcome, "failed" | "refused"), "{report}");
    let why = report["reason"].as_str().unwrap_or_default().to_owned();
    assert!(!why.is_empty(), "{report}");
    assert!(report["downtime_ms"].is_null(), "{report}");
    let after = container.inspect_by_name();
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(after["State"]["StartedAt"], before["State"]["StartedAt"]);
    assert_eq!(
        after["HostConfig"]["RestartPolicy"],
        before["HostConfig"]["RestartPolicy"]
    );
    assert_eq!(lab.containers(), [container.name.clone()]);
    why
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
    edit(&reference, |_, _, config| {
        let arm = std::env::consts::ARCH == "aarch64";
        config["architecture"] = json!(if arm { "s390x" } else { "arm64" });
    });
    reference
}

/// Changes manifest and config of an image in a registry; the folder holds its blobs, each named by its hash.
fn edit(reference: &str, change: impl FnOnce(&Path, &mut Value, &mut Value)) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let copy = format!("dir:{}", folder.path().display());
    let remote = format!("docker://{reference}");
    skopeo(&["copy", "--src-tls-verify=false", &remote, &copy]);
    let manifest_path = folder.path().join("manifest.json");
    let mut manifest = read_json(&manifest_path);
    let digest = manifest["config"]["digest"].as_str().unwrap_or_default();
    let mut config = read_json(&blob(folder.path(), digest));
    change(folder.path(), &mut manifest, &mut config);
    let bytes = config.to_string().into_bytes();
    let changed = sha256(&bytes);
    fs::write(blob(folder.path(), &changed), &bytes).expect("the config can be written");
    manifest["config"]["digest"] = json!(changed);
    manifest["config"]["size"] = json!(bytes.len());
    fs::write(&manifest_path, manifest.to_string()).expect("the manifest can be written");
    skopeo(&["copy", "--dest-tls-verify=false", &copy, &remote]);
}

fn blob(folder: &Path, digest: &str) -> PathBuf {
    folder.join(digest.trim_start_matches("sha256:"))
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
fn skopeo(args: &[&str]) -> String {
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
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_registry_that_goes_down_in_mid_pull_leaves_the_container_alone() {
    let lab = Lab::new("cut");
    let registry = Registry::start();
    let cutter = Cutter::start(registry.address());
    let repository = lab.name("app");
    for (version, filler) in [("1", b"small".to_vec()), ("2", noise(0, 4_000_000))] {
        let local = lab.import(
            &format!("v{version}"),
            &Image::new(version, "").file("filler", filler),
        );
        registry.push(&local, &format!("{repository}:{version}"));
        docker(&["rmi", &local]);
    }
    let through = format!("127.0.0.1:{}/{repository}", cutter.port());
    docker(&["pull", "--quiet", &format!("{through}:1")]);
    let container = lab
        .run("web")
        .managed()
        .label("fleet.source", "registry")
        .volume(&lab.volume("data"), "/data")
        .start(&format!("{through}:1"));
    container.wait_up();
    cutter.cut_after(400_000);
    never_stopped(&lab, &container, &format!("{through}:2"));
    cutter.cut_after(u64::MAX);
    let (code, report) = Fleet::new().update(&container.name, &format!("{through}:2"), &[]);
    assert_eq!(
        (code, &report["outcome"]),
        (0, &json!("committed")),
        "{report}"
    );
}

#[test]
fn a_pull_that_fills_the_disk_leaves_the_container_alone() {
    let lab = Lab::new("full");
    let mut registry = Registry::start();
    for (version, filler) in [("1", 10), ("2", 90_000_000), ("3", 1_000)] {
        let image = Image::new(version, "").file("filler", noise(7, filler));
        let local = lab.import(&format!("v{version}"), &image);
        registry.push(&local, &format!("app:{version}"));
        docker(&["rmi", &local]);
    }
    let engine = PrivateEngine::with_disk(80);
    let on_it = || {
        engine.enter();
        // Its loopback is another one: the same content is served there.
        registry.start_again();
        let image = |version: &str| registry.reference(&format!("app:{version}"));
        docker(&["pull", "--quiet", &image("1")]);
        let lab = Lab::new("full");
        let run = lab.run("web").managed().label("fleet.source", "registry");
        let container = run.start(&image("1"));
        container.wait_up();
        let why = never_stopped(&lab, &container, &image("2"));
        assert!(why.contains("no space left on device"), "{why}");
        let (code, report) = Fleet::new().update(&container.name, &image("3"), &[]);
        assert_eq!(
            (code, &report["outcome"]),
            (0, &json!("committed")),
            "{report}"
        );
    };
    thread::scope(|scope| scope.spawn(on_it).join()).expect("it holds on the private engine");
}

/// Bytes that do not compress.
fn noise(seed: u32, len: u32) -> Vec<u8> {
    (0..len)
        .map(|n| ((n ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Adds a layer that holds one file of noise.
fn add_layer(folder: &Path, manifest: &mut Value, config: &mut Value, seed: u32) {
    let content = noise(seed, 300_000);
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut layer = tar::Builder::new(Vec::new());
    layer
        .append_data(&mut header, format!("layer-{seed}"), &content[..])
        .expect("writing into memory cannot fail");
    let layer = layer.into_inner().expect("writing into memory cannot fail");
    let digest = sha256(&layer);
    fs::write(blob(folder, &digest), &layer).expect("the layer can be written");
    let listed = json!({
        "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
        "size": layer.len(),
        "digest": digest,
    });
    manifest["layers"]
        .as_array_mut()
        .expect("layers")
        .push(listed);
    config["rootfs"]["diff_ids"]
        .as_array_mut()
        .expect("layers")
        .push(json!(digest));
}

#[test]
fn a_pull_that_is_cut_at_any_blob_leaves_the_container_alone() {
    let registry = Registry::start();
    // The engine tries a blob again for more than a minute: all are cut at the same time, each of an image that shares
    // no blob with the others.
    thread::scope(|scope| {
        for victim in 0..4 {
            let registry = &registry;
            scope.spawn(move || cut_at(registry, victim));
        }
    });
}

/// Makes an image of three layers, and cuts its pull at one of them, or at its config.
fn cut_at(registry: &Registry, victim: usize) {
    let lab = Lab::new("blob");
    let repository = lab.name("app");
    // What an earlier run left in the engine would not be asked for.
    let seed = std::process::id() * 100 + u32::try_from(victim).expect("a small number") * 10;
    for (version, filler) in [("1", noise(seed, 10)), ("2", noise(seed, 1_000))] {
        let image = Image::new(version, "").file("filler", filler);
        let local = lab.import(&format!("v{version}"), &image);
        registry.push(&local, &format!("{repository}:{version}"));
        docker(&["rmi", &local]);
    }
    let new = registry.reference(&format!("{repository}:2"));
    edit(&new, |folder, manifest, config| {
        (1..=2).for_each(|layer| add_layer(folder, manifest, config, seed + layer));
    });
    // What was pushed is asked for again: on its way a layer may have been compressed.
    let manifest = skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{new}"),
    ]);
    let manifest: Value = serde_json::from_str(&manifest).expect("a manifest is JSON");
    let listed = manifest["layers"].as_array().expect("layers").iter();
    let blobs: Vec<_> = listed
        .chain([&manifest["config"]])
        .map(|blob| blob["digest"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(blobs.len(), 4, "three layers and the config");
    let cutter = Cutter::start(registry.address());
    let through = format!("127.0.0.1:{}/{repository}", cutter.port());
    docker(&["pull", "--quiet", &format!("{through}:1")]);
    let run = lab.run("web").managed().label("fleet.source", "registry");
    let container = run.start(&format!("{through}:1"));
    container.wait_up();
    cutter.cut_at(&blobs[victim]);
    never_stopped(&lab, &container, &format!("{through}:2"));
    assert!(cutter.has_cut(), "{} was asked for", blobs[victim]);
}
