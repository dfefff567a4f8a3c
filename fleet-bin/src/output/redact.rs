//! Secrets in settings, kept from terminals, logs and bug reports.

use serde_json::Value;

/// What is shown instead.
const HIDDEN: &str = "(hidden)";
/// Parts of names of variables and labels that are taken for secrets.
const SECRET_WORDS: &[&str] = &[
    "pass",
    "secret",
    "token",
    "key",
    "credential",
    "auth",
    "pwd",
    "private",
    "dsn",
    "salt",
    "cookie",
];

/// A value of a setting without the secrets in it.
///
/// A variable or label whose name sounds like a secret is hidden whole, elsewhere what stands behind such a name and
/// `=`, and the password in an address.
pub(crate) fn redacted(field: &str, value: &Value) -> Value {
    let own_name = ["Config.Env.", "Config.Labels."]
        .iter()
        .find_map(|prefix| field.strip_prefix(prefix));
    match value {
        Value::Null => Value::Null,
        _ if own_name.is_some_and(is_secret) => HIDDEN.into(),
        Value::String(text) => masked(text).into(),
        Value::Array(items) => items.iter().map(|item| redacted("", item)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let value = if is_secret(name) && value.is_string() {
                    HIDDEN.into()
                } else {
                    redacted("", value)
                };
                (name.clone(), value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

fn masked(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.split_once('=') {
        Some((name, value)) if is_secret(name) && !value.is_empty() => format!("{name}={HIDDEN}"),
        _ => without_password(word),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `scheme://user:password@host` without the password.
fn without_password(word: &str) -> String {
    let parts = || {
        let (scheme, rest) = word.split_once("://")?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (user, host) = rest[..end].rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:{HIDDEN}@{host}{}", &rest[end..]))
    };
    parts().unwrap_or_else(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_not() {
        let hidden = |field: &str, value: Value| redacted(field, &value);
        assert_eq!(hidden("Config.Env.DB_PASSWORD", json!("hunter2")), HIDDEN);
        assert_eq!(hidden("Config.Env.API_KEY", json!("abc")), HIDDEN);
        assert_eq!(hidden("Config.Env.API_KEY", Value::Null), Value::Null);
        assert_eq!(hidden("Config.Labels.app.token", json!("abc")), HIDDEN);
        assert_eq!(hidden("Config.Env.LANG", json!("C.UTF-8")), "C.UTF-8");
        assert_eq!(
            hidden(
                "Config.Env.DATABASE_URL",
                json!("postgres://app:hunter2@db:5432/app?x=1")
            ),
            "postgres://app:(hidden)@db:5432/app?x=1"
        );
        assert_eq!(
            hidden(
                "Config.Cmd",
                json!(["serve", "--db-password=hunter2", "--port=80"])
            ),
            json!(["serve", "--db-password=(hidden)", "--port=80"])
        );
        assert_eq!(
            hidden(
                "HostConfig.LogConfig",
                json!({ "Config": { "splunk-token": "x", "tag": "y" } })
            ),
            json!({ "Config": { "splunk-token": HIDDEN, "tag": "y" } })
        );
        assert_eq!(hidden("Config.User", json!("www:www")), "www:www");
    }
}
