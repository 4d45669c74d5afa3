//! How long to wait before a record is tried again, and what to do when that is enough.
//!
//! The four formulas are written out here: the libraries for back-off (`backon`, `exponential-backoff`) have no linear one, let jitter
//! add to the delay past its maximum, and keep the state of one loop, where a consumer has thousands of records waiting at once.

use std::time::Duration;

/// How the delay grows with the attempts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backoff {
    /// `first`, then each `factor` times the one before.
    Exponential {
        /// The delay after the first failure.
        first: Duration,
        /// At least 1.
        factor: f64,
    },
    /// `first`, then each `step` longer than the one before.
    Linear {
        /// The delay after the first failure.
        first: Duration,
        /// How much longer each further one is.
        step: Duration,
    },
    /// `unit` times 1, 1, 2, 3, 5, 8, …
    Fibonacci {
        /// The delay after the first and the second failure.
        unit: Duration,
    },
    /// Always the same.
    Fixed {
        /// The delay.
        delay: Duration,
    },
}

/// What happens to a record when all its attempts have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AfterMax {
    /// It becomes a dead letter, and the next record of its key is handled.
    DeadLetter,
    /// It becomes a dead letter, and later records of its key are put behind it, unhandled, until it is resolved: nothing
    /// of the key is handled out of order.
    DeadLetterAndPark,
    /// Its partition stops there: nothing further is handled, the health is failing. Other partitions go on.
    Halt,
}

/// When and how often a record is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// How the delay grows.
    pub backoff: Backoff,
    /// No delay is longer than this.
    pub max_delay: Duration,
    /// Each delay is shortened by a random share of up to this many per cent, 0 to 25, so that what failed together is not tried again
    /// together.
    pub jitter_percent: u8,
    /// How often the handler is called for a record, the first time included; at least 1. `None`: until it succeeds (but see `max_crashes`).
    pub max_attempts: Option<u32>,
    /// And then.
    pub after_max: AfterMax,
    /// After how many ends of its worker's process that got the partition nowhere it is worked on with care, and after how many ends
    /// in a row under one record, handled alone, that record is given up: its attempts are used up then, also where `max_attempts` is `None`, and
    /// `after_max` says what follows. At least 1. A lease that ran out because its worker hung counts as its end; giving a partition
    /// back does not. `None`: a record that ends its process comes for ever.
    pub max_crashes: Option<u32>,
}

impl Default for RetryPolicy {
    /// 100 ms, doubling up to 30 s, 25 % jitter, 10 attempts (about two minutes) or 3 crashes, then a dead letter.
    fn default() -> Self {
        Self {
            backoff: Backoff::Exponential { first: Duration::from_millis(100), factor: 2.0 },
            max_delay: Duration::from_secs(30),
            jitter_percent: 25,
            max_attempts: Some(10),
            after_max: AfterMax::DeadLetter,
            max_crashes: Some(3),
        }
    }
}

impl RetryPolicy {
    /// The most jitter, in per cent.
    pub const MAX_JITTER: u8 = 25;

    /// What is wrong with it, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.jitter_percent > Self::MAX_JITTER {
            return Err(format!("a jitter of {} %; it is 0 to 25", self.jitter_percent));
        }
        if self.max_attempts == Some(0) {
            return Err("no attempts at all; allow at least 1".to_owned());
        }
        if self.max_crashes == Some(0) {
            return Err("no crashes at all; allow at least 1, or leave it out not to count them".to_owned());
        }
        match self.backoff {
            Backoff::Exponential { factor, .. } if !(factor.is_finite() && factor >= 1.0) => {
                Err(format!("a factor of {factor}; it is at least 1"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a record that has failed this often is given up.
    pub(crate) fn is_enough(&self, attempts: u32) -> bool {
        self.max_attempts.is_some_and(|max| attempts >= max)
    }

    /// How long to wait after the `failures`-th failure (from 1). `luck` is from 0 (inclusive) to 1 (exclusive).
    ///
    /// Between (1 − jitter) times the strategy's delay and that delay, and never longer than [`RetryPolicy::max_delay`].
    #[must_use]
    pub fn delay(&self, failures: u32, luck: f64) -> Duration {
        let nth = failures.max(1) - 1;
        let raw = match self.backoff {
            Backoff::Exponential { first, factor } => {
                scaled(first, factor.powi(i32::try_from(nth).unwrap_or(i32::MAX)))
            }
            Backoff::Linear { first, step } => first.saturating_add(step.saturating_mul(nth)),
            Backoff::Fibonacci { unit } => unit.saturating_mul(fibonacci(nth)),
            Backoff::Fixed { delay } => delay,
        };
        let whole = raw.min(self.max_delay);
        let share = f64::from(self.jitter_percent.min(Self::MAX_JITTER)) / 100.0 * luck.clamp(0.0, 1.0);
        whole.saturating_sub(scaled(whole, share))
    }
}

/// `d` times `by`, the longest duration where that is more than there is.
fn scaled(d: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64(d.as_secs_f64() * by).unwrap_or(Duration::MAX)
}

/// 1, 1, 2, 3, 5, …, held at the largest number there is.
fn fibonacci(nth: u32) -> u32 {
    let (mut a, mut b) = (1u32, 1u32);
    for _ in 0..nth.min(48) {
        (a, b) = (b, a.saturating_add(b));
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn delays(backoff: Backoff, count: u32) -> Vec<u128> {
        let policy = RetryPolicy { backoff, jitter_percent: 0, ..RetryPolicy::default() };
        (1..=count).map(|n| policy.delay(n, 0.5).as_millis()).collect()
    }

    #[test]
    fn each_strategy_grows_by_its_formula_up_to_the_longest_delay() {
        let first = 100 * MS;
        assert_eq!(delays(Backoff::Exponential { first, factor: 3.0 }, 4), [100, 300, 900, 2700]);
        assert_eq!(delays(Backoff::Linear { first, step: 50 * MS }, 4), [100, 150, 200, 250]);
        assert_eq!(delays(Backoff::Fibonacci { unit: first }, 6), [100, 100, 200, 300, 500, 800]);
        assert_eq!(delays(Backoff::Fixed { delay: first }, 3), [100, 100, 100]);
        assert_eq!(delays(Backoff::Exponential { first, factor: 2.0 }, 12)[11], 30_000);
    }

    fn backoffs() -> impl Strategy<Value = Backoff> {
        let span = || (0u64..1 << 40).prop_map(Duration::from_micros);
        prop_oneof![
            (span(), 1.0f64..1e6).prop_map(|(first, factor)| Backoff::Exponential { first, factor }),
            (span(), span()).prop_map(|(first, step)| Backoff::Linear { first, step }),
            span().prop_map(|unit| Backoff::Fibonacci { unit }),
            span().prop_map(|delay| Backoff::Fixed { delay }),
        ]
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_the_jittered_and_the_whole_and_below_the_longest(
            backoff in backoffs(),
            max in (0u64..1 << 40).prop_map(Duration::from_micros),
            jitter_percent in 0u8..=25,
            failures in 0u32..,
            luck in 0.0f64..1.0,
        ) {
            let policy = RetryPolicy { backoff, max_delay: max, jitter_percent, ..RetryPolicy::default() };
            prop_assert!(policy.check().is_ok());
            let whole = RetryPolicy { jitter_percent: 0, ..policy }.delay(failures, luck);
            let delay = policy.delay(failures, luck);
            prop_assert!(delay <= whole && whole <= max);
            prop_assert!(delay.as_secs_f64() >= whole.as_secs_f64() * 0.75 - 1e-6);
            let later = RetryPolicy { jitter_percent: 0, ..policy }.delay(failures.saturating_add(1), luck);
            prop_assert!(whole <= later, "delays never shrink with the attempts");
        }
    }
}
