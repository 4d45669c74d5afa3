//! Storing steps: marks, then the checkpoint, then the word to the source. Never in another order.

use std::sync::Arc;

use eb_contract::stores::{Checkpoint, Lease, MarkScope, Progress};
use eb_contract::{BoxFuture, Cut, EbRef, Effect, Error, ErrorKind, Result, Timestamp};
use tokio::time::Instant;

use crate::context::{Context, Stores};
use crate::partition::Step;
use crate::source::Tell;

/// What is stored of one partition, as its holder knows it.
pub(crate) struct Ledger {
    ctx: Arc<Context>,
    pub(crate) scope: MarkScope,
    pub(crate) lease: Lease,
    version: u64,
    committed: Cut,
    caught_up_at: Option<Timestamp>,
    tell: Option<Arc<dyn Tell>>,
}

/// A step on its way into the stores. What is done of it stays done when the rest has to be tried again.
pub(crate) struct Writing {
    pub(crate) step: Step,
    progress: Progress,
    /// The checkpoint as stored by this step; until then it is not known to be.
    stored: Option<Checkpoint>,
    marked: bool,
    /// An attempt may have been stored although it was not answered: what is stored then may be this very step.
    doubtful: bool,
    began: Instant,
}

impl Writing {
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// It was stored elsewhere, as this checkpoint.
    pub(crate) fn committed(mut self, stored: Checkpoint) -> Self {
        self.stored = Some(stored);
        self
    }

    /// The step, given up.
    pub(crate) fn into_step(mut self) -> Step {
        self.step.marks = self.progress.marks;
        self.step
    }
}

impl Ledger {
    pub(crate) fn new(
        ctx: Arc<Context>,
        scope: MarkScope,
        lease: Lease,
        stored: Option<&Checkpoint>,
        tell: Option<Arc<dyn Tell>>,
    ) -> Self {
        let version = stored.map_or(0, |c| c.version);
        let committed = stored.map_or(Cut::Begin, |c| c.cut);
        Self {
            ctx,
            scope,
            lease,
            version,
            committed,
            caught_up_at: stored.and_then(|c| c.caught_up_at),
            tell,
        }
    }

    /// The stored cut.
    pub(crate) fn committed(&self) -> Cut {
        self.committed
    }

    /// The step as it goes into the stores.
    pub(crate) fn writing(&self, mut step: Step) -> Writing {
        // A group hands out again what was acknowledged too late: the cut stays where it is.
        let cut = if step.cut.compare(&self.committed).is_some_and(std::cmp::Ordering::is_lt) {
            self.committed
        } else {
            step.cut
        };
        let checkpoint = Checkpoint {
            consumer: self.scope.subscriber.clone(),
            topic: self.scope.topic.clone(),
            partition_id: self.scope.partition_id,
            cut,
            caught_up_at: step.caught_up_at,
            version: self.version,
            bus_incarnation: self.scope.bus_incarnation.clone(),
            lease: None,
            committed_at: None,
        };
        let marks = std::mem::take(&mut step.marks);
        let progress = Progress { marks, checkpoint, committed: self.committed };
        Writing { step, progress, stored: None, marked: false, doubtful: false, began: Instant::now() }
    }

    /// Stores as much of it as can be stored. Dropping the future leaves each part stored or not; doing it again is safe.
    pub(crate) fn write(&self, mut writing: Writing) -> BoxFuture<'static, (Writing, Result<()>)> {
        let (ctx, lease, tell) = (Arc::clone(&self.ctx), self.lease.clone(), self.tell.clone());
        let scope = self.scope.clone();
        let moved = writing.progress.checkpoint.cut != self.committed
            || writing.progress.checkpoint.caught_up_at > self.caught_up_at;
        Box::pin(async move {
            let done = async {
                if ctx.in_order {
                    store(&ctx.stores, &mut writing, &lease, moved).await?;
                } else if !writing.marked {
                    ctx.stores.processed.mark(&scope, &writing.progress.marks).await?;
                    writing.marked = true;
                }
                match &tell {
                    Some(tell) if !writing.step.places.is_empty() => tell.done(&writing.step.places).await,
                    _ => Ok(()),
                }
            };
            let result = done.await;
            (writing, result)
        })
    }

    /// It is stored.
    pub(crate) fn wrote(&mut self, writing: Writing) -> Step {
        if let Some(stored) = &writing.stored {
            self.version = stored.version;
            self.committed = stored.cut;
            self.caught_up_at = stored.caught_up_at;
        }
        writing.into_step()
    }

    /// Tells the source that the worker is still at these records.
    pub(crate) fn keep(&self, places: Vec<EbRef>) -> Option<BoxFuture<'static, Result<()>>> {
        let tell = self.tell.clone()?;
        Some(Box::pin(async move { tell.keep(&places).await }))
    }
}

async fn store(stores: &Stores, writing: &mut Writing, lease: &Lease, moved: bool) -> Result<()> {
    let keeps = stores.processed.keeps_checkpoints();
    if !writing.marked && (keeps || !writing.progress.marks.is_empty()) {
        match stores.processed.record(&writing.progress, lease).await {
            Ok(stored) => writing.stored = stored,
            Err(error) => writing.stored = Some(ours(stores, writing, lease, error).await?),
        }
    }
    writing.marked = true;
    if keeps || !moved || writing.stored.is_some() {
        return Ok(());
    }
    let checkpoint = &writing.progress.checkpoint;
    let mut answers = stores.checkpoints.commit(std::slice::from_ref(checkpoint), lease).await;
    let answer = answers.pop().unwrap_or_else(|| {
        let kind = ErrorKind::ProtocolViolation;
        Err(Error::new(kind, "commit", "the store answered nothing").with_effect(Effect::Unknown))
    });
    let stored = match answer {
        Ok(stored) => stored,
        Err(error) => ours(stores, writing, lease, error).await?,
    };
    writing.stored = Some(stored);
    Ok(())
}

/// Where the outcome of a commit is not known, or it was refused for its version after such an outcome: the checkpoint as stored, if it is
/// the one that was committed. A refusal out of the blue is about somebody else's.
async fn ours(stores: &Stores, writing: &mut Writing, lease: &Lease, error: Error) -> Result<Checkpoint> {
    let conflict = matches!(error.kind(), ErrorKind::VersionConflict { .. });
    let doubtful = error.effect() == Effect::Unknown || conflict && writing.doubtful;
    writing.doubtful |= error.effect() == Effect::Unknown;
    if !doubtful {
        return Err(error);
    }
    let sent = &writing.progress.checkpoint;
    let stored = stores.checkpoints.load(&sent.consumer, &sent.topic, sent.partition_id).await?;
    match stored {
        Some(stored)
            if stored.version == sent.version + 1
                && stored.lease.as_ref() == Some(lease)
                && stored.cut == sent.cut
                && stored.bus_incarnation == sent.bus_incarnation =>
        {
            Ok(stored)
        }
        _ => Err(error),
    }
}
