//! `fleet serve`: the daemon. Takes the data directory for itself, recovers, and drives the loop until it is told to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::engine::{Daemon, DaemonState, Listener, Recovery};
use fleet_core::ids::UpdateId;
use fleet_core::ports::{Clock as _, EventFilter, EventStore as _, StoredUpdate};
use fleet_core::record::EventKind;
use fleet_core::update::Verdict;
use fleet_sqlite::SqliteStore;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{events, recover};
use crate::assemble::{Context, Working};
use crate::daemon::{Client, Hub, Life, Served, Socket};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::{Ui, tell};

/// How often the event log is read for the daemon's own log.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// Events of one such look.
const PAGE: u32 = 500;

/// Runs the command.
pub(crate) async fn run(context: &Context) -> Outcome {
    // Before anything else: a signal that comes in between must not end it in the middle.
    let mut signals = Signals::new()?;
    let working = tokio::select! {
        taken = take(context) => taken?,
        // It waits for an engine, and holds nothing yet that has to be finished.
        () = signals.next() => return Ok(Exit::Done),
    };
    let config = context.config();
    let hub = Hub::new();
    let orchestrator = Arc::new(working.orchestrator(Arc::new(hub.clone())));
    let daemon = Arc::new(Daemon::new(
        working.fleet.clone(),
        orchestrator.clone(),
        Arc::new(hub.clone()),
        Arc::new(Told::new(context.ui.clone())),
        config.schedules()?,
        config.supersede()?,
        config.stop_timeout()?,
    ));
    let (life, lives) = watch::channel(Life::Works);
    let socket = Socket::bind(&working.dir, &working.lock)?;
    let served = Served {
        fleet: working.fleet.clone(),
        engine: working.engine.clone(),
        orchestrator,
        store: working.store.clone(),
        supersede: config.supersede()?,
        hub,
        state: daemon.state(),
        life: lives,
    };
    let serving = tokio::spawn(socket.serve(served));
    tokio::spawn(say_ready(daemon.state()));
    tokio::spawn(log_events(working.store.clone(), context.clock.clone()));
    let mut running = tokio::spawn({
        let daemon = daemon.clone();
        async move { daemon.run().await }
    });
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = signals.next() => {
            tracing::info!("stopping: what is in hand is finished; a second signal ends at once");
            say(NotifyState::Stopping);
            life.send_replace(Life::Stops);
            daemon.stop();
            tokio::select! {
                ended = &mut running => ended,
                () = signals.next() => {
                    tell("ended at once; what had begun is in the journal");
                    std::process::exit(i32::from(Exit::Failed.code()));
                }
            }
        }
    };
    life.send_replace(Life::Over);
    // Clients read their last answers.
    let served = serving.await;
    drop(working);
    ended.or_exit(Exit::Failed, "a defect in fleet ended the daemon")??;
    served.or_exit(Exit::Failed, "a defect in fleet ended the socket")??;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Takes the data directory, and waits for an engine if there is none; a second daemon is told who has it.
async fn take(context: &Context) -> Outcome<Working> {
    match context.working_once_there_is_an_engine().await {
        Err(failure) if failure.exit == Exit::NotNow => {
            let dir = context.data_dir()?;
            if Client::of(&dir)?.is_none() {
                return Err(failure);
            }
            let message = format!(
                "a daemon serves {} already: stop it first, or give another --data-dir",
                dir.path().display()
            );
            Err(Failure::new(Exit::NotNow, message))
        }
        other => other,
    }
}

/// Signals that mean: stop.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Outcome<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Says to systemd, if it wants to know, when the daemon is ready.
async fn say_ready(mut state: watch::Receiver<DaemonState>) {
    if state.wait_for(|state| state.recovered).await.is_ok() {
        tracing::info!("ready");
        say(NotifyState::Ready);
    }
}

fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// What happens, for the log: the events from now on.
async fn log_events(store: SqliteStore, clock: Arc<fleet_docker::SystemClock>) {
    let filter = EventFilter {
        since: Some(clock.now()),
        ..EventFilter::default()
    };
    let mut after = 0;
    loop {
        if let Ok(page) = store.page(after, PAGE, &filter).await {
            after = page.last().map_or(after, |event| event.sequence);
            for event in &page {
                // The log has its own colours.
                let fact = events::fact(&event.event);
                let fact = anstream::adapter::strip_str(&fact);
                match event.event.kind {
                    EventKind::UpdateStep => tracing::debug!("{fact}"),
                    _ => tracing::info!("{fact}"),
                }
            }
        }
        clock.sleep(LOG_PAUSE).await;
    }
}

/// Says what recovery found and did: each verdict once, however often a turn comes to it again.
struct Told {
    ui: Ui,
    said: Mutex<HashMap<UpdateId, String>>,
}

impl Told {
    fn new(ui: Ui) -> Self {
        Self {
            ui,
            said: Mutex::default(),
        }
    }
}

impl Told {
    fn say_once(&self, update: UpdateId, line: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&update) != Some(&line) {
            self.ui.suspend(|| tell(&line));
            said.insert(update, line);
        }
    }
}

impl Listener for Told {
    fn verdict(&self, update: &StoredUpdate, verdict: &Verdict) {
        self.say_once(update.plan.id, recover::decision(update, verdict));
    }

    fn recovered(&self, recovery: &Recovery) {
        self.say_once(recovery.update, recover::line(recovery));
    }
}
