//! HTTP clients: what they trust, how long they wait, and that they follow nothing by themselves.

use std::path::Path;
use std::sync::OnceLock;

use reqwest::Certificate;

use super::endpoint::Endpoint;
use super::error::OptionsError;
use super::options::{HostOptions, RegistryOptions};

/// What all clients have in common.
pub(super) fn builder(options: &RegistryOptions) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("fleet/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .timeout(options.request_timeout)
        .connect_timeout(options.connect_timeout);
    if system_has_authorities() {
        builder
    } else {
        builder.tls_certs_merge(bundled())
    }
}

/// Whether the system brings certificate authorities, or somebody said where they are.
///
/// In an image FROM scratch there are none, and the library refuses to set up a client at all.
fn system_has_authorities() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let chosen = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        chosen || !rustls_native_certs::load_native_certs().certs.is_empty()
    })
}

/// The authorities that Mozilla trusts, as they were when this was built.
fn bundled() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_authority_can_be_used() {
        assert_eq!(
            bundled().count(),
            webpki_root_certs::TLS_SERVER_ROOT_CERTS.len()
        );
        let provider = rustls::crypto::ring::default_provider();
        // Another test may have installed it before.
        let _ = provider.install_default();
        let client = reqwest::Client::builder().tls_certs_only(bundled()).build();
        client.expect("a client that trusts them");
    }
}
