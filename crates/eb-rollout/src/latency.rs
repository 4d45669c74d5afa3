//! How long publishes take, by bus, in windows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::state::Side;

/// Four buckets for each doubling from 1 µs on: a percentile is at most 19 % off.
const BUCKETS: usize = 4 * 28;

/// Latencies of the window that is being filled.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    let doublings = micros.ilog2();
    // The two bits below the highest.
    let quarter =
        if doublings >= 2 { (micros >> (doublings - 2)) & 3 } else { (micros << (2 - doublings)) & 3 };
    (doublings as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The upper end of a bucket.
fn limit(bucket: usize) -> Duration {
    let (doublings, quarter) = (bucket / 4, (bucket % 4) as u64);
    Duration::from_nanos(((5 + quarter) * 250) << doublings)
}

impl Histogram {
    pub(crate) fn record(&self, latency: Duration) {
        self.buckets[bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was recorded; it is empty afterwards.
    fn take(&self) -> Summary {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.swap(0, Ordering::Relaxed)).collect();
        let samples: u64 = counts.iter().sum();
        let rank = samples - samples / 100;
        let mut seen = 0;
        let at = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Summary { samples, p99: limit(at.unwrap_or(0)) }
    }
}

/// What a window has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) samples: u64,
    pub(crate) p99: Duration,
}

/// The latencies of this process's publishes, primary's and mirror's alike, for each bus.
#[derive(Default)]
pub(crate) struct Latencies {
    filling: [Histogram; 2],
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    began: Option<Instant>,
    /// The last window of each bus that had enough samples.
    last: [Option<Summary>; 2],
}

impl Latencies {
    pub(crate) fn record(&self, side: Side, latency: Duration) {
        self.filling[side.index()].record(latency);
    }

    /// Ends the window if it is `length` old. Gives back what it has shown of each bus, where that were `enough` samples.
    pub(crate) fn turn(&self, length: Duration, enough: u64) -> Option<[Option<Summary>; 2]> {
        let now = Instant::now();
        let mut windows = self.windows.lock();
        let began = *windows.began.get_or_insert(now);
        if now.saturating_duration_since(began) < length {
            return None;
        }
        windows.began = Some(now);
        let shown = [Side::Old, Side::New].map(|side| {
            let summary = self.filling[side.index()].take();
            (summary.samples >= enough.max(1)).then_some(summary)
        });
        for (last, now) in windows.last.iter_mut().zip(&shown) {
            *last = now.or(*last);
        }
        Some(shown)
    }

    /// The last window of a bus that had enough samples.
    pub(crate) fn last(&self, side: Side) -> Option<Summary> {
        self.windows.lock().last[side.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_never_too_small_and_at_most_a_quarter_too_large() {
        for micros in [1u64, 2, 3, 7, 99, 1_000, 123_456, 60_000_000] {
            let (exact, shown) =
                (Duration::from_micros(micros), limit(bucket(Duration::from_micros(micros))));
            assert!(
                shown >= exact && shown <= exact.mul_f64(1.26) + Duration::from_nanos(250),
                "{exact:?}: {shown:?}"
            );
        }
        let histogram = Histogram::default();
        (0..97).for_each(|_| histogram.record(Duration::from_millis(1)));
        (0..3).for_each(|_| histogram.record(Duration::from_secs(1)));
        let summary = histogram.take();
        assert_eq!(summary.samples, 100);
        assert!(summary.p99 >= Duration::from_secs(1));
        assert_eq!(histogram.take().samples, 0);
    }
}
