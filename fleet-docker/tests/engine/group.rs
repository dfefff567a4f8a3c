//! Containers that use each other's namespaces and volumes.

use fleet_core::model::RunState;
use fleet_core::ports::{ContainerRuntime as _, CreateRequest, Repoint, RestoreRequest};
use fleet_docker::recreate::{By, Spec, spec_diff};
use fleet_testkit::{Lab, docker};
use serde_json::json;

use crate::kit::{candidate, engine, id, image_id, images, update_id};

#[tokio::test]
async fn child_follows_its_parent_and_the_old_one_can_be_made_again() {
    let lab = Lab::new("pair");
    let (old, new) = images(&lab);
    let engine = engine().await;
    let vpn = lab.run("vpn").options(&["--user", "0"]).start(&old);
    let child = lab
        .run("child")
        .options(&[
            "--user",
            "0",
            "--network",
            &format!("container:{}", vpn.name),
        ])
        .options(&[
            "--pid",
            &format!("container:{}", vpn.name),
            "--volumes-from",
            &vpn.name,
            "--env",
            "APP_PORT=8081",
        ])
        .start(&old);
    let frozen = engine.freeze(&id(&child)).await.expect("frozen");
    let parents: Vec<_> = frozen
        .container
        .parents
        .iter()
        .map(|parent| parent.id.clone())
        .collect();
    assert_eq!(parents, vec![Some(id(&vpn)); 3]);

    let vpn_frozen = engine.freeze(&id(&vpn)).await.expect("frozen");
    let target = image_id(&lab, &new);
    let parent = candidate(
        &engine,
        &vpn_frozen,
        &target,
        &new,
        &lab.name("vpn.c"),
        Vec::new(),
    )
    .await
    .expect("created");
    let repoint = vec![Repoint {
        from: id(&vpn),
        from_name: vpn.name.clone(),
        to: parent.id.clone(),
    }];
    let made = candidate(
        &engine,
        &frozen,
        &image_id(&lab, &old),
        &old,
        &lab.name("child.c"),
        repoint,
    )
    .await
    .expect("created");
    let raw = fleet_testkit::docker_json(&["container", "inspect", made.id.as_str()]);
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
    for container in [&id(&child), &id(&vpn)] {
        engine.stop(container, None).await.expect("stopped");
    }
    for container in [&parent.id, &made.id] {
        assert!(engine.start(container).await.expect("started").running);
    }
    let after = engine.freeze(&made.id).await.expect("frozen");
    for difference in spec_diff(
        &Spec::of(&frozen).expect("read"),
        &Spec::of(&after).expect("read"),
    ) {
        assert!(difference.is_expected(), "{difference}");
    }

    // Second line of the rollback: somebody removed the old child.
    docker(&["rm", "--force", &child.id]);
    let restored = engine
        .create(&CreateRequest::Restore(Box::new(RestoreRequest {
            update: update_id(1),
            name: child.name.clone(),
            frozen: frozen.clone(),
            repoint: Vec::new(),
        })))
        .await
        .expect("made again");
    let back = engine.freeze(&restored.id).await.expect("frozen");
    let differences = spec_diff(
        &Spec::of(&frozen).expect("read"),
        &Spec::of(&back).expect("read"),
    );
    for difference in &differences {
        assert!(
            difference.is_expected() && difference.by == By::Fleet,
            "{difference}"
        );
    }
    assert_eq!(back.container.image_id, frozen.container.image_id);
    assert_eq!(back.container.state, RunState::Created);
}
