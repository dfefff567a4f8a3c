//! The allowlist of images: which repositories fleet may start at all.
//!
//! References are compared by their parsed parts, never by their text: the registry exactly, port included, and the
//! repository segment by segment. Where a policy exists, whatever it does not name is denied.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::image::ImageRef;

const DOCKER_HUB: &str = "docker.io";

/// The repositories that may be started. One without rules allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImagePolicy {
    rules: Vec<ImageRule>,
}

/// One allowed repository, or all below a path.
///
/// `ghcr.io/org/app` is that repository alone, `ghcr.io/org/*` those directly below `org`, `ghcr.io/org/**` everything
/// below it, `ghcr.io/**` the whole registry. Without a registry Docker Hub is meant: `nginx` is
/// `docker.io/library/nginx`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRule {
    registry: String,
    segments: Vec<String>,
    below: Below,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    /// The path itself.
    Nothing,
    /// One segment more.
    One,
    /// One or more segments more.
    Any,
}

/// A text that is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a repository such as ghcr.io/org/app, ghcr.io/org/* or ghcr.io/org/**, without tag or digest, found {found:?}"
)]
pub struct ImageRuleError {
    /// The text as given.
    pub found: String,
}

/// An image that the policy does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image policy does not allow {image}; no rule names its repository")]
pub struct NotAllowed {
    /// The reference, or the text that is none.
    pub image: String,
}

impl ImagePolicy {
    /// A policy of these rules.
    #[must_use]
    pub fn new(rules: Vec<ImageRule>) -> Self {
        Self { rules }
    }

    /// Whether an image's repository is allowed; its tag and digest do not matter.
    ///
    /// # Errors
    /// No rule names the repository.
    pub fn check(&self, image: &ImageRef) -> Result<(), NotAllowed> {
        if self.rules.iter().any(|rule| rule.allows(image)) {
            Ok(())
        } else {
            Err(NotAllowed {
                image: image.to_string(),
            })
        }
    }

    /// As [`ImagePolicy::check`], from text. What is not a reference is not allowed.
    ///
    /// # Errors
    /// The text is not a reference, or no rule names its repository.
    pub fn check_text(&self, text: &str) -> Result<(), NotAllowed> {
        match text.parse() {
            Ok(image) => self.check(&image),
            Err(_) => Err(NotAllowed {
                image: text.to_owned(),
            }),
        }
    }
}

impl ImageRule {
    /// Whether the rule names the repository of an image.
    #[must_use]
    pub fn allows(&self, image: &ImageRef) -> bool {
        if image.registry() != self.registry {
            return false;
        }
        let mut segments = image.repository().split('/');
        for own in &self.segments {
            if segments.next() != Some(own) {
                return false;
            }
        }
        match (self.below, segments.count()) {
            (Below::Nothing, more) => more == 0,
            (Below::One, more) => more == 1,
            (Below::Any, more) => more >= 1,
        }
    }
}

impl FromStr for ImageRule {
    type Err = ImageRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ImageRuleError {
            found: text.to_owned(),
        };
        let (path, below) = match text.strip_suffix("/**") {
            Some(path) => (path, Below::Any),
            None => match text.strip_suffix("/*") {
                Some(path) => (path, Below::One),
                None => (text, Below::Nothing),
            },
        };
        // The grammar of references reads the path, with a plain segment in place of the wildcard.
        let stand_in = match below {
            Below::Nothing => path.to_owned(),
            Below::One | Below::Any => format!("{path}/x"),
        };
        let image: ImageRef = stand_in.parse().map_err(|_| bad())?;
        let is_whole_hub = image.registry() == DOCKER_HUB && is_host(path);
        let mut segments: Vec<String> = image.repository().split('/').map(str::to_owned).collect();
        if below != Below::Nothing {
            segments.pop();
        }
        if is_whole_hub {
            // `library` came from the grammar, which took the stand-in for an official image.
            segments.clear();
        }
        // A bare host would be read as an image of Docker Hub, and nothing there lies directly below the root.
        let misleading =
            is_host(path) && (below == Below::Nothing || (is_whole_hub && below == Below::One));
        let shouting = image.registry().bytes().any(|b| b.is_ascii_uppercase());
        if misleading || shouting || has_tag_or_digest(path, below) {
            return Err(bad());
        }
        Ok(Self {
            registry: image.registry().to_owned(),
            segments,
            below,
        })
    }
}

/// Whether a whole path is a registry by the grammar's rule: a first segment with a dot or colon, or `localhost`.
fn is_host(path: &str) -> bool {
    !path.contains('/') && (path.contains(['.', ':']) || path == "localhost")
}

fn has_tag_or_digest(path: &str, below: Below) -> bool {
    let last = match path.rsplit_once('/') {
        Some((_, last)) => last,
        // What stands alone before a wildcard is a registry, whose colon begins a port.
        None if below != Below::Nothing => "",
        None => path,
    };
    last.contains([':', '@']) || path.contains('@')
}

impl fmt::Display for ImageRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        for segment in &self.segments {
            write!(f, "/{segment}")?;
        }
        f.write_str(match self.below {
            Below::Nothing => "",
            Below::One => "/*",
            Below::Any => "/**",
        })
    }
}

impl TryFrom<String> for ImageRule {
    type Error = ImageRuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageRule> for String {
    fn from(rule: ImageRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn rules(texts: &[&str]) -> ImagePolicy {
        ImagePolicy::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    /// The policy that the corpus was written for.
    fn policy() -> ImagePolicy {
        rules(&[
            "ghcr.io/org/app",
            "ghcr.io/org/team/*",
            "registry.io/**",
            "host:5000/deep/**",
            "localhost:5000/**",
            "nginx",
            "bitnami/*",
        ])
    }

    #[test]
    fn the_corpus_is_decided_line_by_line() {
        let corpus = include_str!("image_policy_corpus.txt");
        let policy = policy();
        let mut seen = BTreeSet::new();
        let mut wrong = Vec::new();
        for line in corpus
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (verdict, text) = line.split_once(' ').unwrap();
            assert!(seen.insert(text), "{text:?} is there twice");
            let allowed = match verdict {
                "allow" => true,
                "deny" => false,
                other => panic!("expected allow or deny, found {other:?}"),
            };
            if policy.check_text(text).is_ok() != allowed {
                wrong.push(line);
            }
        }
        assert!(wrong.is_empty(), "decided the other way: {wrong:#?}");
        assert!(
            seen.len() >= 200,
            "the corpus has {} references",
            seen.len()
        );
    }

    #[test]
    fn references_are_read_as_the_engines_own_parser_reads_them() {
        let lines = include_str!("reference_oracle.txt").lines();
        let mut compared = 0;
        for line in lines.filter(|line| !line.starts_with('#')) {
            let (registry, text) = line.split_once(' ').unwrap();
            let ours = text.parse::<ImageRef>();
            // Refusing more than the engine does is safe; reading something else is not.
            if let Ok(image) = ours {
                assert_eq!(image.registry(), registry, "{text:?}");
                compared += 1;
            }
        }
        assert!(compared >= 150, "only {compared} references were compared");
    }

    #[test]
    fn a_policy_without_rules_allows_nothing() {
        assert!(rules(&[]).check_text("nginx").is_err());
    }

    #[test]
    fn rules_read_back_as_they_print() {
        for (text, printed) in [
            ("nginx", "docker.io/library/nginx"),
            ("bitnami/*", "docker.io/bitnami/*"),
            ("docker.io/**", "docker.io/**"),
            ("index.docker.io/**", "docker.io/**"),
            ("library/*", "docker.io/library/*"),
            ("ghcr.io/**", "ghcr.io/**"),
            ("ghcr.io/*", "ghcr.io/*"),
            ("localhost:5000/**", "localhost:5000/**"),
            ("localhost/app", "localhost/app"),
        ] {
            let rule: ImageRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), printed);
            assert_eq!(printed.parse::<ImageRule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_would_mislead_is_no_rule() {
        for text in [
            "",
            "*",
            "**",
            "/**",
            "/*",
            "ghcr.io",
            "ghcr.io/",
            "localhost",
            "localhost:5000",
            "docker.io",
            "docker.io/*",
            "nginx:1",
            "ghcr.io/org/app:1",
            "ghcr.io/org*",
            "ghcr.io/*/app",
            "GHCR.io/org/*",
            "ghcr.io/Org/*",
            "https://ghcr.io/org",
            "user@ghcr.io/org",
            "ghcr.io//org",
            "ghcr.io/org/***",
            "ghcr.io/org/**/x",
            "nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(text.parse::<ImageRule>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_rule_allows_only_its_own_registry_and_path(
            image in "([a-z]{1,8}(\\.[a-z]{1,4}(:[0-9]{1,4})?)?/)?[a-z]{1,4}(/[a-z]{1,4}){0,3}",
        ) {
            let policy = rules(&["r.io/a/**"]);
            let parsed: ImageRef = image.parse().unwrap();
            let expect = parsed.registry() == "r.io" && parsed.repository().starts_with("a/");
            prop_assert_eq!(policy.check(&parsed).is_ok(), expect);
        }
    }
}
