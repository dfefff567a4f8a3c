//! `fleet doctor`: whether everything is there that fleet needs. Looks and asks; changes nothing.

mod engine;

use std::path::Path;
use std::time::Duration;

use fleet_core::engine::{Fleet, InstanceState};
use fleet_core::ports::EventFilter;
use serde::Serialize;

use crate::assemble::{Context, shown};
use crate::daemon::Client;
use crate::datadir::DataDir;
use crate::exit::{Exit, Outcome};
use crate::output::bytes;
use crate::output::style::{self, DIM, paint};
use crate::system::now;

/// Free space under which snapshots are in danger.
const LITTLE_SPACE: u64 = 1 << 30;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: &'static str,
    status: &'static str,
    message: String,
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self {
            name,
            status: "ok",
            message: message.into(),
            remedy: None,
        }
    }

    fn warn(name: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: "warn",
            message: message.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn fail(name: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: "fail",
            message: message.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// The text of one line, for people.
    fn line(&self) -> String {
        let head = format!("{:<4} {:<12}", self.status, self.name);
        let remedy = self.remedy.as_ref().map_or_else(String::new, |remedy| {
            format!("\n                  {}", paint(DIM, remedy))
        });
        format!(
            "{} {}{remedy}",
            paint(style::of_word(self.status), head),
            self.message
        )
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context) -> Outcome {
    let mut checks = vec![Check::ok(
        "config",
        format!("file: {}", shown(context.loaded.file.as_deref())),
    )];
    checks.push(build());
    match context.data_dir() {
        Ok(dir) => local(context, &dir, &mut checks).await,
        Err(failure) => checks.push(Check::fail("data", failure.chain(), "give --data-dir")),
    }
    if let Ok(Some(verifier)) = context.verifier() {
        checks.push(match verifier.probe().await {
            Ok(()) => Check::ok("signatures", "cosign runs"),
            Err(error) => Check::fail(
                "signatures",
                fleet_core::update::error_chain(&error),
                "install cosign, or set signatures.program: until then nothing is updated",
            ),
        });
    }
    match context.looking().await {
        Ok(fleet) => {
            engine::look(&fleet, &mut checks).await;
            known(&fleet, &mut checks).await;
        }
        Err(failure) => checks.push(Check::fail(
            "engine",
            failure.chain(),
            "start the engine, join the group docker, or set DOCKER_HOST",
        )),
    }
    let failed = checks.iter().any(|check| check.status == "fail");
    context.out.one("checks", &checks, || {
        checks
            .iter()
            .map(Check::line)
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn build() -> Check {
    let version = env!("CARGO_PKG_VERSION");
    if cfg!(target_feature = "crt-static") {
        Check::ok("build", format!("fleet {version}, static"))
    } else {
        Check::warn(
            "build",
            format!("fleet {version}, a dynamic development build"),
            "build with `make build`: only a static binary runs in containers of any image",
        )
    }
}

/// The data directory: space, lock, store, clock.
async fn local(context: &Context, dir: &DataDir, checks: &mut Vec<Check>) {
    checks.push(space(dir.path()));
    let folder = context.snapshots_folder(dir);
    if folder.exists() && !folder.starts_with(dir.path()) {
        checks.push(space(&folder));
    }
    checks.push(match dir.lock() {
        Ok(_) => Check::ok("lock", "free"),
        Err(_) if matches!(Client::of(dir), Ok(Some(_))) => Check::ok(
            "lock",
            "a daemon has it, and answers; commands go through it",
        ),
        Err(failure) => Check::warn("lock", failure.chain(), "wait until it has ended"),
    });
    match context.read().await {
        Ok((_, store)) => checks.push(match store.check().await {
            Ok(findings) if findings.is_empty() => {
                Check::ok("store", store.path().display().to_string())
            }
            Ok(findings) => Check::fail(
                "store",
                findings.join("; "),
                "keep the file, restore the newest backup beside it, and run fleet recover",
            ),
            Err(error) => Check::fail("store", error.to_string(), "see that the disk can be read"),
        }),
        Err(failure) => checks.push(Check::fail("store", failure.chain(), "see the cause above")),
    }
}

fn space(path: &Path) -> Check {
    let shown = path.display();
    match rustix::fs::statvfs(path) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let message = format!("{shown}: {} free", bytes(free));
            if free < LITTLE_SPACE {
                Check::warn(
                    "disk",
                    message,
                    "make room: updates are refused when snapshots do not fit",
                )
            } else {
                Check::ok("disk", message)
            }
        }
        Err(error) => Check::fail(
            "disk",
            format!("{shown}: {error}"),
            "give another --data-dir",
        ),
    }
}

/// What is known: instances, labels, frozen updates, the clock.
async fn known(fleet: &Fleet, checks: &mut Vec<Check>) {
    match fleet.instances().await {
        Ok(views) => {
            let frozen: Vec<_> = views
                .iter()
                .filter(|view| {
                    matches!(
                        view.state,
                        InstanceState::NeedsOperator | InstanceState::Diverged
                    )
                })
                .map(|view| view.name.as_str())
                .collect();
            checks.push(if frozen.is_empty() {
                Check::ok("instances", format!("{} managed", views.len()))
            } else {
                Check::fail(
                    "instances",
                    format!("a person is needed for {}", frozen.join(", ")),
                    "fleet resolve INSTANCE shows what is there",
                )
            });
        }
        Err(error) => checks.push(Check::fail(
            "instances",
            error.to_string(),
            "see the causes above",
        )),
    }
    if let Ok(survey) = fleet.survey().await {
        checks.extend(survey.warnings.iter().map(|(instance, warning)| {
            let message = format!("{instance}: {}: {}", warning.label, warning.message);
            Check::warn(
                "labels",
                message,
                "labels are fixed when a container is made: make it again",
            )
        }));
    }
    if let Ok(unfinished) = fleet.unfinished_restores().await {
        checks.extend(unfinished.iter().map(|restore| {
            let (snapshot, at) = (restore.snapshot, restore.began_at);
            let message = format!(
                "{}: putting back {snapshot} began at {at} and has not ended",
                restore.instance
            );
            let remedy =
                format!("unless it is under way, run fleet snapshot restore {snapshot} again");
            Check::fail("restores", message, remedy)
        }));
    }
    checks.push(clock(fleet).await);
}

async fn clock(fleet: &Fleet) -> Check {
    let later = EventFilter {
        since: Some(now().saturating_add(Duration::from_secs(120))),
        ..EventFilter::default()
    };
    match fleet.ports().events.page(0, 1, &later).await {
        Ok(events) if events.is_empty() => Check::ok("clock", now().to_string()),
        Ok(_) => Check::warn(
            "clock",
            format!("it is {}, but the event log has later entries", now()),
            "set the clock: windows and ages depend on it",
        ),
        Err(error) => Check::warn("clock", error.to_string(), "the event log cannot be read"),
    }
}
