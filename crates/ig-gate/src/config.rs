//! The gate's limits and intervals.

use std::time::Duration;

use canonical_envelope::Limits;

/// Limits and intervals of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct GateConfig {
    /// The most bytes of one input (white space included), and its deepest nesting. Larger inputs are quarantined
    /// as `PAYLOAD_TOO_LARGE`, deeper ones as `ENVELOPE_INVALID`. The publisher's own limit on envelopes counts too.
    pub limits: Limits,
    /// How many admissions may be in flight at once: published or about to be, and not yet answered. Further ones
    /// wait their turn.
    pub max_in_flight: usize,
    /// How many bytes of events may be in flight at once. An event counts as at least
    /// `max_in_flight_bytes / max_in_flight`; one larger than the whole counts as the whole.
    pub max_in_flight_bytes: usize,
    /// How many admissions may wait for their turn, and how many quarantines for their evidence; past that `admit`
    /// answers `EB_THROTTLED` at once. So many keys may also be blocked by unknown outcomes; past that it answers
    /// `GATE_UNHEALTHY`.
    pub max_waiting: usize,
    /// How many bytes of inputs may wait for their turn, and apart from them how many for their evidence; past that
    /// `admit` answers `EB_THROTTLED` at once. An input larger than this may wait when no other does.
    pub max_waiting_bytes: usize,
    /// After how many admissions the index's checkpoint is committed; at most a quarter of the index's `max_lag`.
    pub checkpoint_every: u64,
    /// After what time it is committed, if anything was admitted.
    pub checkpoint_interval: Duration,
    /// Logs with several writers only: how long after a publish with an unknown outcome, or after another gate was last
    /// heard of, the log may still bring the record. Once this has passed and the log does not hold it, the event counts as not published. It must
    /// exceed the longest time that the backend may hold a request; a record that comes later still is a copy.
    pub unknown_deadline: Duration,
    /// How many events [`Gate::admit_batch`](crate::Gate::admit_batch) keeps in flight.
    pub batch_concurrency: usize,
}

impl Default for GateConfig {
    /// 1 MiB inputs, 8,192 admissions or 256 MiB in flight, 32,768 or 256 MiB waiting, a checkpoint every 10,000
    /// admissions or 5 s, 60 s for unknown outcomes, batches of 512 in flight.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            max_in_flight: 8_192,
            max_in_flight_bytes: 256 << 20,
            max_waiting: 32_768,
            max_waiting_bytes: 256 << 20,
            checkpoint_every: 10_000,
            checkpoint_interval: Duration::from_secs(5),
            unknown_deadline: Duration::from_secs(60),
            batch_concurrency: 512,
        }
    }
}
