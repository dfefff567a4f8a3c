//! JSON as the engine sends it.
//!
//! What is kept or sent back whole (inspect, image config, the create call, the items of a pull) goes through here: a
//! typed model would silently drop every field that it does not know. Everything else goes through `bollard`.

use std::time::Duration;

use bytes::Bytes;
use fleet_core::ports::{PortError, PortErrorKind};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::endpoint::Endpoint;
use crate::error;

/// Longest text that an error answer is read to.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Longest line of a stream; the engine's are a few hundred bytes, labels of a container included in events.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A client for one engine. Every path is prefixed with the negotiated version.
#[derive(Debug, Clone)]
pub(crate) struct RawClient {
    client: reqwest::Client,
    base: String,
}

impl RawClient {
    /// A client that speaks this API version, for instance `1.41`.
    pub(crate) fn new(endpoint: &Endpoint, api_version: &str) -> Result<Self, PortError> {
        let builder = plain_client_builder().pool_max_idle_per_host(0);
        let (builder, authority) = match endpoint {
            Endpoint::Unix(path) => (builder.unix_socket(path.clone()), "localhost".to_owned()),
            Endpoint::Tcp(authority) => (builder, authority.clone()),
        };
        let client = builder.build().map_err(|source| {
            PortError::new(
                "connect to the engine",
                PortErrorKind::Failed,
                "no HTTP client",
            )
            .with_source(source)
        })?;
        Ok(Self {
            client,
            base: format!("http://{authority}/v{api_version}"),
        })
    }

    /// GET; none for a 404.
    pub(crate) async fn get(
        &self,
        op: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Option<Value>, PortError> {
        let request = self.client.get(self.url(path, query)?).timeout(limit);
        match json(op, request).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// POST of a JSON body.
    pub(crate) async fn post(
        &self,
        op: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        body: &Value,
        limit: Duration,
    ) -> Result<Value, PortError> {
        let request = self
            .client
            .post(self.url(path, query)?)
            .json(body)
            .timeout(limit);
        json(op, request).await
    }

    /// GET whose answer is one JSON value per line. `head` limits the wait for the head of the answer.
    pub(crate) async fn get_lines(
        &self,
        op: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        head: Duration,
    ) -> Result<Lines, PortError> {
        lines(op, self.client.get(self.url(path, query)?), head).await
    }

    /// POST whose answer is one JSON value per line. `head` limits the wait for the head of the answer.
    pub(crate) async fn post_lines(
        &self,
        op: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        headers: &[(&'static str, String)],
        head: Duration,
    ) -> Result<Lines, PortError> {
        let mut request = self.client.post(self.url(path, query)?);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        lines(op, request, head).await
    }

    /// The address of a path whose segments are escaped one by one: a name cannot reach another endpoint.
    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<url::Url, PortError> {
        let invalid = || {
            PortError::new(
                "address the engine",
                PortErrorKind::Invalid,
                format!("expected a name or id, found {:?}", path.join("/")),
            )
        };
        if path
            .iter()
            .any(|segment| matches!(*segment, "" | "." | ".."))
        {
            return Err(invalid());
        }
        let mut url = url::Url::parse(&self.base).map_err(|_| invalid())?;
        url.path_segments_mut()
            .map_err(|()| invalid())?
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}

/// JSON values, one per line, as they arrive.
pub(crate) struct Lines {
    op: &'static str,
    chunks: BoxStream<'static, Result<Bytes, PortError>>,
    rest: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// The next value; none at the end. Cancel safe. A last line without its end is an error if it is not whole.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, PortError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return self.parse(&line).map(Some);
                }
                continue;
            }
            if self.rest.len() > LINE_BYTES_MAX {
                let message = format!("expected lines of at most {LINE_BYTES_MAX} bytes");
                return Err(PortError::new(self.op, PortErrorKind::Corrupt, message));
            }
            if self.ended {
                let line = std::mem::take(&mut self.rest);
                if line.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                return self.parse(&line).map(Some);
            }
            match self.chunks.next().await {
                Some(chunk) => self.rest.extend_from_slice(&chunk?),
                None => self.ended = true,
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<Value, PortError> {
        serde_json::from_slice(line).map_err(|source| {
            PortError::new(
                self.op,
                PortErrorKind::Corrupt,
                "the engine's report was cut off",
            )
            .with_source(source)
        })
    }
}

async fn lines(
    op: &'static str,
    request: reqwest::RequestBuilder,
    head: Duration,
) -> Result<Lines, PortError> {
    let response = tokio::time::timeout(head, request.send())
        .await
        .map_err(|_| error::timeout(op))?
        .map_err(|source| error::from_reqwest(op, source))?;
    let response = checked(op, response).await?;
    Ok(Lines {
        op,
        chunks: response
            .bytes_stream()
            .map_err(move |source| error::from_reqwest(op, source))
            .boxed(),
        rest: Vec::new(),
        ended: false,
    })
}

/// A builder of HTTP clients that never leave the machine's networks: no proxy from the environment, no redirects.
///
/// These clients speak plain HTTP only. `reqwest` insists on a TLS configuration all the same, and panics unless
/// somebody installed a default provider; so it is given one that trusts nobody.
pub(crate) fn plain_client_builder() -> reqwest::ClientBuilder {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10));
    match rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
    {
        Ok(config) => builder.tls_backend_preconfigured(
            config
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        ),
        Err(_) => builder,
    }
}

async fn json(op: &'static str, request: reqwest::RequestBuilder) -> Result<Value, PortError> {
    let response = request
        .send()
        .await
        .map_err(|source| error::from_reqwest(op, source))?;
    let response = checked(op, response).await?;
    let body = response
        .bytes()
        .await
        .map_err(|source| error::from_reqwest(op, source))?;
    serde_json::from_slice(&body).map_err(|source| {
        PortError::new(op, PortErrorKind::Failed, "the engine's answer is not JSON")
            .with_source(source)
    })
}

/// The answer if it is a success, else the engine's own words as an error.
async fn checked(
    op: &'static str,
    response: reqwest::Response,
) -> Result<reqwest::Response, PortError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut text = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        text.extend_from_slice(&chunk);
        if text.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| text.into_owned());
    Err(error::from_status(op, status.as_u16(), &message))
}
