//! What an update would change, and what it would be refused for, said before anybody asks for one.

use std::path::PathBuf;
use std::process::Command;

use fleet_testkit::{Container, Fleet, Image, Lab, docker};
use serde_json::{Value, json};

fn difference<'a>(spec: &'a Value, field: &str) -> &'a Value {
    let rows = spec["differences"].as_array().expect("differences");
    rows.iter()
        .find(|row| row["field"] == field)
        .unwrap_or_else(|| panic!("{field} is not in {spec}"))
}

#[test]
fn the_new_spec_is_compared_with_the_old_one_and_secrets_are_hidden() {
    let lab = Lab::new("spec");
    let image = |version: &str, token: &str| Image::new(version, "").env("API_TOKEN", token);
    let old = lab.import("app:1", &image("1", "old-token"));
    let new = lab.import("app:2", &image("2", "new-token").label("tier", "gold"));
    let container = lab
        .run("web")
        .managed()
        .options(&["--env", "KEPT=by-me", "--env", "DB_PASSWORD=hunter2"])
        .options(&["--volume", "/anonymous", "--restart", "always"])
        .start(&old);
    let fleet = Fleet::new();
    let args = ["explain", &container.name, "--spec", "--to", &new];
    let (code, document) = fleet.json(&args);
    assert_eq!(code, 0, "{document}");
    let spec = &document["instance"]["spec"];
    assert_eq!(spec["same_image"], json!(false));
    let version = difference(spec, "Config.Env.APP_VERSION");
    assert_eq!(
        (&version["old"], &version["new"], &version["by"]),
        (&json!("1"), &json!("2"), &json!("image"))
    );
    assert_eq!(difference(spec, "Config.Labels.tier")["by"], "image");
    assert_eq!(difference(spec, "Config.Env.API_TOKEN")["new"], "(hidden)");
    let name = difference(spec, "Config.Image");
    assert_eq!((&name["new"], &name["by"]), (&json!(new), &json!("fleet")));
    assert_eq!(
        difference(spec, "HostConfig.Binds./anonymous")["by"],
        "fleet"
    );
    let rows = spec["differences"].as_array().expect("differences");
    assert!(rows.iter().all(|row| row["expected"] == true), "{spec}");
    // What was set by hand stays, so it is in no difference.
    let text = fleet.run(&args).stdout;
    assert!(
        text.contains("by fleet") && text.contains("from the image"),
        "{text}"
    );
    for secret in ["new-token", "old-token", "hunter2", "by-me"] {
        assert!(!text.contains(secret), "{text}");
        assert!(!document.to_string().contains(secret), "{document}");
    }
    let open = fleet.run(&[
        "explain",
        &container.name,
        "--spec",
        "--to",
        &new,
        "--show-secrets",
    ]);
    assert!(open.stdout.contains("new-token"), "{open:?}");

    // Without an image it is the one that runs: all that is left is fleet's own doing.
    let (code, document) = fleet.json(&["explain", &container.name, "--spec"]);
    let spec = &document["instance"]["spec"];
    assert_eq!((code, &spec["same_image"]), (0, &json!(true)), "{spec}");
    let rows = spec["differences"].as_array().expect("differences");
    assert!(rows.iter().all(|row| row["by"] == "fleet"), "{spec}");
    let unknown = lab.name("nothing:9");
    let ran = fleet.run(&["explain", &container.name, "--spec", "--to", &unknown]);
    assert!(
        ran.code == 1 && ran.stderr.contains("pull it first"),
        "{ran:?}"
    );
}

/// Reason and remedy of a refusal, as `explain` and as `plan` show it, in JSON and in text.
#[track_caller]
fn both_say(fleet: &Fleet, container: &Container, new: &str, refusal: &str, word: &str) {
    let name = container.name.as_str();
    let (code, document) = fleet.json(&["explain", name]);
    assert_eq!(code, 0, "{document}");
    let (code, plans) = fleet.json(&["plan", "--image", new]);
    assert_eq!(code, 0, "{plans}");
    let planned = &plans["plans"][0]["refusals"];
    for (refusals, of) in [
        (&document["instance"]["refusals"], None),
        (planned, Some(name)),
    ] {
        let found = refusals.as_array().expect("refusals").iter().find(|row| {
            row["code"] == refusal && of.is_none_or(|of| row["instance"].to_string().contains(of))
        });
        let Some(found) = found else {
            panic!("{refusal} of {name} is not in {refusals}");
        };
        assert!(found["reason"].to_string().contains(word), "{found}");
        assert!(
            found["remedy"].as_str().is_some_and(|text| text.len() > 10),
            "{found}"
        );
    }
    for args in [vec!["explain", name], vec!["plan", "--image", new]] {
        let text = fleet.run(&args).stdout;
        assert!(text.contains(&format!("{refusal}: ")), "{args:?}: {text}");
    }
}

#[test]
fn every_refusal_is_said_with_its_remedy_by_explain_and_by_plan() {
    let lab = Lab::new("refusals");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let fleet = Fleet::new();
    let run = |name: &str| lab.run(name).managed().label("fleet.mode", "auto");
    let say = |container: &Container, code: &str, word: &str| {
        both_say(&fleet, container, &new, code, word);
    };

    let removed = run("rm").options(&["--rm"]).start(&old);
    say(&removed, "auto_remove", "--rm");
    let task = run("task")
        .label("com.docker.swarm.task.id", "abc")
        .start(&old);
    say(&task, "swarm_task", "Swarm");
    let layer = run("layer").options(&["--env", "APP_DATA=/"]).start(&old);
    layer.wait_up();
    layer.put("row");
    say(&layer, "writable_layer", "/rows");
    let secret = run("secret")
        .label("com.docker.compose.project", "shop")
        .label("com.docker.compose.service", "web")
        .label("com.docker.compose.version", "2.29.1")
        .create(&old);
    secret.put_file("/run/secrets/key", b"of compose");
    docker(&["start", &secret.id]);
    say(&secret, "compose_inline", "/run/secrets/key");
    let (code, report) = fleet.update(&secret.name, &new, &[]);
    assert_eq!(
        (code, &report["code"]),
        (1, &json!("compose_inline")),
        "{report}"
    );
    let now = secret.inspect_by_name();
    assert_eq!(
        (&now["Id"], &now["State"]["Running"]),
        (&json!(secret.id), &json!(true))
    );
    let shared = lab.volume("shared");
    let sharing = run("sharing").volume(&shared, "/data").start(&old);
    let stranger = lab.run("stranger").volume(&shared, "/data").start(&old);
    say(&sharing, "outside_group", &stranger.name);
    let first = run("first").label("fleet.depends_on", &lab.name("second"));
    let first = first.start(&old);
    let second = run("second").label("fleet.depends_on", &first.name);
    drop(second.start(&old));
    say(&first, "cycle", "cycle");
    let parent = lab.run("parent").start(&old);
    let network = format!("container:{}", parent.name);
    let orphan = run("orphan").options(&["--network", &network]).start(&old);
    docker(&["rm", "--force", &parent.id]);
    say(&orphan, "parent_gone", "does not exist any more");
    // Its image goes once the container is stopped; then nobody can tell what came from where.
    let lost = lab.import("lost:1", &Image::new("lost", ""));
    let imageless = run("imageless").create(&lost);
    docker(&["rmi", "--force", &lost]);
    let (code, document) = fleet.json(&["explain", &imageless.name]);
    assert_eq!(code, 0, "{document}");
    assert_eq!(
        document["instance"]["refusals"][0]["code"], "not_repeatable",
        "{document}"
    );
}

/// Memory mounted as a file system, for as long as it lives.
struct Small(PathBuf);

impl Small {
    fn at(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs"])
            .arg(&folder)
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "tmpfs mounts");
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Nothing can be done about one that stays.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
fn too_little_space_is_said_beforehand() {
    let lab = Lab::new("space");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let container = lab
        .run("web")
        .managed()
        .label("fleet.mode", "auto")
        .volume(&lab.volume("data"), "/data")
        .start(&old);
    let fleet = Fleet::new();
    let _small = Small::at(fleet.data_dir());
    both_say(&fleet, &container, &new, "no_space", "free");
}

#[test]
fn the_next_up_of_compose_is_foretold() {
    let lab = Lab::new("foretold");
    let old = lab.import("app:1", &Image::new("1", ""));
    let new = lab.import("app:2", &Image::new("2", ""));
    let container = lab
        .run("web")
        .managed()
        .label("fleet.mode", "auto")
        .label("com.docker.compose.project", "shop")
        .label("com.docker.compose.service", "web")
        .label("com.docker.compose.version", "1.29.2")
        .label("com.docker.compose.config-hash", "abc")
        .label("com.docker.compose.project.working_dir", "/no/such/folder")
        .label(
            "com.docker.compose.project.config_files",
            "docker-compose.yml",
        )
        .start(&old);
    let fleet = Fleet::new();
    let (_, document) = fleet.json(&["explain", &container.name, "--spec"]);
    let notes = document["instance"]["spec"]["notes"].to_string();
    assert!(
        notes.contains("recreates web once") && notes.contains("/no/such/folder"),
        "{document}"
    );
    let (code, plans) = fleet.json(&["plan", "--image", &new]);
    let note = &plans["plans"][0]["notes"][0];
    assert_eq!(code, 0, "{plans}");
    assert!(
        note["message"].to_string().contains("recreates web once"),
        "{plans}"
    );
    let text = fleet.run(&["plan", "--image", &new]).stdout;
    assert!(text.contains("the next `up`"), "{text}");
}
