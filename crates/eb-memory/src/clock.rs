//! The time that the stores go by.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A clock: the machine's, or one that a test moves on. Clones are the same clock.
///
/// The machine's clock counts durations on tokio's clock, so it stands still and jumps with a paused runtime; its time of day
/// is the system's either way.
#[derive(Debug, Clone)]
pub struct MemoryClock(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    System { since: Instant },
    Manual { start: Timestamp, passed: Mutex<Duration> },
}

impl Default for MemoryClock {
    fn default() -> Self {
        Self::system()
    }
}

impl MemoryClock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Kind::System { since: Instant::now() }))
    }

    /// A clock that stands still until [`MemoryClock::advance`]. Its time of day starts as the system's.
    #[must_use]
    pub fn manual() -> Self {
        Self(Arc::new(Kind::Manual { start: Timestamp::now(), passed: Mutex::new(Duration::ZERO) }))
    }

    /// Moves a manual clock on; the machine's clock takes no notice.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual { passed, .. } = &*self.0 {
            *passed.lock() += by;
        }
    }

    /// How long it has been running; never goes back.
    #[must_use]
    pub fn passed(&self) -> Duration {
        match &*self.0 {
            Kind::System { since } => since.elapsed(),
            Kind::Manual { passed, .. } => *passed.lock(),
        }
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Kind::System { .. } => Timestamp::now(),
            Kind::Manual { start, passed } => start.saturating_add(*passed.lock()),
        }
    }
}
