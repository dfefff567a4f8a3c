//! Reading JSON of which nothing is certain: a missing or null field is the empty value of its kind.

use serde_json::{Map, Value};

/// A text, empty if it is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A number, 0 if it is none.
pub(crate) fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// A truth value, false if it is none.
pub(crate) fn boolean(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

/// The items of a list, none if it is none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The fields of an object, none if it is none.
pub(crate) fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Whether a value says nothing: null, false, zero, or empty.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
