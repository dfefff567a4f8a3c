//! Fresh seeds, and the same seed twice.

use std::time::{SystemTime, UNIX_EPOCH};

use fleet_core::testing::{Ending, Failure, tell, tell_of_group};

use crate::parallel::each;

/// Seeds of a run unless `FLEET_SEEDS` says otherwise: ten times as many where the build is optimised.
const SEEDS: u64 = if cfg!(debug_assertions) {
    2_000
} else {
    20_000
};

fn count() -> u64 {
    match std::env::var("FLEET_SEEDS") {
        Ok(text) => text.parse().expect("FLEET_SEEDS is a number"),
        Err(_) => SEEDS,
    }
}

/// The seeds of an unoptimised run are always the same, so that a change is judged by itself; an optimised or long run
/// tells stories that nobody told before. `FLEET_SEED_FROM` says where to begin.
fn first() -> u64 {
    match std::env::var("FLEET_SEED_FROM") {
        Ok(text) => text.parse().expect("FLEET_SEED_FROM is a number"),
        Err(_) if cfg!(debug_assertions) && std::env::var_os("FLEET_TEST_LONG").is_none() => 0,
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.expect("after 1970").as_secs() * 1_000_000
        }
    }
}

type Tell = fn(u64, bool) -> Result<Ending, Box<Failure>>;

#[track_caller]
fn all_hold(first: u64, count: u64, tell: Tell) {
    let seeds: Vec<u64> = (first..first + count).collect();
    each(&seeds, |seed| {
        if let Err(failure) = tell(*seed, false) {
            let again = tell(*seed, true).expect_err("a seed tells the same story twice");
            panic!("{again}\n(first found as: {})", failure.violation);
        }
    });
}

#[test]
fn many_seeds_hold_every_invariant() {
    let (first, count) = (first(), count());
    all_hold(first, count, tell);
    println!("{count} seeds from {first}: no invariant broken");
}

/// Two or three instances that move together; such a story is as long as two or three. The same ones each time, but in a
/// long run.
#[test]
fn many_seeds_of_groups_hold_every_invariant() {
    let fresh = std::env::var_os("FLEET_TEST_LONG").is_some();
    let chosen = std::env::var_os("FLEET_SEED_FROM").is_some();
    let first = if fresh || chosen { first() } else { 0 };
    let count = count() / 4;
    all_hold(first, count, tell_of_group);
    println!("{count} seeds of groups from {first}: no invariant broken");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    let seeds: Vec<u64> = (0..300).collect();
    each(&seeds, |seed| {
        let traces = [(); 2].map(|()| match tell(*seed, true) {
            Ok(ending) => (ending.trace, ending.outcome),
            Err(failure) => panic!("{failure}"),
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    });
}

/// Seeds that once broke an invariant, with what they found.
#[test]
fn seeds_that_found_a_bug_hold() {
    for (seed, found) in [
        (
            4_906,
            "a stop that went on after fleet's death took the old container down after the rollback",
        ),
        (
            15_094_204_669,
            "a recovery that froze an update left both versions running",
        ),
        (
            35_723_615_411,
            "the engine was away when fleet's container was to make room",
        ),
        (
            28_539_704_613,
            "an engine restart just before the policy was set was committed as running",
        ),
        (
            14_047_009_373,
            "a start of the parked container while the engine was away was overlooked",
        ),
        (
            9_891_610_561,
            "a new container that somebody started before its time was not noticed",
        ),
        (1_747, "a checker blamed fleet for a name that others gave"),
        (
            1_795_681_087_004_550,
            "a new container that somebody renamed was committed under the other name",
        ),
        (
            10_939,
            "a lost start counted as refused, and the data was not put back",
        ),
        (
            5_080,
            "an engine restart after the disarm left the old container down",
        ),
        (
            852,
            "volumes of a creation whose answer was lost stayed behind",
        ),
        (
            964,
            "an orphan of the old container was taken for a stopped one",
        ),
        (
            259,
            "a tag whose image was pruned kept clean-up from ending",
        ),
        (
            813,
            "recovery froze an update without saying that a person is asked",
        ),
        (10_154, "a volume that others use kept clean-up from ending"),
        (5_284, "a stopped instance that somebody started was parked"),
        (
            16_939,
            "an error after the start counted as a refusal of it",
        ),
        (
            1_795_704_848_022_795,
            "data was put back under a process that the engine lost, of a container that somebody made",
        ),
        (
            1_795_704_838_027_527,
            "a checker blamed fleet for an engine that was killed in the call that recorded the commit",
        ),
        (
            1_795_706_682_091_934,
            "an engine that was restarted while it answered was taken for somebody who restarted the container",
        ),
        (
            3_002_062,
            "what the old container wrote after it was back was taken for a volume that had been lost",
        ),
        (
            3_006_000,
            "a prune took volumes with the old container, and empty ones came in their place",
        ),
        (
            702_043,
            "a checker asked for the snapshot of a stop before which somebody had started the new container",
        ),
        (
            701_134,
            "a row that takes note of somebody's start of the new container was taken for fleet's own start",
        ),
        (
            1_795_707_273_003_233,
            "the new container was started beside a process of the old one that the engine lost",
        ),
        (
            990_127_226,
            "a snapshot was taken beside a process of the new container that somebody had started and the engine had lost",
        ),
        (
            880_172_919,
            "a restore was tried again under a container that somebody had made meanwhile",
        ),
        (
            880_076_434,
            "the old container came back over a volume that a prune had taken before it was copied",
        ),
        (
            1_795_755_548_017_821,
            "a checker blamed fleet for a volume of a container that others took under a name of their own",
        ),
        (
            5_564_004_852,
            "a recovery that gave up left the new container running beside the old one that was back",
        ),
        (
            5_568_013_288,
            "a checker blamed fleet for a container that the engine had forgotten before the update looked at it",
        ),
        (
            5_587_004_714,
            "a checker blamed fleet for the name of a pruned container that others took",
        ),
        (
            105_569_009_871,
            "a checker took a new container that others had renamed for the one that they had removed",
        ),
        (
            105_581_006_442,
            "a volume of a new container that somebody removed while its making was asked for again stayed behind",
        ),
        (
            105_587_005_621,
            "a snapshot was tried again while somebody had started the old container",
        ),
        (
            105_616_007_895,
            "an engine that restarted twice while the old container proved itself left it down",
        ),
        (
            305_639_017_772,
            "the gate started the new container again beside a lost process of the parked one that somebody had started",
        ),
        (
            405_602_018_376,
            "a volume of a new container that somebody started stayed behind where the answer to its removal was lost",
        ),
    ] {
        if let Err(failure) = tell(seed, true) {
            panic!("{found}\n{failure}");
        }
    }
}

/// The same of groups.
#[test]
fn seeds_of_groups_that_found_a_bug_hold() {
    for (seed, found) in [
        (
            880_013_197,
            "the old container was started again beside a lost process of the new one",
        ),
        (
            880_032_615,
            "the old container was started again beside the new one that somebody had started",
        ),
        (
            1_990_002_428,
            "an engine that died while the last member came back left the first one down",
        ),
        (
            5_002_626,
            "the only copy of a volume that a prune took was removed",
        ),
        (
            207_778_013_460,
            "a parked container that somebody started kept the tags of the others where they were",
        ),
    ] {
        if let Err(failure) = tell_of_group(seed, true) {
            panic!("{found}\n{failure}");
        }
    }
}
