//! Until when a worker may act on a partition, as its handlers see it.

use std::time::Instant;

use eb_contract::stores::Lease;
use tokio::sync::watch;

/// The lease under which an event is handled: for handlers that act through something that outlives them (a process, another service), and must
/// see to it that it ends before the partition is somebody else's.
///
/// The worker drops its handlers when the lease ends; that stops nothing that does not await, and nothing at all while the worker itself is
/// stopped. [`Hold::ends`] is counted on this machine's monotonic clock from before the lease was asked for, so nobody else holds the
/// partition before then.
#[derive(Debug)]
pub struct Hold {
    epoch: u64,
    ends: watch::Receiver<tokio::time::Instant>,
}

impl Clone for Hold {
    /// A clone hears of renewals from now on.
    fn clone(&self) -> Self {
        let mut ends = self.ends.clone();
        ends.mark_unchanged();
        Self { epoch: self.epoch, ends }
    }
}

impl Hold {
    pub(crate) fn new(lease: &Lease, ends: watch::Receiver<tokio::time::Instant>) -> Self {
        Self { epoch: lease.epoch, ends }
    }

    /// Rises with every new holder of the partition: what another system can fence by.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When it ends unless it is renewed.
    #[must_use]
    pub fn ends(&self) -> Instant {
        self.ends.borrow().into_std()
    }

    /// Waits until it was renewed, or taken away, and says when it ends now. Never returns once the partition was given up. Dropping the future
    /// loses nothing.
    pub async fn changed(&mut self) -> Instant {
        if self.ends.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.ends()
    }
}
