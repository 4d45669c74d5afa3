//! Consumer checkpoints.

use serde::{Deserialize, Serialize};

use crate::{BoxFuture, BusIncarnation, ConsumerName, Cut, PartitionId, Result, Timestamp, Topic};

/// How far a consumer has processed one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Whose it is.
    pub consumer: ConsumerName,
    /// Of which topic.
    pub topic: Topic,
    /// Of which partition.
    pub partition_id: PartitionId,
    /// Everything before this cut is processed, nothing after it is.
    pub cut: Cut,
    /// The latest time at which the consumer is known to have been at the head. It tells an idle stream whose
    /// newest record has expired from one where something was missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<Timestamp>,
    /// Loaded: the version stored. Committed: the version that the caller last saw, 0 for none.
    pub version: u64,
    /// The life of the bus that the cut belongs to.
    pub bus_incarnation: BusIncarnation,
    /// Who committed it last; filled in by the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// When it was committed; filled in by the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<Timestamp>,
}

/// The claim under which a consumer commits. A store remembers the highest epoch it has seen for a checkpoint and
/// refuses lower ones, and another owner of the same epoch, as [`ErrorKind::Fenced`](crate::ErrorKind::Fenced).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it, 1 to 256 characters.
    pub owner: String,
    /// Rises with every new holder.
    pub epoch: u64,
}

/// A deliberate move of a checkpoint, also backwards or into another incarnation.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetRequest {
    /// Whose checkpoint.
    pub consumer: ConsumerName,
    /// Of which topic.
    pub topic: Topic,
    /// Of which partition.
    pub partition_id: PartitionId,
    /// Where to.
    pub cut: Cut,
    /// The life of the bus that the cut belongs to.
    pub bus_incarnation: BusIncarnation,
    /// Why, for the record; not empty, at most 1,024 characters.
    pub reason: String,
}

/// Durable checkpoints with expected-version commits, fencing and no way back but [`CheckpointStore::reset`].
pub trait CheckpointStore: Send + Sync + 'static {
    /// The checkpoint as stored, or `None`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when what is stored cannot be read: never "none".
    fn load<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>>;

    /// Commits checkpoints, each durable before its `Ok`, and answers each positionally with what is now stored.
    /// Each is replaced as a whole or not at all, also through a crash. Stores with transactions commit all or
    /// none, answering the innocent ones with [`ErrorKind::NotAttempted`](crate::ErrorKind::NotAttempted).
    ///
    /// Refused are: another `version` than the stored one ([`VersionConflict`](crate::ErrorKind::VersionConflict)),
    /// a stale lease ([`Fenced`](crate::ErrorKind::Fenced)), a cut that goes back
    /// ([`BackwardCommit`](crate::ErrorKind::BackwardCommit)), another incarnation
    /// ([`WrongIncarnation`](crate::ErrorKind::WrongIncarnation)), a cut of another offset kind or a lease without a
    /// valid owner ([`InvalidInput`](crate::ErrorKind::InvalidInput)). The same cut again is fine and rises the version.
    /// `caught_up_at` never goes back: the later of both is kept.
    ///
    /// Dropping the future leaves each checkpoint either committed or not.
    fn commit<'a>(
        &'a self,
        checkpoints: &'a [Checkpoint],
        lease: &'a Lease,
    ) -> BoxFuture<'a, Vec<Result<Checkpoint>>>;

    /// All checkpoints, or those of one consumer, sorted by consumer, topic, partition.
    ///
    /// # Errors
    /// When any of them cannot be read.
    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<Checkpoint>>>;

    /// Sets a checkpoint wherever it is told to, creating it where there is none, and keeps the reason and the old
    /// cut as history. The version rises, so that a consumer still running fails its next commit; the remembered
    /// lease epoch stays, so that stale owners stay fenced. `caught_up_at` is forgotten: it would claim that nothing
    /// was missed where the consumer no longer stands.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) without a reason.
    fn reset<'a>(&'a self, request: &'a ResetRequest) -> BoxFuture<'a, Result<Checkpoint>>;

    /// Checks that a commit could succeed now, without committing; for health.
    ///
    /// # Errors
    /// Why it would fail.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;
}
