//! What a consumer has handled: the marks that make handling idempotent.
//!
//! A checkpoint is a cut; it cannot say that record 7 is done while 5 is still being retried. Marks can. They are
//! recorded *with* a handler's success or after it, never before: a crash between the two delivers the record again, and
//! never skips it.
//!
//! # Two guards
//! 1. **By place**: (subscriber, incarnation of the bus, topic, partition, offset kind, offset). Exact: no two records
//!    share it, and a record has it for good.
//! 2. **By event**: the event's dedupe key, the same hash by which the gate tells events apart, within (subscriber,
//!    incarnation, topic). It catches a *copy* of an event further on in the log, as one may lie there after a publish with
//!    an unknown outcome, in the same partition or in a child of it. The event id alone is no guard: events of different
//!    types or runs may share one. It is kept beside, for people.
//!
//! The first guard is for what lies past the checkpoint. What lies before it is not delivered again, unless the checkpoint
//! is reset; then a store may or may not still have its marks. So whoever resets says whether the records are to be handled
//! again, and if so calls [`ProcessedStore::forget_from`].

use bytestring::ByteString;

use std::sync::Arc;

use super::{Checkpoint, DeadLetter, DeadLetterId, DeadLetterStore, Lease, NewDeadLetter};
use crate::{
    BoxFuture, BusIncarnation, ConsumerName, Cut, Error, ErrorKind, Offset, PartitionId, Result, Timestamp,
    Topic,
};

/// The partition, in one life of the bus, that marks speak of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MarkScope {
    /// Whose marks they are.
    pub subscriber: ConsumerName,
    /// The life of the bus.
    pub bus_incarnation: BusIncarnation,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition_id: PartitionId,
}

/// An event, as the second guard knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventIdentity {
    /// The dedupe key: SHA-256 over what makes an event the same event.
    pub dedupe: [u8; 32],
    /// The envelope's `event_id`, 1 to 256 characters: for audit.
    pub event_id: ByteString,
}

/// One record of a scope that was handled, or is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where the record lies.
    pub offset: Offset,
    /// Its event: `None` where the envelope could not be decoded.
    pub event: Option<EventIdentity>,
}

/// What is known of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Not handled.
    No,
    /// This very record was handled.
    Here,
    /// Another record of the same event was.
    Copy {
        /// In which partition of the scope's topic that one lies.
        partition_id: PartitionId,
        /// Where in it.
        offset: Offset,
    },
}

/// A step forward of one partition: records that were handled, and the checkpoint that follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The records that were handled since the last step, in any order.
    pub marks: Vec<Mark>,
    /// The lowest unfinished cut, with `version` and scope as [`CheckpointStore::commit`](super::CheckpointStore::commit)
    /// takes them. It may be the same cut as before: a mark further on does not move it.
    pub checkpoint: Checkpoint,
    /// The cut that is stored now, before this step, as the caller loaded or last committed it; [`Cut::Begin`] where there is no
    /// checkpoint. What lies before it is never delivered again, so a store may drop its marks but for the second guard and
    /// audit. The step's own cut would not do: until it is committed, a crash brings the consumer back to this one.
    pub committed: Cut,
}

/// Durable marks.
pub trait ProcessedStore: Send + Sync + 'static {
    /// Whether [`ProcessedStore::record`] commits the checkpoint in the same transaction as the marks. Where it does
    /// not, the caller commits it afterwards with a [`CheckpointStore`](super::CheckpointStore).
    fn keeps_checkpoints(&self) -> bool;

    /// What is known of each record, positionally. With `by_event` also by the second guard; a mark never counts as its own
    /// copy.
    ///
    /// # Errors
    /// When the store cannot tell: never [`Seen::No`] then. Dropping the future leaves nothing behind.
    fn seen<'a>(
        &'a self,
        scope: &'a MarkScope,
        records: &'a [Mark],
        by_event: bool,
    ) -> BoxFuture<'a, Result<Vec<Seen>>>;

    /// Records a step, durable before its `Ok`, all or nothing, and answers the checkpoint as stored where the store keeps
    /// checkpoints. A mark that is there already is fine and stays as it was. The scope is the checkpoint's. All marks of a
    /// scope have one offset kind; another is [`InvalidInput`](crate::ErrorKind::InvalidInput).
    ///
    /// # Errors
    /// As [`CheckpointStore::commit`](super::CheckpointStore::commit): an old version, a stale lease
    /// ([`Fenced`](crate::ErrorKind::Fenced)), a backward cut. A store that keeps no checkpoints refuses a stale lease by
    /// the epochs that it has itself seen. [`Effect::Unknown`](crate::Effect::Unknown) when it may have been recorded; recording the
    /// same marks again is safe. Dropping the future leaves the whole step recorded, or none of it.
    fn record<'a>(
        &'a self,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>>;

    /// Records marks alone, durable before its `Ok`, all or nothing: for a source that keeps its place itself and hands records of
    /// one partition to several members at once ([`EventBusGroups`](crate::EventBusGroups) without an order). There is no
    /// checkpoint and no lease, so nothing is fenced; marks that are there already stay as they were. As long as no step of the
    /// scope is recorded, age alone decides when they are forgotten.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the store keeps no marks without a checkpoint, which is the default; else as
    /// [`ProcessedStore::record`] without its refusals.
    fn mark<'a>(&'a self, scope: &'a MarkScope, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        let _ = marks;
        let message = "this store records marks only together with a checkpoint";
        let refusal = Error::new(ErrorKind::Unsupported, "mark", message).at(&scope.subscriber);
        Box::pin(std::future::ready(Err(refusal)))
    }

    /// Removes up to `limit` marks that were recorded before `before`, oldest first, and says how many. A mark past its
    /// partition's checkpoint is kept, however old: it is what keeps the record from being handled again. Where there is no
    /// checkpoint ([`ProcessedStore::mark`]) age alone decides.
    ///
    /// # Errors
    /// When the store cannot. Dropping the future: some may be gone.
    fn forget_before<'a>(
        &'a self,
        subscriber: &'a ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<u64>>;

    /// Removes the marks of records at or behind `from` and says how many, so that these records are handled again: what goes
    /// with a reset of the checkpoint, after it. The subscriber's workers should be stopped; one that is still running may mark
    /// records anew until its next commit fails.
    ///
    /// # Errors
    /// When the store cannot; calling again is safe. Dropping the future: all are gone or none.
    fn forget_from<'a>(&'a self, scope: &'a MarkScope, from: &'a Cut) -> BoxFuture<'a, Result<u64>>;

    /// Checks that a step could be recorded now, without recording; for health.
    ///
    /// # Errors
    /// Why it would fail.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;
}

/// A store whose marks, checkpoints and dead letters commit in one transaction with the handler's own writes: effects exactly once.
///
/// ```text
/// a step    begin · (save · handler · undo where it fails) … · bury · record_and_commit
/// a retry   begin · handler · resolve_and_commit
/// ```
/// So a record of such a consumer is marked once: with its effect, or with its letter, and never by a holder whose lease is over. An open
/// letter says that there was no effect, and of all who retry it one commits.
pub trait TransactionalStore: ProcessedStore {
    /// An open transaction. Dropping it rolls it back.
    type Transaction: Send + 'static;

    /// The dead letters that its transactions put and resolve.
    fn dead_letters(&self) -> Arc<dyn DeadLetterStore>;

    /// Opens a transaction.
    ///
    /// # Errors
    /// When the store cannot, or has no connection free in time.
    fn begin(&self) -> BoxFuture<'_, Result<Self::Transaction>>;

    /// Marks a place to which [`TransactionalStore::undo`] returns: one for each record, so that a record whose handler fails takes
    /// nothing of its neighbours with it.
    ///
    /// # Errors
    /// When the transaction is broken; drop it.
    fn save<'a>(&'a self, transaction: &'a mut Self::Transaction) -> BoxFuture<'a, Result<()>>;

    /// Takes back what was done since the last [`TransactionalStore::save`].
    ///
    /// # Errors
    /// When the transaction is broken; drop it.
    fn undo<'a>(&'a self, transaction: &'a mut Self::Transaction) -> BoxFuture<'a, Result<()>>;

    /// Puts dead letters within the transaction, as [`DeadLetterStore::put`] would: they are there once it is committed.
    ///
    /// # Errors
    /// As [`DeadLetterStore::put`], of any of them; drop the transaction then.
    fn bury<'a>(
        &'a self,
        transaction: &'a mut Self::Transaction,
        letters: &'a [NewDeadLetter],
    ) -> BoxFuture<'a, Result<()>>;

    /// Resolves an open dead letter as [`Handled`](super::Resolution::Handled), marks its record (again is fine), and commits: the handler's writes
    /// and the letter's end become durable together or not at all.
    ///
    /// # Errors
    /// As [`DeadLetterStore::resolve`]: [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when it was resolved in the meantime, by whoever
    /// committed first. With [`Effect::None`](crate::Effect::None) nothing was committed; after [`Effect::Unknown`](crate::Effect::Unknown) the letter
    /// tells, once the server has ended the transaction. Retrying is safe either way.
    fn resolve_and_commit<'a>(
        &'a self,
        transaction: Self::Transaction,
        id: DeadLetterId,
        of: (&'a MarkScope, &'a Mark),
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>>;

    /// Records the step within the transaction and commits it: the handler's writes, the marks and the checkpoint become
    /// durable together or not at all.
    ///
    /// # Errors
    /// As [`ProcessedStore::record`]. With [`Effect::None`](crate::Effect::None) nothing was committed: a version conflict, too, is never about
    /// this transaction, but may be about an earlier one that landed late. After
    /// [`Effect::Unknown`](crate::Effect::Unknown) (the answer to the commit was lost; until then it was in order) the checkpoint tells: with the
    /// step's version plus one, this lease and this cut it was made. Otherwise it may still land, and then the next one of that version is refused.
    fn record_and_commit<'a>(
        &'a self,
        transaction: Self::Transaction,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Checkpoint>>;
}
