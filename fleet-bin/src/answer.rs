//! What a command comes to: data for programs, text for people, and how it ends.
//!
//! A command makes its answer where the work is done, in this process or in the daemon; it is printed in one place.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failure, Outcome};
use crate::output::{SCHEMA, Table};

/// What a command comes to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// How it ends.
    pub(crate) exit: Exit,
    /// Name of the data in the JSON document.
    pub(crate) name: String,
    /// The data.
    pub(crate) value: Value,
    /// The same as one object a line.
    pub(crate) lines: Vec<Value>,
    /// The same for people.
    pub(crate) shown: Shown,
    /// What went wrong although there is an answer; said as an error after it.
    pub(crate) wrong: Option<String>,
}

/// An answer for people.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shown {
    /// Text.
    Text(String),
    /// A table.
    Table(Table),
}

impl Answer {
    /// One object: `{"schema":1,"<name>":{…}}`.
    ///
    /// # Errors
    /// The object has no JSON form.
    pub(crate) fn one<T: Serialize>(name: &str, object: &T, text: String) -> Outcome<Self> {
        let value = serde_json::to_value(object)?;
        Ok(Self {
            exit: Exit::Done,
            name: name.to_owned(),
            lines: vec![value.clone()],
            value,
            shown: Shown::Text(text),
            wrong: None,
        })
    }

    /// A list: `{"schema":1,"<name>":[…]}`.
    ///
    /// # Errors
    /// A row has no JSON form.
    pub(crate) fn list<T: Serialize>(name: &str, rows: &[T], shown: Shown) -> Outcome<Self> {
        let lines: Vec<Value> = rows
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            exit: Exit::Done,
            name: name.to_owned(),
            value: Value::Array(lines.clone()),
            lines,
            shown,
            wrong: None,
        })
    }

    /// The whole document.
    pub(crate) fn document(&self) -> Value {
        serde_json::json!({ "schema": SCHEMA, (self.name.as_str()): self.value })
    }

    /// The same with another end.
    pub(crate) fn ends(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same, with what went wrong all the same.
    pub(crate) fn but(mut self, wrong: &Failure) -> Self {
        self.exit = wrong.exit;
        self.wrong = Some(wrong.chain());
        self
    }
}
