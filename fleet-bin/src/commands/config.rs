//! `fleet config`: check, show, start a configuration file.

use serde_json::{Value, json};

use crate::assemble::{Context, shown};
use crate::cli::ConfigCommand;
use crate::config::strict;
use crate::exit::{Exit, Outcome};

/// Runs the command. A file that cannot be used has already ended the program with its problems.
pub(crate) fn run(context: &Context, command: &ConfigCommand) -> Outcome {
    let loaded = &context.loaded;
    let file = loaded.file.as_deref();
    match command {
        ConfigCommand::Check => {
            let report = json!({ "file": file, "ok": true });
            context
                .out
                .one("config", &report, || format!("{}: ok", shown(file)))?;
        }
        ConfigCommand::Show => {
            let config = redacted(serde_json::to_value(&loaded.config)?);
            let variables: Vec<_> = loaded.environment.keys().collect();
            let report = json!({ "file": file, "environment": variables, "values": config });
            let text = toml::to_string(&without_nulls(config))?;
            context.out.one("config", &report, || {
                let from_environment: String = variables
                    .iter()
                    .map(|key| format!("# from the environment: {key}\n"))
                    .collect();
                format!(
                    "# file: {}\n{from_environment}{}",
                    shown(file),
                    text.trim_end()
                )
            })?;
        }
        ConfigCommand::Init => context.out.text(&example())?,
        ConfigCommand::Schema => {
            context
                .out
                .text(&serde_json::to_string_pretty(&strict::schema())?)?;
        }
    }
    Ok(Exit::Done)
}

/// Passwords are never shown.
fn redacted(mut config: Value) -> Value {
    for registry in config["registries"]
        .as_object_mut()
        .into_iter()
        .flat_map(|map| map.values_mut())
    {
        if registry["password"].is_string() {
            registry["password"] = json!("(set)");
        }
    }
    config
}

/// TOML has no null: a key that is not set is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// A file with every key, commented out, made from the schema's own descriptions.
fn example() -> String {
    let schema = strict::schema();
    let mut text = String::from("# Configuration of fleet. Every key is optional.\n");
    section(&schema, &schema, "", &mut text);
    text.trim_end().to_owned()
}

fn section(root: &Value, schema: &Value, path: &str, text: &mut String) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let (tables, keys): (Vec<_>, Vec<_>) = properties.partition(|(_, part)| is_table(root, part));
    for (name, part) in keys {
        comment(part, text);
        text.push_str(&format!("# {name} = {}\n", sample(root, part)));
    }
    for (name, part) in tables {
        let resolved = strict::resolve(root, part);
        let others = &resolved["additionalProperties"];
        if others.is_object() && !is_table(root, others) {
            text.push('\n');
            comment(part, text);
            text.push_str(&format!("# [{path}{name}]\n"));
            for (key, value) in part["default"].as_object().into_iter().flatten() {
                text.push_str(&format!("# {key} = {value}\n"));
            }
            continue;
        }
        let (header, inner) = match resolved["additionalProperties"].is_object() {
            true => (
                format!("{path}{name}.\"ghcr.io\""),
                strict::resolve(root, &resolved["additionalProperties"]),
            ),
            false => (format!("{path}{name}"), resolved),
        };
        text.push('\n');
        comment(part, text);
        text.push_str(&format!("# [{header}]\n"));
        section(root, inner, &format!("{header}."), text);
    }
}

fn comment(part: &Value, text: &mut String) {
    for line in part["description"].as_str().unwrap_or_default().lines() {
        text.push_str(&format!("# {line}\n"));
    }
}

fn is_table(root: &Value, part: &Value) -> bool {
    let part = strict::resolve(root, part);
    part["properties"].is_object() || part["additionalProperties"].is_object()
}

fn sample(root: &Value, part: &Value) -> String {
    let default = &part["default"];
    if !default.is_null() {
        return default.to_string();
    }
    let resolved = strict::resolve(root, part);
    let kind = resolved["type"]
        .as_str()
        .or_else(|| resolved["type"][0].as_str());
    match kind {
        Some("boolean") => "false".to_owned(),
        Some("integer") => "0".to_owned(),
        Some("array") => "[]".to_owned(),
        _ => "\"\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration_also_when_uncommented() {
        let text = example();
        assert_eq!(strict::problems(&text), []);
        let uncommented: String = text
            .lines()
            .filter(|line| line.contains(" = ") || line.starts_with("# ["))
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        assert_eq!(strict::problems(&uncommented), [], "{uncommented}");
        assert!(
            uncommented.contains("[registries.\"ghcr.io\"]\nauth_hosts = []"),
            "{uncommented}"
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = redacted(json!({"registries": {"x": {"password": "secret"}}}));
        assert!(!shown.to_string().contains("secret"));
    }
}
