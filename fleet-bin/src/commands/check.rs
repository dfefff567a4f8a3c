//! `fleet check`: asks the registries once, keeps the answers for `ps`, shows what is behind.

use fleet_core::detect::Verdict;

use super::ps;
use crate::assemble::Context;
use crate::exit::{Exit, Outcome};

/// Runs the command.
pub(crate) async fn run(context: &Context, exit_code: bool) -> Outcome {
    let working = context.working().await?;
    let sink = context.ui.sink("asking the registries");
    let findings = working.fleet.check(&context.actor()).await?;
    drop(sink);
    let views = working.fleet.instances().await?;
    ps::print(context, &views)?;
    let offered = findings.iter().any(fleet_core::detect::Finding::is_offered);
    let unknown = findings
        .iter()
        .any(|finding| matches!(finding.verdict, Verdict::Unknown(_)));
    // With the flag, 0 promises that nothing is behind; what nobody could say must not read so.
    Ok(match (exit_code, offered, unknown) {
        (true, true, _) => Exit::Available,
        (true, false, true) => Exit::Failed,
        _ => Exit::Done,
    })
}
