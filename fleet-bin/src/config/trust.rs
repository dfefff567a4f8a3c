//! The sections `images` and `signatures`, as what they mean.

use std::path::PathBuf;
use std::time::Duration;

use fleet_core::detect::{ImagePolicy, ImageRule};
use fleet_core::time::parse_duration;
use fleet_docker::registry::{CosignOptions, CosignTrust};

use super::file::{ImagesConfig, SignaturesConfig};
use crate::exit::{Exit, Failure, Outcome};

const TIMEOUT: Duration = Duration::from_secs(60);

impl ImagesConfig {
    /// The policy; none where everything is allowed.
    ///
    /// # Errors
    /// A rule is none.
    pub(crate) fn policy(&self) -> Outcome<Option<ImagePolicy>> {
        let Some(rules) = &self.allow else {
            return Ok(None);
        };
        let rules = rules.iter().map(|text| {
            text.parse::<ImageRule>()
                .map_err(|error| Failure::new(Exit::Usage, format!("images.allow: {error}")))
        });
        Ok(Some(ImagePolicy::new(rules.collect::<Outcome<_>>()?)))
    }
}

impl SignaturesConfig {
    /// How signatures are verified; none where none are asked for.
    ///
    /// # Errors
    /// It is not clear whose signatures count, or the section says something without saying whose.
    pub(crate) fn cosign(&self) -> Outcome<Option<CosignOptions>> {
        let usage = |found: &str| {
            let expected = "signatures: expected either key, or identity and issuer";
            Failure::new(Exit::Usage, format!("{expected}, found {found}"))
        };
        let trust = match (&self.key, &self.identity, &self.issuer) {
            (None, None, None) if *self == Self::default() => return Ok(None),
            // Whoever writes the section wants signatures: without saying whose it must not mean "none".
            (None, None, None) => return Err(usage("none of them")),
            (Some(key), None, None) => CosignTrust::Key(key.clone()),
            (None, Some(identity), Some(issuer)) => CosignTrust::Keyless {
                identity: identity.clone(),
                issuer: issuer.clone(),
            },
            (Some(_), ..) => return Err(usage("both")),
            (None, Some(_), None) => return Err(usage("identity alone")),
            (None, None, Some(_)) => return Err(usage("issuer alone")),
        };
        let timeout = match &self.timeout {
            Some(text) => parse_duration(text).map_err(|error| {
                Failure::new(Exit::Usage, format!("signatures.timeout: {error}"))
            })?,
            None => TIMEOUT,
        };
        Ok(Some(CosignOptions {
            program: self
                .program
                .clone()
                .unwrap_or_else(|| PathBuf::from("cosign")),
            trust,
            args: self.args.clone(),
            timeout,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_none_are_refused() {
        let images = |rule: &str| ImagesConfig {
            allow: Some(vec![rule.to_owned()]),
        };
        assert!(images("ghcr.io/org/**").policy().unwrap().is_some());
        assert!(ImagesConfig::default().policy().unwrap().is_none());
        let refused = images("ghcr.io").policy().unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(
            refused
                .chain()
                .starts_with("images.allow: expected a repository")
        );
    }

    #[test]
    fn it_must_be_clear_whose_signatures_count() {
        let text = |key: &str, identity: &str, issuer: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            SignaturesConfig {
                key: some(key),
                identity: some(identity),
                issuer: some(issuer),
                ..SignaturesConfig::default()
            }
        };
        assert!(text("", "", "").cosign().unwrap().is_none());
        assert!(text("cosign.pub", "", "").cosign().unwrap().is_some());
        assert!(
            text("", "me@example.com", "https://issuer")
                .cosign()
                .unwrap()
                .is_some()
        );
        for bad in [text("k", "i", ""), text("", "i", ""), text("", "", "o")] {
            assert_eq!(bad.cosign().unwrap_err().exit, Exit::Usage);
        }
        let only_program = SignaturesConfig {
            program: Some("cosign".into()),
            ..SignaturesConfig::default()
        };
        assert_eq!(only_program.cosign().unwrap_err().exit, Exit::Usage);
    }
}
