//! Reads `WWW-Authenticate`: what a registry wants to see before it answers.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

/// Longest header that is looked at.
const MAX_HEADER_BYTES: usize = 8192;

/// How a registry wants its callers to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from this service.
    Bearer {
        /// Address of the token service.
        realm: Url,
        /// What the token service calls this registry.
        service: Option<String>,
    },
}

/// The challenge to answer: a bearer one if there is one, as the Docker client does.
pub(super) fn read(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = false;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for (scheme, parameters) in parse(text) {
            if scheme.eq_ignore_ascii_case("bearer") {
                let find = |name: &str| {
                    parameters
                        .iter()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.clone())
                };
                if let Some(realm) = find("realm").and_then(|realm| Url::parse(&realm).ok()) {
                    return Some(Challenge::Bearer {
                        realm,
                        service: find("service"),
                    });
                }
            }
            basic |= scheme.eq_ignore_ascii_case("basic");
        }
    }
    basic.then_some(Challenge::Basic)
}

type Parameters = Vec<(String, String)>;

/// Splits a header into schemes with their parameters. What does not follow the grammar ends the reading.
fn parse(text: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = text.get(..MAX_HEADER_BYTES).unwrap_or(text);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else {
            return challenges;
        };
        let trimmed = after.trim_start_matches([' ', '\t']);
        match trimmed.strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = parameter_value(value) else {
                    return challenges;
                };
                let Some((_, parameters)) = challenges.last_mut() else {
                    return challenges;
                };
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn read_all(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        read(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_owned),
        })
    }

    #[track_caller]
    fn check(values: &[&str], expect: Option<Challenge>) {
        assert_eq!(read_all(values), expect, "{values:?}");
    }

    #[test]
    fn the_dialects_of_the_field_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        let expect = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        check(&[hub], expect.clone());
        check(&[&hub.replacen("Bearer", "bearer", 1)], expect.clone());
        check(&[&hub.replace(",s", " , s")], expect.clone());
        check(&[&hub.replace("realm=", "Realm = ")], expect.clone());
        check(&["Basic realm=\"x\"", hub], expect.clone());
        check(&[&format!("Basic realm=\"x, y\", {hub}")], expect);
        check(&["Basic realm=\"Registry\""], Some(Challenge::Basic));
        check(&["BASIC"], Some(Challenge::Basic));
        check(
            &[r#"Bearer realm="https://r.io/t\"q""#],
            bearer("https://r.io/t%22q", None),
        );
        check(&["Bearer realm=https-less"], None);
        check(&["Negotiate"], None);
        check(&["Bearer"], None);
        check(&["=,,=\"\""], None);
        check(&[], None);
    }

    proptest! {
        #[test]
        fn no_header_is_a_panic(text in "[ -~]{0,200}") {
            let _ = read_all(&[&text]);
        }

        #[test]
        fn what_is_written_is_read(service in "[ -~]{1,40}") {
            let quoted = service.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"https://a.example/t\",service=\"{quoted}\"");
            prop_assert_eq!(read_all(&[&header]), bearer("https://a.example/t", Some(&service)));
        }
    }
}
