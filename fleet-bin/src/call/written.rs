//! Values that stand as themselves in a body, and as text in a query.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A number or a flag, none where it is left out.
///
/// # Errors
/// It is neither, or a text that does not read as one.
pub(crate) fn maybe<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + FromStr<Err: Display>,
{
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => read(value).map(Some),
    }
}

/// A flag, not set where it is left out.
///
/// # Errors
/// It is no flag, or a text that does not read as one.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(maybe(deserializer)?.unwrap_or_default())
}

/// A list, or the one item that it has.
///
/// # Errors
/// An item cannot be read.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items = match Value::deserialize(deserializer)? {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let read = |item| serde_json::from_value(item).map_err(D::Error::custom);
    items.into_iter().map(read).collect()
}

fn read<T, E>(value: Value) -> Result<T, E>
where
    T: DeserializeOwned + FromStr<Err: Display>,
    E: Error,
{
    match value {
        Value::String(text) => text
            .parse()
            .map_err(|error| E::custom(format!("{text:?} cannot be read: {error}"))),
        value => serde_json::from_value(value).map_err(E::custom),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Fields {
        #[serde(deserialize_with = "maybe")]
        number: Option<u64>,
        #[serde(deserialize_with = "flag")]
        on: bool,
        #[serde(deserialize_with = "list")]
        names: Vec<String>,
    }

    #[track_caller]
    fn check(value: Value, expect: Option<(Option<u64>, bool, &[&str])>) {
        let read = serde_json::from_value::<Fields>(value).ok();
        let read = read
            .as_ref()
            .map(|it| (it.number, it.on, it.names.iter().map(String::as_str)));
        let read = read.map(|(number, on, names)| (number, on, names.collect::<Vec<_>>()));
        assert_eq!(
            read,
            expect.map(|(number, on, names)| (number, on, names.to_vec()))
        );
    }

    #[test]
    fn a_query_says_the_same_as_a_body() {
        check(json!({}), Some((None, false, &[])));
        check(
            json!({ "number": 5, "on": true, "names": ["a", "b"] }),
            Some((Some(5), true, &["a", "b"])),
        );
        check(
            json!({ "number": "5", "on": "true", "names": "a" }),
            Some((Some(5), true, &["a"])),
        );
        check(json!({ "number": "five" }), None);
        check(json!({ "number": -1 }), None);
        check(json!({ "on": "yes" }), None);
    }
}
