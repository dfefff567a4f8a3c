//! The language of stories.
//!
//! One command a line; `# …` is part of the story and copied. Arguments are `key=value`; a value with spaces stands in
//! double quotes.
//!
//! | command | does |
//! |---|---|
//! | `now INSTANT` | sets the clock |
//! | `tenants N` | N tenants `t01`… with one automatic instance each, `app-01`… |
//! | `instance NAME [tenant=T] [mode=M] [window=W] [takes=D] [estimate=D] [cohort=C] [unhealthy=yes] [own=yes]` | one more |
//! | `tenant T mode=M [hour=H] [window=W]` | a tenant's config |
//! | `setting KEY=VALUE` | a setting of the fleet |
//! | `release IMAGE [bad=all\|NAME,…] [stuck=NAME,…]` | what an image does to whoever gets it |
//! | `plan IMAGE [options of start]` | shows a plan |
//! | `start IMAGE [by=P] [percent=P\|count=K] [strategy=S] [pause=D] [concurrent=N] [abort-on=N] [tenants=T,…] [override=yes] [approval=yes]` | starts a rollout |
//! | `detect IMAGE` | fleet found a release |
//! | `ask NAME IMAGE by=P` | a person asks for one instance |
//! | `approve`, `deny`, `pause`, `resume`, `promote`, `abort [rollback=yes]`, `retry`, `exclude NAME`, each `[by=P] [why=W] [rollout=rN]` | steer the last rollout |
//! | `fleet pause\|resume by=P [why=W]` | the global hold |
//! | `registry down\|up` | |
//! | `disk full\|free` | where snapshots are kept |
//! | `run D` | the daemon works for so long |
//! | `kill` | the daemon dies; a new one recovers what it left |
//! | `wait` | what `--wait` does |
//! | `show` | the last rollout |

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::world::World;

/// One command.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Words without `=`, the command first.
    pub(crate) words: Vec<&'a str>,
    /// `key=value`.
    pub(crate) options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Self {
        let mut line = Self {
            words: Vec::new(),
            options: BTreeMap::new(),
        };
        let mut rest = text.trim();
        while !rest.is_empty() {
            let mut quoted = false;
            let end = rest
                .find(|c: char| {
                    quoted ^= c == '"';
                    c == ' ' && !quoted
                })
                .unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            match word.split_once('=') {
                Some((key, value)) => drop(line.options.insert(key, value.trim_matches('"'))),
                None => line.words.push(word),
            }
            rest = tail.trim_start();
        }
        line
    }

    /// The n-th word; 0 is the command.
    pub(crate) fn word(&self, n: usize) -> &'a str {
        self.words
            .get(n)
            .copied()
            .unwrap_or_else(|| panic!("expected more words than {:?}", self.words))
    }

    /// An option.
    pub(crate) fn option(&self, key: &str) -> Option<&'a str> {
        self.options.get(key).copied()
    }

    /// The items of a list option.
    pub(crate) fn list(&self, key: &str) -> Vec<&'a str> {
        self.option(key)
            .map(|text| text.split(',').collect())
            .unwrap_or_default()
    }

    /// Whether an option says yes.
    pub(crate) fn is(&self, key: &str) -> bool {
        self.option(key) == Some("yes")
    }
}

/// Plays a script and returns what is to be read.
pub(crate) fn tell(script: &str) -> String {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(told(script))
}

async fn told(script: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    for text in script.lines() {
        if text.trim().is_empty() || text.starts_with('#') {
            writeln!(out, "{text}").unwrap();
            continue;
        }
        writeln!(out, "> {text}").unwrap();
        for line in world.play(&Line::parse(text)).await.lines() {
            writeln!(out, "  {line}").unwrap();
        }
        for line in world.happenings() {
            writeln!(out, "  {line}").unwrap();
        }
    }
    world.check().await;
    out
}
