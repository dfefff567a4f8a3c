//! What a new container has: each field inherited, overridden, or overridden with the old image's own value.

use std::collections::BTreeMap;

use fleet_core::model::FrozenSpec;
use fleet_core::ports::{ContainerRuntime as _, PortErrorKind};
use fleet_docker::DockerEngine;
use fleet_docker::recreate::{By, Spec, spec_diff};
use fleet_testkit::{Container, Image, Lab, docker, try_docker};
use serde_json::{Value, json};

use crate::kit::{candidate, engine, id, image_id, images, made_again, update, update_id};

#[tokio::test]
async fn inherited_fields_follow_the_new_image_and_the_tag_stays_where_it_was() {
    let lab = Lab::new("inherit");
    let (old, new) = images(&lab);
    let web = lab.run("web").create(&old);
    let engine = engine().await;
    let other = lab.import("other:1", &Image::new("3", ""));
    // `Config.Image` reads as the user's tag, which points elsewhere before and after.
    let frozen = engine.freeze(&id(&web)).await.expect("frozen");
    let target = image_id(&lab, &new);
    let created = candidate(
        &engine,
        &frozen,
        &target,
        &other,
        &lab.name("c"),
        Vec::new(),
    )
    .await
    .expect("created");
    assert_ne!(image_id(&lab, &other), target);
    let raw = fleet_testkit::docker_json(&["container", "inspect", created.id.as_str()]);
    assert_eq!(raw["Image"], target.as_str());
    let config = &raw["Config"];
    assert_eq!(config["Image"], other.as_str());
    assert_eq!(config["User"], "2000");
    assert_eq!(config["WorkingDir"], "/new");
    assert_eq!(config["StopSignal"], "SIGQUIT");
    assert_eq!(config["Cmd"], json!(["run"]));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "/app", "new"]));
    assert_eq!(
        config["ExposedPorts"],
        json!({ "8080/tcp": {}, "9001/tcp": {} })
    );
    let env = config["Env"].to_string();
    assert!(
        env.contains("SHARED=new") && env.contains("ADDED=y") && !env.contains("GONE"),
        "{env}"
    );
    assert_eq!(config["Labels"]["org.version"], "2");
    assert_eq!(config["Labels"].get("org.gone"), None);
    assert_eq!(
        config["Labels"]["io.fleet.update"],
        update_id(1).to_string()
    );
    assert_eq!(raw["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(raw["State"]["Status"], "created");
}

/// Options of a container, the field that they concern, and what must be there after the update.
type Case = (&'static [&'static str], &'static str, Value);

/// Fields that the image says something about too.
fn image_fields() -> Vec<Case> {
    vec![
        (&["--user", "7"], "/Config/User", json!("7")),
        (&["--user", "1000"], "/Config/User", json!("2000")),
        (
            &["--workdir", "/mine"],
            "/Config/WorkingDir",
            json!("/mine"),
        ),
        (&["--workdir", "/old"], "/Config/WorkingDir", json!("/new")),
        (
            &["--stop-signal", "SIGUSR1"],
            "/Config/StopSignal",
            json!("SIGUSR1"),
        ),
        (
            &["--stop-signal", "SIGINT"],
            "/Config/StopSignal",
            json!("SIGQUIT"),
        ),
        (
            &["--label", "org.version=mine"],
            "/Config/Labels/org.version",
            json!("mine"),
        ),
        (
            &["--label", "org.version=1"],
            "/Config/Labels/org.version",
            json!("2"),
        ),
        (
            &["--entrypoint", "/app"],
            "/Config/Entrypoint",
            json!(["/app"]),
        ),
        (
            &["--entrypoint", "/mine"],
            "/Config/Entrypoint",
            json!(["/mine"]),
        ),
        (
            &["--health-interval", "33s"],
            "/Config/Healthcheck/Interval",
            json!(33_000_000_000u64),
        ),
        (
            &["--health-interval", "11s"],
            "/Config/Healthcheck/Interval",
            json!(22_000_000_000u64),
        ),
        (
            &["--health-retries", "9"],
            "/Config/Healthcheck/Retries",
            json!(9),
        ),
        // The new image says nothing about retries.
        (
            &["--health-retries", "3"],
            "/Config/Healthcheck/Retries",
            json!(null),
        ),
        (
            &["--health-timeout", "8s"],
            "/Config/Healthcheck/Timeout",
            json!(8_000_000_000u64),
        ),
        (
            &["--health-start-period", "4s"],
            "/Config/Healthcheck/StartPeriod",
            json!(4_000_000_000u64),
        ),
        (
            &["--health-cmd", "mine"],
            "/Config/Healthcheck/Test",
            json!(["CMD-SHELL", "mine"]),
        ),
        (
            &["--expose", "9000"],
            "/Config/ExposedPorts",
            json!({ "8080/tcp": {}, "9001/tcp": {} }),
        ),
        (
            &["--no-healthcheck"],
            "/Config/Healthcheck/Test",
            json!(["NONE"]),
        ),
    ]
}

/// Fields that are the user's alone.
fn own_fields() -> Vec<Case> {
    let ports = json!({ "1234/tcp": {}, "8080/tcp": {}, "9001/tcp": {} });
    vec![
        (&["--stop-timeout", "7"], "/Config/StopTimeout", json!(7)),
        (&["--label", "mine=x"], "/Config/Labels/mine", json!("x")),
        (&["--expose", "1234"], "/Config/ExposedPorts", ports),
        (&["--hostname", "given"], "/Config/Hostname", json!("given")),
    ]
}

/// What the client program does not say, or not apart from the rest: in the words of the create call.
fn spoken_fields() -> Vec<(Value, &'static str, Value)> {
    vec![
        (json!({ "Cmd": ["mine"] }), "/Config/Cmd", json!(["mine"])),
        (json!({ "Cmd": ["serve"] }), "/Config/Cmd", json!(["run"])),
        (
            json!({ "Entrypoint": ["/mine"], "Cmd": ["serve"] }),
            "/Config/Cmd",
            json!(["serve"]),
        ),
        (
            json!({ "Shell": ["/mine"] }),
            "/Config/Shell",
            json!(["/mine"]),
        ),
        (
            json!({ "Shell": ["/old-shell"] }),
            "/Config/Shell",
            json!(["/new-shell"]),
        ),
        (
            json!({ "Healthcheck": { "Test": ["CMD", "/app", "old"] } }),
            "/Config/Healthcheck/Test",
            json!(["CMD", "/app", "new"]),
        ),
        (
            json!({ "Volumes": { "/mine": {} } }),
            "/Config/Volumes",
            json!({ "/mine": {} }),
        ),
        (
            json!({ "MacAddress": "02:42:ac:aa:bb:cd" }),
            "/Config/MacAddress",
            json!("02:42:ac:aa:bb:cd"),
        ),
        (
            json!({ "Domainname": "example.org" }),
            "/Config/Domainname",
            json!("example.org"),
        ),
        (
            json!({ "Tty": true, "OpenStdin": true }),
            "/Config/OpenStdin",
            json!(true),
        ),
    ]
}

/// One field through an update, and through a way back on which the container has to be made again.
async fn check_field(
    engine: &DockerEngine,
    lab: &Lab,
    web: &Container,
    to: &str,
    field: &str,
    expect: &Value,
) {
    let frozen = engine.freeze(&id(web)).await.expect("frozen");
    let updated = update(engine, lab, web, to).await;
    let found = updated.new.pointer(field).cloned().unwrap_or_default();
    assert_eq!(&found, expect, "{field} of {}", updated.old["Config"]);
    engine.remove(&updated.created.id).await.expect("removed");
    let back = made_again(engine, &frozen, &format!("{}-back", web.name)).await;
    assert_eq!(back["Image"], updated.old["Image"]);
    assert_eq!(back.pointer(field), updated.old.pointer(field), "{field}");
}

#[tokio::test]
async fn every_field_inherited_overridden_or_overridden_with_the_same_value() {
    let lab = Lab::new("matrix");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let cases = image_fields().into_iter().chain(own_fields());
    for (index, (options, field, expect)) in cases.enumerate() {
        let web = lab
            .run(&format!("web{index}"))
            .options(options)
            .create(&old);
        check_field(&engine, &lab, &web, &new, field, &expect).await;
    }
    for (index, (mut body, field, expect)) in spoken_fields().into_iter().enumerate() {
        // Without one the engine leaves out defaults that it fills in with one.
        body["HostConfig"] = json!({});
        let web = lab.run(&format!("spoken{index}")).create_by_api(&old, body);
        check_field(&engine, &lab, &web, &new, field, &expect).await;
    }
}

#[tokio::test]
async fn every_variable_inherited_overridden_or_overridden_with_the_same_value() {
    let lab = Lab::new("environment");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let cases: [(&[&str], &str, Option<&str>); 4] = [
        (&["--env", "SHARED=mine"], "SHARED", Some("mine")),
        (&["--env", "SHARED=old"], "SHARED", Some("new")),
        (&["--env", "MINE=1"], "MINE", Some("1")),
        (&[], "GONE", None),
    ];
    for (index, (options, key, expect)) in cases.into_iter().enumerate() {
        let web = lab
            .run(&format!("web{index}"))
            .options(options)
            .create(&old);
        let updated = update(&engine, &lab, &web, &new).await;
        let found = environment(&updated.new);
        assert_eq!(found.get(key).map(String::as_str), expect, "{options:?}");
        engine.remove(&updated.created.id).await.expect("removed");
    }
}

fn environment(raw: &Value) -> BTreeMap<String, String> {
    let entries = raw["Config"]["Env"].as_array().into_iter().flatten();
    entries
        .filter_map(|entry| entry.as_str()?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Options of `docker create` that end in the host config, a line of them as one would type it.
const HOST_OPTIONS: &[&str] = &[
    "--memory 64m --memory-swap 64m --cpus 0.5 --cpu-shares 512 --pids-limit 50 --oom-score-adj 5",
    "--ulimit nofile=64:128 --cap-add NET_ADMIN --cap-drop MKNOD --security-opt no-new-privileges",
    "--sysctl net.core.somaxconn=64 --shm-size 16m --tmpfs /scratch:size=1m --read-only --init",
    "--dns 192.0.2.1 --dns-search example.org --add-host a:192.0.2.2 --group-add 5",
    "--log-driver json-file --log-opt max-size=1m --device /dev/null:/dev/mine:r",
    "--publish 127.0.0.1::8080 --restart on-failure:4 --ipc shareable --uts host --cgroupns host",
    "--volume /usr/share:/share:ro",
];

#[tokio::test]
async fn host_config_is_carried_whole() {
    let lab = Lab::new("host");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let volume = lab.volume("data");
    let options: Vec<&str> = HOST_OPTIONS
        .iter()
        .flat_map(|line| line.split(' '))
        .collect();
    let mount = format!("type=volume,source={volume},target=/m,volume-nocopy");
    let web = lab
        .run("web")
        .options(&options)
        .options(&["--mount", &mount])
        .options(&[
            "--mount",
            "type=bind,source=/usr/share,target=/b,readonly,bind-propagation=rslave",
        ])
        .options(&[
            "--mount",
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770",
        ])
        .create(&old);
    let frozen = engine.freeze(&id(&web)).await.expect("frozen");
    let updated = update(&engine, &lab, &web, &new).await;
    let without_policy = |raw: &Value| {
        let mut host = raw["HostConfig"].clone();
        host["RestartPolicy"] = Value::Null;
        host
    };
    assert_eq!(without_policy(&updated.old), without_policy(&updated.new));
    let back = made_again(&engine, &frozen, &lab.name("back")).await;
    assert_eq!(without_policy(&updated.old), without_policy(&back));
    assert_eq!(updated.new["HostConfig"]["RestartPolicy"]["Name"], "no");
}

#[tokio::test]
async fn creation_is_repeatable_and_leaves_nothing_when_it_fails() {
    let lab = Lab::new("again");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let web = lab.run("web").create(&old);
    let frozen = engine.freeze(&id(&web)).await.expect("frozen");
    let name = lab.name("c");
    let target = image_id(&lab, &new);
    let first = candidate(&engine, &frozen, &target, &new, &name, Vec::new())
        .await
        .expect("created");
    let again = candidate(&engine, &frozen, &target, &new, &name, Vec::new())
        .await
        .expect("adopted");
    assert_eq!(first.id, again.id);
    let taken = candidate(&engine, &frozen, &target, &new, &web.name, Vec::new())
        .await
        .expect_err("taken");
    assert_eq!(taken.kind(), PortErrorKind::Conflict);

    // The network of a second place is gone: nothing half-made stays behind.
    let network = lab.network("late", &[]);
    let second = lab.run("second").create(&old);
    docker(&["network", "connect", &network, &second.id]);
    let frozen = engine.freeze(&id(&second)).await.expect("frozen");
    docker(&["network", "rm", "--force", &network]);
    let name = lab.name("c2");
    let failed = candidate(&engine, &frozen, &target, &new, &name, Vec::new())
        .await
        .expect_err("no network");
    assert_eq!(failed.kind(), PortErrorKind::NotFound, "{failed}");
    assert_eq!(engine.find(&name).await.expect("asked"), None);

    let nothing =
        fleet_core::ids::ImageId::new(format!("sha256:{}", "0".repeat(64))).expect("an id");
    let failed = candidate(&engine, &frozen, &nothing, &new, &name, Vec::new())
        .await
        .expect_err("no image");
    assert_eq!(failed.kind(), PortErrorKind::NotFound);
}

#[tokio::test]
async fn freeze_refuses_when_the_old_image_is_gone() {
    let lab = Lab::new("noimage");
    let old = lab.import("old:1", &Image::new("1", ""));
    let web = lab.run("web").create(&old);
    let engine = engine().await;
    try_docker(&["rmi", "--force", &lab.image_id(&old)]).expect("forced");
    let refused = engine.freeze(&id(&web)).await.expect_err("no image");
    assert_eq!(refused.kind(), PortErrorKind::NotFound, "{refused}");
}

#[tokio::test]
async fn two_updates_in_a_row_and_back_lose_nothing() {
    let lab = Lab::new("row");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let volume = lab.volume("data");
    let web = lab
        .run("web")
        .options(&[
            "--env",
            "MINE=1",
            "--env",
            "SHARED=mine",
            "--label",
            "mine=x",
            "--user",
            "0",
            "--memory",
            "64m",
        ])
        .options(&[
            "--health-retries",
            "9",
            "--stop-timeout",
            "3",
            "--restart",
            "always",
            "--tmpfs",
            "/scratch",
        ])
        .options(&[
            "--volume",
            "/anonymous",
            "--volume",
            &format!("{volume}:/data"),
        ])
        .create(&old);
    let first = engine.freeze(&id(&web)).await.expect("frozen");
    let mut current = first.clone();
    for (round, image) in [&new, &old, &new, &old].into_iter().enumerate() {
        let name = lab.name(&format!("round{round}"));
        let made = candidate(
            &engine,
            &current,
            &image_id(&lab, image),
            image,
            &name,
            Vec::new(),
        )
        .await
        .expect("created");
        current = engine.freeze(&made.id).await.expect("frozen");
    }
    // Back on the first image only the marks of the recreate itself are left.
    let spec = |frozen: &FrozenSpec| Spec::of(frozen).expect("read");
    let differences = spec_diff(&spec(&first), &spec(&current));
    for difference in &differences {
        assert!(
            difference.is_expected() && difference.by == By::Fleet,
            "{difference}"
        );
    }
    let volumes = |frozen: &FrozenSpec| {
        frozen
            .container
            .writable_volumes()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(volumes(&first), volumes(&current));
    // The lab knows nothing of the anonymous volume, which later containers name.
    for container in lab.containers() {
        docker(&["rm", "--force", &container]);
    }
    let anonymous = volumes(&first)
        .into_iter()
        .find(|name| name.as_str().len() == 64);
    docker(&["volume", "rm", anonymous.expect("one").as_str()]);
}
