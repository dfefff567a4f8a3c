//! `fleet pause` and `fleet resume`: the global hold, and nothing else.

use fleet_core::ports::SettingsStore as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::Answer;
use crate::call::{Call, Desk, Route};
use crate::exit::Outcome;
use crate::output::style::{NAME, paint};
use crate::system::now;

/// Holds the whole fleet. A hold that is already there stays as it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    /// Why.
    pub(crate) reason: String,
}

/// Lifts it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resume {
    /// Why.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

impl Call for Pause {
    const ROUTE: Route = Route::post("/api/v1/pause");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        let mut settings = desk.store.settings().await?;
        if let Some(pause) = &settings.pause {
            let text = format!(
                "already paused by {} since {}: {}",
                pause.by, pause.since, pause.reason
            );
            return Answer::one("pause", pause, text);
        }
        let pause = fleet_core::model::Pause {
            by: desk.actor.clone(),
            reason: self.reason,
            since: now(),
        };
        settings.pause = Some(pause.clone());
        desk.store
            .set_settings(&settings, &desk.actor, pause.since)
            .await?;
        desk.changed();
        let text = format!(
            "paused: nothing starts until {}",
            paint(NAME, "fleet resume")
        );
        Answer::one("pause", &pause, text)
    }
}

impl Call for Resume {
    const ROUTE: Route = Route::post("/api/v1/resume");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        let mut settings = desk.store.settings().await?;
        let lifted = settings.pause.take();
        if lifted.is_some() {
            let actor = match self.reason {
                Some(reason) => format!("{} ({reason})", desk.actor),
                None => desk.actor.clone(),
            };
            desk.store.set_settings(&settings, &actor, now()).await?;
            desk.changed();
        }
        let text = match &lifted {
            Some(pause) => format!(
                "resumed; it was paused by {} since {}",
                pause.by, pause.since
            ),
            None => "it was not paused".to_owned(),
        };
        Answer::one("pause", &json!({ "lifted": lifted }), text)
    }
}
