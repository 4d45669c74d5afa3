//! Leases: which worker of a consumer reads which partition.
//!
//! A lease is a claim with an end. Its holder may work on the partition until the end, counted on the holder's own
//! monotonic clock from *before* it asked; nobody else gets the partition before the end, counted on the store's
//! clock from when it answered. So two clocks that run at the same rate never see two holders, however far apart
//! their times of day are.
//!
//! A lease alone does not stop a holder that was paused past its end (Martin Kleppmann, "How to do distributed
//! locking", 2016). What stops it is the epoch: it rises with every new holder, and the stores that hold effects refuse
//! lower ones ([`CheckpointStore::commit`](super::CheckpointStore::commit), [`ProcessedStore::record`](super::ProcessedStore::record)).
//!
//! # Reports
//! With each renewal the holder may say how its work on the partition stands ([`WorkReport`]): so anybody who reads the store sees
//! all running workers, not only those of the own process. A report is information, and nothing is decided by it. It belongs to one
//! lease (owner and epoch) and is shown only as long as that lease lasts: it ends with it, a release or another holder takes it away,
//! and whoever is refused the renewal has not reported either. The time of a report is the store's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Lease;
use crate::{BoxFuture, ConsumerName, Error, ErrorKind, PartitionId, Result, Timestamp, Topic};

/// What a lease is for: one partition, as read by one consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseKey {
    /// The consumer whose workers share the topic.
    pub consumer: ConsumerName,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition_id: PartitionId,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The caller holds it now, for the time it asked for.
    Held(Lease),
    /// Another worker holds it.
    Taken {
        /// Who, and under which epoch.
        by: Lease,
        /// How long it still has unless it renews: ask again after this.
        left: Duration,
    },
}

/// What a heartbeat learned.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The live workers of the consumer on this topic, the caller among them, sorted. What a fair share is counted by.
    pub workers: Vec<String>,
    /// For each lease that was to be renewed, positionally: renewed, or
    /// [`ErrorKind::Fenced`] when it ended and another may have taken it.
    pub renewed: Vec<Result<()>>,
}

/// A lease that a heartbeat is to renew, and what its holder says with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The partition.
    pub partition_id: PartitionId,
    /// The lease, as the claim answered it.
    pub lease: Lease,
    /// How the work stands; `None` leaves the last report as it is.
    pub report: Option<WorkReport>,
}

/// How the work of a lease's holder stands. A store may hold a number above 2⁶³ − 1 as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkReport {
    /// What it is doing.
    pub phase: WorkPhase,
    /// Records that it has read and not finished.
    pub in_flight: u64,
    /// Of their keys, how many have a record that failed and is to be tried again.
    pub keys_retrying: u64,
    /// How many attempts had to be repeated since the lease was claimed.
    pub retries: u64,
}

/// What the holder of a lease is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkPhase {
    /// Reading and handling.
    Running,
    /// Neither: as many records as may be wait for another attempt, or behind one that does.
    Paused,
    /// Finishing what it has begun, to give the partition up.
    Draining,
    /// A record used up its attempts, and the consumer's policy is to stop there until somebody restarts it.
    Halted,
}

impl WorkPhase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Draining, Self::Halted];

    /// Its name, as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Halted => "halted",
        }
    }
}

/// A report, and when the store took it in, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// What was said.
    pub work: WorkReport,
    /// When.
    pub at: Timestamp,
}

/// A lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// What it is for.
    pub key: LeaseKey,
    /// Who holds it, or held it last.
    pub lease: Lease,
    /// How long it still has; `None` when it has ended or was released.
    pub left: Option<Duration>,
    /// The last report of this lease's holder; `None` when there was none, and always once the lease has ended.
    pub reported: Option<Reported>,
}

/// Durable leases. An epoch once given is never given again, also after a crash of the store, and also after a
/// release.
///
/// The first epoch of a key is the time of day in milliseconds since 1970 ([`first_epoch`]), and each later one
/// the last plus one. So a store of leases that was lost, or replaced by another kind, goes on above what the stores of
/// effects remember, where counting from 1 would leave the consumer fenced for good.
///
/// An end is never brought forward by renewing or claiming: a call that arrives late and asks for less leaves the longer one.
///
/// Workers name themselves by an `owner` of 1 to 256 characters that no other living worker uses (host, process, random).
/// A time to live is between 100 milliseconds and one hour; anything else is
/// [`ErrorKind::InvalidInput`].
pub trait LeaseStore: Send + Sync + 'static {
    /// Claims a partition. A lease that the owner already holds is answered as it is, and lasts anew.
    ///
    /// # Errors
    /// When the store cannot tell; [`Effect::Unknown`](crate::Effect::Unknown) when the claim may have been made. Claiming
    /// again is always safe. Dropping the future: the same as an unknown outcome; the claim ends by itself.
    fn claim<'a>(
        &'a self,
        key: &'a LeaseKey,
        owner: &'a str,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<Claim>>;

    /// Says that a worker of a consumer lives, for `time_to_live`, and renews leases that it holds, all in one step. The
    /// keys are of this consumer and topic. The report that comes with a lease is kept if it is renewed, and else forgotten.
    ///
    /// # Errors
    /// When the store cannot tell: then nothing may be taken for renewed, or for reported. Dropping the future: the same.
    fn heartbeat<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
        time_to_live: Duration,
        held: &'a [Renewal],
    ) -> BoxFuture<'a, Result<Heartbeat>>;

    /// Gives a lease back before its end, so that another worker need not wait for it. One that is no longer held is
    /// left as it is; that is not an error.
    ///
    /// # Errors
    /// When the store cannot do it; the lease then ends by itself.
    fn release<'a>(&'a self, key: &'a LeaseKey, lease: &'a Lease) -> BoxFuture<'a, Result<()>>;

    /// Says that a worker has gone, so that the others' shares grow at once. Its leases are released.
    ///
    /// # Errors
    /// When the store cannot do it; its presence then ends by itself.
    fn leave<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<()>>;

    /// All leases there have been, or those of one consumer, sorted by key.
    ///
    /// # Errors
    /// When any of them cannot be read.
    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<LeaseInfo>>>;

    /// Checks that a claim could succeed now, without claiming; for health.
    ///
    /// # Errors
    /// Why it would fail.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;
}

/// The first epoch of a key that nobody has held yet.
#[must_use]
pub fn first_epoch(now: Timestamp) -> u64 {
    u64::try_from(now.as_micros() / 1000).unwrap_or(0).max(1)
}

/// The shortest time to live.
pub const SHORTEST_LEASE: Duration = Duration::from_millis(100);
/// The longest time to live.
pub const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// Refuses owners and times to live that no store takes; for implementations.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_lease_request(op: &'static str, owner: &str, time_to_live: Duration) -> Result<()> {
    check_owner(op, owner)?;
    if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&time_to_live) {
        let message = format!("a time to live of {time_to_live:?} is not between 100 ms and one hour");
        return Err(Error::new(ErrorKind::InvalidInput, op, message));
    }
    Ok(())
}

/// Refuses owners that no store takes; for implementations.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_owner(op: &'static str, owner: &str) -> Result<()> {
    if owner.is_empty() || owner.chars().count() > 256 {
        return Err(Error::new(ErrorKind::InvalidInput, op, "a lease owner has 1 to 256 characters"));
    }
    Ok(())
}
