//! Answers a registry's challenge: basic credentials, or a bearer token from its token service.
//!
//! Tokens are kept until shortly before they expire, one per scope. The challenge is remembered, so that later
//! questions carry their token at once. Credentials that were refused are not sent again for a while: failed logins
//! count against the limits of some registries.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_core::ports::{PortError, PortErrorKind};
use moka::future::Cache;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use super::challenge::Challenge;
use super::credentials::{self, Credentials};
use super::endpoint::Endpoint;
use super::error::{corrupt, denied, failure, shared, transport};
use super::options::{DockerConfig, Login};
use super::wire::read_capped;

/// Largest answer of a token service.
const TOKEN_BYTES_MAX: usize = 256 * 1024;
/// Lifetime of a token whose service does not say, as the token specification has it.
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// Longest time for which a token is believed to last.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(12 * 3600);
/// A token is not used in its last moments, in which it could expire on the way.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// How long refused credentials are not sent again.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Most scopes whose tokens are kept for one registry.
const TOKENS_MAX: u64 = 10_000;

/// How fleet authenticates at one registry.
#[derive(Debug)]
pub(super) struct Auth {
    endpoint: Endpoint,
    login: Option<Login>,
    docker: DockerConfig,
    tokens: Cache<String, Token>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    challenge: Option<Challenge>,
    refused_until: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Token {
    header: HeaderValue,
    life: Duration,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<f64>,
}

struct TokenLife;

impl moka::Expiry<String, Token> for TokenLife {
    fn expire_after_create(
        &self,
        _scope: &String,
        token: &Token,
        _now: std::time::Instant,
    ) -> Option<Duration> {
        Some(token.life)
    }
}

impl Auth {
    pub(super) fn new(endpoint: Endpoint, login: Option<Login>, docker: DockerConfig) -> Self {
        Self {
            endpoint,
            login,
            docker,
            tokens: Cache::builder()
                .max_capacity(TOKENS_MAX)
                .expire_after(TokenLife)
                .build(),
            state: Mutex::new(State::default()),
        }
    }

    /// The `Authorization` for a scope by what is known so far; none before the first challenge.
    pub(super) async fn header(
        &self,
        client: &reqwest::Client,
        scope: &str,
    ) -> Result<Option<HeaderValue>, PortError> {
        let challenge = self.lock().challenge.clone();
        match challenge {
            None => Ok(None),
            Some(challenge) => self.answer(client, &challenge, scope).await.map(Some),
        }
    }

    /// The `Authorization` that answers a challenge. The token that led to it is not used again.
    pub(super) async fn renew(
        &self,
        client: &reqwest::Client,
        challenge: Challenge,
        scope: &str,
    ) -> Result<HeaderValue, PortError> {
        self.tokens.invalidate(scope).await;
        self.lock().challenge = Some(challenge.clone());
        self.answer(client, &challenge, scope).await
    }

    /// Takes note that the registry refused what [`Auth::renew`] gave.
    pub(super) async fn refused(&self, scope: &str) {
        self.tokens.invalidate(scope).await;
        let mut state = self.lock();
        if state.challenge == Some(Challenge::Basic) {
            state.refused_until = Some(Instant::now() + REFUSED_FOR);
        }
    }

    async fn answer(
        &self,
        client: &reqwest::Client,
        challenge: &Challenge,
        scope: &str,
    ) -> Result<HeaderValue, PortError> {
        self.check_not_refused()?;
        match challenge {
            Challenge::Basic => self.basic().await,
            Challenge::Bearer { realm, service } => {
                let fetch = self.fetch_token(client, realm, service.as_deref(), scope);
                let token = self.tokens.try_get_with_by_ref(scope, fetch).await;
                token.map(|token| token.header).map_err(shared)
            }
        }
    }

    fn check_not_refused(&self) -> Result<(), PortError> {
        let name = &self.endpoint.name;
        match self.lock().refused_until {
            Some(until) if Instant::now() < until => Err(denied(format!(
                "{name} refused the credentials less than a minute ago; they are not sent again yet"
            ))),
            _ => Ok(()),
        }
    }

    async fn basic(&self) -> Result<HeaderValue, PortError> {
        let name = &self.endpoint.name;
        match self.credentials().await? {
            Credentials::Password { username, password } => basic_header(&username, &password),
            Credentials::Anonymous => Err(denied(format!(
                "{name} wants a name and password, and none are configured"
            ))),
            Credentials::IdentityToken(_) => Err(denied(format!(
                "{name} wants a name and password, and only an identity token is configured"
            ))),
        }
    }

    async fn credentials(&self) -> Result<Credentials, PortError> {
        credentials::find(&self.endpoint, self.login.as_ref(), &self.docker).await
    }

    async fn fetch_token(
        &self,
        client: &reqwest::Client,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
    ) -> Result<Token, PortError> {
        let credentials = self.credentials().await?;
        self.check_realm(realm, &credentials)?;
        let host = realm.host_str().unwrap_or_default();
        let request = token_request(client, realm, service, scope, &credentials)?;
        let answer = request
            .send()
            .await
            .map_err(|error| transport(host, error))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(self.token_refusal(host, status, &credentials));
        }
        let body = read_capped(host, answer, TOKEN_BYTES_MAX).await?;
        let parsed: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
            corrupt(format!(
                "expected a token from {host}, found something else"
            ))
        })?;
        token_of(host, parsed)
    }

    fn check_realm(&self, realm: &Url, credentials: &Credentials) -> Result<(), PortError> {
        let name = &self.endpoint.name;
        let host = realm.host_str().unwrap_or("a realm without a host");
        if !self.endpoint.may_ask(realm) {
            return Err(denied(format!(
                "{name} sends fleet for a token to {host}, which is not asked: expected TLS and an address that is not local"
            )));
        }
        let anonymous = matches!(credentials, Credentials::Anonymous);
        if !anonymous && !self.endpoint.may_see_credentials(realm) {
            return Err(denied(format!(
                "{name} wants its credentials sent to {host}, which is another host; list it in auth_hosts of {name} if that is right"
            )));
        }
        Ok(())
    }

    fn token_refusal(
        &self,
        host: &str,
        status: StatusCode,
        credentials: &Credentials,
    ) -> PortError {
        let code = status.as_u16();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let anonymous = matches!(credentials, Credentials::Anonymous);
                if status == StatusCode::UNAUTHORIZED && !anonymous {
                    self.lock().refused_until = Some(Instant::now() + REFUSED_FOR);
                }
                denied(format!(
                    "the token service {host} refused with status {code}"
                ))
            }
            StatusCode::TOO_MANY_REQUESTS => failure(
                PortErrorKind::RateLimited { retry_after: None },
                format!("the token service {host} limits requests"),
            ),
            _ => failure(
                PortErrorKind::Failed,
                format!("the token service {host} answered with status {code}"),
            ),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each field is written whole; a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request for a token: a GET, or for an identity token the POST of OAuth 2.
fn token_request(
    client: &reqwest::Client,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    credentials: &Credentials,
) -> Result<reqwest::RequestBuilder, PortError> {
    if let Credentials::IdentityToken(token) = credentials {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "fleet")
            .append_pair("scope", scope)
            .append_pair("refresh_token", token.expose_secret());
        if let Some(service) = service {
            form.append_pair("service", service);
        }
        let request = client
            .post(realm.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish());
        return Ok(request);
    }
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", scope);
        if let Credentials::Password { username, .. } = credentials {
            query.append_pair("account", username);
        }
    }
    let request = client.get(url);
    Ok(match credentials {
        Credentials::Password { username, password } => {
            request.header(AUTHORIZATION, basic_header(username, password)?)
        }
        _ => request,
    })
}

fn token_of(host: &str, answer: TokenAnswer) -> Result<Token, PortError> {
    let empty = |token: &SecretString| token.expose_secret().is_empty();
    let token = answer.token.filter(|token| !empty(token));
    let token = token.or_else(|| answer.access_token.filter(|token| !empty(token)));
    let Some(token) = token else {
        return Err(corrupt(format!(
            "expected token or access_token from {host}, found neither"
        )));
    };
    let life = answer
        .expires_in
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        .unwrap_or(TOKEN_LIFE_DEFAULT)
        .min(TOKEN_LIFE_MAX);
    Ok(Token {
        header: sensitive(&format!("Bearer {}", token.expose_secret()))?,
        life: life.saturating_sub(TOKEN_MARGIN),
    })
}

fn basic_header(username: &str, password: &SecretString) -> Result<HeaderValue, PortError> {
    let pair = SecretString::from(format!("{username}:{}", password.expose_secret()));
    sensitive(&format!("Basic {}", STANDARD.encode(pair.expose_secret())))
}

/// A header that no `Debug` prints.
fn sensitive(text: &str) -> Result<HeaderValue, PortError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| denied("the token or password cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
