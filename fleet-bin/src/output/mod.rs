//! What users see: data on standard output in the form they asked for, everything else on standard error.

mod board;
mod progress;
pub(crate) mod redact;
pub(crate) mod style;
mod table;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use progress::Ui;
pub(crate) use table::{Table, bytes, dash, duration};

use crate::answer::{Answer, Shown};
use crate::cli::{ColorWhen, Format};
use crate::exit::{Exit, Failure, Outcome};

/// Version of the JSON on standard output.
pub(crate) const SCHEMA: u32 = 1;

/// Prints data.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    format: Format,
    color: bool,
}

impl Out {
    /// Decides about colours for the whole process.
    pub(crate) fn new(format: Format, color: ColorWhen) -> Self {
        let choice = match color {
            ColorWhen::Auto => anstream::ColorChoice::Auto,
            ColorWhen::Always => anstream::ColorChoice::AlwaysAnsi,
            ColorWhen::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let color = match color {
            ColorWhen::Auto => {
                anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
            }
            ColorWhen::Always => true,
            ColorWhen::Never => false,
        };
        Self { format, color }
    }

    /// The form that was asked for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A list: `{"schema":1,"<name>":[…]}`, one object a line, or a table.
    pub(crate) fn list<T: Serialize>(
        &self,
        name: &str,
        rows: &[T],
        table: impl FnOnce() -> Table,
    ) -> Outcome<()> {
        match self.format {
            Format::Table => self.text(&table().render(self.color)),
            Format::Json => self.document(name, &serde_json::to_value(rows)?),
            Format::Ndjson => rows.iter().try_for_each(|row| self.line(row)),
        }
    }

    /// One object: `{"schema":1,"<name>":{…}}`, or text.
    pub(crate) fn one<T: Serialize>(
        &self,
        name: &str,
        object: &T,
        text: impl FnOnce() -> String,
    ) -> Outcome<()> {
        match self.format {
            Format::Table => self.text(&text()),
            Format::Json => self.document(name, &serde_json::to_value(object)?),
            Format::Ndjson => self.line(object),
        }
    }

    /// Prints an answer; returns how the command ends.
    ///
    /// # Errors
    /// Standard output cannot be written, or something went wrong although there is an answer.
    pub(crate) fn answer(&self, answer: Answer) -> Outcome {
        match self.format {
            Format::Table => self.text(&match answer.shown {
                Shown::Text(text) => text,
                Shown::Table(table) => table.render(self.color),
            })?,
            Format::Json => self.document(&answer.name, &answer.value)?,
            Format::Ndjson => answer.lines.iter().try_for_each(|line| self.line(line))?,
        }
        match answer.wrong {
            None => Ok(answer.exit),
            Some(wrong) => Err(Failure::new(answer.exit, wrong)),
        }
    }

    /// Text as it is, with a line feed.
    pub(crate) fn text(&self, text: &str) -> Outcome<()> {
        if text.is_empty() {
            return Ok(());
        }
        written(writeln!(anstream::stdout().lock(), "{text}"))
    }

    /// One object on one line, `schema` in front.
    pub(crate) fn line<T: Serialize>(&self, row: &T) -> Outcome<()> {
        let mut object = serde_json::to_value(row)?;
        if let Value::Object(fields) = &mut object {
            fields.insert("schema".to_owned(), json!(SCHEMA));
        }
        written(writeln!(io::stdout().lock(), "{object}"))
    }

    fn document(&self, name: &str, value: &Value) -> Outcome<()> {
        let document = json!({ "schema": SCHEMA, name: value });
        let text = if io::stdout().is_terminal() {
            serde_json::to_string_pretty(&document)?
        } else {
            document.to_string()
        };
        written(writeln!(io::stdout().lock(), "{text}"))
    }
}

/// A reader that went away (`| head`) ends the program quietly.
fn written(result: io::Result<()>) -> Outcome<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!("standard output: {error}"),
        )),
    }
}

/// Says something to people, on standard error.
pub(crate) fn tell(text: &str) {
    // Standard error is the last place there is: if it is gone, nobody reads.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Asks for consent to something that cannot be taken back. Without a terminal `--yes` is needed.
///
/// # Errors
/// Nobody can be asked, or the answer is no.
pub(crate) fn confirm(yes: bool, question: &str) -> Outcome<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let message = format!("{question} Not done: nobody can be asked; give --yes to do it.");
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut stderr = anstream::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "not done: the answer was no"))
    }
}
