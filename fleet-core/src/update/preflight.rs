//! What is refused before anything is touched, with the reason and the remedy.

use serde::{Deserialize, Serialize};

use crate::ids::ContainerId;
use crate::model::{Container, InstanceSettings, RunState, SnapshotEstimate, labels};
use crate::ports::WritableLayer;

/// Code of the refusal for a snapshot that does not fit on the disk.
pub const NO_SPACE: &str = "no_space";

/// A reason not to update, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable word for scripts, for instance `auto_remove`.
    pub code: String,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: String,
    /// Whether asking again later may help without anybody changing the container.
    pub for_now: bool,
}

impl Refusal {
    /// A refusal that stands until somebody changes something.
    #[must_use]
    pub fn for_good(code: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            reason: reason.into(),
            remedy: remedy.into(),
            for_now: false,
        }
    }

    /// A refusal that time or a person lifts.
    #[must_use]
    pub fn for_now(code: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            for_now: true,
            ..Self::for_good(code, reason, remedy)
        }
    }
}

/// What the checks of one container look at.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The container.
    pub container: &'a Container,
    /// Its settings.
    pub settings: &'a InstanceSettings,
    /// What its writable layer holds.
    pub writable_layer: &'a WritableLayer,
    /// What its snapshot would need; none if no volume is copied.
    pub estimate: Option<SnapshotEstimate>,
    /// The container in which fleet itself runs, if it does.
    pub own_container: Option<&'a ContainerId>,
}

/// Everything that speaks against updating this container, in a fixed order.
#[must_use]
pub fn preflight(subject: &Subject<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let container = subject.container;
    if !subject.settings.enabled {
        refusals.push(Refusal::for_good(
            "not_managed",
            format!(
                "container {} does not carry fleet.enable=true",
                container.name
            ),
            "add the label fleet.enable=true and create the container again",
        ));
    }
    if subject.own_container == Some(&container.id) {
        refusals.push(Refusal::for_good(
            "own_container",
            "fleet runs in this container",
            "update it with the tool that started it",
        ));
    }
    if container.auto_remove {
        refusals.push(Refusal::for_good(
            "auto_remove",
            "started with --rm: the stop would delete the container and its anonymous volumes",
            "start it without --rm, with a restart policy if wanted",
        ));
    }
    if container.labels.contains_key("com.docker.swarm.task.id") {
        refusals.push(Refusal::for_good(
            "swarm_task",
            "a task of a Swarm service: Swarm would replace what fleet makes",
            "update it with `docker service update`",
        ));
    }
    refusals.extend(bad_state(container));
    refusals.extend(lost_parent(container));
    refusals.extend(inline_content(subject));
    refusals.extend(layer_data(subject));
    refusals.extend(no_space(subject));
    refusals
}

fn bad_state(container: &Container) -> Option<Refusal> {
    match container.state {
        RunState::Removing | RunState::Dead => Some(Refusal::for_good(
            "dead",
            "the engine is removing it, or failed to",
            format!(
                "remove it with `docker rm -f {}` and create it again",
                container.name
            ),
        )),
        RunState::Paused => Some(Refusal::for_now(
            "container_paused",
            "somebody froze it with `docker pause`",
            format!("let it run again: `docker unpause {}`", container.name),
        )),
        _ => None,
    }
}

fn lost_parent(container: &Container) -> Option<Refusal> {
    let parent = container
        .parents
        .iter()
        .find(|parent| parent.id.is_none())?;
    Some(Refusal::for_good(
        "parent_gone",
        format!(
            "it uses the {} of container {}, which does not exist any more",
            parent.via, parent.reference
        ),
        "create it again with a parent that exists",
    ))
}

/// Not lifted by `fleet.writable_layer=discard`: without its settings the new one would not be what the old one was.
fn inline_content(subject: &Subject<'_>) -> Option<Refusal> {
    let inline = &subject.writable_layer.inline;
    (!inline.is_empty()).then(|| {
        Refusal::for_good(
            "compose_inline",
            format!(
                "compose put the content of configs or secrets into the container, a new one would be without it: {}",
                some(inline)
            ),
            "give them as files (`file:` instead of `content:` or `environment:`) and run `docker compose up` once, or \
             update this service with `docker compose up` alone",
        )
    })
}

fn layer_data(subject: &Subject<'_>) -> Option<Refusal> {
    let data = &subject.writable_layer.data;
    if subject.settings.discard_writable_layer || data.is_empty() {
        return None;
    }
    Some(Refusal::for_good(
        "writable_layer",
        format!(
            "data in the container's writable layer would be lost: {}",
            some(data)
        ),
        "put these paths on a volume, or allow the loss with the label fleet.writable_layer=discard",
    ))
}

/// The first few paths, and how many more there are.
fn some(paths: &[String]) -> String {
    let shown = paths.len().min(5);
    let text = paths[..shown].join(", ");
    match paths.len() - shown {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn no_space(subject: &Subject<'_>) -> Option<Refusal> {
    let estimate = subject.estimate.filter(|estimate| !estimate.fits())?;
    let (needed, reserve, free) = (
        estimate.needed_bytes,
        estimate.reserve_bytes,
        estimate.free_bytes,
    );
    Some(Refusal::for_good(
        NO_SPACE,
        format!(
            "the snapshot may need {needed} bytes beside a reserve of {reserve}, found {free} free"
        ),
        "free space where snapshots are kept (`fleet snapshot prune`), or leave volumes out with fleet.snapshot",
    ))
}

/// Whether a container is one that fleet made and that is not the workload itself: guard, helper, candidate, parked or
/// failed.
#[must_use]
pub fn is_transitional(container: &Container) -> bool {
    labels::is_auxiliary(&container.labels)
        || [".fleet-c-", ".fleet-p-", ".fleet-f-"].iter().any(|mark| {
            container.name.rfind(mark).is_some_and(|at| {
                let id = &container.name[at + mark.len()..];
                id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit())
            })
        })
}
