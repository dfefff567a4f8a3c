//! `fleet explain`: why an instance is or is not updated, and where each setting comes from.

mod spec;

use std::fmt::Write as _;

use fleet_core::engine::{Explanation, Fleet};
use fleet_core::notify::changelog::Changelog;
use fleet_core::update::error_chain;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::spec::SpecView;
use super::ps::{InstanceRow, short};
use crate::answer::Answer;
use crate::assemble::Context;
use crate::call::{Call, Route, Workshop, written};
use crate::cli::ExplainArgs;
use crate::exit::Outcome;
use crate::output::style::{BAD, DIM, GOOD, HEAD, NAME, WARN, paint};
use crate::output::tell;

/// Explains one instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explain {
    instance: String,
    /// Also what an update would change. Secrets are never shown this way.
    #[serde(default, deserialize_with = "written::flag")]
    spec: bool,
    /// Compare with this image.
    #[serde(default)]
    to: Option<String>,
}

impl Call for Explain {
    const ROUTE: Route = Route::get("/api/v1/instances/{instance}/explain");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let found = workshop.fleet.explain(&self.instance).await?;
        let spec = if self.spec {
            let asked = spec::Asked {
                to: self.to.as_deref(),
                show_secrets: false,
            };
            Some(SpecView::of(&workshop.engine, &found, &asked).await?)
        } else {
            None
        };
        answer(&workshop.fleet, &found, spec.as_ref()).await
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: ExplainArgs) -> Outcome {
    let fleet = context.looking().await?;
    let found = fleet.explain(args.instance.as_str()).await?;
    let spec = if args.spec {
        let asked = spec::Asked {
            to: args.to.as_deref(),
            show_secrets: args.show_secrets,
        };
        Some(SpecView::of(&context.engine().await?, &found, &asked).await?)
    } else {
        None
    };
    context
        .out
        .answer(answer(&fleet, &found, spec.as_ref()).await?)
}

async fn answer(fleet: &Fleet, found: &Explanation, spec: Option<&SpecView>) -> Outcome<Answer> {
    // That the news cannot be had must not keep the rest from being shown.
    let news = fleet
        .whats_new(&found.view.name)
        .await
        .unwrap_or_else(|error| {
            tell(&format!(
                "what is new cannot be read: {}",
                error_chain(&error)
            ));
            None
        });
    let mut row = row(found)?;
    row["changelog"] = json!(news);
    let mut text = text(found);
    if let Some(spec) = spec {
        row["spec"] = spec.json();
        let _ = write!(text, "\n\n{}", spec.text());
    }
    if let Some(news) = &news {
        append_news(&mut text, news);
    }
    Answer::one("instance", &row, text)
}

fn append_news(text: &mut String, news: &Changelog) {
    // Writing into a String cannot fail.
    let _ = write!(text, "\n\n{} {}", paint(HEAD, "what is new"), news.version);
    if !news.date.is_empty() {
        let _ = write!(text, " {}", paint(DIM, format!("({})", news.date)));
    }
    for section in &news.sections {
        let _ = write!(text, "\n  {}", section.title);
        for item in &section.items {
            let _ = write!(text, "\n    - {item}");
        }
    }
}

fn row(found: &Explanation) -> Outcome<Value> {
    let mut row = serde_json::to_value(InstanceRow::from(&found.view))?;
    let settings = found.settings.iter().map(|setting| {
        json!({ "setting": setting.setting, "value": setting.value, "source": setting.source })
    });
    let refusals = found.refusals.iter().map(|refusal| {
        json!({
            "code": refusal.code,
            "reason": refusal.reason,
            "remedy": refusal.remedy,
            "for_now": refusal.for_now,
        })
    });
    let warnings = found
        .warnings
        .iter()
        .map(|warning| json!({ "label": warning.label, "message": warning.message }));
    row["settings"] = settings.collect();
    row["refusals"] = refusals.collect();
    row["warnings"] = warnings.collect();
    row["group"] = json!(found.group);
    Ok(row)
}

fn text(found: &Explanation) -> String {
    let view = &found.view;
    let mut text = format!(
        "{} of {} runs {} at {}",
        paint(NAME, &view.name),
        view.tenant,
        view.image,
        short(&view.digest)
    );
    // Writing into a String cannot fail.
    let verdict = match (&found.refusals[..], view.behind) {
        ([], Some(true)) => format!(
            "{}, and nothing speaks against it",
            paint(WARN, "an update is available")
        ),
        ([], Some(false)) => paint(GOOD, "up to date").to_string(),
        ([], None) => format!(
            "whether it is behind is not known: {} asks",
            paint(NAME, "fleet check")
        ),
        _ => paint(BAD, "it would not be updated now").to_string(),
    };
    let _ = write!(text, "\n{verdict}");
    for refusal in &found.refusals {
        let _ = write!(
            text,
            "\n  {}: {}; {}",
            refusal.code, refusal.reason, refusal.remedy
        );
    }
    for hold in &view.holds {
        let _ = write!(text, "\n  held: {hold}");
    }
    if found.group.len() > 1 {
        let _ = write!(text, "\nmoves together with: {}", found.group.join(", "));
    }
    let _ = write!(text, "\n\n{}", paint(HEAD, "settings"));
    for setting in &found.settings {
        let source = paint(DIM, format!("({})", setting.source));
        let _ = write!(
            text,
            "\n  {:<20} {} {source}",
            setting.setting, setting.value
        );
    }
    for warning in &found.warnings {
        let _ = write!(
            text,
            "\n{} {}: {}",
            paint(WARN, "warning"),
            warning.label,
            warning.message
        );
    }
    text
}
