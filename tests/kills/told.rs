//! What a run of fleet said, and what the story of one update came to.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fleet_testkit::Fleet;
use serde_json::Value;

/// What happened to the host while an update was told, as far as it excuses a difference.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blows {
    /// `docker system prune -af --volumes`: what does not run may be made anew.
    pub(crate) pruned: bool,
    /// The engine went away and came back: what ran may have been restarted.
    pub(crate) restarted: bool,
}

/// How an update ended.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// The outcome that fleet gave; none if no update was open any more, or yet.
    pub(crate) outcome: Option<String>,
    pub(crate) blows: Blows,
}

impl Told {
    pub(crate) fn new(outcome: Option<String>) -> Self {
        Self {
            outcome,
            blows: Blows::default(),
        }
    }

    /// Whether a person is asked.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.outcome.as_deref(), Some("needs_operator" | "diverged"))
    }

    pub(crate) fn after(self, blows: Blows) -> Self {
        Self { blows, ..self }
    }
}

/// The outcome in the JSON of `fleet update`.
pub(crate) fn outcome_of_update(stdout: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(stdout).ok()?;
    Some(document["updates"][0]["outcome"].as_str()?.to_owned())
}

static SLOWEST_DECISION: Mutex<Duration> = Mutex::new(Duration::ZERO);

/// Longest time from the start of a recovery, with the engine there, to its first "found …, therefore …".
pub(crate) fn slowest_decision() -> Duration {
    *SLOWEST_DECISION
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Exit code and document of `fleet recover`; notes when it had decided.
#[track_caller]
fn run(fleet: &Fleet) -> (i32, Value) {
    let begun = Instant::now();
    let mut child = fleet
        .command(&["--output", "json", "recover"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fleet can be started");
    let said = child.stderr.take().expect("it is a pipe");
    let listener = thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if line.contains("therefore") {
                let mut slowest = SLOWEST_DECISION
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *slowest = begun.elapsed().max(*slowest);
            }
            lines.push(line);
        }
        lines
    });
    let mut text = String::new();
    let mut answer = child.stdout.take().expect("it is a pipe");
    answer.read_to_string(&mut text).expect("UTF-8");
    let status = child.wait().expect("it ends");
    let said = listener.join().expect("it only reads");
    let document = serde_json::from_str(&text);
    let document = document.unwrap_or_else(|error| panic!("{error}: {text:?}, {said:?}"));
    (status.code().unwrap_or(-1), document)
}

/// Runs `fleet recover` once; gives the outcome of the update that was open, if one was.
#[track_caller]
pub(crate) fn recover(fleet: &Fleet) -> Option<String> {
    let begun = Instant::now();
    let (code, document) = run(fleet);
    let took = begun.elapsed();
    let recoveries = document["recoveries"].as_array().expect("a list");
    assert!(recoveries.len() <= 1, "one instance, {document}");
    let recovery = recoveries.first()?;
    assert!(recovery["error"].is_null(), "still open: {document}");
    let outcome = recovery["outcome"].as_str();
    let outcome = outcome.unwrap_or_else(|| panic!("no outcome in {document}"));
    let expect = match outcome {
        "needs_operator" | "diverged" => 30,
        "rolled_back" => 20,
        _ => 0,
    };
    assert_eq!(code, expect, "{document}");
    assert!(took < Duration::from_secs(60), "it took {took:?}");
    Some(outcome.to_owned())
}
