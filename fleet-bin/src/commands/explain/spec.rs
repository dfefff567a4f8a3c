//! `fleet explain --spec`: what differs between the container and the one that an update would make.

use std::fmt::Write as _;

use fleet_core::engine::Explanation;
use fleet_core::ports::{ImageStore as _, PortErrorKind};
use fleet_docker::DockerEngine;
use fleet_docker::compose::NextUp;
use fleet_docker::recreate::{By, Difference};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::output::redact::redacted;
use crate::output::style::{BAD, DIM, HEAD, WARN, paint};

/// What is asked of the comparison.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// The image to compare with; none: what is offered, else what it runs.
    pub(super) to: Option<&'a str>,
    /// Whether secrets are shown.
    pub(super) show_secrets: bool,
}

/// The comparison of old and new.
#[derive(Debug)]
pub(super) struct SpecView {
    /// The image that was compared with, as it was named.
    image: String,
    /// Whether that is the image which the container runs already.
    same_image: bool,
    differences: Vec<Difference>,
    /// What people should know beside.
    notes: Vec<String>,
}

/// The image of the new container: how it is found in the engine, and what the container will call it.
struct Target {
    found_by: String,
    named: String,
    notes: Vec<String>,
}

impl SpecView {
    /// Compares. Reads only.
    ///
    /// # Errors
    /// The container cannot be frozen, or the image that was named is not in the engine.
    pub(super) async fn of(
        engine: &DockerEngine,
        found: &Explanation,
        asked: &Asked<'_>,
    ) -> Outcome<Self> {
        let frozen = found.frozen.as_ref().ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                "the container's settings cannot be kept now; without --spec the reason is shown",
            )
        })?;
        let mut target = target(engine, found, asked).await?;
        let mut differences = engine
            .preview(frozen, &target.found_by, &target.named)
            .await
            .map_err(|error| match error.kind() {
                PortErrorKind::NotFound => Failure::new(
                    Exit::Failed,
                    format!(
                        "the engine does not have {} yet; pull it first, or leave --to out",
                        target.found_by
                    ),
                ),
                _ => Failure::new(Exit::Failed, error.to_string()),
            })?;
        let up = engine
            .next_up_by_compose(&frozen.container, &target.named)
            .await
            .or_exit(Exit::Failed, "compose's settings cannot be looked at")?;
        match up {
            Some(NextUp::RecreatesOnce(reason)) => target.notes.push(reason),
            Some(NextUp::Nothing) => target.notes.push(
                "compose's own label is brought up to date, so that its next `up` finds nothing to do"
                    .to_owned(),
            ),
            None => {}
        }
        if !asked.show_secrets {
            for difference in &mut differences {
                difference.old = redacted(&difference.field, &difference.old);
                difference.new = redacted(&difference.field, &difference.new);
            }
        }
        let image = engine.image(&target.found_by).await;
        Ok(Self {
            same_image: matches!(image, Ok(Some(image)) if image.id == frozen.container.image_id),
            image: target.found_by,
            differences,
            notes: target.notes,
        })
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        let rows = self.differences.iter().map(|difference| {
            json!({
                "field": difference.field,
                "old": difference.old,
                "new": difference.new,
                "by": by(difference),
                "expected": difference.is_expected(),
            })
        });
        json!({
            "image": self.image,
            "same_image": self.same_image,
            "differences": rows.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} {}",
            paint(HEAD, "what an update would make of it"),
            paint(DIM, format!("(from {})", self.image))
        );
        if self.same_image {
            text.push_str("\nnothing newer is in the engine: compared with the image that it runs");
        }
        for (heading, by) in [("by fleet", By::Fleet), ("from the image", By::Image)] {
            let of_kind = || self.differences.iter().filter(|found| found.by == by);
            if of_kind().next().is_some() {
                // Writing into a String cannot fail.
                let _ = write!(text, "\n{heading}");
            }
            for found in of_kind() {
                let _ = write!(
                    text,
                    "\n  {}: {} -> {}",
                    found.field,
                    shown(&found.old),
                    shown(&found.new)
                );
                if !found.is_expected() {
                    let _ = write!(text, "  {}", paint(BAD, "not expected: please report it"));
                }
            }
        }
        text.push_str("\neverything else stays as it is");
        for note in &self.notes {
            let _ = write!(text, "\n{} {note}", paint(WARN, "note"));
        }
        text
    }
}

fn by(difference: &Difference) -> &'static str {
    match difference.by {
        By::Fleet => "fleet",
        By::Image => "image",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// What is named, else what is offered and in the engine, else what the container runs.
async fn target(engine: &DockerEngine, found: &Explanation, asked: &Asked<'_>) -> Outcome<Target> {
    let own = &found.view.image;
    if let Some(to) = asked.to {
        let by_id = to.starts_with("sha256:") || to.contains('@');
        return Ok(Target {
            found_by: to.to_owned(),
            named: if by_id { own } else { to }.to_owned(),
            notes: Vec::new(),
        });
    }
    let mut notes = Vec::new();
    if let Some(digest) = &found.view.available_digest {
        let repository = own
            .parse::<fleet_core::image::ImageRef>()
            .map_or_else(|_| own.clone(), |image| image.familiar_repository());
        for reference in [format!("{repository}@{digest}"), digest.clone()] {
            let image = engine.image(&reference).await;
            if image
                .or_exit(Exit::Failed, "the engine cannot be asked")?
                .is_some()
            {
                return Ok(Target {
                    found_by: reference,
                    named: own.clone(),
                    notes,
                });
            }
        }
        notes.push(format!(
            "{digest} is offered but not in the engine yet: what it changes is known once it is pulled"
        ));
    }
    let frozen = found.frozen.as_ref();
    let tagged = frozen.and_then(|frozen| frozen.tag_image.as_ref());
    let found_by = match (tagged, frozen) {
        (Some(_), _) => own.clone(),
        (None, Some(frozen)) => frozen.container.image_id.to_string(),
        (None, None) => own.clone(),
    };
    Ok(Target {
        found_by,
        named: own.clone(),
        notes,
    })
}
