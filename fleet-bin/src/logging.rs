//! Logs: on standard error, never across a progress bar, never a secret.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::exit::{Exit, OrExit as _, Outcome};
use crate::output::Ui;

/// Starts logging. `filter` as in the configuration, for instance `warn,fleet_docker=debug`.
///
/// # Errors
/// The filter cannot be read.
pub(crate) fn start(filter: &str, format: LogFormat, ui: &Ui) -> Outcome<()> {
    let filter = EnvFilter::try_new(filter).or_exit(
        Exit::Usage,
        format!("log.level: {filter:?} is no level or filter"),
    )?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(AroundBars(ui.clone()));
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Writes lines while the bars are hidden.
struct AroundBars(Ui);

struct Line(Ui);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AroundBars {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.0.clone())
    }
}
