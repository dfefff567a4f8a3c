//! Checks a configuration file before anything reads it: every problem with line, column and, for a key that is not
//! known, the nearest one that is.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::file::FileConfig;

/// One thing that is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// What is wrong and what to write instead.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.message
        )
    }
}

/// The JSON Schema of the configuration.
pub(crate) fn schema() -> Value {
    schemars::schema_for!(FileConfig).to_value()
}

/// Every problem of a file, in the order of its lines; none means that it can be used.
pub(crate) fn problems(text: &str) -> Vec<Problem> {
    let at = |offset: usize, message: String| {
        let before = &text[..offset.min(text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Problem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            return vec![at(
                error.span().map_or(0, |span| span.start),
                error.message().to_owned(),
            )];
        }
    };
    let schema = schema();
    let mut found = Vec::new();
    unknown_keys(
        table.get_ref(),
        &schema,
        &schema,
        "",
        &mut |offset, message| {
            found.push(at(offset, message));
        },
    );
    if found.is_empty()
        && let Err(error) = toml::from_str::<FileConfig>(text)
    {
        found.push(at(
            error.span().map_or(0, |span| span.start),
            error.message().to_owned(),
        ));
    }
    found.sort_by_key(|problem| (problem.line, problem.column));
    found
}

/// Every key of the configuration as a dotted path; `*` stands for a name of the user's.
pub(crate) fn known_keys() -> BTreeSet<String> {
    let schema = schema();
    let mut keys = BTreeSet::new();
    collect(&schema, &schema, "", &mut keys);
    keys
}

/// The known name nearest to an unknown one, if one is near.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 3.max(name.len() / 3))
        .map(|(_, candidate)| candidate)
}

fn collect(root: &Value, schema: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let schema = resolve(root, schema);
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        collect(root, part, &join(path, name), keys);
    }
    if schema["additionalProperties"].is_object() {
        collect(
            root,
            &schema["additionalProperties"],
            &join(path, "*"),
            keys,
        );
    }
    if !path.is_empty()
        && !schema["properties"].is_object()
        && !schema["additionalProperties"].is_object()
    {
        keys.insert(path.to_owned());
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Follows references within the schema.
pub(crate) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'))
    {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

fn unknown_keys(
    table: &DeTable<'_>,
    root: &Value,
    schema: &Value,
    path: &str,
    report: &mut dyn FnMut(usize, String),
) {
    let schema = resolve(root, schema);
    let properties = schema["properties"].as_object();
    let others = Some(&schema["additionalProperties"]).filter(|others| others.is_object());
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let part = properties
            .and_then(|properties| properties.get(name))
            .or(others);
        match (part, value.get_ref()) {
            (Some(part), DeValue::Table(inner)) => {
                unknown_keys(inner, root, part, &join(path, name), report);
            }
            (Some(_), _) => {}
            (None, _) => {
                let known = properties
                    .into_iter()
                    .flatten()
                    .map(|(known, _)| known.as_str());
                let message = match nearest(name, known) {
                    Some(near) => format!(
                        "unknown key {:?}; did you mean {:?}?",
                        join(path, name),
                        join(path, near)
                    ),
                    None => format!("unknown key {:?}", join(path, name)),
                };
                report(key.span().start, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let found: Vec<_> = problems(text).iter().map(Problem::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn problems_say_where_and_what() {
        check("", &[]);
        check("label_prefix = \"x.\"\n[snapshots]\nkeep = 2\n", &[]);
        check("[registries.\"ghcr.io\"]\nusername = \"me\"\n", &[]);
        check(
            "# a comment\n[snapshot]\nkeep = 2\n",
            &["line 2, column 2: unknown key \"snapshot\"; did you mean \"snapshots\"?"],
        );
        check(
            "[snapshots]\n  kep = 2\n[log]\nlevle = \"info\"\n",
            &[
                "line 2, column 3: unknown key \"snapshots.kep\"; did you mean \"snapshots.keep\"?",
                "line 4, column 1: unknown key \"log.levle\"; did you mean \"log.level\"?",
            ],
        );
        check(
            "[registries.\"ghcr.io\"]\npasword = \"x\"\n",
            &[
                "line 2, column 1: unknown key \"registries.ghcr.io.pasword\"; did you mean \
                 \"registries.ghcr.io.password\"?",
            ],
        );
        check(
            "zebra_crossing = 1\n",
            &["line 1, column 1: unknown key \"zebra_crossing\""],
        );
        check(
            "[snapshots]\nkeep = \"two\"\n",
            &["line 2, column 8: invalid type: string \"two\", expected u32"],
        );
        assert!(
            problems("x = \n")[0]
                .to_string()
                .starts_with("line 1, column ")
        );
    }

    #[test]
    fn known_keys_are_dotted_paths() {
        let keys = known_keys();
        assert!(
            keys.contains("snapshots.keep") && keys.contains("registries.*.password"),
            "{keys:?}"
        );
        assert!(keys.contains("log.format"), "{keys:?}");
    }
}
