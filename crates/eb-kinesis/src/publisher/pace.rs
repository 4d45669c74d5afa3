//! How much one shard is given at a time.
//!
//! Two bounds hold together: a token bucket of what the shard is known to take in a second, if that is configured, and a
//! window of records in flight that the service's own refusals move: halved by an answer with refusals, opened again by
//! those without (as TCP does it). After a refusal the shard also rests, longer each time while nothing gets through.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

/// A pause that doubles from `least` to `most`.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    streak: u32,
    until: Option<Instant>,
}

impl Backoff {
    pub(super) const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, streak: 0, until: None }
    }

    /// Another failure. `jitter` is from 0 to 1: the pause is cut by up to a half of it, so that publishers that failed
    /// together do not come back together.
    pub(super) fn fail(&mut self, now: Instant, jitter: f64) {
        let whole = self.least.saturating_mul(1 << self.streak.min(16)).min(self.most);
        self.streak = self.streak.saturating_add(1);
        self.until = Some(now + whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0));
    }

    /// It works again. A pause that was begun is not cut short.
    pub(super) fn succeed(&mut self) {
        self.streak = 0;
    }

    pub(super) fn is_failing(&self) -> bool {
        self.streak > 0
    }

    /// When the pause ends, if it has not.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

/// Tokens of records and bytes, a fifth of a second's worth of each.
#[derive(Debug, Clone)]
struct Bucket {
    rate: Rate,
    records: f64,
    bytes: f64,
    filled: Instant,
}

impl Bucket {
    /// How many seconds' worth may go at once. The service counts by the second: more would be refused at the start.
    const BURST: f64 = 0.2;
    /// An empty bucket is asked again after this share of a burst, for calls of some size.
    const SIP: f64 = 0.25;

    fn new(rate: Rate, now: Instant) -> Self {
        let mut bucket = Self { rate, records: 0.0, bytes: 0.0, filled: now };
        (bucket.records, bucket.bytes) = bucket.full();
        bucket
    }

    fn full(&self) -> (f64, f64) {
        ((self.rate.calls_or_records * Self::BURST).max(1.0), self.rate.bytes * Self::BURST)
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        let (records, bytes) = self.full();
        self.records = (self.records + seconds * self.rate.calls_or_records).min(records);
        self.bytes = (self.bytes + seconds * self.rate.bytes).min(bytes);
        self.filled = now;
    }

    /// A record may go while the bytes are not in debt; its own size may bring them there.
    fn is_open(&self) -> bool {
        // Rounding may keep a token from becoming whole.
        self.records >= 1.0 - 1e-6 && self.bytes > 0.0
    }

    fn opens_at(&self) -> Instant {
        let (records, bytes) = self.full();
        let wait = |missing: f64, rate: f64| if missing > 0.0 { missing / rate } else { 0.0 };
        let for_records = wait((records * Self::SIP).max(1.0) - self.records, self.rate.calls_or_records);
        let for_bytes = wait(bytes * Self::SIP - self.bytes, self.rate.bytes);
        // A nanosecond more, for what rounding takes away.
        self.filled + Duration::from_secs_f64(for_records.max(for_bytes)) + Duration::from_nanos(1)
    }
}

/// What one shard is given.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    bucket: Option<Bucket>,
    /// An empty bucket is left to fill for a while.
    sipping_until: Option<Instant>,
    rest: Backoff,
    window: f64,
    widest: f64,
    in_flight: usize,
    /// When a record was last taken, or the pace was made.
    pub(super) progress: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>, widest: usize, now: Instant) -> Self {
        let widest = widest as f64;
        Self {
            bucket: rate.map(|rate| Bucket::new(rate, now)),
            sipping_until: None,
            rest: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
            window: widest,
            widest,
            in_flight: 0,
            progress: now,
        }
    }

    /// The same pace with this many records in flight.
    pub(super) fn with_in_flight(&self, in_flight: usize) -> Self {
        Self { in_flight, ..self.clone() }
    }

    /// Fills the bucket. Before a round of [`Pace::take`].
    pub(super) fn refill(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.bucket {
            bucket.refill(now);
        }
    }

    /// Whether it may be given a record now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        (self.in_flight as f64) < self.window
            && self.rest.until(now).is_none()
            && self.sipping_until.is_none_or(|until| until <= now)
            && self.bucket.as_ref().is_none_or(Bucket::is_open)
    }

    /// When it may be given one, where only time must pass.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        if self.in_flight as f64 >= self.window {
            return None;
        }
        let sip = self.sipping_until.filter(|until| *until > now);
        self.rest.until(now).max(sip).or(Some(now))
    }

    /// A record goes.
    pub(super) fn take(&mut self, bytes: usize) {
        self.in_flight += 1;
        if let Some(bucket) = &mut self.bucket {
            bucket.records -= 1.0;
            bucket.bytes -= bytes as f64;
            if !bucket.is_open() {
                self.sipping_until = Some(bucket.opens_at());
            }
        }
    }

    /// A call has ended: of its records for this shard so many were taken, refused, or neither.
    pub(super) fn answered(&mut self, now: Instant, taken: usize, refused: usize, other: usize, jitter: f64) {
        let in_flight = self.in_flight as f64;
        self.in_flight = self.in_flight.saturating_sub(taken + refused + other);
        if taken > 0 {
            self.progress = now;
            self.rest.succeed();
        }
        if refused > 0 {
            self.window = (self.window.min(in_flight) / 2.0).max(1.0);
            self.rest.fail(now, jitter);
        } else if taken > 0 {
            self.window = (self.window + 8.0 * taken as f64 / self.window).min(self.widest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_given_its_rate_and_little_more_at_once() {
        let start = Instant::now();
        let rate = Rate { calls_or_records: 1_000.0, bytes: 1e6 };
        let mut pace = Pace::new(Some(rate), 1_000_000, start);
        let (mut now, mut given) = (start, 0);
        while now < start + Duration::from_secs(10) {
            pace.refill(now);
            while pace.is_open(now) {
                pace.take(100);
                given += 1;
            }
            let next = pace.opens_at(now).unwrap();
            assert!(next > now, "an empty bucket names a later time");
            now = next;
        }
        assert!((9_900..=10_300).contains(&given), "{given} in ten seconds");
    }

    #[test]
    fn bytes_are_paced_too_and_a_record_larger_than_the_burst_still_goes() {
        let start = Instant::now();
        let rate = Rate { calls_or_records: 1_000.0, bytes: 1e6 };
        let mut pace = Pace::new(Some(rate), 1_000_000, start);
        pace.take(1_000_000);
        assert!(!pace.is_open(start));
        let opens = pace.opens_at(start).unwrap();
        let waits = (opens - start).as_secs_f64();
        assert!((0.8..0.9).contains(&waits), "{waits} s until the debt is paid");
        pace.refill(opens);
        assert!(pace.is_open(opens));
    }

    #[test]
    fn refusals_halve_the_window_and_acks_open_it_again() {
        let now = Instant::now();
        let mut pace = Pace::new(None, 4_000, now);
        (0..100).for_each(|_| pace.take(1));
        pace.answered(now, 40, 60, 0, 0.0);
        assert!(!pace.is_open(now), "it rests");
        let later = pace.opens_at(now).unwrap();
        assert!(later > now);
        let mut given = 0;
        while pace.is_open(later) {
            pace.take(1);
            given += 1;
        }
        assert_eq!(given, 50);
        assert_eq!(pace.opens_at(later), None, "an answer opens it, not time");
        pace.answered(later, 50, 0, 0, 0.0);
        while pace.is_open(later) {
            pace.take(1);
            given += 1;
        }
        assert_eq!(given, 50 + 58);
        for _ in 0..10_000 {
            pace.answered(later, 1_000, 0, 0, 0.0);
        }
        assert!(pace.window <= 4_000.0);
    }

    #[test]
    fn rests_double_while_nothing_gets_through_and_start_small_again_after() {
        let now = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut rest = |jitter| {
            backoff.fail(now, jitter);
            (backoff.until(now).unwrap() - now).as_millis()
        };
        assert_eq!([rest(0.0), rest(0.0), rest(1.0), rest(0.0)], [20, 40, 40, 160]);
        let longest = (0..40).map(|_| rest(0.0)).max();
        assert_eq!(longest, Some(1_000));
        assert_eq!(rest(0.0), 1_000);
        backoff.succeed();
        assert!(!backoff.is_failing());
        backoff.fail(now, 0.0);
        assert_eq!(backoff.until(now), Some(now + Duration::from_millis(20)));
    }
}
