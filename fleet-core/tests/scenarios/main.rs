//! Stories: scripts of commands against a pretended fleet, with the output they must give.
//!
//! A story is `stories/NAME.txt`; its output is `stories/NAME.out`. `UPDATE_GOLDEN=1 cargo test -p fleet-core --test
//! scenarios` writes the outputs anew: read the difference before you commit it. Time is that of a clock that only
//! stories move, chance comes from a fixed seed. Commands are described in `script.rs`.

mod script;
mod world;

use std::path::{Path, PathBuf};

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/stories");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    found.sort();
    found
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "outputs are written anew on request"
)]
fn every_story_is_told_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let stories = stories();
    assert!(
        stories.len() >= 8,
        "expected the stories of rollouts, found {stories:?}"
    );
    let mut wrong = Vec::new();
    for story in stories {
        let script = std::fs::read_to_string(&story).unwrap();
        let told = script::tell(&script);
        let golden = story.with_extension("out");
        if update {
            std::fs::write(&golden, &told).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            wrong.push(difference(&story, &expected, &told));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nif this is right: UPDATE_GOLDEN=1",
        wrong.join("\n")
    );
}

#[test]
fn a_story_is_told_the_same_way_twice() {
    for story in stories().into_iter().take(3) {
        let script = std::fs::read_to_string(&story).unwrap();
        assert_eq!(
            script::tell(&script),
            script::tell(&script),
            "{}",
            story.display()
        );
    }
}

#[test]
fn a_command_that_nobody_knows_is_an_error() {
    let told = std::panic::catch_unwind(|| script::tell("dance all night"));
    assert!(told.is_err());
}

/// The first line that differs, with its neighbours.
fn difference(story: &Path, expected: &str, told: &str) -> String {
    let at = expected.lines().zip(told.lines()).position(|(a, b)| a != b);
    let at = at.unwrap_or_else(|| expected.lines().count().min(told.lines().count()));
    let around = |text: &str| {
        text.lines()
            .skip(at.saturating_sub(2))
            .take(5)
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    format!(
        "{}, line {}\n  expected:\n{}  found:\n{}",
        story.display(),
        at + 1,
        around(expected),
        around(told)
    )
}
