//! What a rollout over twenty containers costs, against raw engine calls, Docker Swarm and docker-compose, in one run.
//!
//! All contestants work on one engine, which is private to the bench: Swarm makes an engine a manager, and nobody else's
//! containers shall be counted. Each takes twenty containers with a published port and a volume to a new image, fleet and
//! the raw calls five at a time, as many as Swarm's updates that are asked for at the same time; compose chooses for
//! itself. Somebody asks each container every 50 ms.
//!
//! | | whole time | time without service of one container |
//! |---|---|---|
//! | raw calls: image, create, guard, stop, start, remove | at most 1.25 times theirs | – |
//! | Swarm's `service update`, monitored for 1 s | at most half of theirs | median and 95th percentile no worse |
//! | `docker-compose up -d` | – | median and 95th percentile no worse |
//!
//! Arguments: `--rounds N` (default 3); `--storage-driver NAME` for the private engine (default: the one of the machine's
//! engine). How long a container takes to start depends on it, and Swarm's time does less than others'. Without
//! `cargo bench` it takes four containers once, and judges nothing.

#[path = "../shared/asker.rs"]
mod asker;
mod contestants;
#[path = "../shared/guard.rs"]
mod guard;
mod stage;

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use contestants::{Contestant, Cost};
use fleet_testkit::PrivateEngine;

const CONTAINERS: usize = 20;
/// Enough to show that it runs.
const CONTAINERS_SHORT: usize = 4;

fn main() -> anyhow::Result<()> {
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (containers, rounds) = if measured {
        (CONTAINERS, rounds()?.unwrap_or(3))
    } else {
        (CONTAINERS_SHORT, 1)
    };
    let engine = match argument("--storage-driver") {
        Some(driver) => PrivateEngine::with_driver(&driver),
        None => PrivateEngine::start(false),
    };
    // Entering the engine's network is for good: a thread of its own does it.
    let costs = thread::scope(|scope| {
        let bench = scope.spawn(|| {
            engine.enter();
            measure(&engine.host(), containers, rounds)
        });
        bench.join()
    });
    let costs = costs.map_err(|_| anyhow::anyhow!("the bench panicked"))??;
    let missed = judge(&costs);
    anyhow::ensure!(
        !measured || missed.is_empty(),
        "missed: {}",
        missed.join("; ")
    );
    Ok(())
}

fn rounds() -> anyhow::Result<Option<usize>> {
    let value = argument("--rounds");
    value
        .map(|value| value.parse().context("--rounds: expected a number"))
        .transpose()
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

/// What each contestant cost, in all rounds together.
struct Costs {
    raw: Summary,
    fleet: Summary,
    swarm: Summary,
    compose: Summary,
}

fn measure(host: &str, containers: usize, rounds: usize) -> anyhow::Result<Costs> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let contestant = Contestant::new(host, containers, runtime.handle().clone())?;
    let (mut raw, mut fleet, mut swarm, mut compose) = Default::default();
    let note = |all: &mut Vec<Cost>, name: &str, cost: anyhow::Result<Cost>| {
        let cost = cost.with_context(|| name.to_owned())?;
        eprintln!("{name:<8} {cost}");
        all.push(cost);
        anyhow::Ok(())
    };
    for _ in 0..rounds {
        note(&mut raw, "raw", contestant.raw())?;
        note(&mut fleet, "fleet", contestant.fleet())?;
        note(&mut swarm, "swarm", contestant.swarm())?;
        note(&mut compose, "compose", contestant.compose())?;
    }
    Ok(Costs {
        raw: Summary::of(&raw),
        fleet: Summary::of(&fleet),
        swarm: Summary::of(&swarm),
        compose: Summary::of(&compose),
    })
}

/// The median of the whole times; median and 95th percentile of the times without service.
#[derive(Debug, Clone, Copy)]
struct Summary {
    whole: Duration,
    down: Duration,
    down_p95: Duration,
}

impl Summary {
    fn of(costs: &[Cost]) -> Self {
        let mut whole: Vec<_> = costs.iter().map(|cost| cost.whole).collect();
        let mut down: Vec<_> = costs.iter().flat_map(|cost| &cost.down).copied().collect();
        whole.sort();
        down.sort();
        Self {
            whole: whole[whole.len() / 2],
            down: down[down.len() / 2],
            down_p95: down[(down.len() * 95).div_ceil(100) - 1],
        }
    }
}

/// Prints everything; what is worse than wanted comes back.
fn judge(costs: &Costs) -> Vec<String> {
    let Costs {
        raw,
        fleet,
        swarm,
        compose,
    } = costs;
    println!("            whole   without service: median, 95th percentile");
    for (name, cost) in [
        ("raw", raw),
        ("fleet", fleet),
        ("swarm", swarm),
        ("compose", compose),
    ] {
        println!(
            "{name:<8} {:>6.2} s   {:>6.0} ms, {:>6.0} ms",
            cost.whole.as_secs_f64(),
            millis(cost.down),
            millis(cost.down_p95)
        );
    }
    let mut missed = Vec::new();
    let mut check = |what: &str, ours: Duration, theirs: Duration, at_most: f64| {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("{what}: {ratio:.2} (at most {at_most})");
        if ratio > at_most {
            missed.push(format!("{what} is {ratio:.2}, at most {at_most}"));
        }
    };
    check("whole, to raw calls", fleet.whole, raw.whole, 1.25);
    check("whole, to Swarm", fleet.whole, swarm.whole, 0.5);
    check(
        "without service, median, to Swarm",
        fleet.down,
        swarm.down,
        1.0,
    );
    check(
        "without service, 95 %, to Swarm",
        fleet.down_p95,
        swarm.down_p95,
        1.0,
    );
    check(
        "without service, median, to compose",
        fleet.down,
        compose.down,
        1.0,
    );
    check(
        "without service, 95 %, to compose",
        fleet.down_p95,
        compose.down_p95,
        1.0,
    );
    missed
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
