//! Plans rollouts over 100,000 and 1,000,000 instances of ten times fewer tenants, and says how time and memory grow.
//!
//! Ten times as many instances may take at most 12 times as long, and a plan at most 512 bytes an instance at its
//! peak, its own result included (the input is the caller's). Time is that for which a processor worked on it, so that other
//! work on the machine counts little. Both are what the kernel says of this process; where it does not say, the bench
//! fails.
//!
//! A plan is made once of what was just read. So the smaller fleet is not planned again and again, with all of it in the
//! processor's caches by then: ten fleets of that size are planned in turn, as many instances as the larger one has.

use std::collections::BTreeMap;
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

/// Instances of the two fleets; without `cargo bench` smaller ones only show that it builds and runs.
const SIZES: (usize, usize) = (100_000, 1_000_000);
const SIZES_SHORT: (usize, usize) = (1_000, 10_000);
const TIME_GROWTH_MAX: f64 = 12.0;
const BYTES_MAX: f64 = 512.0;
/// So many fleets of the smaller size are as large as the larger one.
const SMALL_FLEETS: usize = 10;
/// The fastest of so many runs counts.
const RUNS: usize = 3;

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
    let account = std::fs::read_to_string("/proc/thread-self/schedstat");
    let account = account.expect("the kernel says for how long this thread ran");
    let nanos = account.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds"))
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

/// Bytes that the planner needed at its peak, for each instance. The first run in a process: later ones find memory that
/// earlier ones gave back.
fn peak(fleet: &Fleet) -> Option<f64> {
    // 5 resets the peak to what is used now.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = memory("VmRSS")?;
    let (plan, _) = fleet.plan();
    let after = memory("VmHWM")?;
    assert_eq!(plan.members.len() + plan.held.len(), fleet.candidates.len());
    Some(after.saturating_sub(before) as f64 / fleet.candidates.len() as f64)
}

/// What one of these fleets took, planned in turn.
fn fastest(fleets: &[Fleet]) -> Duration {
    let run = || -> Duration { fleets.iter().map(|fleet| fleet.plan().1).sum() };
    let times = (0..RUNS).map(|_| run());
    times.min().expect("at least one run") / u32::try_from(fleets.len()).unwrap_or(1)
}

fn main() {
    let short = !std::env::args().any(|argument| argument == "--bench");
    let (few, many) = if short { SIZES_SHORT } else { SIZES };
    let large = Fleet::of(many);
    let bytes = peak(&large);
    let small: Vec<Fleet> = (0..SMALL_FLEETS).map(|_| Fleet::of(few)).collect();
    let violations = check(&small[0].plan().0, "");
    assert!(violations.is_empty(), "{violations:?}");
    let (small, large) = (fastest(&small), fastest(&[large]));
    let growth = large.as_secs_f64() / small.as_secs_f64();
    println!("plan of {few} instances: {:.3} s", small.as_secs_f64());
    println!(
        "plan of {many} instances: {:.3} s, {growth:.1} times as long (at most {TIME_GROWTH_MAX})",
        large.as_secs_f64()
    );
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
