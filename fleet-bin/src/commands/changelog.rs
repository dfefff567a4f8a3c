//! `fleet changelog`: for publishers, from a git history to what the team reads and what users read.

use std::fs;
use std::path::Path;
use std::process::Command;

use fleet_core::notify::history::{Commit, Exclusions, from_history};

use crate::assemble::Context;
use crate::cli::ChangelogArgs;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// Ends a commit in git's output; no message can hold it, since git refuses NUL.
const END: char = '\0';

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ChangelogArgs) -> Outcome {
    let range = format!("{}..{}", args.from, args.to);
    let format = "--format=%H%n%B%x00";
    let log = git(
        &args.repository,
        &["log", format, "--end-of-options", &range],
    )?;
    let date = git(
        &args.repository,
        &["log", "-1", "--format=%cs", "--end-of-options", &args.to],
    )?;
    let commits: Vec<_> = log.split(END).filter_map(commit).collect();
    let mut exclusions = Exclusions::default();
    exclusions.kinds.extend(args.exclude_kinds.iter().cloned());
    exclusions.words.extend(args.exclude_words.iter().cloned());
    let version = args.version_name.as_ref().unwrap_or(&args.to);
    let history = from_history(version, date.trim(), &commits, &exclusions);
    if let Some(path) = &args.markdown {
        write(path, &history.markdown)?;
    }
    if let Some(path) = &args.json {
        write(path, &serde_json::to_string_pretty(&history.changelog)?)?;
    }
    if args.markdown.is_none() && args.json.is_none() {
        let text = history.markdown.trim_end().to_owned();
        context.out.one("changelog", &history.changelog, || text)?;
    }
    Ok(Exit::Done)
}

fn commit(text: &str) -> Option<Commit> {
    let (hash, message) = text.trim_start().split_once('\n')?;
    Some(Commit {
        hash: hash.to_owned(),
        message: message.trim_end().to_owned(),
    })
}

fn git(repository: &Path, args: &[&str]) -> Outcome<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(args)
        .output()
        .or_exit(Exit::Failed, "git cannot be run: install it")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("git cannot read the history: {}", said.trim());
    Err(Failure::new(Exit::Usage, message))
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).or_exit(
        Exit::Failed,
        format!("{} cannot be written", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_taken_apart_at_nul() {
        let log = "abc\nfeat: one\n\nbody\n\0\ndef\nfix: two\n\0\n";
        let commits: Vec<_> = log.split(END).filter_map(commit).collect();
        assert_eq!(commits.len(), 2);
        assert_eq!(commits[0].message, "feat: one\n\nbody");
        assert_eq!(
            (commits[1].hash.as_str(), commits[1].message.as_str()),
            ("def", "fix: two")
        );
    }

    #[test]
    fn an_unknown_revision_is_a_usage_error() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let failure =
            git(here, &["log", "-1", "--end-of-options", "no-such-revision"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.chain().contains("git cannot read the history"),
            "{}",
            failure.chain()
        );
    }
}
