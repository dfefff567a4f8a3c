//! Durations as users write them.

use std::time::Duration;

use fleet_core::time::parse_duration;
use serde::{Deserialize, Serialize};

/// A duration such as `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Self)
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        format!("{}ms", span.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let span: Span = "1h30m".parse().unwrap();
        assert_eq!(String::from(span).parse(), Ok(span));
        assert!(
            "soon"
                .parse::<Span>()
                .unwrap_err()
                .contains("expected a duration")
        );
    }
}
