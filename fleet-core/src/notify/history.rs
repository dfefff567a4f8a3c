//! A changelog from a git history: for publishers, the other half of [`super::changelog`].
//!
//! Commits that follow the conventional form (`feat(login): remember me`) become an internal Markdown with everything,
//! and a user-facing changelog with what users notice: features, fixes and speed. Whatever matches the exclusion list is
//! in neither. Git itself is run elsewhere; here are only its answers.

use super::changelog::{Changelog, Section};

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its hash.
    pub hash: String,
    /// The whole message.
    pub message: String,
}

/// What becomes of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// For the team: every kept commit with its hash, grouped by kind.
    pub markdown: String,
    /// For users.
    pub changelog: Changelog,
}

/// Which commits are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusions {
    /// Kinds and scopes, compared without regard to case: `chore`, `ci`, `feat(internal)`, `(deps)`.
    pub kinds: Vec<String>,
    /// Words; a commit whose subject has one is left out, without regard to case.
    pub words: Vec<String>,
}

impl Default for Exclusions {
    /// Merges, and what was never meant for readers.
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            words: ["[skip changelog]", "[internal]", "fixup!", "squash!", "wip"]
                .map(str::to_owned)
                .into(),
        }
    }
}

/// Makes both texts from the commits between two versions, in the order given (newest first, as git lists them).
#[must_use]
pub fn from_history(
    version: &str,
    date: &str,
    commits: &[Commit],
    exclusions: &Exclusions,
) -> History {
    let entries: Vec<Entry> = commits
        .iter()
        .filter_map(Entry::read)
        .filter(|entry| !exclusions.name(entry))
        .collect();
    History {
        markdown: markdown(version, date, &entries),
        changelog: Changelog {
            version: version.to_owned(),
            date: date.to_owned(),
            sections: sections(&entries),
        },
    }
}

/// A commit's subject, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hash: String,
    /// Lower case; empty where the subject has no conventional form.
    kind: String,
    /// Lower case; empty without one.
    scope: String,
    breaking: bool,
    text: String,
}

impl Entry {
    /// None for merges and empty messages.
    fn read(commit: &Commit) -> Option<Self> {
        let subject = commit.message.lines().next().unwrap_or_default().trim();
        if subject.is_empty() || subject.starts_with("Merge ") {
            return None;
        }
        let noted = commit.message.lines().skip(1).any(|line| {
            line.starts_with("BREAKING CHANGE:") || line.starts_with("BREAKING-CHANGE:")
        });
        let (head, text) = match conventional(subject) {
            Some(parts) => parts,
            None => (Head::default(), subject),
        };
        Some(Self {
            hash: commit.hash.chars().take(10).collect(),
            kind: head.kind.to_ascii_lowercase(),
            scope: head.scope.to_ascii_lowercase(),
            breaking: head.breaking || noted,
            text: text.to_owned(),
        })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Head<'a> {
    kind: &'a str,
    scope: &'a str,
    breaking: bool,
}

/// Takes `kind(scope)!: text` apart.
fn conventional(subject: &str) -> Option<(Head<'_>, &str)> {
    let (head, text) = subject.split_once(": ")?;
    let (head, breaking) = match head.strip_suffix('!') {
        Some(head) => (head, true),
        None => (head, false),
    };
    let (kind, scope) = match head.split_once('(') {
        Some((kind, rest)) => (kind, rest.strip_suffix(')')?),
        None => (head, ""),
    };
    let is_word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/' | b','))
    };
    let valid = !kind.is_empty() && kind.len() <= 20 && is_word(kind) && is_word(scope);
    let text = text.trim();
    (valid && !text.is_empty()).then_some((
        Head {
            kind,
            scope,
            breaking,
        },
        text,
    ))
}

impl Exclusions {
    fn name(&self, entry: &Entry) -> bool {
        let by_kind = self.kinds.iter().any(|excluded| {
            let excluded = excluded.to_ascii_lowercase();
            let whole = format!("{}({})", entry.kind, entry.scope);
            excluded == entry.kind && !entry.kind.is_empty()
                || excluded == whole
                || !entry.scope.is_empty() && excluded == format!("({})", entry.scope)
        });
        let text = entry.text.to_lowercase();
        by_kind
            || self
                .words
                .iter()
                .any(|word| has_word(&text, &word.to_lowercase()))
    }
}

/// Whether a text has a word that is not a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    if word.is_empty() {
        return false;
    }
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(word).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        is_edge(before) && is_edge(after)
    })
}

/// Kinds as the team reads them, in order, with the title that users see; none: not for users.
const KINDS: &[(&str, &str, Option<&str>)] = &[
    ("feat", "Features", Some("New")),
    ("perf", "Performance", Some("Improved")),
    ("improve", "Improvements", Some("Improved")),
    ("fix", "Fixes", Some("Fixed")),
    ("security", "Security", Some("Fixed")),
    ("revert", "Reverts", None),
    ("refactor", "Refactoring", None),
    ("docs", "Documentation", None),
    ("test", "Tests", None),
    ("build", "Build", None),
    ("ci", "Continuous integration", None),
    ("chore", "Chores", None),
];

/// What the team reads where the kind is not one of [`KINDS`].
const OTHER: &str = "Other";

fn sections(entries: &[Entry]) -> Vec<Section> {
    let sections = ["New", "Improved", "Fixed"].map(|title| {
        let kinds: Vec<&str> = KINDS
            .iter()
            .filter(|(_, _, users)| *users == Some(title))
            .map(|(kind, _, _)| *kind)
            .collect();
        Section {
            title: title.to_owned(),
            items: entries
                .iter()
                .filter(|entry| kinds.contains(&entry.kind.as_str()))
                .map(|entry| sentence(&entry.text))
                .collect(),
        }
    });
    sections
        .into_iter()
        .filter(|section| !section.items.is_empty())
        .collect()
}

/// The text with a capital at its beginning.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

fn markdown(version: &str, date: &str, entries: &[Entry]) -> String {
    let mut out = format!("# {version} ({date})\n");
    let mut group = |title: &str, of_group: &dyn Fn(&Entry) -> bool| {
        let lines: Vec<String> = entries
            .iter()
            .filter(|entry| of_group(entry))
            .map(line)
            .collect();
        if !lines.is_empty() {
            out.push_str(&format!("\n## {title}\n\n{}", lines.concat()));
        }
    };
    group("Breaking changes", &|entry| entry.breaking);
    for (kind, title, _) in KINDS {
        group(title, &|entry| !entry.breaking && entry.kind == *kind);
    }
    let known = |entry: &Entry| KINDS.iter().any(|(kind, _, _)| *kind == entry.kind);
    group(OTHER, &|entry| !entry.breaking && !known(entry));
    out
}

fn line(entry: &Entry) -> String {
    let scope = if entry.scope.is_empty() {
        String::new()
    } else {
        format!("**{}**: ", entry.scope)
    };
    format!("- {scope}{} ({})\n", sentence(&entry.text), entry.hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commit(message: &str) -> Commit {
        Commit {
            hash: "0123456789abcdef".to_owned(),
            message: message.to_owned(),
        }
    }

    fn history(messages: &[&str], exclusions: &Exclusions) -> History {
        let commits: Vec<_> = messages.iter().map(|message| commit(message)).collect();
        from_history("1.2.0", "2026-01-31", &commits, exclusions)
    }

    #[test]
    fn users_read_what_they_notice_and_the_team_reads_everything() {
        let history = history(
            &[
                "feat(login): remember me",
                "fix: crash on empty name",
                "perf(db)!: faster search\n\nBREAKING CHANGE: needs a rebuild",
                "chore: bump",
                "Tidy up",
                "Merge branch 'x'",
                "",
            ],
            &Exclusions::default(),
        );
        let users: Vec<_> = history
            .changelog
            .sections
            .iter()
            .map(|section| (section.title.as_str(), section.items.join("; ")))
            .collect();
        assert_eq!(
            users,
            [
                ("New", "Remember me".to_owned()),
                ("Improved", "Faster search".to_owned()),
                ("Fixed", "Crash on empty name".to_owned()),
            ]
        );
        let expect = "# 1.2.0 (2026-01-31)\n\
            \n## Breaking changes\n\n- **db**: Faster search (0123456789)\n\
            \n## Features\n\n- **login**: Remember me (0123456789)\n\
            \n## Fixes\n\n- Crash on empty name (0123456789)\n\
            \n## Chores\n\n- Bump (0123456789)\n\
            \n## Other\n\n- Tidy up (0123456789)\n";
        assert_eq!(history.markdown, expect);
    }

    #[track_caller]
    fn check_excluded(kinds: &[&str], words: &[&str], message: &str, excluded: bool) {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let exclusions = Exclusions {
            kinds: strings(kinds),
            words: strings(words),
        };
        let kept = history(&[message], &exclusions).markdown.contains("- ");
        assert_eq!(!kept, excluded, "{message}");
    }

    #[test]
    fn the_exclusion_list_names_kinds_scopes_and_words() {
        check_excluded(&["chore"], &[], "chore: bump", true);
        check_excluded(&["chore"], &[], "Chore(x): bump", true);
        check_excluded(&["chore"], &[], "feat: chore list", false);
        check_excluded(&["feat(admin)"], &[], "feat(admin): page", true);
        check_excluded(&["feat(admin)"], &[], "feat(user): page", false);
        check_excluded(&["(deps)"], &[], "fix(deps): bump", true);
        check_excluded(&[], &["wip"], "feat: WIP login", true);
        check_excluded(&[], &["wip"], "feat: wipe disks", false);
        check_excluded(&[], &["[internal]"], "feat: x [internal]", true);
        check_excluded(&[""], &[""], "Tidy up", false);
    }

    #[test]
    fn only_the_conventional_form_is_taken_apart() {
        for plain in [
            "Fix: ",
            "a b: c",
            "feat(x: y",
            "http://x: y",
            ": x",
            "no colon",
        ] {
            assert_eq!(
                Entry::read(&commit(plain)).map(|entry| entry.kind),
                Some(String::new())
            );
        }
    }

    #[test]
    fn what_is_made_here_is_read_by_the_other_half() {
        let made = history(&["feat: search", "fix: login"], &Exclusions::default()).changelog;
        let json = serde_json::to_vec(&made).unwrap();
        assert_eq!(Changelog::read(&json).unwrap(), made);
    }

    proptest! {
        #[test]
        fn no_message_is_a_panic(messages in prop::collection::vec(any::<String>(), 0..10)) {
            let messages: Vec<_> = messages.iter().map(String::as_str).collect();
            let made = history(&messages, &Exclusions::default());
            prop_assert!(made.markdown.starts_with("# 1.2.0"));
        }
    }
}
