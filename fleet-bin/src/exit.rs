//! Exit codes, and how an error ends the program. The codes are documented for users and never change.

use std::fmt;
use std::process::ExitCode;

use fleet_core::engine::FleetError;
use serde::{Deserialize, Serialize};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// Done, or nothing to do.
    Done,
    /// Failed or refused for good; nothing was left half-done.
    Failed,
    /// Wrong arguments or configuration.
    Usage,
    /// `check --exit-code`: something is behind.
    Available,
    /// Finished, but some instances were rolled back.
    RolledBack,
    /// An instance needs a person.
    NeedsPerson,
    /// Refused at this moment: pause, window, lock, hold.
    NotNow,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Available => 10,
            Self::RolledBack => 20,
            Self::NeedsPerson => 30,
            Self::NotNow => 75,
        }
    }

    /// What weighs more when several instances ended differently: a person being needed beats all, then a rollback,
    /// then a failure, then "not now".
    pub(crate) fn worst(self, other: Self) -> Self {
        let weight = |exit: Self| match exit {
            Self::Done => 0,
            Self::Available => 1,
            Self::NotNow => 2,
            Self::Failed => 3,
            Self::Usage => 4,
            Self::RolledBack => 5,
            Self::NeedsPerson => 6,
        };
        if weight(other) > weight(self) {
            other
        } else {
            self
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error with the exit code that it leads to.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    error: anyhow::Error,
}

impl Failure {
    /// A failure with a message of its own.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            error: anyhow::anyhow!("{message}"),
        }
    }

    /// The same with another end, and what was being done in front.
    pub(crate) fn with(self, exit: Exit, doing: &'static str) -> Self {
        let error = self.error.context(doing);
        Self { exit, error }
    }

    /// The same with another end.
    pub(crate) fn ends(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The first cause of a type, if there is one.
    pub(crate) fn cause<E: std::error::Error + Send + Sync + 'static>(&self) -> Option<&E> {
        self.error.chain().find_map(|cause| cause.downcast_ref())
    }

    /// The error and what caused it, one line each.
    pub(crate) fn chain(&self) -> String {
        let mut lines = vec![self.error.to_string()];
        for cause in self.error.chain().skip(1) {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if lines.iter().all(|line| !line.contains(&text)) {
                lines.push(text);
            }
        }
        lines.join("\n  caused by: ")
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let exit = match error.downcast_ref() {
            Some(FleetError::Busy(_)) => Exit::NotNow,
            _ => Exit::Failed,
        };
        Self { exit, error }
    }
}

/// What every command returns.
pub(crate) type Outcome<T = Exit> = Result<T, Failure>;

/// Gives an error its exit code and says what was being done.
pub(crate) trait OrExit<T> {
    /// On an error: ends with `exit`, `doing` in front of the error.
    fn or_exit(self, exit: Exit, doing: impl fmt::Display + Send + Sync + 'static) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit, doing: impl fmt::Display + Send + Sync + 'static) -> Outcome<T> {
        self.map_err(|error| Failure {
            exit,
            error: error.into().context(doing),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_beats_a_rollback_beats_a_failure() {
        assert_eq!(Exit::RolledBack.worst(Exit::NeedsPerson), Exit::NeedsPerson);
        assert_eq!(Exit::NeedsPerson.worst(Exit::RolledBack), Exit::NeedsPerson);
        assert_eq!(Exit::RolledBack.worst(Exit::Failed), Exit::RolledBack);
        assert_eq!(Exit::Done.worst(Exit::NotNow), Exit::NotNow);
    }

    #[test]
    fn the_chain_names_each_cause_once() {
        let inner = std::io::Error::other("disk on fire");
        let failure = Err::<(), _>(inner)
            .or_exit(Exit::Usage, "cannot open it")
            .unwrap_err();
        assert_eq!(failure.chain(), "cannot open it\n  caused by: disk on fire");
        assert_eq!(failure.exit, Exit::Usage);
    }
}
