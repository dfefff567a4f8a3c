//! Chance from a seed, as a tree: a child per purpose, so that one more draw in one place changes nothing elsewhere.

use std::sync::{Mutex, PoisonError};

use crate::ports::Entropy;

/// A deterministic generator (SplitMix64). Not for secrets.
#[derive(Debug, Clone)]
pub struct SeedRng {
    seed: u64,
    state: u64,
}

impl SeedRng {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The generator for one purpose. Depends on the seed and the purpose only, never on what was drawn before.
    #[must_use]
    pub fn child(&self, purpose: &str) -> Self {
        let mut seed = self.seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in purpose.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self::new(mix(seed))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `limit`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 {
            0
        } else {
            self.next_u64() % limit
        }
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of these, none if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(items.len() as u64)).unwrap_or(0);
        items.get(index)
    }
}

/// The finaliser of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// [`Entropy`] from a seed: the same ids in every run.
#[derive(Debug)]
pub struct FakeEntropy(Mutex<SeedRng>);

impl FakeEntropy {
    /// Chance from this generator.
    #[must_use]
    pub fn new(rng: SeedRng) -> Self {
        Self(Mutex::new(rng))
    }
}

impl Default for FakeEntropy {
    fn default() -> Self {
        Self::new(SeedRng::new(1))
    }
}

impl Entropy for FakeEntropy {
    fn bytes(&self) -> [u8; 10] {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&rng.next_u64().to_le_bytes()[..2]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_depends_on_seed_and_purpose_alone() {
        let mut drawn = SeedRng::new(7);
        drawn.next_u64();
        let child = |rng: &SeedRng, purpose| rng.child(purpose).next_u64();
        assert_eq!(child(&drawn, "faults"), child(&SeedRng::new(7), "faults"));
        assert_ne!(child(&drawn, "faults"), child(&drawn, "fleet"));
        assert_ne!(child(&SeedRng::new(8), "faults"), child(&drawn, "faults"));
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_all_of_it() {
        let mut rng = SeedRng::new(3);
        let mut seen = [false; 6];
        for _ in 0..200 {
            seen[usize::try_from(rng.below(6)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!((rng.below(0), rng.pick::<u8>(&[])), (0, None));
        assert!(!rng.chance(0) && rng.chance(1000));
    }
}
