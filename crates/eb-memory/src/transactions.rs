//! Marks, checkpoints and effects in one transaction: what a database does, for tests without one.

use std::sync::Arc;

use eb_contract::stores::{
    Checkpoint, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, Lease, Mark, MarkScope,
    NewDeadLetter, ProcessedStore, Progress, Resolution, Seen, TransactionalStore,
};
use eb_contract::{BoxFuture, ConsumerName, Cut, Effect, Error, ErrorKind, Result, Timestamp};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use crate::{MemoryCheckpointStore, MemoryDeadLetters, MemoryProcessed};

/// Marks, checkpoints and dead letters that commit together with a handler's effects, which are texts here.
///
/// Clones share everything. The given stores go on working by themselves; only what is recorded here is recorded as one.
#[derive(Clone)]
pub struct MemoryTransactions {
    marks: MemoryProcessed,
    checkpoints: MemoryCheckpointStore,
    letters: MemoryDeadLetters,
    effects: Arc<Mutex<Vec<String>>>,
    /// After how many commits an answer is lost, and what is its truth.
    lost: Arc<Mutex<Option<(u32, Lost)>>>,
    late: Arc<Mutex<Option<Late>>>,
}

/// A commit that is still on its way.
struct Late {
    transaction: MemoryTransaction,
    step: Progress,
    lease: Lease,
}

/// What became of a commit whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It was committed.
    Committed,
    /// It was rolled back.
    RolledBack,
    /// It is on its way, and lands just before the next commit of anybody.
    LandsLate,
}

/// An open transaction of [`MemoryTransactions`]. Dropping it takes back what was written.
#[derive(Debug, Default)]
pub struct MemoryTransaction {
    effects: Vec<String>,
    letters: Vec<NewDeadLetter>,
    saved: usize,
}

impl MemoryTransaction {
    /// An effect, which comes about with the commit.
    pub fn write(&mut self, effect: impl Into<String>) {
        self.effects.push(effect.into());
    }
}

impl MemoryTransactions {
    /// Over these stores.
    #[must_use]
    pub fn new(
        marks: MemoryProcessed,
        checkpoints: MemoryCheckpointStore,
        letters: MemoryDeadLetters,
    ) -> Self {
        let (effects, lost, late) = (Arc::default(), Arc::default(), Arc::default());
        Self { marks, checkpoints, letters, effects, lost, late }
    }

    /// Whether a commit is still on its way ([`Lost::LandsLate`]).
    #[must_use]
    pub fn is_one_late(&self) -> bool {
        self.late.lock().is_some()
    }

    /// The effects that were committed, in the order of the commits.
    #[must_use]
    pub fn effects(&self) -> Vec<String> {
        self.effects.lock().clone()
    }

    /// The next step or commit answers [`Effect::Unknown`], with this for its truth. A retry of a dead letter never lands late.
    pub fn lose_next_answer(&self, truth: Lost) {
        self.lose_answer_after(0, truth);
    }

    /// The same of the step or commit after so many others.
    pub fn lose_answer_after(&self, commits: u32, truth: Lost) {
        *self.lost.lock() = Some((commits, truth));
    }

    /// What becomes of the answer to the commit that is to come. One that is late lands before it.
    fn before_commit(&self) -> Option<Lost> {
        let late = self.late.lock().take();
        if let Some(late) = late {
            // Refused or not, nobody hears of it.
            _ = self.land(late.transaction, &late.step, &late.lease);
        }
        let mut lost = self.lost.lock();
        match &mut *lost {
            Some((commits, _)) if *commits > 0 => {
                *commits -= 1;
                None
            }
            _ => lost.take().map(|(_, truth)| truth),
        }
    }

    fn commit_now(
        &self,
        transaction: MemoryTransaction,
        step: &Progress,
        lease: &Lease,
    ) -> Result<Checkpoint> {
        let lost = self.before_commit();
        match lost {
            Some(Lost::RolledBack) => return Err(unknown()),
            Some(Lost::LandsLate) => {
                let late = Late { transaction, step: step.clone(), lease: lease.clone() };
                *self.late.lock() = Some(late);
                return Err(unknown());
            }
            Some(Lost::Committed) | None => {}
        }
        let stored = self.land(transaction, step, lease)?;
        if lost.is_some() { Err(unknown()) } else { Ok(stored) }
    }

    fn land(&self, transaction: MemoryTransaction, step: &Progress, lease: &Lease) -> Result<Checkpoint> {
        let now = self.marks.now();
        self.letters.put_with(&transaction.letters, || {
            self.marks.with(|marks| {
                marks.check(step, lease)?;
                // Nothing can fail once the checkpoint is committed, and nobody sees the one without the other's lock.
                let stored = self.checkpoints.commit_one_now(&step.checkpoint, lease)?;
                marks.put(step, lease, stored.cut, now);
                self.effects.lock().extend(transaction.effects);
                Ok(stored)
            })
        })
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::Unavailable, "record step", "the answer to the commit was lost")
        .with_effect(Effect::Unknown)
}

impl ProcessedStore for MemoryTransactions {
    fn keeps_checkpoints(&self) -> bool {
        true
    }

    fn seen<'a>(
        &'a self,
        scope: &'a MarkScope,
        records: &'a [Mark],
        by_event: bool,
    ) -> BoxFuture<'a, Result<Vec<Seen>>> {
        self.marks.seen(scope, records, by_event)
    }

    fn record<'a>(
        &'a self,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        ready(self.commit_now(MemoryTransaction::default(), step, lease).map(Some)).boxed()
    }

    fn mark<'a>(&'a self, scope: &'a MarkScope, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        self.marks.mark(scope, marks)
    }

    fn forget_before<'a>(
        &'a self,
        subscriber: &'a ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<u64>> {
        self.marks.forget_before(subscriber, before, limit)
    }

    fn forget_from<'a>(&'a self, scope: &'a MarkScope, from: &'a Cut) -> BoxFuture<'a, Result<u64>> {
        self.marks.forget_from(scope, from)
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        async {
            self.marks.probe().await?;
            self.checkpoints.probe().await
        }
        .boxed()
    }
}

impl TransactionalStore for MemoryTransactions {
    type Transaction = MemoryTransaction;

    fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(self.letters.clone())
    }

    fn bury<'a>(
        &'a self,
        transaction: &'a mut MemoryTransaction,
        letters: &'a [NewDeadLetter],
    ) -> BoxFuture<'a, Result<()>> {
        let checked = letters.iter().try_for_each(NewDeadLetter::check);
        transaction.letters.extend_from_slice(letters);
        ready(checked).boxed()
    }

    fn resolve_and_commit<'a>(
        &'a self,
        transaction: MemoryTransaction,
        id: DeadLetterId,
        (scope, mark): (&'a MarkScope, &'a Mark),
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        let lost = self.before_commit();
        if lost == Some(Lost::RolledBack) {
            return ready(Err(unknown())).boxed();
        }
        let resolved = self.letters.resolve_with(id, Resolution::Handled, reason, || {
            self.marks.mark_now(scope, std::slice::from_ref(mark))?;
            self.effects.lock().extend(transaction.effects);
            Ok(())
        });
        ready(if lost.is_some() { resolved.and(Err(unknown())) } else { resolved }).boxed()
    }

    fn begin(&self) -> BoxFuture<'_, Result<MemoryTransaction>> {
        ready(self.marks.with(|_| Ok(MemoryTransaction::default()))).boxed()
    }

    fn save<'a>(&'a self, transaction: &'a mut MemoryTransaction) -> BoxFuture<'a, Result<()>> {
        transaction.saved = transaction.effects.len();
        ready(self.marks.with(|_| Ok(()))).boxed()
    }

    fn undo<'a>(&'a self, transaction: &'a mut MemoryTransaction) -> BoxFuture<'a, Result<()>> {
        transaction.effects.truncate(transaction.saved);
        ready(self.marks.with(|_| Ok(()))).boxed()
    }

    fn record_and_commit<'a>(
        &'a self,
        transaction: MemoryTransaction,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Checkpoint>> {
        ready(self.commit_now(transaction, step, lease)).boxed()
    }
}
