//! Where a registry is: its address, whether TLS is used, and which token services may see its credentials.

use std::net::IpAddr;

use url::{Host, Url};

use super::options::HostOptions;

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";
const DOCKER_HUB_AUTH: &str = "auth.docker.io";
/// The key under which `docker login` keeps the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where a registry is.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The registry as references name it.
    pub(super) name: String,
    /// `https://host:port/v2/`.
    pub(super) base: Url,
    /// Key of its entry in Docker's config.
    pub(super) credential_key: String,
    auth_hosts: Vec<String>,
}

impl Endpoint {
    /// Finds the address of a registry; none if its name is not a host with an optional port.
    pub(super) fn of(name: &str, options: &HostOptions) -> Option<Self> {
        let host = if name == DOCKER_HUB {
            DOCKER_HUB_API
        } else {
            name
        };
        if host.contains(['@', '/', '?', '#', '\\']) {
            return None;
        }
        let secure = Url::parse(&format!("https://{host}/v2/")).ok()?;
        let plain = options
            .plain_http
            .unwrap_or(is_loopback(&secure) && options.ca_files.is_empty());
        let base = if plain {
            Url::parse(&format!("http://{host}/v2/")).ok()?
        } else {
            secure
        };
        let hub = host == DOCKER_HUB_API;
        let mut auth_hosts = options.auth_hosts.clone();
        if hub {
            auth_hosts.push(DOCKER_HUB_AUTH.to_owned());
        }
        Some(Self {
            name: name.to_owned(),
            base,
            credential_key: if hub {
                DOCKER_HUB_KEY.to_owned()
            } else {
                name.to_owned()
            },
            auth_hosts,
        })
    }

    /// Whether it is on a loopback address.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }

    /// Whether a token service at `realm` may be asked: over TLS anywhere, without TLS only where the registry itself
    /// is without TLS and on the same host or on loopback too.
    pub(super) fn may_ask(&self, realm: &Url) -> bool {
        match realm.scheme() {
            "https" => realm.host().is_some() && (self.is_loopback() || !is_local_literal(realm)),
            "http" => self.base.scheme() == "http" && self.is_beside(realm),
            _ => false,
        }
    }

    /// Whether a token service at `realm` may be given the registry's credentials.
    ///
    /// Nothing tells a public suffix from a domain here, so two hosts below one parent are strangers: the realm must
    /// be the registry's own host, a domain above or below it, or configured.
    pub(super) fn may_see_credentials(&self, realm: &Url) -> bool {
        if !self.may_ask(realm) {
            return false;
        }
        let (Some(own), Some(other)) = (self.base.host_str(), realm.host_str()) else {
            return false;
        };
        self.is_beside(realm)
            || (realm.scheme() == "https"
                && (self.auth_hosts.iter().any(|host| names(host, realm))
                    || is_domain(realm) && (is_below(own, other) || is_below(other, own))))
    }

    fn is_beside(&self, realm: &Url) -> bool {
        realm.host() == self.base.host() || (self.is_loopback() && is_loopback(realm))
    }
}

/// Whether a redirect from one address to another may be followed at all: never from TLS to plain, and without TLS only
/// to the same host or within loopback.
pub(super) fn may_follow(from: &Url, to: &Url) -> bool {
    match (from.scheme(), to.scheme()) {
        (_, "https") => to.host().is_some() && (is_loopback(from) || !is_local_literal(to)),
        ("http", "http") => from.host() == to.host() || (is_loopback(from) && is_loopback(to)),
        _ => false,
    }
}

/// Whether a URL points to a loopback address by its text.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether a URL names, by its text, an address that only this host or its link can mean. Such an address never
/// belongs to a token service or to the storage of a registry elsewhere, but to somebody who is being probed.
fn is_local_literal(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => address.to_canonical(),
        _ => return is_loopback(url),
    };
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

fn is_domain(url: &Url) -> bool {
    matches!(url.host(), Some(Host::Domain(_)))
}

/// Whether a configured `host` or `host:port` names the URL's host.
fn names(host: &str, url: &Url) -> bool {
    Url::parse(&format!("https://{host}/")).is_ok_and(|wanted| {
        wanted.host() == url.host() && wanted.port_or_known_default() == url.port_or_known_default()
    })
}

/// Whether `name` is a proper subdomain of `parent`, which has at least two labels.
fn is_below(name: &str, parent: &str) -> bool {
    parent.contains('.')
        && name
            .strip_suffix(parent)
            .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> Endpoint {
        Endpoint::of(name, &HostOptions::default()).unwrap()
    }

    #[track_caller]
    fn check_base(name: &str, base: &str) {
        assert_eq!(endpoint(name).base.as_str(), base);
    }

    #[test]
    fn docker_hub_has_its_own_hosts_and_loopback_needs_no_tls() {
        check_base("docker.io", "https://registry-1.docker.io/v2/");
        check_base("ghcr.io", "https://ghcr.io/v2/");
        check_base("registry.example:5000", "https://registry.example:5000/v2/");
        check_base("localhost:5000", "http://localhost:5000/v2/");
        check_base("127.0.0.1:5000", "http://127.0.0.1:5000/v2/");
        check_base("127.9.8.7", "http://127.9.8.7/v2/");
        check_base("[::1]:5000", "http://[::1]:5000/v2/");
        check_base("10.0.0.1:5000", "https://10.0.0.1:5000/v2/");
        check_base("localhost.evil.com", "https://localhost.evil.com/v2/");
        check_base("128.0.0.1", "https://128.0.0.1/v2/");
        assert_eq!(endpoint("docker.io").credential_key, DOCKER_HUB_KEY);
        assert!(Endpoint::of("user@ghcr.io", &HostOptions::default()).is_none());
        assert!(Endpoint::of("ghcr.io/x", &HostOptions::default()).is_none());
    }

    #[test]
    fn tls_follows_the_settings() {
        let with = |plain_http, ca: &[&str]| HostOptions {
            plain_http,
            ca_files: ca.iter().map(Into::into).collect(),
            ..HostOptions::default()
        };
        let scheme = |name, options| {
            Endpoint::of(name, &options)
                .unwrap()
                .base
                .scheme()
                .to_owned()
        };
        assert_eq!(scheme("127.0.0.1:5000", with(None, &["ca.pem"])), "https");
        assert_eq!(scheme("127.0.0.1:5000", with(Some(false), &[])), "https");
        assert_eq!(scheme("registry.lan:5000", with(Some(true), &[])), "http");
    }

    #[track_caller]
    fn check_realm(registry: &str, realm: &str, asked: bool, trusted: bool) {
        let realm = Url::parse(realm).unwrap();
        let endpoint = endpoint(registry);
        assert_eq!(
            (
                endpoint.may_ask(&realm),
                endpoint.may_see_credentials(&realm)
            ),
            (asked, trusted),
            "{registry} -> {realm}"
        );
    }

    #[test]
    fn credentials_go_to_the_registrys_own_token_service_only() {
        check_realm("docker.io", "https://auth.docker.io/token", true, true);
        check_realm(
            "docker.io",
            "https://auth.docker.io.evil.com/token",
            true,
            false,
        );
        check_realm("docker.io", "https://evil.com/auth.docker.io", true, false);
        check_realm("ghcr.io", "https://ghcr.io/token", true, true);
        check_realm("ghcr.io", "http://ghcr.io/token", false, false);
        check_realm("ghcr.io", "https://notghcr.io/token", true, false);
        check_realm(
            "registry.gitlab.com",
            "https://gitlab.com/jwt/auth",
            true,
            true,
        );
        check_realm("a.azurecr.io", "https://b.azurecr.io/token", true, false);
        check_realm("registry.co.uk", "https://evil.co.uk/token", true, false);
        check_realm("registry.example", "https://example/token", true, false);
        check_realm("r.example:5000", "https://auth.r.example/token", true, true);
        check_realm("ghcr.io", "https://169.254.169.254/token", false, false);
        check_realm("ghcr.io", "https://[::ffff:127.0.0.1]/token", false, false);
        check_realm("127.0.0.1:5000", "http://127.0.0.1:6000/token", true, true);
        check_realm("127.0.0.1:5000", "http://localhost:6000/token", true, true);
        check_realm("127.0.0.1:5000", "http://ghcr.io/token", false, false);
        check_realm("ghcr.io", "file:///etc/passwd", false, false);
    }

    #[test]
    fn a_configured_token_service_is_trusted_over_tls() {
        let options = HostOptions {
            auth_hosts: vec!["sso.corp.example".to_owned()],
            ..HostOptions::default()
        };
        let endpoint = Endpoint::of("registry.corp.example", &options).unwrap();
        let trusts = |realm| endpoint.may_see_credentials(&Url::parse(realm).unwrap());
        assert!(trusts("https://sso.corp.example/token"));
        assert!(!trusts("http://sso.corp.example/token"));
        assert!(!trusts("https://sso.corp.example:8443/token"));
        assert!(!trusts("https://x.sso.corp.example.evil.com/token"));
    }

    #[test]
    fn redirects_never_leave_tls() {
        let follows = |from, to| may_follow(&Url::parse(from).unwrap(), &Url::parse(to).unwrap());
        assert!(follows("https://ghcr.io/v2/", "https://cdn.example/blob"));
        assert!(!follows("https://ghcr.io/v2/", "http://ghcr.io/v2/"));
        assert!(!follows("https://ghcr.io/v2/", "https://127.0.0.1/x"));
        assert!(!follows("http://127.0.0.1:1/", "http://evil.com/"));
        assert!(follows("http://127.0.0.1:1/", "http://127.0.0.1:2/"));
        assert!(!follows("https://ghcr.io/v2/", "ftp://ghcr.io/"));
    }
}
