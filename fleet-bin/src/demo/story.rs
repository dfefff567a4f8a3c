//! The story that the demo tells.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use fleet_core::engine::{Fleet, Target, UpdateRequest};
use fleet_core::update::{Outcome as Ended, UpdateReport};
use futures::future::select_all;
use serde::Serialize;

use super::stage::{Program, Stage};
use super::writer::{self, SharedLog};
use crate::assemble::Context;
use crate::cli::Format;
use crate::datadir::DataDir;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::style::{self, BAD, DIM, HEAD, NAME, paint};
use crate::output::{Table, duration, tell};

const TENANTS: [&str; 6] = ["acme", "birch", "cedar", "delta", "elm", "fjord"];
/// The version of the release that destroys data.
const BAD_VERSION: &str = "3";

/// What happened to one tenant.
#[derive(Debug, Default, Serialize)]
struct Row {
    tenant: &'static str,
    rows_at_first: usize,
    release_2: &'static str,
    release_2_without_service_ms: u64,
    rows_before_release_3: usize,
    release_3: &'static str,
    release_3_without_service_ms: u64,
    rows_at_last: usize,
    answered_by_good_versions: usize,
    answered_by_rolled_back_version: usize,
    /// Numbers that a good version answered and that are missing. Must be 0.
    lost: usize,
}

struct Story<'a> {
    context: &'a Context,
    fleet: Fleet,
    stage: &'a Stage,
    logs: [SharedLog; 6],
}

/// Tells the story and prints the result.
pub(super) async fn tell_it(
    context: &Context,
    dir: DataDir,
    stage: &Stage,
    program: Program,
) -> Outcome {
    let begun = Instant::now();
    let working = context.working_in(dir).await?;
    let story = Story {
        context,
        fleet: working.fleet.clone(),
        stage,
        logs: Default::default(),
    };
    story.say(&format!(
        "{} six tenants, each a container with a volume, written to every 10 ms\n",
        paint(HEAD, "fleet demo:")
    ));
    story.set_up(&program).await?;
    let writers = TENANTS
        .iter()
        .zip(&story.logs)
        .map(|(tenant, log)| Box::pin(writer::write(stage, tenant, BAD_VERSION, log.clone())));
    let rows = tokio::select! {
        rows = story.releases() => rows?,
        _ = select_all(writers) => return Err(Failure::new(Exit::Failed, "a writer ended")),
    };
    story.print(&rows)?;
    let lost: usize = rows.iter().map(|row| row.lost).sum();
    let right = rows
        .iter()
        .all(|row| row.release_2 == "committed" && row.release_3 == "rolled_back");
    story.say(&paint(DIM, format!("\nIt took {}.", duration(begun.elapsed()))).to_string());
    if lost > 0 || !right {
        return Err(Failure::new(
            Exit::Failed,
            format!("expected every update to end as told and no write lost, found {lost} lost"),
        ));
    }
    Ok(Exit::Done)
}

impl Story<'_> {
    /// The story goes to standard output; where JSON is wanted there, to standard error.
    fn say(&self, text: &str) {
        if self.context.out.format() == Format::Table {
            // A reader that went away ends the program; cleaning up goes on without words.
            let _ = self.context.out.text(text);
        } else {
            tell(text);
        }
    }

    async fn set_up(&self, program: &Program) -> Outcome<()> {
        for (version, mode) in [(1, ""), (2, ""), (3, "corrupt")] {
            self.stage.image(version, mode, program).await?;
        }
        for tenant in TENANTS {
            self.stage.tenant(tenant).await?;
        }
        let until = Instant::now() + Duration::from_secs(20);
        for tenant in TENANTS {
            while self.rows(tenant).await.is_err() {
                if Instant::now() > until {
                    let message =
                        format!("the container of {tenant} does not answer on its own address");
                    return Err(Failure::new(Exit::Failed, message));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn releases(&self) -> Outcome<Vec<Row>> {
        // Let every tenant have some rows before anything happens.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut rows: Vec<_> = TENANTS
            .iter()
            .map(|&tenant| Row {
                tenant,
                ..Row::default()
            })
            .collect();
        self.say(&format!("{} is good.", paint(HEAD, "Release 2")));
        for (row, log) in rows.iter_mut().zip(&self.logs) {
            row.rows_at_first = self.rows(row.tenant).await?.len();
            let (report, gap) = self.update(row.tenant, 2, log).await?;
            row.release_2 = report.outcome.map_or("open", Ended::label);
            row.release_2_without_service_ms = millis(gap);
            let after = self.rows(row.tenant).await?.len();
            self.say(&told(row.tenant, &report, gap, row.rows_at_first, after));
        }
        self.say(&format!(
            "\n{} rewrites the rows, deletes what it finds, and is unhealthy.",
            paint(HEAD, "Release 3")
        ));
        for (row, log) in rows.iter_mut().zip(&self.logs) {
            row.rows_before_release_3 = self.rows(row.tenant).await?.len();
            let (report, gap) = self.update(row.tenant, 3, log).await?;
            row.release_3 = report.outcome.map_or("open", Ended::label);
            row.release_3_without_service_ms = millis(gap);
            row.rows_at_last = self.rows(row.tenant).await?.len();
            self.say(&told(
                row.tenant,
                &report,
                gap,
                row.rows_before_release_3,
                row.rows_at_last,
            ));
        }
        self.again().await?;
        for (row, log) in rows.iter_mut().zip(&self.logs) {
            self.count(row, log).await?;
        }
        Ok(rows)
    }

    /// A second try of the bad release is refused.
    async fn again(&self) -> Outcome<()> {
        let (report, _) = self.update(TENANTS[0], 3, &self.logs[0]).await?;
        self.say(&format!(
            "\n{} {}: {}",
            paint(NAME, "Release 3 once more"),
            report.outcome.map_or("open", Ended::label),
            report.reason.unwrap_or_default()
        ));
        Ok(())
    }

    async fn update(
        &self,
        tenant: &str,
        version: u8,
        log: &SharedLog,
    ) -> Outcome<(UpdateReport, Duration)> {
        let name = self.stage.container(tenant);
        let reference = self.stage.release(version);
        let to: Target = reference.parse()?;
        let request = UpdateRequest {
            instances: vec![name],
            to,
            timeout: None,
            override_window: false,
            retry: false,
            actor: "demo".to_owned(),
            rollout: None,
        };
        log.begin_phase();
        let sink = self.context.ui.sink(tenant);
        let reports = self.fleet.update(&request, &sink).await?;
        drop(sink);
        let report = reports.into_iter().next();
        let report =
            report.ok_or_else(|| Failure::new(Exit::Failed, "the update has no report"))?;
        // The writer notices the end a moment later.
        self.rows_when_up(tenant).await?;
        Ok((report, log.longest_gap()))
    }

    async fn rows_when_up(&self, tenant: &str) -> Outcome<()> {
        let until = Instant::now() + Duration::from_secs(5);
        while self.rows(tenant).await.is_err() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }

    async fn rows(&self, tenant: &str) -> Outcome<Vec<String>> {
        let address = self.stage.address(tenant).await;
        let address = address.ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("the container of {tenant} has no address"),
            )
        })?;
        let text = writer::get(address, "/dump").await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Holds what was answered against what is there.
    async fn count(&self, row: &mut Row, log: &SharedLog) -> Outcome<()> {
        // First what was answered, then what is there: the writer goes on in between.
        let (good, bad) = log.answered(BAD_VERSION);
        let there: BTreeSet<_> = self.rows(row.tenant).await?.into_iter().collect();
        row.answered_by_good_versions = good.len();
        row.answered_by_rolled_back_version = bad;
        row.lost = good
            .iter()
            .filter(|number| !there.contains(&number.to_string()))
            .count();
        Ok(())
    }

    fn print(&self, rows: &[Row]) -> Outcome<()> {
        self.say("");
        self.context.out.list("tenants", rows, || {
            let head = [
                "tenant",
                "release 2",
                "without service",
                "release 3",
                "without service",
                "rows before",
                "rows after",
                "answered",
                "by release 3",
                "lost",
            ];
            let mut table = Table::new(&head, "");
            for row in rows {
                table.row(vec![
                    row.tenant.to_owned(),
                    row.release_2.to_owned(),
                    format!("{} ms", row.release_2_without_service_ms),
                    row.release_3.to_owned(),
                    format!("{} ms", row.release_3_without_service_ms),
                    row.rows_before_release_3.to_string(),
                    row.rows_at_last.to_string(),
                    row.answered_by_good_versions.to_string(),
                    row.answered_by_rolled_back_version.to_string(),
                    row.lost.to_string(),
                ]);
            }
            table
        })
    }
}

/// One update in a few lines: its steps with their times, its end, the rows before and after.
fn told(tenant: &str, report: &UpdateReport, gap: Duration, before: usize, after: usize) -> String {
    let word = report.outcome.map_or("open", Ended::label);
    let mut text = format!(
        "  {} {}  without service {}  rows {before} → {after}",
        paint(NAME, format!("{tenant:<6}")),
        paint(
            style::of_word(word),
            format!("{:<12}", word.replace('_', " "))
        ),
        duration(gap),
    );
    let mut steps = String::new();
    for step in &report.steps {
        let took = step
            .duration
            .map_or_else(|| "?".to_owned(), |span| span.as_millis().to_string());
        let back = step.step.direction() == fleet_core::update::Direction::Back;
        let style = if back { style::WARN } else { DIM };
        // Writing into a String cannot fail.
        let _ = write!(
            steps,
            " {}",
            paint(style, format!("{} {took}", step.step.label()))
        );
    }
    let _ = write!(text, "\n        {}{steps}", paint(DIM, "ms:"));
    if let Some(reason) = &report.reason {
        let _ = write!(text, "\n         {} {reason}", paint(BAD, "because"));
    }
    text
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
