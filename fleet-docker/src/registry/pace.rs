//! How fast one registry is asked: a token bucket, and the holds that the registry itself asks for.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use fleet_core::ports::{PortError, PortErrorKind};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};
use tokio::time::Instant;

use super::error::failure;

/// Longest hold that a registry can impose; a larger wish is a mistake or an attack.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);
/// First hold after a 429 that does not say how long.
const HOLD_FIRST: Duration = Duration::from_secs(2);

/// The pace of one registry.
#[derive(Debug)]
pub(super) struct Pace {
    registry: String,
    patience: Duration,
    hold_max_unsaid: Duration,
    bucket: DefaultDirectRateLimiter,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hold_until: Option<Instant>,
    /// Refusals in a row that did not say how long to wait.
    strikes: u32,
}

/// What a registry said about its limit in one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limit {
    /// Requests left in the window.
    pub(super) remaining: Option<u64>,
    /// Time after which there are more.
    pub(super) reset: Option<Duration>,
}

impl Pace {
    pub(super) fn new(
        registry: &str,
        per_second: u32,
        patience: Duration,
        hold_max_unsaid: Duration,
    ) -> Self {
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        Self {
            registry: registry.to_owned(),
            patience,
            hold_max_unsaid,
            bucket: RateLimiter::direct(Quota::per_second(per_second)),
            state: Mutex::new(State::default()),
        }
    }

    /// Waits until the registry may be asked.
    ///
    /// # Errors
    /// `RateLimited`: the registry asked for a longer pause than the caller has patience for. Nothing was sent.
    pub(super) async fn admit(&self) -> Result<(), PortError> {
        if let Some(left) = self.hold_left() {
            if left > self.patience {
                return Err(self.limited(left));
            }
            tokio::time::sleep(left).await;
        }
        self.bucket.until_ready().await;
        Ok(())
    }

    /// Takes note of an answer; an error if the registry refused because of its limit.
    pub(super) fn note(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Limit, PortError> {
        let limit = read_limit(headers);
        let asked = retry_after(headers, now);
        let refused = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::SERVICE_UNAVAILABLE && asked.is_some());
        if refused {
            let hold = self.refuse(asked.or(limit.reset));
            return Err(self.limited(hold));
        }
        let mut state = self.lock();
        if status.is_success() {
            state.strikes = 0;
        }
        if limit.remaining == Some(0)
            && let Some(reset) = limit.reset
        {
            state.hold_until = Some(Instant::now() + reset.min(HOLD_MAX));
        }
        Ok(limit)
    }

    fn refuse(&self, asked: Option<Duration>) -> Duration {
        let mut state = self.lock();
        let hold = asked.unwrap_or_else(|| {
            let factor = 1u32 << state.strikes.min(16);
            state.strikes += 1;
            HOLD_FIRST.saturating_mul(factor).min(self.hold_max_unsaid)
        });
        let hold = hold.min(HOLD_MAX);
        state.hold_until = Some(Instant::now() + hold);
        hold
    }

    fn hold_left(&self) -> Option<Duration> {
        let left = self
            .lock()
            .hold_until?
            .saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn limited(&self, hold: Duration) -> PortError {
        let kind = PortErrorKind::RateLimited {
            retry_after: Some(hold),
        };
        let registry = &self.registry;
        let secs = hold.as_secs().max(1);
        failure(
            kind,
            format!("{registry} limits requests; it may be asked again in {secs} s"),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is two numbers that are written whole; a panic elsewhere leaves nothing half done.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// `Retry-After`, as seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(secs) = text.parse::<u64>() {
        return Some(Duration::from_secs(secs));
    }
    let at = http_date(text)?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// The date of an HTTP header.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(text);
    zoned.ok().map(|zoned| zoned.timestamp())
}

/// Reads the limit in the three forms in use: `ratelimit-remaining: 76;w=21600` (Docker Hub),
/// `RateLimit-Remaining: 76` with `RateLimit-Reset: 30`, and `RateLimit: "default";r=76;t=30`.
fn read_limit(headers: &HeaderMap) -> Limit {
    let number = |name: &'static str| {
        let value = headers.get(HeaderName::from_static(name))?.to_str().ok()?;
        value.split(';').next()?.trim().parse::<u64>().ok()
    };
    let parameter = |name: &str| {
        let value = headers.get("ratelimit")?.to_str().ok()?;
        let found = value.split([';', ',']).find_map(|part| {
            let (key, number) = part.trim().split_once('=')?;
            (key == name).then(|| number.trim().parse::<u64>().ok())
        });
        found.flatten()
    };
    let reset = number("ratelimit-reset").or_else(|| parameter("t"));
    Limit {
        remaining: number("ratelimit-remaining").or_else(|| parameter("r")),
        reset: reset.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    fn pace() -> Pace {
        Pace::new(
            "r.example",
            1000,
            Duration::from_secs(5),
            Duration::from_secs(60),
        )
    }

    fn wait_of(error: &PortError) -> Duration {
        match error.kind() {
            PortErrorKind::RateLimited { retry_after } => retry_after.unwrap(),
            other => panic!("expected RateLimited, found {other:?}"),
        }
    }

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    #[track_caller]
    fn check_hold(status: u16, pairs: &[(&'static str, &str)], expect: Option<u64>) {
        let status = StatusCode::from_u16(status).unwrap();
        let hold = pace().note(status, &headers(pairs), now()).err();
        assert_eq!(
            hold.map(|error| wait_of(&error).as_secs()),
            expect,
            "{status} {pairs:?}"
        );
    }

    #[test]
    fn a_refusal_holds_as_long_as_the_registry_says() {
        check_hold(429, &[("retry-after", "17")], Some(17));
        check_hold(
            429,
            &[("retry-after", "Sat, 31 Jan 2026 12:01:00 GMT")],
            Some(60),
        );
        check_hold(
            429,
            &[("retry-after", "Sat, 31 Jan 2026 11:00:00 GMT")],
            Some(0),
        );
        check_hold(429, &[("retry-after", "99999999999")], Some(86400));
        check_hold(429, &[("ratelimit-reset", "40")], Some(40));
        check_hold(429, &[("ratelimit", "\"default\";r=0;t=41")], Some(41));
        check_hold(429, &[], Some(2));
        check_hold(503, &[("retry-after", "3")], Some(3));
        check_hold(503, &[], None);
        check_hold(200, &[("retry-after", "3")], None);
    }

    #[test]
    fn refusals_without_a_time_hold_longer_each_time_up_to_a_limit() {
        let pace = pace();
        let refuse = || {
            let error = pace.note(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), now());
            wait_of(&error.unwrap_err()).as_secs()
        };
        let holds: Vec<_> = (0..7).map(|_| refuse()).collect();
        assert_eq!(holds, [2, 4, 8, 16, 32, 60, 60]);
        pace.note(StatusCode::OK, &HeaderMap::new(), now()).unwrap();
        let error = pace.note(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), now());
        assert_eq!(wait_of(&error.unwrap_err()).as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_hold_is_waited_for_and_a_long_one_is_an_error_at_once() {
        let short = pace();
        let began = Instant::now();
        let asked = headers(&[("retry-after", "4")]);
        short
            .note(StatusCode::TOO_MANY_REQUESTS, &asked, now())
            .unwrap_err();
        short.admit().await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 4);

        let long = pace();
        let asked = headers(&[("retry-after", "600")]);
        long.note(StatusCode::TOO_MANY_REQUESTS, &asked, now())
            .unwrap_err();
        assert!(wait_of(&long.admit().await.unwrap_err()).as_secs() > 590);
        tokio::time::advance(Duration::from_secs(600)).await;
        long.admit().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_exhausted_limit_holds_before_the_registry_has_to_refuse() {
        let pace = pace();
        let exhausted = headers(&[("ratelimit-remaining", "0"), ("ratelimit-reset", "90")]);
        let limit = pace.note(StatusCode::OK, &exhausted, now()).unwrap();
        assert_eq!(limit.remaining, Some(0));
        assert!(pace.admit().await.is_err());
    }

    #[test]
    fn the_limit_is_read_in_its_three_forms() {
        let limit = |remaining, reset: Option<u64>| Limit {
            remaining,
            reset: reset.map(Duration::from_secs),
        };
        let hub = headers(&[
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
        ]);
        assert_eq!(read_limit(&hub), limit(Some(76), None));
        let draft = headers(&[("ratelimit-remaining", "5"), ("ratelimit-reset", "30")]);
        assert_eq!(read_limit(&draft), limit(Some(5), Some(30)));
        let newest = headers(&[("ratelimit", "\"default\";r=50;t=31")]);
        assert_eq!(read_limit(&newest), limit(Some(50), Some(31)));
        assert_eq!(read_limit(&HeaderMap::new()), Limit::default());
    }
}
