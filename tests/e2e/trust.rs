//! What may be started at all: the image policy, and signatures by a program that stands in for `cosign`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleet_testkit::{Container, Fleet, Image, Lab, docker};

/// A running instance and the next release, both the engine's own.
fn instance(lab: &Lab) -> (Container, String) {
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let container = lab.run("web").managed().start(&old);
    container.wait_up();
    (container, new)
}

/// An update that must be refused with these words, without the container having been stopped.
#[track_caller]
fn refused(fleet: &Fleet, container: &Container, image: &str, code: i32, words: &[&str]) {
    let before = container.inspect();
    let (found, report) = fleet.update(&container.name, image, &[]);
    assert_eq!(
        (found, report["outcome"].as_str()),
        (code, Some("refused")),
        "{report}"
    );
    let reason = report["reason"].as_str().unwrap_or_default();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
    let after = container.inspect_by_name();
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(after["State"]["StartedAt"], before["State"]["StartedAt"]);
}

#[test]
fn only_repositories_that_the_policy_names_are_started() {
    let lab = Lab::new("policy");
    let (container, new) = instance(&lab);
    let repository = lab.name("app");
    let other = lab.name("other");
    let only_other = format!("[images]\nallow = [\"{other}\", \"ghcr.io/org/**\"]\n");
    let fleet = Fleet::new().configured(&only_other);
    let words = ["does not allow", "images.allow"];
    refused(&fleet, &container, &new, 1, &words);
    let (code, explained) = fleet.json(&["explain", &container.name]);
    assert_eq!(code, 0, "{explained}");
    let refusals = explained["instance"]["refusals"].to_string();
    assert!(refusals.contains("rollback_not_allowed"), "{explained}");
    let started = fleet.run(&["rollout", "start", "--image", &new]);
    assert_eq!(started.code, 1, "{started:?}");
    assert!(started.stderr.contains("images.allow"), "{started:?}");
    // A neighbour whose name only begins alike is not meant.
    let alike = format!(
        "[images]\nallow = [\"{}\"]\n",
        &repository[..repository.len() - 1]
    );
    refused(
        &Fleet::new().configured(&alike),
        &container,
        &new,
        1,
        &words,
    );
    let broken = Fleet::new()
        .configured("[images]\nallow = [\"ghcr.io\"]\n")
        .run(&["ps"]);
    assert_eq!(broken.code, 2, "{broken:?}");
    assert!(
        broken
            .stderr
            .contains("images.allow: expected a repository"),
        "{broken:?}"
    );
    let named = format!("[images]\nallow = [\"{repository}\"]\n");
    let (code, report) = Fleet::new()
        .configured(&named)
        .update(&container.name, &new, &[]);
    assert_eq!(
        (code, report["outcome"].as_str()),
        (0, Some("committed")),
        "{report}"
    );
}

/// A program that answers as `cosign verify --output=json` does when a signature holds, for the image it is asked for.
fn sign(program: &Path) {
    let script = r#"#!/bin/sh
for image; do :; done
printf '[{"critical":{"identity":{"docker-reference":"%s"},"image":{"docker-manifest-digest":"%s"}}}]' \
    "${image%@*}" "${image#*@}"
"#;
    fs::write(program, script).expect("the program can be written");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("it can be made one");
}

#[test]
fn without_a_signature_that_holds_nothing_begins() {
    let lab = Lab::new("signed");
    let registry = fleet_testkit::Registry::start();
    let repository = lab.name("app");
    for version in ["1", "2"] {
        let local = lab.import(&format!("v{version}"), &Image::new(version, ""));
        registry.push(&local, &format!("{repository}:{version}"));
        docker(&["rmi", &local]);
    }
    let old = registry.reference(&format!("{repository}:1"));
    docker(&["pull", "--quiet", &old]);
    let run = lab.run("web").managed().label("fleet.source", "registry");
    let container = run.start(&old);
    container.wait_up();
    let new = registry.reference(&format!("{repository}:2"));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = folder.path().join("cosign");
    let section = format!(
        "[signatures]\nkey = \"k.pub\"\nprogram = \"{}\"\n",
        program.display()
    );
    let fleet = Fleet::new().configured(&section);
    // The program is not there: nobody can say, which is no yes.
    refused(
        &fleet,
        &container,
        &new,
        75,
        &["is not there", "install cosign"],
    );
    let doctor = fleet.run(&["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(doctor.stdout.contains("signatures"), "{doctor:?}");
    fs::write(
        &program,
        "#!/bin/sh\necho 'no matching signatures' >&2; exit 1\n",
    )
    .expect("the program can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be made one");
    refused(&fleet, &container, &new, 1, &["no matching signatures"]);
    sign(&program);
    let (code, report) = fleet.update(&container.name, &new, &[]);
    assert_eq!(
        (code, report["outcome"].as_str()),
        (0, Some("committed")),
        "{report}"
    );
}
