//! A rollout as lines of text: what a terminal shows while it goes on.

use fleet_core::plan::RolloutKind;
use fleet_core::plan::rollout::{RolloutGlance, Tally, WaveState};

/// Longest bar. A longer wave is shown in proportion.
const BAR_MAX: u32 = 24;
/// Waves that are shown before the one at hand and after it; what is left out is counted.
const WAVES_BEFORE: usize = 2;
const WAVES_AFTER: usize = 4;

/// The lines of a rollout: how it stands, a line for each wave around the one at hand, and one for each hold.
pub(super) fn lines(rollout: &RolloutGlance) -> Vec<String> {
    let mut lines = vec![head(rollout)];
    let at_hand = rollout
        .waves
        .iter()
        .position(|wave| !is_over(wave))
        .unwrap_or(rollout.waves.len());
    let first = at_hand.saturating_sub(WAVES_BEFORE);
    let end = (at_hand + WAVES_AFTER).min(rollout.waves.len());
    lines.extend(left_out("before", &rollout.waves[..first]));
    for wave in &rollout.waves[first..end] {
        lines.push(wave_line(rollout, wave));
    }
    lines.extend(left_out("to come", &rollout.waves[end..]));
    lines.extend(rollout.holds.iter().map(|hold| format!("  held: {hold}")));
    lines
}

fn head(rollout: &RolloutGlance) -> String {
    let (committed, total) = committed(&rollout.waves);
    let direction = match rollout.kind {
        RolloutKind::Forward => "",
        RolloutKind::Rollback => "back from ",
    };
    let failures = match rollout.failures {
        0 => String::new(),
        failed => format!(", {failed} failed (stops at {})", rollout.failure_limit),
    };
    format!(
        "{direction}{}  {}  {}: {committed} of {total} committed{failures}  {}",
        rollout.image,
        rollout.strategy,
        rollout.state.replace('_', " "),
        rollout.id,
    )
}

fn wave_line(rollout: &RolloutGlance, wave: &WaveState) -> String {
    let tally = &wave.tally;
    let waves = rollout.waves.len();
    let digits = waves.to_string().len();
    let mut line = format!(
        "  wave {:>digits$} of {waves}  [{}]  {}/{}  {}",
        wave.number,
        bar(tally),
        tally.committed,
        tally.total,
        wave.state,
    );
    for (count, what) in [
        (tally.in_flight, "at work"),
        (tally.rolled_back, "rolled back"),
        (tally.needs_operator, "need a person"),
        (tally.other, "not updated"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    let is_next = wave.state == "soaking";
    if let (Some(at), true) = (rollout.opens_at, is_next) {
        line.push_str(&format!(", opens at {at}"));
    }
    line
}

/// `#` committed, `x` failed, `-` left out, `>` at work, `.` to come.
fn bar(tally: &Tally) -> String {
    let parts = [
        ('#', tally.committed),
        ('x', tally.rolled_back + tally.needs_operator),
        ('-', tally.other),
        ('>', tally.in_flight),
        ('.', tally.queued),
    ];
    let total = tally.total.max(1);
    let width = total.min(BAR_MAX);
    let (mut bar, mut so_far, mut drawn) = (String::new(), 0, 0);
    for (mark, count) in parts {
        so_far += count;
        // Where each kind ends, in proportion; the last one ends at the end.
        let end = u64::from(so_far) * u64::from(width) / u64::from(total);
        let end = u32::try_from(end).unwrap_or(width);
        // Whatever there is of a kind is seen, except where there is no room.
        let end = end.max(drawn + u32::from(count > 0)).min(width);
        bar.extend(std::iter::repeat_n(mark, (end - drawn) as usize));
        drawn = end;
    }
    bar
}

fn left_out(which: &str, waves: &[WaveState]) -> Option<String> {
    let (committed, total) = committed(waves);
    let plural = if waves.len() == 1 { "" } else { "s" };
    (!waves.is_empty()).then(|| {
        format!(
            "  … {} wave{plural} {which}: {committed}/{total}",
            waves.len()
        )
    })
}

fn committed(waves: &[WaveState]) -> (u32, u32) {
    waves.iter().fold((0, 0), |(committed, total), wave| {
        (committed + wave.tally.committed, total + wave.tally.total)
    })
}

fn is_over(wave: &WaveState) -> bool {
    matches!(
        wave.state.as_ref(),
        "passed" | "skipped" | "failed" | "cancelled"
    )
}

#[cfg(test)]
mod tests {
    use fleet_core::plan::rollout::{Hold, HoldKind};
    use fleet_core::time::Timestamp;

    use super::*;

    /// A wave: committed, failed, at work, to come.
    fn wave(number: u32, state: &'static str, [done, failed, work, left]: [u32; 4]) -> WaveState {
        WaveState {
            number,
            state: state.into(),
            tally: Tally {
                total: done + failed + work + left,
                queued: left,
                in_flight: work,
                committed: done,
                rolled_back: failed,
                ..Tally::default()
            },
        }
    }

    fn glance(waves: Vec<WaveState>) -> RolloutGlance {
        RolloutGlance {
            id: "roll_0190f3a1b2c37d4e8f60718293a4b5c6".parse().unwrap(),
            kind: RolloutKind::Forward,
            state: "running".to_owned(),
            over: false,
            image: "app:2".to_owned(),
            strategy: "rolling".to_owned(),
            failures: 0,
            failure_limit: 3,
            waves,
            opens_at: None,
            holds: Vec::new(),
        }
    }

    #[track_caller]
    fn check(rollout: &RolloutGlance, expect: &str) {
        assert_eq!(lines(rollout).join("\n"), expect);
    }

    #[test]
    fn each_wave_has_a_line_and_each_hold() {
        let mut rollout = glance(vec![
            wave(1, "passed", [4, 0, 0, 0]),
            wave(2, "open", [1, 1, 2, 0]),
            wave(3, "pending", [0, 0, 0, 4]),
        ]);
        rollout.failures = 1;
        let id = rollout.id;
        check(
            &rollout,
            &format!(
                "app:2  rolling  running: 5 of 12 committed, 1 failed (stops at 3)  {id}\n  \
                 wave 1 of 3  [####]  4/4  passed\n  \
                 wave 2 of 3  [#x>>]  1/4  open, 2 at work, 1 rolled back\n  \
                 wave 3 of 3  [....]  0/4  pending"
            ),
        );
        rollout.holds = vec![Hold {
            kind: HoldKind::UserPause,
            by: "ann".to_owned(),
            why: "lunch".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        }];
        let last = lines(&rollout).pop();
        assert_eq!(last.as_deref(), Some("  held: user_pause by ann: lunch"));
    }

    #[test]
    fn a_wave_that_waits_for_its_time_says_until_when() {
        let mut rollout = glance(vec![
            wave(1, "passed", [1, 0, 0, 0]),
            wave(2, "soaking", [0, 0, 0, 1]),
        ]);
        rollout.opens_at = "2026-01-05T12:05:00Z".parse().ok();
        let last = lines(&rollout).pop();
        assert_eq!(
            last.as_deref(),
            Some("  wave 2 of 2  [.]  0/1  soaking, opens at 2026-01-05T12:05:00Z")
        );
    }

    #[test]
    fn many_waves_are_shown_around_the_one_at_hand() {
        let waves = (1..=20).map(|number| match number {
            1..10 => wave(number, "passed", [5, 0, 0, 0]),
            10 => wave(number, "open", [0, 0, 5, 0]),
            _ => wave(number, "pending", [0, 0, 0, 5]),
        });
        let lines = lines(&glance(waves.collect()));
        assert_eq!(lines[1], "  … 7 waves before: 35/35");
        assert_eq!(lines[2], "  wave  8 of 20  [#####]  5/5  passed");
        assert_eq!(lines[4], "  wave 10 of 20  [>>>>>]  0/5  open, 5 at work");
        assert_eq!(lines.last().unwrap(), "  … 7 waves to come: 0/35");
        assert_eq!(lines.len(), 1 + 1 + 2 + 4 + 1);
    }

    #[track_caller]
    fn check_bar(counts: [u32; 4], expect: &str) {
        assert_eq!(bar(&wave(1, "open", counts).tally), expect);
    }

    #[test]
    fn a_bar_is_as_long_as_its_wave_or_in_proportion() {
        check_bar([0, 0, 0, 0], "");
        check_bar([1, 0, 0, 0], "#");
        check_bar([12, 6, 3, 3], "############xxxxxx>>>...");
        check_bar([1200, 600, 300, 300], "############xxxxxx>>>...");
        check_bar([50, 1, 1, 48], "############x>..........");
        check_bar([0, 0, 1, 9_999], ">.......................");
        check_bar([9_998, 1, 1, 0], "#######################x");
    }
}
