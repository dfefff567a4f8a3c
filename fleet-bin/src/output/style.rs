//! Colours, by meaning.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

/// Well, done, healthy.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Put back, behind, held.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Needs a person, failed, lost.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// A name.
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();
/// A headline.
pub(crate) const HEAD: Style = Style::new().bold();
/// What matters less.
pub(crate) const DIM: Style = Style::new().dimmed();

/// A text in a style; the stream takes the style out where colours are not wanted.
pub(crate) fn paint<T: Display>(style: Style, text: T) -> Painted<T> {
    Painted { style, text }
}

/// See [`paint`].
pub(crate) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}",
            self.style,
            self.text,
            self.style.render_reset()
        )
    }
}

/// The style of a word that says how something is: a health, a state, an outcome.
pub(crate) fn of_word(word: &str) -> Style {
    match word {
        "healthy" | "idle" | "committed" | "yes" | "ok" | "clean" => GOOD,
        "updating" | "rolling_back" | "rolled_back" | "starting" | "behind" | "warn" | "hot"
        | "unclean" => WARN,
        "unhealthy" | "needs_operator" | "diverged" | "failed" | "refused" | "fail" => BAD,
        _ => Style::new(),
    }
}
