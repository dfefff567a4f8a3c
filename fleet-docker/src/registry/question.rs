//! What is asked, and what the head of an answer says.

use fleet_core::image::{Digest, ImageRef};
use fleet_core::ports::{PortError, PortErrorKind};
use fleet_core::time::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, LAST_MODIFIED, LINK};
use reqwest::{Method, StatusCode};
use url::Url;

use super::error::failure;
use super::host::{Host, Question, Refusal};
use super::manifest;
use super::pace::http_date;

/// Largest manifest or index, as the distribution specification recommends.
const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) fn manifest_question(
    host: &Host,
    image: &ImageRef,
    reference: &str,
    method: Method,
) -> Result<Question, PortError> {
    Ok(Question {
        method,
        url: join(
            host,
            &format!("{}/manifests/{reference}", image.repository()),
        )?,
        accept: Some(manifest::ACCEPT),
        scope: scope(image),
        what: if reference.contains(':') {
            format!("{}@{reference}", image.familiar_repository())
        } else {
            format!("{}:{reference}", image.familiar_repository())
        },
        cap: MANIFEST_BYTES_MAX,
    })
}

pub(super) fn join(host: &Host, path: &str) -> Result<Url, PortError> {
    host.endpoint.base.join(path).map_err(|error| {
        failure(
            PortErrorKind::Invalid,
            "the address of the question cannot be formed",
        )
        .with_source(error)
    })
}

pub(super) fn scope(image: &ImageRef) -> String {
    format!("repository:{}:pull", image.repository())
}

pub(super) fn tag_of(image: &ImageRef) -> Result<&str, PortError> {
    image.tag().ok_or_else(|| {
        failure(
            PortErrorKind::Invalid,
            format!("expected a tag in {image}, found none"),
        )
    })
}

/// Whether a registry does not know HEAD at all, so that the GET must tell.
pub(super) fn head_is_unknown(refusal: &Refusal) -> bool {
    matches!(
        refusal.status,
        Some(StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
    )
}

pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

/// `Docker-Content-Digest`, if it is of a kind that fleet can compare.
pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    header_text(headers, &CONTENT_DIGEST).parse().ok()
}

pub(super) fn modified(headers: &HeaderMap) -> Option<Timestamp> {
    let at = http_date(header_text(headers, &LAST_MODIFIED))?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

/// The next page of a list, which must be on the same registry.
pub(super) fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = header_text(headers, &LINK);
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    if !rest.to_ascii_lowercase().contains("rel=\"next\"") && !rest.contains("rel=next") {
        return None;
    }
    let next = url.join(target).ok()?;
    (next.origin() == url.origin()).then_some(next)
}
