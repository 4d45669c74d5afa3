//! How long publishes take, by bus, and the judgement on it.
//!
//! # What is measured
//! The time from a call of a bus's publisher to its answer: an ACK, or an outcome that is unknown (a call that timed out was slow, not
//! fast). Refusals without effect say nothing of the bus's speed. The primary's calls and the mirror's are kept apart: the first carry what callers hand over, the
//! second are made up of what lay there, so of the mirror's only those of at most [`MIRROR_CALL`] records are counted. Each process judges by its own
//! calls, and by those of the mirror's worker, which may be another process (its last window is in the mirror's document).
//!
//! # Windows
//! A window of a bus ends when it is [`Triggers::window`](crate::Triggers::window) long *and* has [`Triggers::min_samples`](crate::Triggers::min_samples): where
//! little is published it is longer, and nothing is concluded from a handful of calls. With 200 samples the 99th percentile is the second-longest call; it is read
//! from buckets and at most a quarter too long. Windows begin anew with each epoch and run of the mirror.
//!
//! # Judgement
//! | phase | the new bus | against the old bus |
//! |---|---|---|
//! | dual_write | the mirror's calls to it | the primary's calls, in the newest window |
//! | new_primary | the primary's calls | the newest window of the time when it was primary, seen by this process; else the mirror's calls to it |
//!
//! A window of the new bus is *bad* where its 99th percentile is more than [`Triggers::p99_ratio`](crate::Triggers::p99_ratio) times the old bus's and above
//! [`Triggers::p99_floor`](crate::Triggers::p99_floor): five times almost nothing is still fast. [`Triggers::p99_windows`](crate::Triggers::p99_windows) bad windows in a row roll back; a
//! good one in between starts the count anew. One that cannot be compared changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::state::Side;

/// The most records of a mirror's call that is compared with those of callers.
pub(crate) const MIRROR_CALL: usize = 64;

/// Four buckets for each doubling from 1 µs on: a percentile is at most a quarter too large.
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

    fn samples(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
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

/// Whose calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of callers, to the primary.
    Callers,
    /// Those of the mirror's worker, to the other bus.
    Mirror,
}

/// The calls of one kind to one bus.
#[derive(Default)]
struct Stream {
    filling: Histogram,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    began: Option<Instant>,
    /// The newest window that is full.
    last: Option<Summary>,
    /// How many windows have been full.
    full: u64,
}

/// The latencies of this process's publishes.
#[derive(Default)]
pub(crate) struct Latencies {
    streams: [[Stream; 2]; 2],
}

impl Latencies {
    fn of(&self, side: Side, whose: Whose) -> &Stream {
        &self.streams[side.index()][usize::from(whose == Whose::Mirror)]
    }

    pub(crate) fn record(&self, side: Side, whose: Whose, latency: Duration) {
        self.of(side, whose).filling.record(latency);
    }

    /// Ends the windows that are full.
    pub(crate) fn turn(&self, length: Duration, enough: u64) {
        let now = Instant::now();
        for stream in self.streams.iter().flatten() {
            let mut windows = stream.windows.lock();
            let began = *windows.began.get_or_insert(now);
            let is_long = now.saturating_duration_since(began) >= length;
            if is_long && stream.filling.samples() >= enough.max(1) {
                windows.last = Some(stream.filling.take());
                windows.full += 1;
                windows.began = Some(now);
            }
        }
    }

    /// Begins windows anew: what was filling is kept as a window where it has enough samples.
    pub(crate) fn begin_anew(&self, enough: u64) {
        for stream in self.streams.iter().flatten() {
            let mut windows = stream.windows.lock();
            let cut_short = stream.filling.take();
            if cut_short.samples >= enough.max(1) {
                windows.last = Some(cut_short);
            }
            windows.began = Some(Instant::now());
        }
    }

    /// The newest full window, and the how manieth it is.
    pub(crate) fn last(&self, side: Side, whose: Whose) -> Option<(u64, Summary)> {
        let windows = self.of(side, whose).windows.lock();
        windows.last.map(|last| (windows.full, last))
    }
}

/// How many windows of the new bus in a row have been bad.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The last one that was judged.
    judged: Option<u64>,
    bad: u32,
}

impl Verdict {
    /// Forgets what came before; the window that stands is not judged any more.
    pub(crate) fn anew(standing: Option<u64>) -> Self {
        Self { judged: standing, bad: 0 }
    }

    /// Judges a window of the new bus, once. Gives back whether that makes as many as roll back.
    pub(crate) fn judge(
        &mut self,
        (window, new): (u64, Summary),
        old: Summary,
        ratio: f64,
        floor: Duration,
        windows: u32,
    ) -> bool {
        if self.judged == Some(window) {
            return false;
        }
        self.judged = Some(window);
        let is_bad = new.p99 > floor && new.p99 > old.p99.mul_f64(ratio);
        self.bad = if is_bad { self.bad + 1 } else { 0 };
        self.bad >= windows.max(1)
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

    #[tokio::test(start_paused = true)]
    async fn a_window_ends_when_it_is_long_enough_and_has_enough_samples() {
        let (of, length) = (Latencies::default(), Duration::from_secs(10));
        let record = |n| (0..n).for_each(|_| of.record(Side::New, Whose::Callers, Duration::from_millis(1)));
        let full = || of.last(Side::New, Whose::Callers).map(|(n, s)| (n, s.samples));
        of.turn(length, 20);
        record(30);
        of.turn(length, 20);
        assert_eq!(full(), None, "not long enough");
        tokio::time::sleep(length).await;
        of.turn(length, 50);
        assert_eq!(full(), None, "not enough samples");
        record(30);
        of.turn(length, 50);
        assert_eq!(full(), Some((1, 60)), "what was recorded before counts");
        assert_eq!(of.last(Side::New, Whose::Mirror), None);
        record(10);
        of.begin_anew(20);
        assert_eq!(full(), Some((1, 60)), "cut short, and too little");
    }

    #[test]
    fn so_many_bad_windows_in_a_row_roll_back_and_fast_enough_is_never_bad() {
        let ms = |p99| Summary { samples: 200, p99: Duration::from_millis(p99) };
        let (ratio, floor) = (5.0, Duration::from_millis(20));
        let mut verdict = Verdict::default();
        let mut judge = |window, p99| verdict.judge((window, ms(p99)), ms(10), ratio, floor, 2);
        assert!(!judge(1, 60) && !judge(1, 60), "a window counts once");
        assert!(!judge(2, 40) && !judge(3, 60), "a good one starts the count anew");
        assert!(judge(4, 60));
        let mut verdict = Verdict::default();
        let mut of_fast = |window, p99| verdict.judge((window, ms(p99)), ms(1), ratio, floor, 1);
        assert!(!of_fast(1, 15) && !of_fast(2, 20) && of_fast(3, 21));
    }
}
