//! When each channel is looked at: intervals or cron expressions, spread by jitter, never twice at once.
//!
//! The poller is a plain value that is told what time it is and what began and ended. It only says what is due: what is
//! done about it is decided elsewhere, and a restart simply finds every channel due.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;

use crate::model::Channel;
use crate::time::{Timestamp, parse_duration};

/// Shortest interval: below it a registry's limits are spent on nothing.
pub const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// Largest part of an interval by which jitter delays a poll.
const JITTER_PART: f64 = 0.1;
/// Largest delay of a poll that follows a cron expression.
const CRON_JITTER_MAX: Duration = Duration::from_secs(60);

/// When a channel is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum PollSchedule {
    /// Again this long after the last look began.
    Every(Duration),
    /// At each match of a cron expression, UTC.
    Cron(Box<Cron>),
}

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an interval of at least 10s such as 15m, or cron:EXPR such as cron:0 3 * * *, found {found:?}"
)]
pub struct PollScheduleError {
    /// The text as given.
    pub found: String,
}

/// Schedules by channel, with one for channels that have none of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct PollSchedules {
    by_channel: BTreeMap<Channel, PollSchedule>,
    others: PollSchedule,
}

/// Which channels are due.
#[derive(Debug, Clone)]
pub struct Poller {
    schedules: PollSchedules,
    channels: BTreeMap<Channel, State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    running: bool,
    began: Timestamp,
    next: Timestamp,
}

impl FromStr for PollSchedule {
    type Err = PollScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || PollScheduleError {
            found: text.to_owned(),
        };
        match text.trim().strip_prefix("cron:") {
            Some(expression) => {
                let cron = Cron::from_str(expression.trim()).map_err(|_| bad())?;
                Ok(Self::Cron(Box::new(cron)))
            }
            None => match parse_duration(text.trim()) {
                Ok(every) if every >= INTERVAL_MIN => Ok(Self::Every(every)),
                _ => Err(bad()),
            },
        }
    }
}

impl fmt::Display for PollSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => write!(f, "{}s", every.as_secs()),
            Self::Cron(cron) => write!(f, "cron:{}", cron.as_str()),
        }
    }
}

impl Default for PollSchedules {
    /// `canary` every 5 minutes, `staging` every 15, everything else every 30.
    fn default() -> Self {
        let every = |minutes: u64| PollSchedule::Every(Duration::from_secs(minutes * 60));
        Self {
            by_channel: BTreeMap::from([
                (Channel("canary".to_owned()), every(5)),
                (Channel("staging".to_owned()), every(15)),
            ]),
            others: every(30),
        }
    }
}

impl PollSchedules {
    /// Sets the schedule of one channel.
    pub fn set(&mut self, channel: Channel, schedule: PollSchedule) {
        self.by_channel.insert(channel, schedule);
    }

    /// Sets the schedule of channels that have none of their own.
    pub fn set_others(&mut self, schedule: PollSchedule) {
        self.others = schedule;
    }

    /// The schedule of a channel.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> &PollSchedule {
        self.by_channel.get(channel).unwrap_or(&self.others)
    }
}

impl PollSchedule {
    /// When to look again after a look that began at `began`, delayed by a part `chance` (0 to 1) of the jitter.
    fn next(&self, began: Timestamp, chance: f64) -> Timestamp {
        let chance = chance.clamp(0.0, 1.0);
        match self {
            Self::Every(every) => {
                began.saturating_add(every.saturating_add(every.mul_f64(JITTER_PART * chance)))
            }
            Self::Cron(cron) => {
                let from = began.jiff().to_zoned(TimeZone::UTC);
                let at = cron.iter_after(from).next();
                // An expression that never matches again is never due again.
                let at = at.map_or(Timestamp::from_millis(i64::MAX), |at| {
                    Timestamp::from_jiff(at.timestamp())
                });
                at.saturating_add(CRON_JITTER_MAX.mul_f64(chance))
            }
        }
    }
}

impl Poller {
    /// A poller that has looked at nothing yet: every channel is due.
    #[must_use]
    pub fn new(schedules: PollSchedules) -> Self {
        Self {
            schedules,
            channels: BTreeMap::new(),
        }
    }

    /// Whether a channel is to be looked at now. Never while a look at it is under way.
    #[must_use]
    pub fn is_due(&self, channel: &Channel, now: Timestamp) -> bool {
        match self.channels.get(channel) {
            None => true,
            // A look that began in the future began before the clock was set back.
            Some(state) => !state.running && (state.next <= now || state.began > now),
        }
    }

    /// Those of these channels that are to be looked at now.
    pub fn due<'a>(
        &self,
        channels: impl IntoIterator<Item = &'a Channel>,
        now: Timestamp,
    ) -> Vec<&'a Channel> {
        channels
            .into_iter()
            .filter(|channel| self.is_due(channel, now))
            .collect()
    }

    /// A look at a channel begins. `chance`, from 0 to 1, spreads the next one. False, and nothing changes, if one is
    /// under way.
    pub fn begin(&mut self, channel: &Channel, now: Timestamp, chance: f64) -> bool {
        if self
            .channels
            .get(channel)
            .is_some_and(|state| state.running)
        {
            return false;
        }
        let state = State {
            running: true,
            began: now,
            next: self.schedules.of(channel).next(now, chance),
        };
        self.channels.insert(channel.clone(), state);
        true
    }

    /// The look at a channel is over, well or not. Failures do not make the next one come sooner: the registry client
    /// has its own back-off.
    pub fn end(&mut self, channel: &Channel) {
        if let Some(state) = self.channels.get_mut(channel) {
            state.running = false;
        }
    }

    /// The look at a channel could not be taken, and nothing was asked: it is due again at once.
    pub fn take_back(&mut self, channel: &Channel) {
        self.channels.remove(channel);
    }

    /// When the first of these channels is due: `now` if one is already, none if there are none or all are under way.
    pub fn next_due<'a>(
        &self,
        channels: impl IntoIterator<Item = &'a Channel>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let times = channels.into_iter().filter_map(|channel| {
            if self.is_due(channel, now) {
                return Some(now);
            }
            let state = self.channels.get(channel)?;
            (!state.running).then_some(state.next)
        });
        times.min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-31T{text}Z").parse().unwrap()
    }

    fn channel(name: &str) -> Channel {
        Channel(name.to_owned())
    }

    #[track_caller]
    fn check_next(schedule: &str, chance: f64, expect: &str) {
        let schedule: PollSchedule = schedule.parse().unwrap();
        assert_eq!(schedule.next(at("12:00:00"), chance), at(expect));
    }

    #[test]
    fn jitter_delays_and_never_advances() {
        check_next("5m", 0.0, "12:05:00");
        check_next("5m", 1.0, "12:05:30");
        check_next("5m", -3.0, "12:05:00");
        check_next("cron:0 13 * * *", 0.0, "13:00:00");
        check_next("cron:0 13 * * *", 1.0, "13:01:00");
        check_next("cron:30 12 * * *", 0.5, "12:30:30");
    }

    #[test]
    fn texts_that_are_no_schedule_say_what_was_expected() {
        for bad in [
            "",
            "5",
            "1s",
            "0",
            "-5m",
            "cron:",
            "cron:61 * * * *",
            "hourly",
        ] {
            let error = bad.parse::<PollSchedule>().unwrap_err();
            assert!(error.to_string().contains("cron:EXPR"), "{error}");
        }
        assert_eq!(
            "1h30m".parse::<PollSchedule>().unwrap().to_string(),
            "5400s"
        );
        let cron: PollSchedule = "cron:*/5 * * * *".parse().unwrap();
        assert_eq!(cron.to_string(), "cron:*/5 * * * *");
    }

    #[test]
    fn each_channel_has_its_own_interval() {
        let mut poller = Poller::new(PollSchedules::default());
        let channels = ["canary", "mine", "stable", "staging"].map(channel);
        let begun = at("12:00:00");
        for channel in &channels {
            assert!(poller.is_due(channel, begun));
            assert!(poller.begin(channel, begun, 0.0));
            poller.end(channel);
        }
        let due = |text| {
            let due = poller.due(&channels, at(text)).into_iter();
            due.map(|channel| channel.0.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(due("12:04:59"), Vec::<&str>::new());
        assert_eq!(due("12:05:00"), ["canary"]);
        assert_eq!(due("12:15:00"), ["canary", "staging"]);
        assert_eq!(due("12:30:00"), ["canary", "mine", "stable", "staging"]);
        assert_eq!(
            poller.next_due(&channels, at("12:01:00")),
            Some(at("12:05:00"))
        );
        assert_eq!(
            poller.next_due(&channels, at("12:06:00")),
            Some(at("12:06:00"))
        );
        assert_eq!(poller.next_due(&[], at("12:06:00")), None);
    }

    #[test]
    fn a_look_under_way_is_never_begun_again_however_long_it_takes() {
        let mut poller = Poller::new(PollSchedules::default());
        let canary = channel("canary");
        assert!(poller.begin(&canary, at("12:00:00"), 0.0));
        assert!(!poller.is_due(&canary, at("18:00:00")));
        assert!(!poller.begin(&canary, at("18:00:00"), 0.0));
        assert_eq!(poller.next_due([&canary], at("18:00:00")), None);
        poller.end(&canary);
        assert!(poller.is_due(&canary, at("18:00:00")));
    }

    #[test]
    fn a_look_that_could_not_be_taken_is_due_again() {
        let mut poller = Poller::new(PollSchedules::default());
        let canary = channel("canary");
        poller.begin(&canary, at("12:00:00"), 0.0);
        poller.take_back(&canary);
        assert!(poller.is_due(&canary, at("12:00:00")));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_silence_a_channel() {
        let mut poller = Poller::new(PollSchedules::default());
        let canary = channel("canary");
        poller.begin(&canary, at("18:00:00"), 0.0);
        poller.end(&canary);
        assert!(poller.is_due(&canary, at("12:00:00")));
    }

    proptest! {
        #[test]
        fn looks_never_overlap_and_are_never_closer_than_the_interval(
            steps in prop::collection::vec((0u64..400, any::<bool>(), 0.0f64..1.0), 1..200),
        ) {
            let mut poller = Poller::new(PollSchedules::default());
            let canary = channel("canary");
            let (mut now, mut running, mut last) = (Timestamp::UNIX_EPOCH, false, None);
            for (secs, ends, chance) in steps {
                now = now.saturating_add(Duration::from_secs(secs));
                if poller.is_due(&canary, now) {
                    prop_assert!(!running);
                    prop_assert!(last.is_none_or(|last| now.since(last) >= Duration::from_secs(300)));
                    prop_assert!(poller.begin(&canary, now, chance));
                    (running, last) = (true, Some(now));
                } else if running && ends {
                    poller.end(&canary);
                    running = false;
                }
            }
        }
    }
}
