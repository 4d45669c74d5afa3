//! The admission index: which events were admitted, as a view of the log.
//!
//! The log is the ledger. The index answers "was this key admitted, and where" quickly; it may lag behind the log,
//! and what it lacks is read from the log before the gate admits again. It never holds what the log does not.
//!
//! # Protocol
//! 1. **Open.** The gate takes [`AdmissionIndex::checkpoint`], checks it against the log (incarnation, last record's
//!    checksum, nothing ahead of the log), reads the log from each cut to the head, and hands what it finds to
//!    [`AdmissionIndex::apply`]; open reservations of crashed gates ([`AdmissionIndex::open_reservations`]) are
//!    settled by reading from their start cuts.
//! 2. **Admit.** [`AdmissionIndex::reserve`] answers each key: admitted already, in flight in another process, or
//!    fresh and now reserved. A shared index has committed the reservation before it answers. After the bus's ACK
//!    the gate calls [`AdmissionIndex::confirm`], and answers by what then stands; after a failure without effect,
//!    [`AdmissionIndex::release`]; after an unknown outcome neither, until the log has told: then
//!    [`AdmissionIndex::apply`] with the record found, or `release`. A publish that takes long has its reservation
//!    renewed meanwhile ([`AdmissionIndex::renew`]), so that nobody takes over what is merely slow.
//! 3. **Take over.** A reservation whose lease has ended stays: its key is answered
//!    [`Reserved::InFlight`] with no lease left, never [`Reserved::Fresh`], until a gate has read the log from its start
//!    cuts and applied what it found, or given it up ([`AdmissionIndex::give_up`]) because nothing can come any more.
//! 4. **Checkpoint.** From time to time [`AdmissionIndex::commit_checkpoint`] with cuts before which every record is
//!    confirmed or applied.
//!
//! # One place for each event, for good
//! The log may hold copies of an event: a publish with an unknown outcome that was given up and made again, or one
//! that a slow gate made after another had taken its key over. A receipt names one of them, and every later answer must
//! name the same. Hence the rule: **what stands in the index stays.** Neither `confirm` nor `apply` moves an entry;
//! each tells its caller which entry stands instead, and the caller answers with that one. Of copies that the index has
//! not seen, the first that it is told of stands, and whoever reads the log tells them in the log's order.
//!
//! An index that lost entries (a crash of an embedded one, a rebuild) is told of all copies in the log's order, so the
//! first in the log stands. That is the one that receipts name as long as nothing lands before it later: which holds
//! when publishers send a record again only after they know that it was not taken, and when nothing lands later than the
//! deadline after which an unknown outcome is given up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BoxFuture, BusIncarnation, Cut, EbRef, PartitionId, Result, Timestamp, Topic};

/// What an event is known by in the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdmissionKey {
    /// The first 8 bytes of SHA-256 over the event id, so that an event can be found by its id alone.
    pub event: [u8; 8],
    /// The dedupe key: SHA-256 over what makes an event the same event.
    pub dedupe: [u8; 32],
}

impl fmt::Debug for AdmissionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dedupe.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// An admitted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionEntry {
    /// What it is known by.
    pub key: AdmissionKey,
    /// SHA-256 over its canonical payload: the same key with another payload is another story.
    pub payload_hash: [u8; 32],
    /// Where it lies. Of several copies in the log, the one that receipts name: see the [module](self).
    pub eb_ref: EbRef,
}

/// A key that a gate wants to admit.
#[derive(Debug, Clone, PartialEq)]
pub struct ReserveRequest {
    /// The key.
    pub key: AdmissionKey,
    /// Its payload hash.
    pub payload_hash: [u8; 32],
    /// The topic that it will be published to.
    pub topic: Topic,
    /// Cuts at or before every place where this publish may land: a recovering gate reads from there. Empty where
    /// the index does not need them ([`AdmissionIndex::is_shared`] is false).
    pub start: Vec<(PartitionId, Cut)>,
    /// The policy under which it is admitted, shared by all requests of a gate.
    pub policy: Arc<PolicyRev>,
}

/// Names a reservation to its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReservationId(pub u64);

/// What an index knows of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Reserved {
    /// Unknown until now, and reserved for the caller.
    Fresh(ReservationId),
    /// Admitted before.
    Admitted(AdmissionEntry),
    /// Another gate is publishing it, or was when it died. Ask again later, at the latest after this long.
    InFlight {
        /// Which gate.
        owner: String,
        /// When its reservation may be taken over; zero: now. What became of it is then to be read from the log.
        lease_left: Duration,
    },
}

/// A reservation that ended in an ACK.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmation {
    /// Which reservation.
    pub reservation: ReservationId,
    /// Where the event lies.
    pub entry: AdmissionEntry,
}

/// A reservation whose outcome its owner has not told.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenReservation {
    /// Which.
    pub reservation: ReservationId,
    /// What was asked for.
    pub request: ReserveRequest,
    /// Which gate made it.
    pub owner: String,
    /// When it was made: its event cannot have reached the log before.
    pub reserved_at: Timestamp,
    /// When its gate was last known to be at work on it: when it was made, or last renewed.
    pub renewed_at: Timestamp,
}

/// How far the index reflects the log. Durable only together with every entry before its cuts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexCheckpoint {
    /// The version of the dedupe key's construction.
    pub key_version: u32,
    /// One for each topic-partition, sorted.
    pub cuts: Vec<IndexCut>,
}

/// How far the index reflects one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexCut {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition_id: PartitionId,
    /// Which life of the bus.
    pub bus_incarnation: BusIncarnation,
    /// Every record before it is in the index.
    pub cut: Cut,
    /// CRC32C over key and envelope of the last record before the cut; `None` where there is none. A log that holds
    /// something else there is not the log that this index is a view of.
    pub last_crc32c: Option<u32>,
    /// When the partition was read to its head and the head was this cut, by the clock of whoever read it: what lies
    /// after the cut has come since. `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<Timestamp>,
}

/// Which policy a gate decides by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRev {
    /// The policy's name.
    pub policy_id: String,
    /// Its revision.
    pub revision: String,
    /// SHA-256 hex over the bytes of its files.
    pub content_digest: String,
}

/// From where on a policy was in force, so that a lost receipt can be rebuilt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEpoch {
    /// The policy.
    pub policy: PolicyRev,
    /// When it came into force.
    pub since: Timestamp,
    /// Records after these cuts were admitted under it (until the next epoch's).
    pub cuts: Vec<(Topic, PartitionId, Cut)>,
}

/// Which events were admitted: a view of the log, embedded (one gate) or shared (several).
///
/// The gate never has two calls for one key in flight at once within a process. Unless stated otherwise, dropping a
/// future leaves the call either done or not done.
pub trait AdmissionIndex: Send + Sync + 'static {
    /// Whether several gates may share it: reservations are then durable before they are answered.
    fn is_shared(&self) -> bool;

    /// For how long a reservation of this gate keeps others from looking into what became of it, from when it was made
    /// or renewed. `None` where nobody else could.
    fn lease(&self) -> Option<Duration>;

    /// How many records a crash may leave the index behind its log.
    fn max_lag(&self) -> u64;

    /// Looks keys up and reserves the unknown ones, positionally. A key is never fresh while a reservation of it is
    /// open, ended lease or not, unless that one is this gate's own and its answer was lost. Dropping the future leaves
    /// reservations that their lease ends.
    ///
    /// # Errors
    /// When the index cannot answer for all of them; none is then reserved.
    fn reserve<'a>(&'a self, requests: &'a [ReserveRequest]) -> BoxFuture<'a, Result<Vec<Reserved>>>;

    /// Records ACKed events. They are found by later calls at once, and durable at the latest with the next
    /// [`AdmissionIndex::commit_checkpoint`] (a shared index: before this returns). May wait where the index has
    /// fallen too far behind.
    ///
    /// A key that has an entry keeps it, whatever is confirmed: a reservation may have been taken over while its publish
    /// was under way. The answer holds the entries that stand in place of confirmed ones, in any order; where
    /// everything confirmed stands, none.
    ///
    /// # Errors
    /// When the index can no longer take them; the log still holds them, and the next open finds them there.
    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>>;

    /// Keeps reservations of this gate whose publishes are still under way: their leases begin anew, and so does the time
    /// after which others give them up. Those that are not open any more, or not this gate's, are left as they are;
    /// [`AdmissionIndex::confirm`] tells what stands instead. Where there is no [`lease`](AdmissionIndex::lease) there is
    /// nothing to do.
    ///
    /// # Errors
    /// When the index cannot be reached; call again before the leases end.
    fn renew(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>>;

    /// Gives reservations of this gate back whose publish failed without effect, or never reached the log.
    ///
    /// # Errors
    /// When the index cannot be reached; the lease ends them then.
    fn release(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>>;

    /// Ends reservations of which the log holds nothing and, by the deadline for unknown outcomes, will hold nothing.
    /// One whose lease has not ended, because it is young or was made anew or renewed meanwhile, stays. An index that is not shared
    /// has nothing to do.
    ///
    /// # Errors
    /// When the index cannot be reached; they stay then.
    fn give_up(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>>;

    /// Takes what was found in the log, in the log's order. A key that has an entry keeps it; of several entries of one
    /// key the first counts. Reservations of the keys end. Applying the same again changes nothing. The answer is that
    /// of [`AdmissionIndex::confirm`].
    ///
    /// # Errors
    /// As [`AdmissionIndex::confirm`].
    fn apply(&self, entries: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>>;

    /// The checkpoint as stored; `None` for a new index.
    ///
    /// # Errors
    /// When it cannot be read: rebuild the index then, the log has everything.
    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<IndexCheckpoint>>>;

    /// Stores a checkpoint, durable only together with (or after) everything confirmed or applied before this call.
    ///
    /// # Errors
    /// When it could not be stored; the former one stays.
    fn commit_checkpoint(&self, checkpoint: IndexCheckpoint) -> BoxFuture<'_, Result<()>>;

    /// Looks a key up without reserving it.
    ///
    /// # Errors
    /// When the index cannot answer.
    fn get(&self, key: AdmissionKey) -> BoxFuture<'_, Result<Option<AdmissionEntry>>>;

    /// All entries of an event id, by [`AdmissionKey::event`]; more than one where the same id was used for several
    /// event types or runs.
    ///
    /// # Errors
    /// When the index cannot answer.
    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>>;

    /// Entries in key order after `after`, at most `max`: for audits and look-ups that have no key. Fewer than
    /// `max` means the end.
    ///
    /// # Errors
    /// When the index cannot answer.
    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>>;

    /// Reservations that are neither confirmed nor released; empty for an index that is not shared.
    ///
    /// # Errors
    /// When the index cannot answer.
    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<OpenReservation>>>;

    /// Remembers durably that a policy is in force from these cuts on. Repeating the newest changes nothing.
    ///
    /// # Errors
    /// When it could not be stored.
    fn record_policy(&self, epoch: PolicyEpoch) -> BoxFuture<'_, Result<()>>;

    /// All policies that were ever in force, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn policy_history(&self) -> BoxFuture<'_, Result<Vec<PolicyEpoch>>>;

    /// How many events the index knows to be admitted (approximate where counting is dear).
    fn approximate_len(&self) -> u64;

    /// Checks that the index can answer and take entries now; for health.
    ///
    /// # Errors
    /// Why it cannot.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;

    /// Stores what is in memory and refuses further calls with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    ///
    /// # Errors
    /// When something could not be stored; the next open reads it from the log.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}
