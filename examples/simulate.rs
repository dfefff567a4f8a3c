//! Tells simulated stories of updates until told to stop: `--seeds N` tells N, `--seed S` tells one with its trace,
//! `--from S` begins there (a random number by default), `--group` has two or three instances move together.
//!
//! Prints how many updates one core tells in a second of its time, whatever else the machine does; stops with 1 at the
//! first story that breaks an invariant.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fleet_core::testing::{tell, tell_of_group};
use rustix::time::{ClockId, clock_gettime};

struct Arguments {
    from: u64,
    count: u64,
    trace: bool,
    group: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(reason) => {
            eprintln!(
                "{reason}\nusage: simulate [--group] [--seeds N] [--from S] | [--group] --seed S"
            );
            return ExitCode::from(2);
        }
    };
    let (start, worked) = (Instant::now(), cpu_time());
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for seed in arguments.from..arguments.from.saturating_add(arguments.count) {
        let told = match arguments.group {
            true => tell_of_group(seed, arguments.trace),
            false => tell(seed, arguments.trace),
        };
        match told {
            Ok(ending) => {
                let outcome = ending
                    .outcome
                    .map_or("never begun", |outcome| outcome.label());
                *outcomes.entry(outcome.to_owned()).or_default() += 1;
            }
            Err(failure) => {
                println!("{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    let (seconds, cpu) = (
        start.elapsed().as_secs_f64(),
        (cpu_time() - worked).as_secs_f64(),
    );
    println!(
        "{} updates from seed {} in {seconds:.1} s, {cpu:.1} s of them on a core: {:.0} updates for each second of CPU time, \
         no invariant broken",
        arguments.count,
        arguments.from,
        arguments.count as f64 / cpu
    );
    for (outcome, count) in outcomes {
        println!("  {outcome}: {count}");
    }
    ExitCode::SUCCESS
}

/// CPU time of this thread, which does all the work.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    Duration::from_nanos(nanos)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        from: fresh(),
        count: 10_000,
        trace: false,
        group: false,
    };
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            let parsed = value.parse();
            parsed.map_err(|_| format!("expected a number after {word}, found {value:?}"))
        };
        match word.as_str() {
            "--seeds" => arguments.count = number()?,
            "--from" => arguments.from = number()?,
            "--seed" => {
                arguments = Arguments {
                    from: number()?,
                    count: 1,
                    trace: true,
                    ..arguments
                };
            }
            "--group" => arguments.group = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    Ok(arguments)
}

/// A seed that nobody told before.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |since| since.as_secs() * 1_000_000)
}
