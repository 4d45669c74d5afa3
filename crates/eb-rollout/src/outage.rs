//! For how long publishes to a bus have failed, as this process sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eb_contract::{Error, ErrorKind};
use tokio::time::Instant;

/// The failures of one bus since its last success. It may be readable all the while: a server whose disk is full answers reads.
pub(crate) struct Outage {
    base: Instant,
    /// Nanoseconds after `base`, plus one, of the first failure since the last success; 0 while there is none.
    first: AtomicU64,
    /// The same of the last one.
    last: AtomicU64,
}

impl Default for Outage {
    fn default() -> Self {
        Self { base: Instant::now(), first: AtomicU64::new(0), last: AtomicU64::new(0) }
    }
}

impl Outage {
    /// An ACK.
    pub(crate) fn is_over(&self) {
        if self.first.load(Ordering::Relaxed) != 0 {
            self.first.store(0, Ordering::Relaxed);
        }
    }

    /// A publish that failed, if for a reason of the bus's.
    pub(crate) fn failed(&self, error: &Error) {
        use ErrorKind::{Io, Poisoned, StorageFull, Timeout, Unavailable};
        if !matches!(error.kind(), Unavailable | Timeout | Io | StorageFull | Poisoned) {
            return;
        }
        let nanos = Instant::now().saturating_duration_since(self.base).as_nanos();
        let now = u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(1);
        self.last.store(now, Ordering::Relaxed);
        // Whoever was first has said since when.
        let _ = self.first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// From the first failure to the last, without a success in between. It does not grow while nobody publishes.
    pub(crate) fn lasted(&self) -> Duration {
        match self.first.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            first => Duration::from_nanos(self.last.load(Ordering::Relaxed).saturating_sub(first)),
        }
    }
}
