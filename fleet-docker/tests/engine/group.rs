//! Containers that use each other's namespaces and volumes.

use fleet_core::model::{FrozenSpec, RunState};
use fleet_core::ports::{ContainerRuntime as _, CreateRequest, Repoint, RestoreRequest};
use fleet_docker::DockerEngine;
use fleet_docker::recreate::{By, Difference, Spec, spec_diff};
use fleet_testkit::{Container, Lab, docker, docker_json};
use serde_json::json;

use crate::kit::{candidate, engine, id, image_id, images, update_id};

/// A VPN-like parent and a child that lives in its network, sees its processes and uses its volumes.
struct Pair {
    old: String,
    new: String,
    vpn: Container,
    child: Container,
    frozen: FrozenSpec,
}

impl Pair {
    async fn start(lab: &Lab, engine: &DockerEngine) -> Self {
        let (old, new) = images(lab);
        let vpn = lab.run("vpn").options(&["--user", "0"]).start(&old);
        let of_vpn = format!("container:{}", vpn.name);
        let child = lab
            .run("child")
            .options(&["--user", "0", "--env", "APP_PORT=8081"])
            .options(&[
                "--network",
                &of_vpn,
                "--pid",
                &of_vpn,
                "--volumes-from",
                &vpn.name,
            ])
            .start(&old);
        let frozen = engine.freeze(&id(&child)).await.expect("frozen");
        Self {
            old,
            new,
            vpn,
            child,
            frozen,
        }
    }
}

async fn differences(
    engine: &DockerEngine,
    before: &FrozenSpec,
    after: &fleet_core::ids::ContainerId,
) -> Vec<Difference> {
    let after = engine.freeze(after).await.expect("frozen");
    spec_diff(
        &Spec::of(before).expect("read"),
        &Spec::of(&after).expect("read"),
    )
}

#[tokio::test]
async fn child_follows_its_parent() {
    let lab = Lab::new("pair");
    let engine = engine().await;
    let pair = Pair::start(&lab, &engine).await;
    let parents: Vec<_> = pair
        .frozen
        .container
        .parents
        .iter()
        .map(|parent| parent.id.clone())
        .collect();
    assert_eq!(parents, vec![Some(id(&pair.vpn)); 3]);

    let vpn = engine.freeze(&id(&pair.vpn)).await.expect("frozen");
    let target = image_id(&lab, &pair.new);
    let parent = candidate(
        &engine,
        &vpn,
        &target,
        &pair.new,
        &lab.name("vpn.c"),
        Vec::new(),
    )
    .await
    .expect("created");
    let repoint = Repoint {
        from: id(&pair.vpn),
        from_name: pair.vpn.name.clone(),
        to: parent.id.clone(),
    };
    // The child's own image did not change: only its parent did.
    let same = image_id(&lab, &pair.old);
    let made = candidate(
        &engine,
        &pair.frozen,
        &same,
        &pair.old,
        &lab.name("child.c"),
        vec![repoint],
    )
    .await
    .expect("created");
    let raw = docker_json(&["container", "inspect", made.id.as_str()]);
    assert_eq!(
        raw["HostConfig"]["NetworkMode"],
        format!("container:{}", parent.id)
    );
    assert_eq!(
        raw["HostConfig"]["PidMode"],
        format!("container:{}", parent.id)
    );
    assert_eq!(
        raw["HostConfig"]["VolumesFrom"],
        json!([parent.id.as_str()])
    );
    for container in [&id(&pair.child), &id(&pair.vpn)] {
        engine.stop(container, None).await.expect("stopped");
    }
    for container in [&parent.id, &made.id] {
        assert!(engine.start(container).await.expect("started").running);
    }
    for difference in differences(&engine, &pair.frozen, &made.id).await {
        assert!(difference.is_expected(), "{difference}");
    }
    // Back: the old pair still fits together.
    for container in [&made.id, &parent.id] {
        engine.stop(container, None).await.expect("stopped");
    }
    for container in [&id(&pair.vpn), &id(&pair.child)] {
        assert!(engine.start(container).await.expect("started").running);
    }
}

#[tokio::test]
async fn child_that_somebody_removed_is_made_again_as_it_was() {
    let lab = Lab::new("restore");
    let engine = engine().await;
    let pair = Pair::start(&lab, &engine).await;
    docker(&["rm", "--force", &pair.child.id]);
    let request = RestoreRequest {
        update: update_id(1),
        name: pair.child.name.clone(),
        frozen: pair.frozen.clone(),
        repoint: Vec::new(),
    };
    let request = CreateRequest::Restore(Box::new(request));
    let restored = engine.create(&request).await.expect("made again");
    assert_eq!(
        engine.create(&request).await.expect("there").id,
        restored.id
    );
    for difference in differences(&engine, &pair.frozen, &restored.id).await {
        assert!(
            difference.is_expected() && difference.by == By::Fleet,
            "{difference}"
        );
    }
    let back = engine
        .inspect(&restored.id)
        .await
        .expect("asked")
        .expect("there");
    assert_eq!(back.image_id, pair.frozen.container.image_id);
    assert_eq!(back.state, RunState::Created);
    assert!(engine.start(&restored.id).await.expect("started").running);
}
