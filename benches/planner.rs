//! Plans rollouts over 100,000 and 1,000,000 instances of ten times fewer tenants, and says how time and memory grow.
//!
//! Ten times as many instances may take at most 12 times as long, and a plan at most 512 bytes an instance at its
//! peak, its own result included (the input is the caller's). Time is that for which a processor worked on it, so that other
//! work on the machine counts little. Both are what the kernel says of this process; where it does not say, the bench
//! fails.
//!
//! A plan is made once of what was just read: not of what is in the processor's caches from the plan before it, and not in
//! memory that another plan gave back. So each measurement is a process of its own, in which ten fleets of the smaller size
//! are planned in turn, as many instances as the larger one has, and all plans are kept.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use fleet_core::ids::{RolloutId, TenantId};
use fleet_core::image::{Digest, ImageRef};
use fleet_core::model::{FleetSettings, TenantMode, UpdateConfig};
use fleet_core::plan::strategy::{RollingWave, StrategySpec};
use fleet_core::plan::{
    Asked, Candidate, Limits, PlanInput, PlannerSettings, Request, RolloutPlan, check, plan,
};
use fleet_core::testing::candidate;
use fleet_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Instances of the two fleets; without `cargo bench` smaller ones only show that it builds and runs.
const SIZES: (usize, usize) = (100_000, 1_000_000);
const SIZES_SHORT: (usize, usize) = (1_000, 10_000);
const TIME_GROWTH_MAX: f64 = 12.0;
const BYTES_MAX: f64 = 512.0;
/// The fastest of so many processes counts.
const RUNS: usize = 5;
/// So many fleets of the smaller size are as large as the larger one.
const SMALL_FLEETS: usize = 10;
/// Makes the bench plan so many fleets of so many instances, and say what that cost.
const MEASURE: &str = "--measure";

struct Fleet {
    candidates: Vec<Candidate>,
    tenants: BTreeMap<TenantId, UpdateConfig>,
    request: Request,
}

impl Fleet {
    fn of(instances: usize) -> Self {
        let tenants = instances / 10;
        let name = |number: usize| format!("t{number:06}");
        let candidates = (0..instances).map(|number| Candidate {
            cohort: (number % 100 == 0).then(|| "canary".to_owned()),
            failed_before: number % 997 == 0,
            enabled: number % 50 != 0,
            ..candidate(&format!("app-{number:07}"), &name(number % tenants))
        });
        // A few windows, as people write them: each tenant has one of them.
        let config = |number: usize| UpdateConfig {
            mode: TenantMode::Auto,
            preferred_hour_utc: 3,
            windows: vec![format!("Mon-Fri {:02}:00-06:00 Europe/Berlin", number % 5)],
        };
        let ids = (0..tenants)
            .filter_map(|number| Some((TenantId::new(name(number)).ok()?, config(number))));
        Self {
            candidates: candidates.collect(),
            tenants: ids.collect(),
            request: request(),
        }
    }

    fn plan(&self) -> (RolloutPlan, Duration) {
        let settings = PlannerSettings {
            cohorts: vec!["canary".to_owned()],
            ..PlannerSettings::default()
        };
        let input = PlanInput {
            request: &self.request,
            candidates: &self.candidates,
            tenants: &self.tenants,
            fleet: &FleetSettings::default(),
            settings: &settings,
            now: Timestamp::from_millis(1_767_571_200_000),
        };
        let begun = worked();
        let plan = plan(&input, &RollingWave::default()).expect("a plan");
        (plan, worked().saturating_sub(begun))
    }
}

fn request() -> Request {
    let image: ImageRef = "registry.example/app:2".parse().expect("a reference");
    Request {
        id: RolloutId::new(Timestamp::UNIX_EPOCH, [1; 10]),
        parent: None,
        attempt: 1,
        actor: "bench".to_owned(),
        asked: Asked::ByOperator {
            tenants: Vec::new(),
        },
        target: image.pinned(Digest::of(b"new")),
        released_at: None,
        strategy: StrategySpec::default(),
        limits: Limits::default(),
        override_window: false,
        retry_quarantined: false,
        needs_approval: false,
    }
}

/// How long a processor has worked for this thread.
fn worked() -> Duration {
    let clock = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(clock).expect("a clock that runs forward")
}

/// A line of the kernel's account of this process, in bytes.
fn memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|text| text.strip_prefix(line))?;
    let kilobytes: u64 = value
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .ok()?;
    Some(kilobytes * 1024)
}

/// What one plan cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    worked: Duration,
    /// Bytes that the planner needed at its peak, for each instance; none where the kernel does not say.
    bytes: Option<f64>,
}

impl Cost {
    /// The mean of these fleets.
    fn of(fleets: &[Fleet]) -> Self {
        // 5 resets the peak to what is used now.
        let reset = std::fs::write("/proc/self/clear_refs", "5").ok();
        let before = reset.and_then(|()| memory("VmRSS"));
        let plans: Vec<_> = fleets.iter().map(Fleet::plan).collect();
        let after = memory("VmHWM");
        let planned = plans
            .iter()
            .map(|(plan, _)| plan.members.len() + plan.held.len());
        let instances: usize = fleets.iter().map(|fleet| fleet.candidates.len()).sum();
        assert_eq!(planned.sum::<usize>(), instances);
        let worked: Duration = plans.iter().map(|(_, worked)| *worked).sum();
        Self {
            worked: worked / u32::try_from(fleets.len()).expect("a few fleets"),
            bytes: before
                .zip(after)
                .map(|(before, after)| after.saturating_sub(before) as f64 / instances as f64),
        }
    }

    /// The same in a process of its own.
    fn apart(fleets: usize, instances: usize) -> Self {
        let bench = std::env::current_exe().expect("the bench knows where it is");
        let output = Command::new(bench)
            .args([MEASURE, &fleets.to_string(), &instances.to_string()])
            .output()
            .expect("the bench can be run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace();
        let mut number = || -> Option<f64> { numbers.next()?.parse().ok() };
        match number() {
            Some(seconds) => Self {
                worked: Duration::from_secs_f64(seconds),
                bytes: number(),
            },
            None => panic!("expected seconds and bytes, found {output:?}"),
        }
    }

    fn of_fastest(fleets: usize, instances: usize) -> Self {
        let costs = (0..RUNS).map(|_| Self::apart(fleets, instances));
        costs
            .min_by_key(|cost| cost.worked)
            .expect("at least one run")
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        let number = |at: usize| -> usize { arguments[at].parse().expect("a number") };
        let fleets = (0..number(at + 1)).map(|_| Fleet::of(number(at + 2)));
        let Cost { worked, bytes } = Cost::of(&fleets.collect::<Vec<_>>());
        let bytes = bytes.map_or_else(String::new, |bytes| bytes.to_string());
        println!("{} {bytes}", worked.as_secs_f64());
        return;
    }
    let short = !arguments.iter().any(|argument| argument == "--bench");
    let (few, many) = if short { SIZES_SHORT } else { SIZES };
    let violations = check(&Fleet::of(few).plan().0, "");
    assert!(violations.is_empty(), "{violations:?}");
    let (small, large) = (
        Cost::of_fastest(SMALL_FLEETS, few),
        Cost::of_fastest(1, many),
    );
    let growth = large.worked.as_secs_f64() / small.worked.as_secs_f64();
    println!(
        "plan of {few} instances: {:.4} s",
        small.worked.as_secs_f64()
    );
    println!(
        "plan of {many} instances: {:.4} s, {growth:.1} times as long (at most {TIME_GROWTH_MAX})",
        large.worked.as_secs_f64()
    );
    let bytes = large.bytes;
    match bytes {
        Some(bytes) => println!("peak memory: {bytes:.0} bytes an instance (at most {BYTES_MAX})"),
        None => println!("peak memory: the kernel does not say"),
    }
    if short {
        // Too small to measure.
        return;
    }
    assert!(
        growth <= TIME_GROWTH_MAX,
        "expected at most {TIME_GROWTH_MAX} times, found {growth:.1}"
    );
    assert!(
        bytes.is_some_and(|bytes| bytes <= BYTES_MAX),
        "expected at most {BYTES_MAX} bytes, found {bytes:?}"
    );
}
