//! What the stores of a consumer stand on: a disk and clocks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::Timestamp;
use eb_disk::{Disk, RealDisk, boot};

/// The clocks that a store goes by.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// How long the machine has been up: the same for all processes of a boot, moved by no change of the time of day.
    fn uptime(&self) -> Duration;

    /// The time of day.
    fn now(&self) -> Timestamp;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn uptime(&self) -> Duration {
        boot::uptime()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What a store stands on: the machine's own unless a test puts something else underneath.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where bytes go.
    pub disk: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Default for Host {
    fn default() -> Self {
        Self { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock) }
    }
}
