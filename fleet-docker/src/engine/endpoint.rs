//! Where the engine listens.

use std::path::PathBuf;

use fleet_core::ports::{PortError, PortErrorKind};

/// Where the engine listens unless somebody says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A socket of this host.
    Unix(PathBuf),
    /// Host and port, plain HTTP.
    Tcp(String),
}

impl Endpoint {
    /// Reads `unix:///path`, `tcp://host:port` or `http://host:port`; without a text the default socket.
    pub(crate) fn parse(host: Option<&str>) -> Result<Self, PortError> {
        let Some(text) = host.filter(|text| !text.is_empty()) else {
            return Ok(Self::Unix(PathBuf::from(DEFAULT_SOCKET)));
        };
        let invalid = |found: &str| {
            PortError::new(
                "read the engine's address",
                PortErrorKind::Invalid,
                format!(
                    "expected unix:///path, tcp://host:port or http://host:port, found {found:?}"
                ),
            )
        };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(invalid(text));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let authority = text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or_else(|| invalid(text))?
            .trim_end_matches('/');
        let url = url::Url::parse(&format!("http://{authority}")).map_err(|_| invalid(text))?;
        let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        match (url.host_str(), plain) {
            (Some(host), true) => {
                let port = url
                    .port()
                    .unwrap_or(if authority.ends_with(":80") { 80 } else { 2375 });
                Ok(Self::Tcp(format!("{host}:{port}")))
            }
            _ => Err(invalid(text)),
        }
    }

    /// As `DOCKER_HOST` would have it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix://{}", path.display()),
            Self::Tcp(authority) => format!("tcp://{authority}"),
        }
    }

    /// Whether the engine's processes are this host's.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(authority) => ["127.", "localhost:", "[::1]:"]
                .iter()
                .any(|prefix| authority.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expect: Option<&str>) {
        let parsed = Endpoint::parse(Some(host))
            .ok()
            .map(|endpoint| endpoint.url());
        assert_eq!(parsed.as_deref(), expect, "{host}");
    }

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        check("", Some("unix:///var/run/docker.sock"));
        check("unix:///run/x.sock", Some("unix:///run/x.sock"));
        check("tcp://10.0.0.1", Some("tcp://10.0.0.1:2375"));
        check("tcp://10.0.0.1:4000/", Some("tcp://10.0.0.1:4000"));
        check("http://engine:80", Some("tcp://engine:80"));
        check("tcp://[::1]:2375", Some("tcp://[::1]:2375"));
        for bad in [
            "ssh://host",
            "https://host",
            "unix://relative",
            "tcp://",
            "/var/run/x",
            "tcp://a/b",
        ] {
            check(bad, None);
        }
    }
}
