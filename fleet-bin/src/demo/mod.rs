//! `fleet demo`: the main job on this machine's engine, in about a minute.
//!
//! Six tenants write without pause while release 2 goes out and commits; release 3 destroys their data and is
//! unhealthy, and everything comes back. The images are made from fleet's own binary, no registry is needed. Whatever
//! ends it, everything that the demo made is removed, and nothing else is touched.

pub(crate) mod app;
mod stage;
mod story;
mod writer;

use std::fs;
use std::path::Path;

use fleet_core::ports::Entropy as _;
use fleet_docker::SystemEntropy;
use tokio::signal::unix::{SignalKind, signal};

use crate::assemble::Context;
use crate::datadir::DataDir;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::tell;

use stage::Stage;

/// Blocks until SIGTERM arrives: how the program in the containers is told to end.
pub(crate) fn wait_for_term() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    // A container whose program cannot wait for the signal is killed after its grace, and the test sees that.
    if let Ok(runtime) = runtime {
        runtime.block_on(async {
            if let Ok(mut term) = signal(SignalKind::terminate()) {
                term.recv().await;
            }
        });
    }
}

/// Runs the command; `app` replaces fleet's own binary in the containers.
pub(crate) async fn run(context: &Context, app: Option<&Path>) -> Outcome {
    let id: String = SystemEntropy.bytes()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let prefix = format!("fleet-demo-{id}");
    let program = program(app)?;
    let engine = context.engine().await?;
    let folder = std::env::temp_dir().join(&prefix);
    let dir = DataDir::open(&folder)?;
    let stage = Stage::new(&engine.host(), prefix).await?;
    let mut term = signal(SignalKind::terminate())?;
    let told = tokio::select! {
        told = story::tell_it(context, dir, &stage, program) => told,
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
        _ = term.recv() => Err(interrupted()),
    };
    let cleaned = stage.clean().await;
    let removed = fs::remove_dir_all(&folder);
    cleaned.inspect_err(|_| tell("Not everything of the demo could be removed."))?;
    removed.or_exit(
        Exit::Failed,
        format!("{} could not be removed", folder.display()),
    )?;
    tell("Everything that the demo made is removed.");
    told
}

fn interrupted() -> Failure {
    Failure::new(Exit::Failed, "interrupted")
}

/// The static program for the images.
fn program(app: Option<&Path>) -> Outcome<stage::Program> {
    match app {
        Some(path) => Ok(stage::Program {
            bytes: fs::read(path)
                .or_exit(Exit::Usage, format!("{} cannot be read", path.display()))?,
            args: Vec::new(),
        }),
        None if cfg!(target_feature = "crt-static") => Ok(stage::Program {
            bytes: fs::read("/proc/self/exe")
                .or_exit(Exit::Failed, "fleet's own binary cannot be read")?,
            args: vec!["__app".to_owned()],
        }),
        None => {
            let message = "this is a dynamic development build, which does not run in an empty image; run `make demo`";
            Err(Failure::new(Exit::Failed, message))
        }
    }
}
