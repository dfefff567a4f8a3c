//! `fleet check`: asks the registries once, keeps the answers for `ps`, shows what is behind.

use fleet_core::detect::{Finding, Verdict};
use serde::{Deserialize, Serialize};

use super::ps;
use crate::answer::Answer;
use crate::call::{Call, Route, Workshop};
use crate::exit::{Exit, Outcome};

/// Asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    /// End with 10 if something is behind, with 1 if that is not known.
    #[serde(default)]
    pub(crate) exit_code: bool,
}

impl Call for Check {
    const ROUTE: Route = Route::post("/api/v1/check");
    type With = Workshop;

    async fn carry_out(self, workshop: &Workshop) -> Outcome<Answer> {
        let sink = workshop.voice.sink("asking the registries");
        let findings = workshop.fleet.check(&workshop.actor).await?;
        drop(sink);
        let views = workshop.fleet.instances().await?;
        let offered = findings.iter().any(Finding::is_offered);
        let unknown = findings
            .iter()
            .any(|finding| matches!(finding.verdict, Verdict::Unknown(_)));
        // With the flag, 0 promises that nothing is behind; what nobody could say must not read so.
        let exit = match (self.exit_code, offered, unknown) {
            (true, true, _) => Exit::Available,
            (true, false, true) => Exit::Failed,
            _ => Exit::Done,
        };
        Ok(ps::answer(&views)?.ends(exit))
    }
}
