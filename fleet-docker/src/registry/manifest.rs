//! Manifests and indexes: what the bytes are, and which entry of an index is for a platform. Pure.
//!
//! The type that the registry names, the type that the document names and the document's own shape must agree: a
//! document that can be read as both a manifest and an index means one thing to whoever checked it and another to the
//! engine (CVE-2021-41190).

use std::collections::BTreeMap;

use fleet_core::image::Digest;
use fleet_core::model::Platform;
use fleet_core::ports::{PortError, PortErrorKind};
use fleet_core::time::Timestamp;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde_json::Value;

use super::error::{corrupt, failure};

/// What is asked for: without all four, a registry converts or refuses.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// Annotations of the image specification.
const ANNOTATION_PREFIX: &str = "org.opencontainers.image.";
/// Longest name of an annotation that is kept.
const ANNOTATION_NAME_BYTES_MAX: usize = 100;
/// Longest annotation that is kept.
const ANNOTATION_BYTES_MAX: usize = 1024;
/// Most annotations that are kept; the specification names 15.
const ANNOTATIONS_MAX: usize = 50;
/// Types that servers send for want of a better one.
const VAGUE_TYPES: [&str; 3] = ["", "application/json", "application/octet-stream"];

/// A document whose bytes have the digest, and whose type is certain.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) digest: Digest,
    pub(super) content: Content,
    /// Bytes that it was read from.
    pub(super) bytes: usize,
    /// When the registry says that it was pushed, if it says so.
    pub(super) pushed_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// What the config of an image says of it.
#[derive(Debug, Clone)]
pub(super) struct ConfigFacts {
    pub(super) platform: Platform,
    pub(super) labels: BTreeMap<String, String>,
}

/// Reads a document: hashes the bytes, compares with every digest that was named, and makes its type certain.
pub(super) fn read(
    what: &str,
    bytes: &[u8],
    content_type: &str,
    named: &[&Digest],
) -> Result<Document, PortError> {
    let digest = Digest::of(bytes);
    for named in named {
        if **named != digest {
            return Err(corrupt(format!(
                "expected {what} with digest {named}, found bytes with digest {digest}"
            )));
        }
    }
    let kind = certain_kind(what, bytes, content_type)?;
    let unreadable = |error: serde_json::Error| {
        corrupt(format!(
            "{what} cannot be read as the {} it says it is",
            kind.word()
        ))
        .with_source(error)
    };
    let content = match kind {
        Kind::Index => Content::Index(Box::new(serde_json::from_slice(bytes).map_err(unreadable)?)),
        Kind::Manifest => {
            Content::Manifest(Box::new(serde_json::from_slice(bytes).map_err(unreadable)?))
        }
    };
    Ok(Document {
        digest,
        content,
        bytes: bytes.len(),
        pushed_at: None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Index,
    Manifest,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Manifest => "manifest",
        }
    }

    fn of_type(media_type: &str) -> Option<Self> {
        if INDEX_TYPES.contains(&media_type) {
            Some(Self::Index)
        } else if MANIFEST_TYPES.contains(&media_type) {
            Some(Self::Manifest)
        } else {
            None
        }
    }
}

fn certain_kind(what: &str, bytes: &[u8], content_type: &str) -> Result<Kind, PortError> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| corrupt(format!("{what} is not JSON")).with_source(error))?;
    let has = |key: &str| value.get(key).is_some();
    let by_shape = match (
        has("manifests"),
        has("config") || has("layers") || has("fsLayers"),
    ) {
        (true, false) => Kind::Index,
        (false, true) => Kind::Manifest,
        _ => {
            return Err(corrupt(format!(
                "expected {what} to be either an index or a manifest, found a document that is both or neither"
            )));
        }
    };
    let header = content_type.split(';').next().unwrap_or("").trim();
    let inside = value.get("mediaType").and_then(Value::as_str);
    let unsupported = |found: &str| {
        let found = found
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(100)
            .collect::<String>();
        failure(
            PortErrorKind::Unsupported,
            format!("expected {what} to be an image manifest or index, found {found:?}"),
        )
    };
    let by_header = match Kind::of_type(header) {
        Some(kind) => Some(kind),
        None if VAGUE_TYPES.contains(&header) => None,
        None => return Err(unsupported(header)),
    };
    let by_itself = match inside {
        None => None,
        Some(inside) => Some(Kind::of_type(inside).ok_or_else(|| unsupported(inside))?),
    };
    let agree = by_header.is_none_or(|kind| kind == by_shape)
        && by_itself.is_none_or(|kind| kind == by_shape)
        && (by_header.is_none() || inside.is_none_or(|inside| inside == header));
    if !agree {
        return Err(corrupt(format!(
            "expected one type for {what}, found {header:?} from the registry, {:?} in the document and the shape of \
             an {}",
            inside.unwrap_or("none"),
            by_shape.word()
        )));
    }
    // A vague header beside a silent document leaves the shape alone, and a schema 1 manifest has another one.
    if has("fsLayers") {
        return Err(unsupported("a manifest of schema 1"));
    }
    Ok(by_shape)
}

/// The entry of an index that runs on a platform. Entries for `unknown/unknown` are attestations and never run.
pub(super) fn entry_for<'a>(
    what: &str,
    index: &'a ImageIndex,
    platform: &Platform,
) -> Result<&'a Descriptor, PortError> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut offered = Vec::new();
    for entry in index.manifests() {
        let Some(of_entry) = platform_of(entry) else {
            continue;
        };
        if of_entry.os == "unknown" || is_attestation(entry) {
            continue;
        }
        offered.push(words(&of_entry));
        if let Some(rank) = rank(&of_entry, platform)
            && best.is_none_or(|(best, _)| rank < best)
        {
            best = Some((rank, entry));
        }
    }
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    offered.truncate(20);
    Err(failure(
        PortErrorKind::NotFound,
        format!(
            "expected {what} for {}, found it for {}",
            words(platform),
            if offered.is_empty() {
                "no platform".to_owned()
            } else {
                offered.join(", ")
            }
        ),
    ))
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    entry.platform().as_ref().map(|platform| Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone().unwrap_or_default(),
    })
}

fn is_attestation(entry: &Descriptor) -> bool {
    entry
        .annotations()
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key("vnd.docker.reference.type"))
}

/// How well an image fits a platform, 0 best; none if it does not run there.
pub(super) fn rank(image: &Platform, wanted: &Platform) -> Option<u32> {
    if image.os != wanted.os || image.architecture != wanted.architecture {
        return None;
    }
    let (image_variant, wanted_variant) = (variant(image), variant(wanted));
    if image_variant == wanted_variant {
        return Some(0);
    }
    // 32-bit ARM runs what was built for an older variant.
    let number = |text: &str| text.strip_prefix('v')?.parse::<u32>().ok();
    match (
        wanted.architecture.as_str(),
        number(image_variant),
        number(wanted_variant),
    ) {
        ("arm", Some(image), Some(wanted)) if image < wanted => Some(wanted - image),
        ("amd64", Some(_), None) => None,
        ("amd64", None, Some(wanted)) => Some(wanted),
        ("amd64", Some(image), Some(wanted)) if image < wanted => Some(wanted - image),
        _ => None,
    }
}

/// The variant with the defaults that the image specification leaves out.
fn variant(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("arm64", "") => "v8",
        ("arm", "") => "v7",
        ("amd64", "v1") => "",
        (_, variant) => variant,
    }
}

pub(super) fn words(platform: &Platform) -> String {
    let Platform {
        os,
        architecture,
        variant,
    } = platform;
    let text = if variant.is_empty() {
        format!("{os}/{architecture}")
    } else {
        format!("{os}/{architecture}/{variant}")
    };
    // Entries of an index are hostile text.
    text.chars()
        .filter(|c| c.is_ascii_graphic())
        .take(60)
        .collect()
}

/// The digest that a descriptor names.
pub(super) fn digest_of(what: &str, descriptor: &Descriptor) -> Result<Digest, PortError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|error| {
        failure(
            PortErrorKind::Unsupported,
            format!("{what} names something by a digest that is not sha256"),
        )
        .with_source(error)
    })
}

/// Whether a manifest is of a container image (and not of a chart, a signature or the like).
pub(super) fn check_is_image(what: &str, manifest: &ImageManifest) -> Result<(), PortError> {
    let config = manifest.config().media_type().to_string();
    // The library gives the Docker name for a type that has both; either is right.
    if CONFIG_TYPES.contains(&config.as_str()) {
        return Ok(());
    }
    Err(failure(
        PortErrorKind::Unsupported,
        format!(
            "expected {what} to be a container image, found something with a config of another type"
        ),
    ))
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    config: Option<RawInner>,
}

#[derive(Deserialize)]
struct RawInner {
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads an image's config, whose bytes must have the digest.
pub(super) fn read_config(
    what: &str,
    bytes: &[u8],
    named: &Digest,
) -> Result<ConfigFacts, PortError> {
    let digest = Digest::of(bytes);
    if digest != *named {
        return Err(corrupt(format!(
            "expected the config of {what} with digest {named}, found bytes with digest {digest}"
        )));
    }
    let raw: RawConfig = serde_json::from_slice(bytes).map_err(|error| {
        corrupt(format!("the config of {what} cannot be read")).with_source(error)
    })?;
    Ok(ConfigFacts {
        platform: Platform {
            os: raw.os,
            architecture: raw.architecture,
            variant: raw.variant.unwrap_or_default(),
        },
        labels: kept(raw.config.and_then(|inner| inner.labels).iter().flatten()),
    })
}

/// What is kept of annotations and labels: those of the image specification, within limits. The first of a name counts.
/// They go into plans and events, and whoever publishes an image writes them.
pub(super) fn kept<'a>(
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for (name, value) in pairs {
        let known = name.starts_with(ANNOTATION_PREFIX) && name.len() <= ANNOTATION_NAME_BYTES_MAX;
        if known && value.len() <= ANNOTATION_BYTES_MAX && kept.len() < ANNOTATIONS_MAX {
            kept.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next().unwrap_or_default(),
        }
    }

    fn index(platforms: &[&str]) -> ImageIndex {
        let entries: Vec<Value> = platforms
            .iter()
            .map(|text| {
                let Platform {
                    os,
                    architecture,
                    variant,
                } = platform(text);
                let mut entry = serde_json::json!({
                    "mediaType": MANIFEST_TYPES[0],
                    "digest": Digest::of(text.as_bytes()).as_str(),
                    "size": 1,
                    "platform": {"os": os, "architecture": architecture},
                });
                if !variant.is_empty() {
                    entry["platform"]["variant"] = Value::String(variant);
                }
                entry
            })
            .collect();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        serde_json::from_value(index).unwrap()
    }

    #[track_caller]
    fn check(offered: &[&str], wanted: &str, expect: Option<&str>) {
        let index = index(offered);
        let found = entry_for("app:1", &index, &platform(wanted));
        let digest = found.ok().map(|entry| digest_of("app:1", entry).unwrap());
        assert_eq!(
            digest,
            expect.map(|text| Digest::of(text.as_bytes())),
            "{wanted}"
        );
    }

    #[test]
    fn the_entry_is_the_one_that_the_engine_would_run() {
        let all = [
            "linux/amd64",
            "linux/arm64/v8",
            "linux/arm/v6",
            "linux/arm/v7",
            "windows/amd64",
        ];
        check(&all, "linux/amd64", Some("linux/amd64"));
        check(&all, "linux/arm64", Some("linux/arm64/v8"));
        check(&all, "linux/arm", Some("linux/arm/v7"));
        check(&all, "linux/arm/v7", Some("linux/arm/v7"));
        check(&all, "linux/arm/v6", Some("linux/arm/v6"));
        check(&all, "linux/arm/v5", None);
        check(&all, "windows/amd64", Some("windows/amd64"));
        check(&all, "linux/s390x", None);
        check(
            &["linux/arm/v5", "linux/arm/v6"],
            "linux/arm/v7",
            Some("linux/arm/v6"),
        );
        check(
            &["linux/amd64/v3", "linux/amd64"],
            "linux/amd64",
            Some("linux/amd64"),
        );
        check(&["linux/amd64/v3"], "linux/amd64", None);
        check(
            &["linux/amd64", "linux/amd64/v3"],
            "linux/amd64/v3",
            Some("linux/amd64/v3"),
        );
        check(
            &["linux/amd64", "linux/amd64/v2"],
            "linux/amd64/v4",
            Some("linux/amd64/v2"),
        );
        check(&["unknown/unknown"], "unknown/unknown", None);
        check(
            &["linux/amd64", "linux/amd64"],
            "linux/amd64",
            Some("linux/amd64"),
        );
        check(&[], "linux/amd64", None);
    }

    #[test]
    fn only_annotations_of_the_specification_are_kept_and_the_first_counts() {
        let text = |text: &str| text.to_owned();
        let name = |name: &str| format!("{ANNOTATION_PREFIX}{name}");
        let long = "x".repeat(ANNOTATION_BYTES_MAX + 1);
        let pairs = [
            (name("version"), text("1")),
            (name("version"), text("2")),
            (name("description"), long),
            (text("maintainer"), text("x")),
        ];
        let found = kept(pairs.iter().map(|(name, value)| (name, value)));
        assert_eq!(found, BTreeMap::from([(name("version"), text("1"))]));
        let many: Vec<_> = (0..1000)
            .map(|n| (name(&n.to_string()), text("x")))
            .collect();
        let found = kept(many.iter().map(|(name, value)| (name, value)));
        assert_eq!(found.len(), ANNOTATIONS_MAX);
    }

    #[test]
    fn what_an_index_says_is_printed_without_what_it_could_hide() {
        let index = index(&["linux/\u{1b}[31m\u{202e}evil"]);
        let error = entry_for("app:1", &index, &platform("linux/amd64")).unwrap_err();
        assert!(
            error.to_string().ends_with("found it for linux/[31mevil"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read("app:1", &bytes, MANIFEST_TYPES[0], &[]);
            let _ = read_config("app:1", &bytes, &Digest::of(&bytes));
        }

        /// Whatever one byte of a manifest becomes, it is refused, because its digest is another.
        #[test]
        fn one_changed_byte_is_noticed(at in any::<prop::sample::Index>(), change in 1u8..) {
            let good = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
            let named = Digest::of(good);
            let mut bytes = good.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            let error = read("app:1", &bytes, MANIFEST_TYPES[0], &[&named]).unwrap_err();
            prop_assert_eq!(error.kind(), PortErrorKind::Corrupt);
        }
    }
}
