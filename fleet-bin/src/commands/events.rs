//! `fleet events`: the event log.

use std::time::Duration;

use fleet_core::ports::{Clock as _, EventFilter, EventStore};
use fleet_core::record::{Event, NewEvent};
use fleet_core::time::{Timestamp, parse_duration};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::assemble::Context;
use crate::call::{Call, Desk, Route};
use crate::cli::{EventsArgs, Format};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::style::{DIM, NAME, paint};
use crate::system::now;

const PAGE: u32 = 500;
/// How often the log is looked at while following it.
const FOLLOW: Duration = Duration::from_millis(500);

/// A page of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Only events after this sequence number.
    #[serde(default)]
    after: String,
    /// How many at most.
    #[serde(default)]
    limit: String,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    instance: Option<String>,
    #[serde(default)]
    since: Option<String>,
}

impl Call for Page {
    const ROUTE: Route = Route::get("/api/v1/events");
    type With = Desk;

    async fn carry_out(self, desk: &Desk) -> Outcome<Answer> {
        let since = self.since.as_deref().map(|text| instant(text, now()));
        let filter = EventFilter {
            tenant: self.tenant,
            instance: self.instance,
            since: since.transpose()?,
            ..EventFilter::default()
        };
        let after = number("after", &self.after, 0)?;
        let limit = number("limit", &self.limit, PAGE.into())?.clamp(1, PAGE.into());
        let limit = u32::try_from(limit).unwrap_or(PAGE);
        let rows: Vec<_> = desk.store.page(after, limit, &filter).await?;
        let rows: Vec<_> = rows.iter().map(row).collect();
        Answer::list("events", &rows, Shown::Text(String::new()))
    }
}

/// A number from a query, `default` where it is left out.
fn number(name: &str, text: &str, default: u64) -> Outcome<u64> {
    if text.is_empty() {
        return Ok(default);
    }
    text.parse().map_err(|_| {
        let message = format!("{name}: expected a number, found {text:?}");
        Failure::new(Exit::Usage, message)
    })
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: EventsArgs) -> Outcome {
    let filter = EventFilter {
        tenant: args.tenant.map(|tenant| tenant.to_string()),
        instance: args.instance.map(|instance| instance.to_string()),
        since: args
            .since
            .as_deref()
            .map(|text| instant(text, now()))
            .transpose()?,
        ..EventFilter::default()
    };
    let (_, store) = context.read().await?;
    let follow = args.follow;
    let mut after = 0;
    let mut all = Vec::new();
    loop {
        let page = store.page(after, PAGE, &filter).await?;
        after = page.last().map_or(after, |event| event.sequence);
        let more = page.len() == PAGE as usize;
        if context.out.format() == Format::Json && !follow {
            all.extend(page.iter().map(row));
        } else {
            page.iter().try_for_each(|event| print(context, event))?;
        }
        if !more && !follow {
            break;
        }
        if !more {
            tokio::select! {
                () = context.clock.sleep(FOLLOW) => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
    }
    if context.out.format() == Format::Json && !follow {
        context
            .out
            .answer(Answer::list("events", &all, Shown::Text(String::new()))?)?;
    }
    Ok(Exit::Done)
}

/// An instant, or a duration back from now.
fn instant(text: &str, now: Timestamp) -> Outcome<Timestamp> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    parse_duration(text).map(|back| now.saturating_sub(back)).map_err(|_| {
        let message = format!(
            "--since: expected an instant such as 2026-01-31T03:00:00Z or a duration such as 2h, found {text:?}"
        );
        Failure::new(Exit::Usage, message)
    })
}

fn print(context: &Context, event: &Event) -> Outcome<()> {
    if context.out.format() == Format::Table {
        context.out.text(&line(event))
    } else {
        context.out.line(&row(event))
    }
}

/// An event in JSON: flat, RFC 3339, absent relations null.
fn row(event: &Event) -> Value {
    let fact = &event.event;
    json!({
        "sequence": event.sequence,
        "time": fact.at,
        "kind": fact.kind.label(),
        "actor": fact.actor,
        "tenant": fact.tenant,
        "instance": fact.instance.as_ref().map(ToString::to_string),
        "rollout": fact.rollout,
        "update": fact.update,
        "data": fact.data,
    })
}

fn line(event: &Event) -> String {
    let fact_at = paint(DIM, event.event.at);
    format!("{fact_at} {}", fact(&event.event))
}

/// What happened, in one line without its time.
pub(super) fn fact(fact: &NewEvent) -> String {
    let about = match (&fact.instance, &fact.tenant) {
        (Some(instance), _) => instance.to_string(),
        (None, Some(tenant)) => tenant.to_string(),
        (None, None) => String::new(),
    };
    let data = match &fact.data {
        Value::Null => String::new(),
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(_, value)| !value.is_null());
            shown
                .map(|(name, value)| format!(" {name}={}", plain(value)))
                .collect()
        }
        other => format!(" {other}"),
    };
    format!(
        "{:<24} {} {}{}",
        fact.kind.label(),
        paint(NAME, about),
        paint(DIM, format!("by {}", fact.actor)),
        data
    )
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_instant_or_a_way_back() {
        let now = Timestamp::from_millis(10_000_000);
        assert_eq!(
            instant("1h", now).unwrap(),
            Timestamp::from_millis(6_400_000)
        );
        assert_eq!(
            instant("1970-01-01T00:00:01Z", now).unwrap(),
            Timestamp::from_millis(1000)
        );
        assert!(
            instant("yesterday", now)
                .unwrap_err()
                .chain()
                .contains("expected an instant")
        );
    }
}
