//! Image references and digests. The grammar is that of `oci-spec`; the types are ours.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A text that is not an image reference or digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct ImageError {
    /// What would have been accepted.
    pub expected: &'static str,
    /// The text as given.
    pub found: String,
}

/// The digest of a manifest, an index or a config: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

impl Digest {
    const EXPECTED: &'static str = "a digest such as sha256:<64 hexadecimal digits>";

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in Sha256::digest(bytes) {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(half), 16).unwrap_or_default());
            }
        }
        Self(text.into())
    }

    /// The digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

impl FromStr for Digest {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or("");
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.into()))
        } else {
            Err(ImageError {
                expected: Self::EXPECTED,
                found: text.to_owned(),
            })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.as_ref().to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reference to an image: `[registry/]repository[:tag][@sha256:…]`, with Docker Hub's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    const EXPECTED: &'static str =
        "an image reference such as registry.example/team/app:1.2 or app@sha256:<digest>";

    /// The registry's host and port, `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, `library/` filled in for Docker Hub's official images.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither tag nor digest was given, none if only a digest was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository pinned to a digest, the tag kept.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> PinnedImage {
        PinnedImage {
            image: Self {
                digest: None,
                ..self.clone()
            },
            digest,
        }
    }

    /// The same repository with another tag and no digest.
    ///
    /// # Errors
    /// The tag does not follow the grammar.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ImageError> {
        format!("{}/{}:{tag}", self.registry, self.repository).parse()
    }

    /// Whether both name the same repository of the same registry.
    #[must_use]
    pub fn same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    /// The repository as people and the engine write it: Docker Hub's defaults left out.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.registry == "docker.io" {
            self.repository
                .strip_prefix("library/")
                .unwrap_or(&self.repository)
                .to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// `repository:tag` as the engine keeps it, none without a tag.
    #[must_use]
    pub fn familiar_tag(&self) -> Option<String> {
        self.tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", self.familiar_repository()))
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ImageError {
            expected: Self::EXPECTED,
            found: text.to_owned(),
        };
        // The grammar's expression takes letters of any script in a tag; references are ASCII. The id of an image or
        // container follows the grammar too, and names none.
        let is_id = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if text.len() > 4096 || text.is_empty() || !text.is_ascii() || is_id {
            return Err(bad());
        }
        let reference: Reference = text.parse().map_err(|_| bad())?;
        // The grammar takes a first part in capitals for a host, and the library leaves it in the repository. Older
        // engines count the registry into the length of a name.
        let shouts = reference
            .repository()
            .bytes()
            .any(|b| b.is_ascii_uppercase());
        let too_long = reference.registry().len() + 1 + reference.repository().len() > 255;
        if shouts || too_long {
            return Err(bad());
        }
        let digest = reference.digest().map(str::parse).transpose()?;
        // The grammar fills in `latest` even beside a digest; a bare digest names no tag.
        let tag = match (reference.tag(), &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            tag,
            digest,
        })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// An image that cannot change: a repository (and the tag it was found under) at a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PinnedImage {
    /// Repository and tag; never carries a digest itself.
    pub image: ImageRef,
    /// The digest that is pulled and run.
    pub digest: Digest,
}

impl PinnedImage {
    /// `repository@sha256:…` as the engine takes it.
    #[must_use]
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.image.familiar_repository(), self.digest)
    }

    /// The reference that names the digest as well, so that asking for it can give nothing else.
    #[must_use]
    pub fn reference(&self) -> ImageRef {
        let text = self.to_string();
        text.parse().unwrap_or_else(|_| self.image.clone())
    }
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.image, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, registry: &str, repository: &str, tag: Option<&str>, printed: &str) {
        let image: ImageRef = text.parse().unwrap();
        assert_eq!(
            (image.registry(), image.repository(), image.tag()),
            (registry, repository, tag)
        );
        assert_eq!(image.to_string(), printed);
        assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image);
    }

    #[test]
    fn references_follow_the_fields_grammar() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check(
            "nginx",
            "docker.io",
            "library/nginx",
            Some("latest"),
            "nginx:latest",
        );
        check(
            "docker.io/library/nginx:1",
            "docker.io",
            "library/nginx",
            Some("1"),
            "nginx:1",
        );
        check(
            "team/app:2",
            "docker.io",
            "team/app",
            Some("2"),
            "team/app:2",
        );
        check(
            "127.0.0.1:5000/app:2",
            "127.0.0.1:5000",
            "app",
            Some("2"),
            "127.0.0.1:5000/app:2",
        );
        check(
            &format!("r.io/a/b@{digest}"),
            "r.io",
            "a/b",
            None,
            &format!("r.io/a/b@{digest}"),
        );
        check(
            &format!("a:1@{digest}"),
            "docker.io",
            "library/a",
            Some("1"),
            &format!("a:1@{digest}"),
        );
    }

    #[test]
    fn bad_references_say_what_was_expected() {
        for bad in [
            "",
            "UPPER/case",
            "Library/nginx",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "a:b:c",
            "a@sha256:12",
            "http://x/y",
            "a b",
            "a:l\u{430}test",
        ] {
            let error = bad.parse::<ImageRef>().unwrap_err();
            assert!(error.to_string().contains("expected"), "{error}");
        }
    }
}
