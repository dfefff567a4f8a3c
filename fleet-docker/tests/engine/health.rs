//! Probes: to the container's own address, bounded, and nowhere else.

use std::time::{Duration, Instant};

use fleet_core::model::HttpCheck;
use fleet_core::ports::{HealthProbe as _, PortErrorKind, ProbeTarget, ProbeVerdict};
use fleet_docker::DockerEngine;
use fleet_testkit::{Container, Image, Lab};
use serde_json::json;

use crate::kit::{engine, id};

fn check(path: &str) -> HttpCheck {
    HttpCheck {
        path: path.to_owned(),
        port: None,
        expect: None,
    }
}

async fn probe(engine: &DockerEngine, container: &Container, check: HttpCheck) -> ProbeVerdict {
    let target = ProbeTarget {
        container: id(container),
        check,
        timeout: Duration::from_secs(3),
    };
    engine.probe(&target).await.expect("a probe was made")
}

fn failed(verdict: &ProbeVerdict, part: &str) {
    match verdict {
        ProbeVerdict::Fail(reason) => assert!(reason.contains(part), "{reason}"),
        ProbeVerdict::Pass => panic!("it passed"),
    }
}

#[tokio::test]
async fn healthy_and_unhealthy_answers_are_told_apart() {
    let lab = Lab::new("probe");
    let good = lab
        .run("good")
        .start(&lab.import("good", &Image::new("7", "")));
    let bad = lab
        .run("bad")
        .start(&lab.import("bad", &Image::new("8", "unhealthy")));
    good.wait_up();
    bad.wait_up();
    let engine = engine().await;
    assert_eq!(
        probe(&engine, &good, check("/health")).await,
        ProbeVerdict::Pass
    );
    let expecting = |expect| HttpCheck {
        expect: Some(expect),
        ..check("/health")
    };
    let right = expecting(json!({ "status": "ok" }));
    assert_eq!(probe(&engine, &good, right).await, ProbeVerdict::Pass);
    failed(
        &probe(&engine, &good, expecting(json!({ "status": "fine" }))).await,
        "does not contain",
    );
    failed(&probe(&engine, &bad, check("/health")).await, "503");
    failed(
        &probe(
            &engine,
            &good,
            HttpCheck {
                port: Some(1),
                ..check("/health")
            },
        )
        .await,
        "no answer",
    );
    // Nothing in a check leads to another host, and no answer does either.
    for path in [
        "//192.0.2.1/health",
        "http://192.0.2.1/health",
        "@192.0.2.1/",
    ] {
        let verdict = probe(&engine, &good, check(path)).await;
        assert!(
            matches!(verdict, ProbeVerdict::Fail(_)),
            "{path}: {verdict:?}"
        );
    }
}

#[tokio::test]
async fn hostile_answers_are_cut_off() {
    let lab = Lab::new("hostile");
    let engine = engine().await;
    for (mode, part) in [
        ("body-huge", "longer than"),
        ("body-endless", "longer than"),
        ("redirect", "302"),
        ("hang", "no answer within"),
    ] {
        let web = lab
            .run(mode)
            .start(&lab.import(mode, &Image::new("1", mode)));
        if mode != "hang" {
            web.wait_up();
        }
        let begun = Instant::now();
        failed(&probe(&engine, &web, check("/health")).await, part);
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{mode}: {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn child_is_asked_at_its_parents_address_and_host_network_on_loopback() {
    let lab = Lab::new("where");
    let image = lab.import("app", &Image::new("1", ""));
    let engine = engine().await;
    let parent = lab.run("parent").start(&image);
    parent.wait_up();
    let network = format!("container:{}", parent.name);
    let child = lab
        .run("child")
        .options(&["--network", &network, "--env", "APP_PORT=8099"])
        .start(&image);
    let at = |port| HttpCheck {
        port: Some(port),
        ..check("/health")
    };
    let until = Instant::now() + Duration::from_secs(20);
    while probe(&engine, &child, at(8099)).await != ProbeVerdict::Pass {
        assert!(Instant::now() < until, "the child does not answer");
    }
    let port = 20000 + u16::try_from(std::process::id() % 20000).expect("small");
    let variable = format!("APP_PORT={port}");
    let host = lab
        .run("host")
        .options(&["--network", "host", "--env", &variable])
        .start(&image);
    let until = Instant::now() + Duration::from_secs(20);
    while probe(&engine, &host, at(port)).await != ProbeVerdict::Pass {
        assert!(
            Instant::now() < until,
            "the host's own network does not answer"
        );
    }
}

#[tokio::test]
async fn check_without_a_port_needs_exactly_one_exposed() {
    let lab = Lab::new("ports");
    let image = lab.import("app", &Image::new("1", "").change("EXPOSE 9000"));
    let web = lab.run("web").start(&image);
    let engine = engine().await;
    let target = ProbeTarget {
        container: id(&web),
        check: check("/health"),
        timeout: Duration::from_secs(3),
    };
    let error = engine.probe(&target).await.expect_err("two ports");
    assert_eq!(error.kind(), PortErrorKind::Invalid);
}
