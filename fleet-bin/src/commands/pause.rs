//! `fleet pause` and `fleet resume`: the global hold, and nothing else.

use fleet_core::model::Pause;
use fleet_core::ports::SettingsStore as _;
use serde_json::json;

use crate::assemble::Context;
use crate::exit::{Exit, Outcome};
use crate::output::style::{NAME, paint};
use crate::system::now;

/// Holds the whole fleet. A hold that is already there stays as it is.
pub(crate) async fn pause(context: &Context, reason: String) -> Outcome {
    let writing = context.write()?;
    let mut settings = writing.store.settings().await?;
    if let Some(pause) = &settings.pause {
        let text = format!(
            "already paused by {} since {}: {}",
            pause.by, pause.since, pause.reason
        );
        context.out.one("pause", pause, || text)?;
        return Ok(Exit::Done);
    }
    let actor = context.actor();
    let pause = Pause {
        by: actor.clone(),
        reason,
        since: now(),
    };
    settings.pause = Some(pause.clone());
    writing
        .store
        .set_settings(&settings, &actor, pause.since)
        .await?;
    context.out.one("pause", &pause, || {
        format!(
            "paused: nothing starts until {}",
            paint(NAME, "fleet resume")
        )
    })?;
    Ok(Exit::Done)
}

/// Lifts it.
pub(crate) async fn resume(context: &Context, reason: Option<String>) -> Outcome {
    let writing = context.write()?;
    let mut settings = writing.store.settings().await?;
    let lifted = settings.pause.take();
    if lifted.is_some() {
        let actor = match reason {
            Some(reason) => format!("{} ({reason})", context.actor()),
            None => context.actor(),
        };
        writing.store.set_settings(&settings, &actor, now()).await?;
    }
    context
        .out
        .one("pause", &json!({ "lifted": lifted }), || match &lifted {
            Some(pause) => format!(
                "resumed; it was paused by {} since {}",
                pause.by, pause.since
            ),
            None => "it was not paused".to_owned(),
        })?;
    Ok(Exit::Done)
}
