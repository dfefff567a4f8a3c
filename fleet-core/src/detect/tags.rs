//! Which tag comes next: versions in tags, and how far a policy lets them move.
//!
//! A tag is compared only with tags of its own form: the same leading `v`, as many numbers, and the same words after
//! them. `1.2-alpine` never becomes `1.3-bookworm`, `16` never becomes `16.4`, and a date never beats a version.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};

use crate::model::labels::TagPolicy;

/// Longest tag, as the grammar has it.
const TAG_CHARS_MAX: usize = 128;
/// Most numbers in a tag.
const NUMBERS_MAX: usize = 4;
/// Memory that a user's expression may take when compiled.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Words that make what follows the numbers a pre-release of that version.
const PRE_RELEASE_WORDS: [&str; 7] = ["alpha", "beta", "rc", "pre", "preview", "dev", "snapshot"];

/// Which tags of a repository are candidates.
#[derive(Debug, Clone)]
pub struct TagRules {
    policy: TagPolicy,
    include: Option<Regex>,
    exclude: Option<Regex>,
}

/// A setting that is not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a regular expression in {setting}, found {found:?}")]
pub struct TagRulesError {
    /// The label, without its prefix.
    pub setting: &'static str,
    /// The text as given.
    pub found: String,
}

impl TagRules {
    /// Rules from the labels of an instance.
    ///
    /// # Errors
    /// `include` or `exclude` is not a regular expression, or one that is too large.
    pub fn new(
        policy: TagPolicy,
        include: Option<&str>,
        exclude: Option<&str>,
    ) -> Result<Self, TagRulesError> {
        let compile = |setting, text: Option<&str>| {
            text.map(|text| {
                let regex = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
                regex.map_err(|_| TagRulesError {
                    setting,
                    found: text.to_owned(),
                })
            })
            .transpose()
        };
        Ok(Self {
            policy,
            include: compile("tag.include", include)?,
            exclude: compile("tag.exclude", exclude)?,
        })
    }

    /// Whether the tags of the repository have to be known at all: not where the policy keeps the tag, or where the tag
    /// is not a version.
    #[must_use]
    pub fn need_tags(&self, current: &str) -> bool {
        self.policy != TagPolicy::Digest && Version::read(current).is_some()
    }

    /// The tag to follow: the newest of `tags` that the rules allow, else the current one. Never an older version.
    #[must_use]
    pub fn choose<'a>(&self, current: &'a str, tags: &'a [String]) -> &'a str {
        if self.policy == TagPolicy::Digest {
            return current;
        }
        let Some(from) = Version::read(current) else {
            return current;
        };
        let mut best = (from.clone(), current);
        for tag in tags {
            let Some(version) = Version::read(tag) else {
                continue;
            };
            if from.is_of_one_form_with(&version)
                && self.may_move(&from, &version)
                && version.order(&best.0) == Ordering::Greater
                && self.allows(tag)
            {
                best = (version, tag);
            }
        }
        best.1
    }

    fn allows(&self, tag: &str) -> bool {
        self.include
            .as_ref()
            .is_none_or(|include| include.is_match(tag))
            && !self
                .exclude
                .as_ref()
                .is_some_and(|exclude| exclude.is_match(tag))
    }

    fn may_move(&self, from: &Version, to: &Version) -> bool {
        let fixed = match self.policy {
            TagPolicy::Digest => return false,
            TagPolicy::Patch => 2,
            TagPolicy::Minor => 1,
            TagPolicy::Major => 0,
        };
        let kept = fixed.min(from.numbers.len());
        from.numbers[..kept] == to.numbers[..kept]
    }
}

/// Whether `to` is an older version than `from`, by tags of one form. False where they cannot be compared.
#[must_use]
pub fn is_older(from: &str, to: &str) -> bool {
    match (Version::read(from), Version::read(to)) {
        (Some(from), Some(to)) => {
            from.is_of_one_form_with(&to) && to.order(&from) == Ordering::Less
        }
        _ => false,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    leading_v: bool,
    numbers: Vec<u64>,
    suffix: Suffix,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Suffix {
    None,
    /// A pre-release: the version without suffix comes after it.
    Pre {
        word: String,
        number: u64,
    },
    /// A variant of the image, such as `-alpine3.20`: another form altogether.
    Variant(String),
}

impl Version {
    fn read(tag: &str) -> Option<Self> {
        if tag.len() > TAG_CHARS_MAX || !tag.is_ascii() {
            return None;
        }
        let (leading_v, rest) = match tag.strip_prefix('v') {
            Some(rest) => (true, rest),
            None => (false, tag),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (numbers, suffix) = rest.split_at(end);
        let numbers: Option<Vec<u64>> = numbers.split('.').map(|part| part.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() <= NUMBERS_MAX)?;
        let suffix = match suffix {
            "" => Suffix::None,
            text => Suffix::read(text.strip_prefix(['-', '_'])?),
        };
        Some(Self {
            leading_v,
            numbers,
            suffix,
        })
    }

    fn is_of_one_form_with(&self, other: &Self) -> bool {
        let suffixes_compare = match (&self.suffix, &other.suffix) {
            (Suffix::None, Suffix::None) | (Suffix::Pre { .. }, Suffix::None) => true,
            // A stable version never moves to a pre-release.
            (Suffix::Pre { word, .. }, Suffix::Pre { word: other, .. }) => word == other,
            (Suffix::Variant(one), Suffix::Variant(other)) => one == other,
            _ => false,
        };
        self.leading_v == other.leading_v
            && self.numbers.len() == other.numbers.len()
            && suffixes_compare
    }

    /// The order of two versions of one form.
    fn order(&self, other: &Self) -> Ordering {
        let by_suffix = match (&self.suffix, &other.suffix) {
            (Suffix::Pre { number: one, .. }, Suffix::Pre { number: other, .. }) => one.cmp(other),
            (Suffix::Pre { .. }, Suffix::None) => Ordering::Less,
            (Suffix::None, Suffix::Pre { .. }) => Ordering::Greater,
            _ => Ordering::Equal,
        };
        self.numbers.cmp(&other.numbers).then(by_suffix)
    }
}

impl Suffix {
    fn read(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let word_end = lower
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(lower.len());
        let (word, number) = lower.split_at(word_end);
        let number = number.trim_start_matches(['.', '-']);
        let number = if number.is_empty() {
            Some(0)
        } else {
            number.parse().ok()
        };
        match number {
            Some(number) if PRE_RELEASE_WORDS.contains(&word) => Self::Pre {
                word: word.to_owned(),
                number,
            },
            _ => Self::Variant(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(policy: TagPolicy, current: &str, tags: &[&str], expect: &str) {
        let rules = TagRules::new(policy, None, None).unwrap();
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        assert_eq!(rules.choose(current, &tags), expect);
    }

    #[test]
    fn a_policy_says_how_far_a_tag_may_move() {
        let tags = [
            "1.2.2", "1.2.4", "1.2.10", "1.3.0", "1.4.1", "2.0.0", "latest", "20240101",
        ];
        check(TagPolicy::Digest, "1.2.3", &tags, "1.2.3");
        check(TagPolicy::Patch, "1.2.3", &tags, "1.2.10");
        check(TagPolicy::Minor, "1.2.3", &tags, "1.4.1");
        check(TagPolicy::Major, "1.2.3", &tags, "2.0.0");
        check(TagPolicy::Major, "3.0.0", &tags, "3.0.0");
        check(TagPolicy::Major, "latest", &tags, "latest");
    }

    #[test]
    fn tags_of_another_form_are_never_candidates() {
        check(
            TagPolicy::Major,
            "1.2",
            &["1.3.0", "2", "v1.4", "1.3-alpine"],
            "1.2",
        );
        check(
            TagPolicy::Major,
            "1.2-alpine",
            &["1.3", "1.3-alpine", "1.4-slim"],
            "1.3-alpine",
        );
        check(TagPolicy::Major, "v1.0.0", &["1.1.0", "v1.0.1"], "v1.0.1");
        check(TagPolicy::Major, "16", &["17", "16.4", "20240101.1"], "17");
        check(TagPolicy::Minor, "16", &["17"], "16");
        check(
            TagPolicy::Patch,
            "1.2.3.4",
            &["1.2.3.5", "1.2.4.0", "1.3.0.0"],
            "1.2.4.0",
        );
        check(
            TagPolicy::Major,
            "1.0",
            &["99999999999999999999.0", "1.0.0.0.0", "1..2"],
            "1.0",
        );
    }

    #[test]
    fn a_stable_version_never_moves_to_a_pre_release_but_a_pre_release_moves_on() {
        check(
            TagPolicy::Major,
            "1.2.3",
            &["1.3.0-rc1", "2.0.0-beta.1"],
            "1.2.3",
        );
        check(
            TagPolicy::Major,
            "1.3.0-rc1",
            &["1.3.0-rc10", "1.3.0-rc2"],
            "1.3.0-rc10",
        );
        check(
            TagPolicy::Major,
            "1.3.0-rc1",
            &["1.3.0-rc2", "1.3.0"],
            "1.3.0",
        );
        check(
            TagPolicy::Major,
            "1.3.0-beta1",
            &["1.3.0-alpha9"],
            "1.3.0-beta1",
        );
        check(TagPolicy::Major, "1.3.0-rc1", &["1.2.9"], "1.3.0-rc1");
    }

    #[test]
    fn include_and_exclude_narrow_the_choice() {
        let tags: Vec<String> = ["1.1.0", "1.2.0", "1.3.0"].map(str::to_owned).into();
        let choose = |include, exclude| {
            let rules = TagRules::new(TagPolicy::Major, include, exclude).unwrap();
            rules.choose("1.0.0", &tags).to_owned()
        };
        assert_eq!(choose(None, None), "1.3.0");
        assert_eq!(choose(Some(r"^1\.[12]\."), None), "1.2.0");
        assert_eq!(choose(None, Some("3")), "1.2.0");
        assert_eq!(choose(Some("never"), None), "1.0.0");
        let error = TagRules::new(TagPolicy::Major, Some("("), None).unwrap_err();
        assert_eq!(error.setting, "tag.include");
        assert!(TagRules::new(TagPolicy::Major, None, Some(r"\w{9999}{9999}")).is_err());
    }

    #[test]
    fn older_is_said_only_of_what_can_be_compared() {
        for (from, to, older) in [
            ("1.2.0", "1.1.9", true),
            ("1.2.0", "1.2.0", false),
            ("1.2.0", "1.3.0", false),
            ("1.2.0", "1.1", false),
            ("latest", "1.1", false),
            ("1.3.0-rc2", "1.3.0-rc1", true),
        ] {
            assert_eq!(is_older(from, to), older, "{from} -> {to}");
        }
    }

    fn any_tag() -> impl Strategy<Value = String> {
        prop_oneof![
            "[v]?[0-9]{1,3}(\\.[0-9]{1,3}){0,4}(-(rc|beta|alpine|slim)[0-9]{0,2})?",
            "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn the_choice_is_never_older_and_does_not_depend_on_the_order_of_tags(
            current in any_tag(),
            mut tags in prop::collection::vec(any_tag(), 0..30),
        ) {
            let rules = TagRules::new(TagPolicy::Major, None, None).unwrap();
            let chosen = rules.choose(&current, &tags).to_owned();
            prop_assert!(!is_older(&current, &chosen));
            prop_assert!(chosen == current || tags.contains(&chosen));
            tags.reverse();
            let again = rules.choose(&current, &tags);
            let same = again == chosen
                || Version::read(again).unwrap().order(&Version::read(&chosen).unwrap()).is_eq();
            prop_assert!(same, "{} and {}", again, chosen);
        }
    }
}
