//! The engine as `doctor` looks at it: version, permissions call by call, other updaters.

use std::path::Path;

use fleet_core::engine::Fleet;
use fleet_core::ids::{ContainerId, ImageId};
use fleet_core::model::RestartPolicy;
use fleet_core::ports::{PortError, PortErrorKind};

use super::Check;
use crate::assemble::volumes_are_ours;

/// Repositories of programs that update containers by themselves.
const UPDATERS: &[&str] = &[
    "watchtower",
    "ouroboros",
    "whats-up-docker",
    "wud",
    "drydock",
    "tugtainer",
];

/// Looks at the engine.
pub(super) async fn look(fleet: &Fleet, checks: &mut Vec<Check>) {
    let runtime = &fleet.ports().update.runtime;
    match runtime.info().await {
        Ok(info) => {
            checks.push(Check::ok(
                "engine",
                format!(
                    "{} {} (API {}, {} at most), {}, {}/{}",
                    info.flavour,
                    info.version,
                    info.api_version,
                    info.api_version_max,
                    info.storage_driver,
                    info.platform.os,
                    info.platform.architecture
                ),
            ));
            let contained = fleet.options().own_container.is_some();
            checks.push(volumes(Path::new(&info.root_dir), contained));
        }
        Err(error) => checks.push(Check::fail("engine", error.to_string(), "see that it runs")),
    }
    checks.push(permissions(fleet).await);
    match runtime.inventory().await {
        Ok(inventory) => {
            let others = inventory.containers.iter().filter(|container| {
                let name = container.image.rsplit('/').next().unwrap_or_default();
                let repository = name.split([':', '@']).next().unwrap_or_default();
                container.is_up() && UPDATERS.contains(&repository)
            });
            let names: Vec<_> = others.map(|container| container.name.as_str()).collect();
            checks.push(if names.is_empty() {
                Check::ok("updaters", "no other updater runs here")
            } else {
                Check::warn(
                    "updaters",
                    format!("other updaters run here: {}", names.join(", ")),
                    "two updaters on one container undo each other's work: stop them",
                )
            });
        }
        Err(error) => checks.push(Check::fail(
            "containers",
            error.to_string(),
            "fleet must list them",
        )),
    }
}

/// How volumes are reached.
fn volumes(root: &Path, contained: bool) -> Check {
    let folder = root.join("volumes");
    if !contained && volumes_are_ours(root) {
        return Check::ok("volumes", format!("{} can be read", folder.display()));
    }
    let why = if contained {
        "fleet runs in a container".to_owned()
    } else {
        format!("{} cannot be read and written", folder.display())
    };
    if cfg!(target_feature = "crt-static") {
        Check::ok(
            "volumes",
            format!("{why}: helper containers read and write the volumes"),
        )
    } else {
        Check::fail(
            "volumes",
            format!("{why}, and no helper container can be made from a dynamic build"),
            "build with `make build`, or run fleet as root on the engine's own host",
        )
    }
}

/// Asks for changes of things that do not exist: "no such thing" means that the call is permitted. Nothing is changed.
async fn permissions(fleet: &Fleet) -> Check {
    let ports = &fleet.ports().update;
    let zeros = "0".repeat(64);
    let (Ok(nobody), Ok(nothing)) = (
        ContainerId::new(zeros.clone()),
        ImageId::new(format!("sha256:{zeros}")),
    ) else {
        return Check::fail("permissions", "64 zeros are no id", "this is a bug");
    };
    let runtime = &ports.runtime;
    let answers = [
        (
            "rename",
            runtime.rename(&nobody, "fleet-doctor").await.err(),
        ),
        (
            "update",
            runtime
                .set_restart_policy(&nobody, RestartPolicy::No)
                .await
                .err(),
        ),
        ("start", runtime.start(&nobody).await.err()),
        ("stop", runtime.stop(&nobody, None).await.err()),
        ("remove", runtime.remove(&nobody).await.err()),
        ("logs", runtime.logs_tail(&nobody, 1).await.err()),
        ("events", runtime.events().await.err()),
        (
            "tag",
            ports.images.tag(&nothing, "fleet-doctor:none").await.err(),
        ),
        ("image", ports.images.image("fleet-doctor:none").await.err()),
    ];
    let denied: Vec<_> = answers
        .iter()
        .filter(|(_, error)| error.as_ref().is_some_and(is_denied))
        .map(|(call, _)| *call)
        .collect();
    if denied.is_empty() {
        Check::ok(
            "permissions",
            format!("{} calls are permitted", answers.len()),
        )
    } else {
        Check::fail(
            "permissions",
            format!("not permitted: {}", denied.join(", ")),
            "allow these calls in the socket proxy",
        )
    }
}

fn is_denied(error: &PortError) -> bool {
    error.kind() == PortErrorKind::Denied
}
