//! What a rollout is opened with.

use std::time::Duration;

use eb_contract::{Error, ErrorKind, RegisterName, Result};

/// The settings of one process. What all processes must agree on ([`RolloutConfig::lease`]) is taken from the register once
/// it is there.
#[derive(Debug, Clone)]
pub struct RolloutConfig {
    /// The register that holds the state; the mirror's progress is in `<name>.mirror`. At most 120 characters.
    pub name: String,
    /// Who this process is, for the record.
    pub owner: String,
    /// How long a process may write, and read ahead, without asking: 20 to 500 ms. A switch takes at least this long.
    pub lease: Duration,
    /// The most records that wait in line while there is no lease; beyond it publishes are `Throttled`.
    pub max_waiting_records: usize,
    /// The most bytes of envelopes that wait in line.
    pub max_waiting_bytes: usize,
    /// How long a publish waits in line.
    pub max_wait: Duration,
    /// How long an ACK that came after the end of its lease is resolved before its outcome is unknown.
    pub resolve_within: Duration,
    /// How long a rollback waits for the bus that it leaves.
    pub reach: Duration,
    /// How long a planned switch waits for either bus, and for the mirror's worker to rest.
    pub drain: Duration,
    /// How long a bus that was primary rests before records are mirrored to it; and, where it may have unknown outcomes, before a planned switch makes
    /// it primary again.
    pub rest: Duration,
    /// Whether this process may mirror, and watches for triggers.
    pub workers: bool,
    /// The mirror.
    pub mirror: MirrorConfig,
    /// What rolls back.
    pub triggers: Triggers,
}

/// How the mirror is made.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    /// The most records of a topic that are copied and compared as one window.
    pub window: usize,
    /// How long the worker rests when there is nothing to copy.
    pub idle: Duration,
    /// How long nobody must have heard of a worker before another takes over.
    pub patience: Duration,
    /// How long what the mirror's bus has ACKed may take until it can be read there.
    pub visible_within: Duration,
    /// How many records and keys a comparison of both logs remembers at a time, about 60 bytes each; more are compared in several passes.
    pub compare_at_once: usize,
}

/// What rolls back on its own.
#[derive(Debug, Clone)]
pub struct Triggers {
    /// How often it is looked.
    pub check_every: Duration,
    /// An event that is missing or differs in the mirror rolls back.
    pub on_finding: bool,
    /// The new bus may be unavailable for this long; `None` for ever.
    pub unavailable_for: Option<Duration>,
    /// The new bus's 99th percentile of publish latency may be this many times the old one's; `None` for any.
    pub p99_ratio: Option<f64>,
    /// Up to here the new bus's 99th percentile is well, whatever the old one's is.
    pub p99_floor: Duration,
    /// So many windows in a row must be worse than that.
    pub p99_windows: u32,
    /// Latencies are compared over windows of this length at least.
    pub window: Duration,
    /// A window goes on until it has so many samples.
    pub min_samples: u64,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            name: "rollout".to_owned(),
            owner: format!("pid {}", std::process::id()),
            lease: Duration::from_millis(500),
            max_waiting_records: 100_000,
            max_waiting_bytes: 64 << 20,
            max_wait: Duration::from_secs(10),
            resolve_within: Duration::from_secs(10),
            reach: Duration::from_millis(250),
            drain: Duration::from_secs(5),
            rest: Duration::from_secs(30),
            workers: true,
            mirror: MirrorConfig::default(),
            triggers: Triggers::default(),
        }
    }
}

impl Default for MirrorConfig {
    fn default() -> Self {
        Self {
            window: 2_000,
            idle: Duration::from_millis(50),
            patience: Duration::from_secs(15),
            visible_within: Duration::from_secs(10),
            compare_at_once: 1 << 20,
        }
    }
}

impl Default for Triggers {
    fn default() -> Self {
        Self {
            check_every: Duration::from_secs(1),
            on_finding: true,
            unavailable_for: Some(Duration::from_secs(30)),
            p99_ratio: Some(5.0),
            p99_floor: Duration::from_millis(20),
            p99_windows: 2,
            window: Duration::from_secs(60),
            min_samples: 200,
        }
    }
}

/// The shortest and the longest lease.
const LEASE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

impl RolloutConfig {
    pub(crate) fn check(&self) -> Result<(RegisterName, RegisterName)> {
        let invalid = |what: String| Error::new(ErrorKind::InvalidInput, "open rollout", what);
        if self.lease < LEASE.0 || self.lease > LEASE.1 {
            return Err(invalid(format!("a lease of {:?}, it must be 20 to 500 ms", self.lease)));
        }
        if self.mirror.window == 0 {
            return Err(invalid("the mirror's window must hold a record".to_owned()));
        }
        if self.mirror.compare_at_once < 16 {
            return Err(invalid("a comparison must remember 16 records at the least".to_owned()));
        }
        if self.triggers.p99_ratio.is_some_and(|ratio| ratio.is_nan() || ratio < 1.0) {
            return Err(invalid("the ratio of latencies must be at least 1".to_owned()));
        }
        let name = |text: &str| RegisterName::new(text).map_err(|e| invalid(e.to_string()));
        Ok((name(&self.name)?, name(&format!("{}.mirror", self.name))?))
    }
}

/// By how much a switch waits longer than a lease: what clocks may differ by, and then some.
pub(crate) fn margin(lease: Duration) -> Duration {
    lease / 5 + Duration::from_millis(10)
}
