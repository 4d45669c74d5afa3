//! What a publisher has sent, in figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a publisher has sent since it was made, all topics together. A snapshot: its figures may be a call apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishStats {
    /// `PutRecords` calls that have ended.
    pub calls: u64,
    /// Records in those calls; one that was sent again counts again.
    pub records: u64,
    /// Records that are sent again, because they were refused or the call did not get through.
    pub sent_again: u64,
    /// The time that the calls took, one after the other: divided by the time that has passed it is how many were under
    /// way at once.
    pub in_calls: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    calls: AtomicU64,
    records: AtomicU64,
    sent_again: AtomicU64,
    micros: AtomicU64,
}

impl Counters {
    /// A call has ended.
    pub(super) fn count(&self, records: usize, sent_again: usize, took: Duration) {
        let add = |counter: &AtomicU64, n: u128| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        add(&self.calls, 1);
        add(&self.records, records as u128);
        add(&self.sent_again, sent_again as u128);
        add(&self.micros, took.as_micros());
    }

    pub(super) fn snapshot(&self) -> PublishStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PublishStats {
            calls: read(&self.calls),
            records: read(&self.records),
            sent_again: read(&self.sent_again),
            in_calls: Duration::from_micros(read(&self.micros)),
        }
    }
}
