//! Marks, checkpoints and effects in one transaction: what a database does, for tests without one.

use std::sync::Arc;

use eb_contract::stores::{
    Checkpoint, CheckpointStore, Lease, Mark, MarkScope, ProcessedStore, Progress, Seen, TransactionalStore,
};
use eb_contract::{BoxFuture, ConsumerName, Cut, Effect, Error, ErrorKind, Result, Timestamp};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use crate::{MemoryCheckpointStore, MemoryProcessed};

/// Marks and checkpoints that commit together with a handler's effects, which are texts here.
///
/// Clones share everything. The given stores go on working by themselves; only what is recorded here is recorded as one.
#[derive(Clone)]
pub struct MemoryTransactions {
    marks: MemoryProcessed,
    checkpoints: MemoryCheckpointStore,
    effects: Arc<Mutex<Vec<String>>>,
    lost: Arc<Mutex<Option<Lost>>>,
}

/// What became of a commit whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It was committed.
    Committed,
    /// It was rolled back.
    RolledBack,
}

/// An open transaction of [`MemoryTransactions`]. Dropping it takes back what was written.
#[derive(Debug, Default)]
pub struct MemoryTransaction {
    effects: Vec<String>,
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
    pub fn new(marks: MemoryProcessed, checkpoints: MemoryCheckpointStore) -> Self {
        Self { marks, checkpoints, effects: Arc::default(), lost: Arc::default() }
    }

    /// The effects that were committed, in the order of the commits.
    #[must_use]
    pub fn effects(&self) -> Vec<String> {
        self.effects.lock().clone()
    }

    /// The next step or commit answers [`Effect::Unknown`], with this for its truth.
    pub fn lose_next_answer(&self, truth: Lost) {
        *self.lost.lock() = Some(truth);
    }

    fn commit_now(&self, effects: Vec<String>, step: &Progress, lease: &Lease) -> Result<Checkpoint> {
        let lost = self.lost.lock().take();
        let unknown = || {
            Error::new(ErrorKind::Unavailable, "record step", "the answer to the commit was lost")
                .with_effect(Effect::Unknown)
        };
        if lost == Some(Lost::RolledBack) {
            return Err(unknown());
        }
        let now = self.marks.now();
        let stored = self.marks.with(|marks| {
            marks.check(step, lease)?;
            // Nothing can fail once the checkpoint is committed, and nobody sees the one without the other's lock.
            let stored = self.checkpoints.commit_one_now(&step.checkpoint, lease)?;
            marks.put(step, lease, stored.cut, now);
            self.effects.lock().extend(effects);
            Ok(stored)
        })?;
        if lost.is_some() { Err(unknown()) } else { Ok(stored) }
    }
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
        ready(self.commit_now(Vec::new(), step, lease).map(Some)).boxed()
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
        ready(self.commit_now(transaction.effects, step, lease)).boxed()
    }
}
