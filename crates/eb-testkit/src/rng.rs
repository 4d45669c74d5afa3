//! Repeatable chance, and how much of it a suite may take.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A small generator (SplitMix64): the same seed gives the same choices on every machine. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that repeats what this seed gave before.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "an empty range has nothing to choose");
        range.start + self.next_u64() % (range.end - range.start)
    }

    /// A number below `n`, as an index.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn index(&mut self, n: usize) -> usize {
        self.range(0..n as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.range(0..100) < percent
    }

    /// One of these.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// A generator of its own, so that what one part draws does not shift what another part gets.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}

/// How long a suite may run, and the seed that it runs by.
///
/// Default runs are short; `EB_TEST_LONG=1` gives every suite its full length, `EB_TEST_SEED` repeats an earlier run.
/// A suite always does its minimum of cycles, however slow the machine.
#[derive(Debug, Clone)]
pub struct Budget {
    /// The seed in force. Print it with every failure.
    pub seed: u64,
    cycles: u64,
    minimum: u64,
    until: Instant,
}

impl Budget {
    /// At least `minimum` cycles, then more until `time` has passed; under `EB_TEST_LONG` at least `long` cycles.
    ///
    /// # Panics
    /// When `EB_TEST_SEED` is set to something that is not a number.
    #[must_use]
    pub fn new(minimum: u64, time: Duration, long: u64) -> Self {
        let minimum = if is_long() { long } else { minimum };
        Self { seed: seed(), cycles: 0, minimum, until: Instant::now() + time }
    }

    /// Whether another cycle is due; counts it.
    pub fn again(&mut self) -> bool {
        let due = self.cycles < self.minimum || Instant::now() < self.until;
        self.cycles += u64::from(due);
        due
    }

    /// The cycles begun so far.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.cycles
    }
}

/// Whether the suites are asked to run at their full length (`EB_TEST_LONG=1`).
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("EB_TEST_LONG").is_some_and(|v| v == "1")
}

/// The seed from `EB_TEST_SEED` (decimal), or a new one.
///
/// # Panics
/// When the variable is set to something that is not a number: running another seed instead would repeat nothing.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("EB_TEST_SEED") {
        Ok(text) => text.parse().expect("EB_TEST_SEED is a decimal number"),
        // Randomly keyed by the standard library in every process.
        Err(_) => RandomState::new().hash_one(0u64),
    }
}
