//! HTTP clients: what they trust, how long they wait, and that they follow nothing by themselves.

use std::path::Path;

use reqwest::Certificate;

use super::endpoint::Endpoint;
use super::error::OptionsError;
use super::options::{HostOptions, RegistryOptions};

/// What all clients have in common.
pub(super) fn builder(options: &RegistryOptions) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("fleet/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .timeout(options.request_timeout)
        .connect_timeout(options.connect_timeout)
}

/// A client that trusts a registry's own certificate authorities besides the system's.
pub(super) fn private_client(
    registry: &str,
    host: &HostOptions,
    options: &RegistryOptions,
) -> Result<reqwest::Client, OptionsError> {
    let mut certificates = Vec::new();
    for path in &host.ca_files {
        certificates.extend(read_ca(registry, path)?);
    }
    let mut builder = builder(options).tls_certs_merge(certificates);
    if Endpoint::of(registry, host).is_some_and(|endpoint| endpoint.is_loopback()) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|source| OptionsError::Client {
        registry: registry.to_owned(),
        source,
    })
}

fn read_ca(registry: &str, path: &Path) -> Result<Vec<Certificate>, OptionsError> {
    let pem = std::fs::read(path).map_err(|source| OptionsError::CaFile {
        registry: registry.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(OptionsError::CaContent {
            registry: registry.to_owned(),
            path: path.to_owned(),
        }),
    }
}
