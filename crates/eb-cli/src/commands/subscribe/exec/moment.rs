//! Moments that two processes of one machine understand alike.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on the machine's monotonic clock, in nanoseconds. Not a time left: one that lay in a pipe while somebody was stopped would
/// come to more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Moment(u64);

impl Moment {
    fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
        Self(seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0)))
    }

    /// So long before `at`. Whoever is stopped while it is worked out gets an earlier one.
    pub(super) fn before(at: Instant, margin: Duration) -> Self {
        let Self(now) = Self::now();
        let left = at.saturating_duration_since(Instant::now()).saturating_sub(margin);
        Self(now.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long it is until then.
    pub(super) fn left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(Self::now().0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_never_later_than_it_was_meant_and_past_ones_have_nothing_left() {
        let at = Instant::now() + Duration::from_secs(100);
        let left = Moment::before(at, Duration::from_secs(10)).left();
        assert!(left <= Duration::from_secs(90) && left > Duration::from_secs(30), "{left:?}");
        assert_eq!(Moment::before(Instant::now(), Duration::from_secs(1)).left(), Duration::ZERO);
    }
}
