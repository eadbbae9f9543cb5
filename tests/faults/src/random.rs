//! Random numbers from a seed, the same on every machine and with every version of every library; and where the seed comes from.

use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that replays a run.
pub const SEED_VARIABLE: &str = "ACTEON_SEED";

/// The seed that `ACTEON_SEED` names, or one of the moment. Say it where the run is reported.
///
/// # Panics
/// When the variable is no number: a run that ignores it would replay nothing.
#[must_use]
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seed_or(u64::try_from(now.as_micros()).unwrap_or_default())
}

/// The seed that `ACTEON_SEED` names, or this one: for tests that are to be the same each time.
///
/// # Panics
/// As [`seed`].
#[must_use]
pub fn seed_or(usual: u64) -> u64 {
    match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text} is no number")),
        Err(_) => usual,
    }
}

/// A splitmix64 generator: one word of state, good enough to choose operations and faults.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero. The bias of a remainder is far below what any test could see.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True in this many of 100 cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several, which are not none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Another generator, for somebody who takes as many numbers as they like.
    pub const fn fork(&mut self) -> Self {
        Self(self.number())
    }
}
