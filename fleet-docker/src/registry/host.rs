//! One registry: sends a question, authenticates, follows redirects, waits and tries again.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use fleet_core::ports::{PortError, PortErrorKind};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::auth::Auth;
use super::challenge;
use super::endpoint::{Endpoint, may_follow};
use super::error::{corrupt, denied, failure, transport};
use super::options::{Observer, RegistryOptions, Seen};
use super::pace::Pace;
use super::wire::read_capped;

/// Most redirects in a row; storage behind a registry takes one or two.
const REDIRECTS_MAX: usize = 5;

/// One registry.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    client: reqwest::Client,
    auth: Auth,
    pace: Pace,
    backoff: ExponentialBuilder,
    patience: Duration,
    observer: Option<Observer>,
}

/// One question to a registry.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    /// `repository:NAME:pull`.
    pub(super) scope: String,
    /// What is asked for, for error messages.
    pub(super) what: String,
    /// Most bytes of the body.
    pub(super) cap: usize,
}

/// An answer that is not an error.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// How a question failed, with its HTTP status if it got that far.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: Option<StatusCode>,
    pub(super) error: PortError,
}

impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        Self {
            status: None,
            error,
        }
    }
}

impl Host {
    pub(super) fn new(
        endpoint: Endpoint,
        client: reqwest::Client,
        auth: Auth,
        options: &RegistryOptions,
    ) -> Self {
        let pace = Pace::new(
            &endpoint.name,
            options.requests_per_second,
            options.patience,
            options.backoff_max,
        );
        let mut backoff = ExponentialBuilder::default()
            .with_min_delay(options.backoff_min)
            .with_max_delay(options.backoff_max)
            .with_max_times(options.attempts.saturating_sub(1) as usize);
        if options.jitter {
            backoff = backoff.with_jitter();
        }
        Self {
            endpoint,
            client,
            auth,
            pace,
            backoff,
            patience: options.patience,
            observer: options.observer.clone(),
        }
    }

    /// Asks, and asks again where that may help.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let patience = self.patience;
        (|| self.ask_once(question))
            .retry(self.backoff)
            .when(|refusal| refusal.error.is_transient())
            .adjust(|refusal, delay| match refusal.error.kind() {
                // The pace holds the next try for as long as the registry asked.
                PortErrorKind::RateLimited { retry_after } => {
                    retry_after.filter(|wait| *wait <= patience).and(delay)
                }
                _ => delay,
            })
            .await
    }

    async fn ask_once(&self, question: &Question) -> Result<Answer, Refusal> {
        let authorization = self.auth.header(&self.client, &question.scope).await?;
        let authorized = authorization.is_some();
        let answer = self.send(question, authorization).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.take(question, answer).await;
        }
        let name = &self.endpoint.name;
        let Some(challenge) = challenge::read(answer.headers()) else {
            let error = denied(format!(
                "{name} refused {} and does not say how to authenticate",
                question.what
            ));
            return Err(Refusal {
                status: Some(StatusCode::UNAUTHORIZED),
                error,
            });
        };
        if authorized && challenge == challenge::Challenge::Basic {
            self.auth.refused(&question.scope).await;
            return self.take(question, answer).await;
        }
        let header = self
            .auth
            .renew(&self.client, challenge, &question.scope)
            .await?;
        let answer = self.send(question, Some(header)).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.auth.refused(&question.scope).await;
        }
        self.take(question, answer).await
    }

    /// Sends, and follows redirects. Only the first request carries the credentials.
    async fn send(
        &self,
        question: &Question,
        mut authorization: Option<HeaderValue>,
    ) -> Result<reqwest::Response, Refusal> {
        let mut url = question.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.pace.admit().await?;
            let mut request = self.client.request(question.method.clone(), url.clone());
            if let Some(accept) = question.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(value) = authorization.take() {
                request = request.header(AUTHORIZATION, value);
            }
            let answer = self.observed(request).await?;
            let Some(target) = redirect_target(&url, &answer) else {
                return Ok(answer);
            };
            if !may_follow(&url, &target) {
                let host = target.host_str().unwrap_or("nowhere");
                let name = &self.endpoint.name;
                return Err(denied(format!(
                    "{name} redirects to {host}, which is not followed: expected TLS and an address that is not local"
                ))
                .into());
            }
            url = target;
        }
        let name = &self.endpoint.name;
        Err(failure(
            PortErrorKind::Failed,
            format!("{name} redirects more than {REDIRECTS_MAX} times"),
        )
        .into())
    }

    async fn observed(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Refusal> {
        let began = Instant::now();
        let result = request.send().await;
        let took = began.elapsed();
        let noted = match &result {
            Ok(answer) => {
                let now = jiff::Timestamp::now();
                Some(self.pace.note(answer.status(), answer.headers(), now))
            }
            Err(_) => None,
        };
        if let Some(observer) = &self.observer {
            let limit = noted.as_ref().and_then(|noted| noted.as_ref().ok());
            observer.see(&Seen {
                registry: &self.endpoint.name,
                status: result.as_ref().ok().map(|answer| answer.status().as_u16()),
                took,
                remaining: limit.and_then(|limit| limit.remaining),
            });
        }
        let answer = result.map_err(|error| transport(&self.endpoint.name, error))?;
        match noted {
            Some(Err(error)) => Err(Refusal {
                status: Some(answer.status()),
                error,
            }),
            _ => Ok(answer),
        }
    }

    /// Reads a good answer, or turns a bad one into an error.
    async fn take(
        &self,
        question: &Question,
        answer: reqwest::Response,
    ) -> Result<Answer, Refusal> {
        let name = &self.endpoint.name;
        let status = answer.status();
        if !status.is_success() {
            return Err(Refusal {
                status: Some(status),
                error: status_error(name, &question.what, status),
            });
        }
        let headers = answer.headers().clone();
        let body = if question.method == Method::HEAD {
            Vec::new()
        } else {
            read_capped(name, answer, question.cap).await?
        };
        Ok(Answer { headers, body })
    }
}

fn redirect_target(from: &Url, answer: &reqwest::Response) -> Option<Url> {
    let redirects = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !redirects {
        return None;
    }
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    from.join(location).ok()
}

fn status_error(name: &str, what: &str, status: StatusCode) -> PortError {
    let code = status.as_u16();
    match status {
        StatusCode::UNAUTHORIZED => denied(format!(
            "{name} refused {what} with status 401: the credentials are missing or wrong"
        )),
        StatusCode::FORBIDDEN => denied(format!(
            "{name} refused {what} with status 403: the credentials do not allow it"
        )),
        StatusCode::NOT_FOUND => failure(
            PortErrorKind::NotFound,
            format!("{name} does not have {what}"),
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => failure(
            PortErrorKind::Timeout,
            format!("{name} answered {what} with status {code}"),
        ),
        _ if status.is_server_error() => failure(
            PortErrorKind::Failed,
            format!("{name} answered {what} with status {code}"),
        ),
        _ if status.is_redirection() => corrupt(format!(
            "{name} answered {what} with status {code} and no address to go on with"
        )),
        _ => failure(
            PortErrorKind::Invalid,
            format!("{name} answered {what} with status {code}"),
        ),
    }
}
