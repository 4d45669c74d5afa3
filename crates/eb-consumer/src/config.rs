//! Limits and intervals of a consumer.

use std::time::Duration;

use eb_contract::stores::{LONGEST_LEASE, SHORTEST_LEASE};

/// How much a worker has in work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many handlers run at once, of all partitions together.
    pub concurrency: usize,
    /// How many records of a partition may be read before the cut has passed the first of them: also how many a stuck key lets by,
    /// and the most that are handled again after a crash.
    pub partition_records: usize,
    /// How many bytes of envelopes of a partition may be read and not recorded.
    pub partition_bytes: usize,
    /// How many records may be read and not recorded, of all partitions together.
    pub total_records: usize,
    /// The same in bytes of envelopes. One read of at most [`Limits::read_bytes`] of each partition comes on top.
    pub total_bytes: usize,
    /// The most records of one read.
    pub read_records: usize,
    /// About how many bytes one read brings.
    pub read_bytes: usize,
    /// How long a read waits at the head.
    pub read_wait: Duration,
    /// How long a handler may run for one record. Then it is dropped where it awaits, and the attempt has failed: it is tried again by the
    /// [`RetryPolicy`](crate::RetryPolicy). `None`: as long as it likes; its key waits for it, and of one that has run for five minutes the health tells.
    pub handler_time: Option<Duration>,
}

impl Default for Limits {
    /// 64 handlers, as long as they like; 10,000 records or 16 MiB of a partition, 100,000 or 128 MiB of all; reads of 2,000 records or 1 MiB that
    /// wait 1 s.
    fn default() -> Self {
        Self {
            concurrency: 64,
            partition_records: 10_000,
            partition_bytes: 16 << 20,
            total_records: 100_000,
            total_bytes: 128 << 20,
            read_records: 2_000,
            read_bytes: 1 << 20,
            read_wait: Duration::from_secs(1),
            handler_time: None,
        }
    }
}

/// When marks and checkpoints are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitPolicy {
    /// Once so many records are finished.
    pub records: usize,
    /// Or so long after the first of them.
    pub interval: Duration,
    /// How often a consumer with nothing to do says that it is at the head, where the log forgets (so that an idle stream is not taken
    /// for a loss).
    pub idle: Duration,
    /// How long to wait before a store that failed is tried again; doubles up to [`CommitPolicy::retry_max`].
    pub retry: Duration,
    /// See above.
    pub retry_max: Duration,
}

impl Default for CommitPolicy {
    /// 2,000 records or 100 ms; 30 s at the head; 50 ms to 5 s between attempts.
    fn default() -> Self {
        Self {
            records: 2_000,
            interval: Duration::from_millis(100),
            idle: Duration::from_secs(30),
            retry: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// How workers share partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasePolicy {
    /// What this worker is called; no other living worker of the consumer may have the name. 1 to 256 characters. `None`: made up of process
    /// id and chance.
    pub owner: Option<String>,
    /// How long a lease lasts: how long the partitions of a worker that died stay unread.
    pub time_to_live: Duration,
    /// How often the worker says that it lives. At most a third of `time_to_live`.
    pub heartbeat: Duration,
    /// How often partitions and shares are looked at.
    pub rebalance: Duration,
    /// After what time a partition that could not be opened or read is tried again.
    pub retry_failed: Duration,
    /// How long handlers may go on when a partition is given up or the consumer stops. Then they are dropped. Storing what was handled
    /// may take as long again as [`CommitPolicy::retry_max`].
    pub grace: Duration,
}

impl Default for LeasePolicy {
    /// 15 s, with a heartbeat every 4 s and a look at the shares every 2 s; 10 s until a failed partition is tried again; 10 s of grace.
    fn default() -> Self {
        Self {
            owner: None,
            time_to_live: Duration::from_secs(15),
            heartbeat: Duration::from_secs(4),
            rebalance: Duration::from_secs(2),
            retry_failed: Duration::from_secs(10),
            grace: Duration::from_secs(10),
        }
    }
}

/// What a consumer does without its bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It does not start, and says why.
    Required,
    /// For development: it starts on the substitute that it was given, says so loudly, and its health is degraded.
    Degraded,
}

/// Whether records of a key are handled one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// In the log's order within a key.
    PerKey,
    /// In any order.
    Unordered,
}

/// Whether copies of an event that lie further on in the log are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CopyGuard {
    /// They are left out where the bus says that its log may hold copies.
    #[default]
    AsTheBusNeeds,
    /// They are left out.
    On,
    /// They are handled.
    Off,
}

pub(crate) fn check(limits: &Limits, commit: &CommitPolicy, leases: &LeasePolicy) -> Result<(), String> {
    let zero = [
        ("concurrency", limits.concurrency),
        ("partition_records", limits.partition_records),
        ("partition_bytes", limits.partition_bytes),
        ("total_records", limits.total_records),
        ("total_bytes", limits.total_bytes),
        ("read_records", limits.read_records),
        ("read_bytes", limits.read_bytes),
        ("commit records", commit.records),
    ];
    if let Some((name, _)) = zero.iter().find(|(_, n)| *n == 0) {
        return Err(format!("a limit of 0 for {name}; it must be at least 1"));
    }
    if limits.handler_time.is_some_and(|time| time.is_zero()) {
        return Err("a handler time of 0; leave it out to let handlers run as long as they like".to_owned());
    }
    if limits.partition_records > 10_000_000 || limits.total_records > 100_000_000 {
        return Err("more than 10,000,000 records of a partition or 100,000,000 in all".to_owned());
    }
    if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&leases.time_to_live) {
        return Err(format!("a lease of {:?}; it lasts 100 ms to one hour", leases.time_to_live));
    }
    if leases.heartbeat.is_zero() || leases.heartbeat * 3 > leases.time_to_live {
        return Err(format!(
            "a heartbeat every {:?} for leases of {:?}; it must come at least three times as often as leases end",
            leases.heartbeat, leases.time_to_live
        ));
    }
    if leases.rebalance.is_zero() || leases.retry_failed.is_zero() {
        return Err("an interval of 0".to_owned());
    }
    Ok(())
}
