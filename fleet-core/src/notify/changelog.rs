//! What is new, for people: reads the changelog that an image brings, and makes one from a git history.
//!
//! Whatever comes out of an image is hostile text: it is cut in size and number, and control characters, line breaks
//! and characters that turn the direction of writing are taken out. What remains is plain text; whoever shows it still
//! escapes it for where it goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Largest changelog file that is read.
pub const CHANGELOG_BYTES_MAX: usize = 256 * 1024;
/// Most sections.
const SECTIONS_MAX: usize = 20;
/// Most items in a section.
const ITEMS_MAX: usize = 100;
/// Longest item, in characters.
const ITEM_CHARS_MAX: usize = 500;
/// Longest version, date or title, in characters.
const SHORT_CHARS_MAX: usize = 100;

/// A changelog: one version's news.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changelog {
    /// Version, as its publisher writes it; may be empty.
    #[serde(default)]
    pub version: String,
    /// Date, as its publisher writes it; may be empty.
    #[serde(default)]
    pub date: String,
    /// The news.
    #[serde(default)]
    pub sections: Vec<Section>,
}

/// News of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// `New`, `Improved` or `Fixed` by convention.
    pub title: String,
    /// The news, one a line.
    pub items: Vec<String>,
}

/// A changelog that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangelogError {
    /// It is too large.
    #[error("expected a changelog of at most {CHANGELOG_BYTES_MAX} bytes, found {found}")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// It is not a changelog.
    #[error("expected a changelog as JSON with version, date and sections")]
    Form(#[source] serde_json::Error),
    /// Nothing is left once it is cleaned.
    #[error("expected at least one item in a changelog, found none")]
    Empty,
}

impl Changelog {
    /// Reads the JSON of an image and cleans it.
    ///
    /// # Errors
    /// It is too large, not of the form, or says nothing.
    pub fn read(bytes: &[u8]) -> Result<Self, ChangelogError> {
        if bytes.len() > CHANGELOG_BYTES_MAX {
            return Err(ChangelogError::TooLarge { found: bytes.len() });
        }
        let raw: Self = serde_json::from_slice(bytes).map_err(ChangelogError::Form)?;
        let cleaned = raw.cleaned();
        if cleaned.sections.is_empty() {
            return Err(ChangelogError::Empty);
        }
        Ok(cleaned)
    }

    /// What the annotations of a release tell: its version, its date and where its notes are. None if they tell nothing.
    #[must_use]
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str, most| {
            let value = annotations.get(&format!("org.opencontainers.image.{name}"))?;
            Some(clean(value, most)).filter(|text| !text.is_empty())
        };
        let version = text("version", SHORT_CHARS_MAX);
        let description = text("description", ITEM_CHARS_MAX);
        if version.is_none() && description.is_none() {
            return None;
        }
        // The date is a build date, which anybody may set; it is shown and never compared.
        let date = text("created", SHORT_CHARS_MAX).unwrap_or_default();
        let section = description.map(|description| Section {
            title: "About".to_owned(),
            items: vec![description],
        });
        Some(Self {
            version: version.unwrap_or_default(),
            date,
            sections: section.into_iter().collect(),
        })
    }

    fn cleaned(self) -> Self {
        let sections = self
            .sections
            .into_iter()
            .take(SECTIONS_MAX)
            .map(|section| Section {
                title: clean(&section.title, SHORT_CHARS_MAX),
                items: section
                    .items
                    .iter()
                    .take(ITEMS_MAX)
                    .map(|item| clean(item, ITEM_CHARS_MAX))
                    .filter(|item| !item.is_empty())
                    .collect(),
            });
        Self {
            version: clean(&self.version, SHORT_CHARS_MAX),
            date: clean(&self.date, SHORT_CHARS_MAX),
            sections: sections
                .filter(|section| !section.items.is_empty())
                .collect(),
        }
    }
}

/// One line of plain text, at most `most` characters; what was cut is marked.
fn clean(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut chars = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !out.is_empty();
            continue;
        }
        if is_invisible(c) {
            continue;
        }
        let needs = 1 + usize::from(gap);
        if chars + needs > most.saturating_sub(1) {
            out.push('…');
            return out;
        }
        if gap {
            out.push(' ');
        }
        out.push(c);
        chars += needs;
        gap = false;
    }
    out
}

/// Characters that show nothing, or change how their neighbours are shown.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_changelog_of_the_documented_form_is_read() {
        let json = br#"{"version":"1.2.0","date":"2026-01-31","sections":[
            {"title":"New","items":["Search"]},{"title":"Fixed","items":["Login","  "]},
            {"title":"Improved","items":[]}]}"#;
        let changelog = Changelog::read(json).unwrap();
        assert_eq!(changelog.version, "1.2.0");
        let titles: Vec<_> = changelog
            .sections
            .iter()
            .map(|s| s.title.as_str())
            .collect();
        assert_eq!(titles, ["New", "Fixed"]);
        assert_eq!(changelog.sections[1].items, ["Login"]);
        let again = serde_json::to_vec(&changelog).unwrap();
        assert_eq!(Changelog::read(&again).unwrap(), changelog);
    }

    #[test]
    fn what_is_no_changelog_is_refused() {
        for bad in [
            "",
            "[]",
            "null",
            "{}",
            "{\"sections\":[{\"title\":\"x\",\"items\":[\"\"]}]}",
        ] {
            assert!(Changelog::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(
            Changelog::read(deep.as_bytes()),
            Err(ChangelogError::Form(_))
        ));
        let large = " ".repeat(CHANGELOG_BYTES_MAX + 1);
        let error = Changelog::read(large.as_bytes()).unwrap_err();
        assert!(matches!(error, ChangelogError::TooLarge { .. }));
    }

    #[track_caller]
    fn check_clean(text: &str, expect: &str) {
        assert_eq!(clean(text, 10), expect);
    }

    #[test]
    fn hostile_text_becomes_one_plain_line() {
        check_clean("  plain  ", "plain");
        check_clean("a\r\nBcc: x", "a Bcc: x");
        check_clean("\u{1b}[31mred", "[31mred");
        check_clean("a\u{0}b\u{7}", "a b");
        check_clean("\u{202e}evil\u{2066}", "evil");
        check_clean("z\u{200b}\u{feff}w", "zw");
        check_clean("0123456789", "012345678…");
        check_clean("ÄÖÜäöüßé", "ÄÖÜäöüßé");
    }

    #[test]
    fn annotations_tell_a_version_and_nothing_that_is_compared() {
        let annotations = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (
                    format!("org.opencontainers.image.{name}"),
                    (*value).to_owned(),
                )
            });
            Changelog::from_annotations(&pairs.collect())
        };
        assert_eq!(annotations(&[("created", "2026-01-31")]), None);
        let found = annotations(&[
            ("version", "1.2\n"),
            ("created", "2026"),
            ("description", "A tool"),
        ]);
        let found = found.unwrap();
        assert_eq!(
            (found.version.as_str(), found.date.as_str()),
            ("1.2", "2026")
        );
        assert_eq!(found.sections[0].items, ["A tool"]);
    }

    proptest! {
        #[test]
        fn clean_text_is_short_one_line_and_clean_already(text in any::<String>(), most in 1usize..50) {
            let once = clean(&text, most);
            prop_assert!(once.chars().count() <= most);
            prop_assert!(!once.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert_eq!(clean(&once, most + 1), once);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Changelog::read(&bytes);
        }
    }
}
