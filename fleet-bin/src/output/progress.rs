//! Progress of long steps: bars on a terminal, nothing elsewhere.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use fleet_core::ports::{Progress, ProgressSink};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::call::Said;

/// Where bars are drawn. Clones share the place.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    bars: MultiProgress,
    shown: bool,
}

impl Ui {
    /// Bars on standard error if it is a terminal and `quiet` is false.
    pub(crate) fn new(quiet: bool) -> Self {
        let shown = !quiet && io::stderr().is_terminal();
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            shown,
        }
    }

    /// Hides the bars while something is written.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.shown {
            self.bars.suspend(write)
        } else {
            write()
        }
    }

    /// A bar for one update or one copy; it disappears when it is dropped.
    pub(crate) fn sink(&self, name: &str) -> Sink {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(spinner());
        bar.set_prefix(name.to_owned());
        if self.shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Sink {
            bar,
            counting: Mutex::new(false),
        }
    }
}

/// One bar.
#[derive(Debug)]
pub(crate) struct Sink {
    bar: ProgressBar,
    counting: Mutex<bool>,
}

impl Sink {
    fn count(&self, on: bool) {
        let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        if *counting != on {
            *counting = on;
            self.bar.set_style(if on { counter() } else { spinner() });
        }
    }
}

impl Sink {
    /// Shows where something stands.
    pub(crate) fn show(&self, said: Said) {
        match said {
            Said::Step { instance, step } => {
                self.count(false);
                self.bar.set_prefix(instance);
                self.bar.set_message(step);
            }
            Said::Bytes { what, done, total } => {
                self.count(total > 0);
                self.bar.set_message(what);
                self.bar.set_length(total);
                self.bar.set_position(done);
            }
            Said::Probe { passes, reason } => {
                self.count(false);
                self.bar.set_message(match reason {
                    Some(reason) => format!("waiting for health: {reason}"),
                    None => format!("healthy, {passes} in a row"),
                });
            }
        }
    }
}

impl ProgressSink for Sink {
    fn report(&self, progress: Progress) {
        self.show(progress.into());
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn spinner() -> ProgressStyle {
    style("{spinner:.cyan} {prefix:.bold} {wide_msg} {elapsed:.dim}")
}

fn counter() -> ProgressStyle {
    style(
        "{spinner:.cyan} {prefix:.bold} {msg} [{bar:30.cyan/dim}] {bytes}/{total_bytes} {elapsed:.dim}",
    )
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_can_be_read() {
        for template in [
            "{spinner:.cyan} {prefix:.bold} {wide_msg} {elapsed:.dim}",
            "{spinner:.cyan} {prefix:.bold} {msg} [{bar:30.cyan/dim}] {bytes}/{total_bytes} {elapsed:.dim}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_sink_takes_any_order_of_reports() {
        let sink = Ui::new(true).sink("web");
        sink.report(Progress::Bytes {
            what: "pull",
            done: 5,
            total: 0,
        });
        sink.report(Progress::Bytes {
            what: "pull",
            done: 5,
            total: 10,
        });
        sink.report(Progress::Probe {
            passes: 1,
            reason: None,
        });
        sink.report(Progress::Step {
            instance: "web".to_owned(),
            step: "gate",
        });
        assert_eq!(sink.bar.message(), "gate");
    }
}
