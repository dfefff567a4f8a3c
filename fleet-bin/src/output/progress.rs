//! Progress of long steps: bars on a terminal, nothing elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use fleet_core::plan::rollout::RolloutGlance;
use fleet_core::ports::{Progress, ProgressSink};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board;
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

    /// A bar for one update or one copy, or the lines of rollouts with a bar for each of their updates; all of it
    /// disappears when it is dropped.
    pub(crate) fn sink(&self, name: &str) -> Sink {
        Sink {
            ui: self.clone(),
            own: Bar::new(self, name),
            board: Mutex::default(),
        }
    }
}

/// Shows what it is told.
#[derive(Debug)]
pub(crate) struct Sink {
    ui: Ui,
    /// For what is no rollout; gone once there is one.
    own: Bar,
    board: Mutex<Board>,
}

impl Sink {
    /// Shows where something stands.
    pub(crate) fn show(&self, said: Said) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Said::Rollout { rollout } => {
                self.own.0.finish_and_clear();
                board.rollout(&self.ui, *rollout);
            }
            Said::Of { instance, said } => {
                self.own.0.finish_and_clear();
                board.update(&self.ui, instance, *said);
            }
            Said::Over { instance } => board.over(&self.ui, &instance),
            said => self.own.show(said),
        }
    }
}

/// The lines of rollouts, and below them a bar for each update that is going on.
#[derive(Debug, Default)]
struct Board {
    rollouts: Vec<RolloutGlance>,
    lines: Vec<ProgressBar>,
    updates: BTreeMap<String, Bar>,
}

impl Board {
    fn rollout(&mut self, ui: &Ui, now: RolloutGlance) {
        if !ui.shown {
            return;
        }
        // One that is over is seen until another one has something to say.
        self.rollouts
            .retain(|other| !other.over || other.id == now.id);
        match self.rollouts.iter_mut().find(|other| other.id == now.id) {
            Some(known) => *known = now,
            None => self.rollouts.push(now),
        }
        let texts: Vec<String> = self.rollouts.iter().flat_map(board::lines).collect();
        for line in self.lines.drain(texts.len().min(self.lines.len())..) {
            line.finish_and_clear();
            ui.bars.remove(&line);
        }
        for place in self.lines.len()..texts.len() {
            let line = ui.bars.insert(place, ProgressBar::new_spinner());
            line.set_style(style("{wide_msg}"));
            self.lines.push(line);
        }
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text);
        }
    }

    fn update(&mut self, ui: &Ui, instance: String, said: Said) {
        if ui.shown {
            let bar = self.updates.entry(instance);
            bar.or_insert_with_key(|name| Bar::new(ui, name)).show(said);
        }
    }

    fn over(&mut self, ui: &Ui, instance: &str) {
        if let Some(bar) = self.updates.remove(instance) {
            bar.0.finish_and_clear();
            ui.bars.remove(&bar.0);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        for line in &self.lines {
            line.finish_and_clear();
        }
    }
}

/// One bar; it disappears when it is dropped.
#[derive(Debug)]
struct Bar(ProgressBar, Mutex<bool>);

impl Bar {
    fn new(ui: &Ui, name: &str) -> Self {
        let bar = ui.bars.add(ProgressBar::new_spinner());
        bar.set_style(spinner());
        bar.set_prefix(name.to_owned());
        if ui.shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self(bar, Mutex::new(false))
    }

    fn count(&self, on: bool) {
        let Self(bar, counting) = self;
        let mut counting = counting.lock().unwrap_or_else(PoisonError::into_inner);
        if *counting != on {
            *counting = on;
            bar.set_style(if on { counter() } else { spinner() });
        }
    }

    fn show(&self, said: Said) {
        let Self(bar, _) = self;
        match said {
            Said::Step { instance, step } => {
                self.count(false);
                bar.set_prefix(instance);
                bar.set_message(step);
            }
            Said::Bytes { what, done, total } => {
                self.count(total > 0);
                bar.set_message(what);
                bar.set_length(total);
                bar.set_position(done);
            }
            Said::Probe { passes, reason } => {
                self.count(false);
                bar.set_message(match reason {
                    Some(reason) => format!("waiting for health: {reason}"),
                    None => format!("healthy, {passes} in a row"),
                });
            }
            // Who tells of several things tells a sink.
            Said::Of { .. } | Said::Over { .. } | Said::Rollout { .. } => {}
        }
    }
}

impl ProgressSink for Sink {
    fn report(&self, progress: Progress) {
        self.show(progress.into());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
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
        assert_eq!(sink.own.0.message(), "gate");
    }
}
