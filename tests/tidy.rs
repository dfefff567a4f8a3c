//! House rules that the compiler does not check: the direction of the stages, adapters that do not know each other,
//! banned crates, the length of files, words that have no place in finished code, documents that nobody links.

use std::fs;
use std::path::{Path, PathBuf};

/// Crates that must never be in the tree, each with the reason in `deny.toml`.
const BANNED: &[&str] = &[
    "async-tar",
    "aws-lc-rs",
    "aws-lc-sys",
    "native-tls",
    "openssl-sys",
    "serde_yaml",
    "serde_yml",
    "sqlx",
    "tokio-tar",
    "yamlpatch",
];

/// Stages in the order in which data flows. A stage may use itself and earlier ones.
const STAGES: &[&str] = &["detect", "plan", "update", "record", "notify"];

/// What every stage may name of a later one: events are facts that the journal writes in the transaction of the step
/// that caused them, so their vocabulary is shared.
const SHARED: &[&str] = &["record::Event", "record::EventKind", "record::NewEvent"];

/// Longest file of Rust, tests included.
const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder with one of these extensions, build output and hidden folders left out.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&path, extensions));
            }
        } else if extensions
            .iter()
            .any(|wanted| path.extension().is_some_and(|e| e == *wanted))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn short(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[track_caller]
fn assert_none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

/// Names after `crate::` that a line of code mentions, comments left out, with one more segment where there is one.
fn crate_paths(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let path: String = rest.chars().take_while(|&c| is_path(c)).collect();
        let after = &rest[path.len()..];
        match after
            .strip_prefix('{')
            .and_then(|list| list.split_once('}'))
        {
            Some((list, _)) => {
                let items = list
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                paths.extend(items.map(|item| format!("{path}{item}")));
            }
            None => paths.push(path),
        }
    }
    paths
}

fn stage_violations(stage: &str, text: &str) -> Vec<String> {
    let position = STAGES
        .iter()
        .position(|name| *name == stage)
        .expect("a stage");
    let later = &STAGES[position + 1..];
    text.split(';')
        .map(|statement| statement.replace(['\n', ' '], ""))
        .flat_map(|statement| crate_paths(&statement))
        .filter(|path| {
            later
                .iter()
                .any(|name| path.split("::").next() == Some(name))
        })
        .filter(|path| !SHARED.contains(&path.as_str()))
        .collect()
}

#[test]
fn no_stage_imports_a_later_one() {
    let mut findings = Vec::new();
    for stage in STAGES {
        for path in files(&root().join("fleet-core/src").join(stage), &["rs"]) {
            let code: String = read(&path)
                .lines()
                .map(|line| line.split("//").next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join("\n");
            let bad = stage_violations(stage, &code);
            findings.extend(bad.iter().map(|bad| format!("{}: {bad}", short(&path))));
        }
    }
    assert_none(
        "stages flow detect, plan, update, record, notify",
        &findings,
    );
}

#[test]
fn the_check_of_stages_sees_what_it_must() {
    let check = |stage, text, expect: &[&str]| assert_eq!(stage_violations(stage, text), expect);
    check(
        "plan",
        "use crate::update::UpdatePlan;",
        &["update::UpdatePlan"],
    );
    check(
        "plan",
        "use crate::{model::X,\n    notify::Message};",
        &["notify::Message"],
    );
    check(
        "plan",
        "use crate::detect::Detection; use crate::plan::Plan;",
        &[],
    );
    check("update", "use crate::record::{EventKind, NewEvent};", &[]);
    check(
        "update",
        "fn f() { crate::record::history(1) }",
        &["record::history"],
    );
    check("notify", "use crate::update::Outcome;", &[]);
}

#[test]
fn adapters_know_only_the_core() {
    let mut findings = Vec::new();
    for (adapter, allowed) in [
        ("fleet-docker", &["fleet-core"][..]),
        ("fleet-sqlite", &["fleet-core"]),
        ("fleet-core", &[]),
    ] {
        let manifest = read(&root().join(adapter).join("Cargo.toml"));
        let dependencies = manifest
            .split("\n[")
            .filter(|section| section.starts_with("dependencies]"))
            .flat_map(str::lines);
        for line in dependencies.filter(|line| line.starts_with("fleet-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&name) {
                findings.push(format!("{adapter} depends on {name}"));
            }
        }
    }
    assert_none("adapters meet only in fleet-bin", &findings);
}

#[test]
fn no_banned_crate_is_locked() {
    let lock = read(&root().join("Cargo.lock"));
    let banned = |line: &&str| {
        BANNED
            .iter()
            .any(|name| *line == format!("name = \"{name}\""))
    };
    let findings: Vec<_> = lock.lines().filter(banned).map(str::to_owned).collect();
    assert_none("crates that deny.toml bans", &findings);
    let deny = read(&root().join("deny.toml"));
    for name in BANNED {
        assert!(
            deny.contains(&format!("crate = \"{name}\"")),
            "deny.toml does not ban {name}"
        );
    }
}

#[test]
fn files_are_short_enough_to_read() {
    let findings: Vec<_> = files(root(), &["rs"])
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", short(&path)))
        .collect();
    assert_none(
        &format!("a file of more than {MAX_LINES} lines wants a seam"),
        &findings,
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Written in halves, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[ign", "ore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut findings = Vec::new();
    for path in files(root(), &["rs", "toml", "md", "sh"]) {
        for (number, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                findings.push(format!("{}:{}: {}", short(&path), number + 1, line.trim()));
            }
        }
    }
    assert_none(
        "what is begun is finished, and no test is skipped",
        &findings,
    );
}

#[test]
fn tests_never_sleep() {
    let calls = [
        concat!("thread::sl", "eep("),
        concat!("time::sl", "eep("),
        concat!("sleep_", "ms("),
    ];
    let mut findings = Vec::new();
    for path in files(root(), &["rs"]) {
        let text = read(&path);
        let whole = short(&path).split('/').any(|part| part == "tests");
        let start = if whole {
            Some(0)
        } else {
            text.find("#[cfg(test)]")
        };
        let Some(start) = start else { continue };
        for line in text[start..].lines() {
            if calls.iter().any(|call| line.contains(call)) && !is_polling(line) {
                findings.push(format!("{}: {}", short(&path), line.trim()));
            }
        }
    }
    assert_none("wait for a condition with a bound", &findings);
}

/// A pause of at most 50 ms, on one line, is a step of a loop that waits for a condition.
fn is_polling(line: &str) -> bool {
    let millis = line
        .split_once("from_millis(")
        .and_then(|(_, rest)| rest.split_once(')'));
    millis.is_some_and(|(millis, _)| millis.parse::<u64>().is_ok_and(|millis| millis <= 50))
}

#[test]
fn every_document_is_linked() {
    let docs = root().join("docs");
    if !docs.is_dir() {
        return;
    }
    let mut pages = files(&docs, &["md"]);
    pages.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let texts: Vec<_> = pages
        .iter()
        .filter(|path| path.exists())
        .map(|path| (path, read(path)))
        .collect();
    let orphans: Vec<_> = files(&docs, &["md", "dot", "svg"])
        .iter()
        .filter(|page| {
            let name = page.file_name().unwrap_or_default().to_string_lossy();
            !texts
                .iter()
                .any(|(path, text)| path != page && text.contains(&*name))
        })
        .map(|page| short(page))
        .collect();
    assert_none("no page links to these", &orphans);
}
