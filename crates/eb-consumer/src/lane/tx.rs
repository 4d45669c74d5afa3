//! Handlers within transactions: one record after the other, several in a transaction; their writes, their marks and the checkpoint become
//! durable together or not at all.
//!
//! A record that fails is taken back alone (save and undo), and what becomes of it (another attempt, a dead letter) is decided
//! once the transaction is committed: until then its neighbours of the same key may have to start over with it. Dead letters are
//! written in the next transaction, with their marks.
//!
//! When the grace time of a lane that is to end is over, the handler that runs is dropped where it awaits and its record alone is undone; what was
//! handled before it is committed, for which there is as long again as [`CommitPolicy::retry_max`](crate::CommitPolicy::retry_max).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use eb_contract::stores::{Checkpoint, DeadReason, NewDeadLetter, TransactionalStore};
use eb_contract::{BoxFuture, Effect, Error, Result, Timestamp};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::burial::{LETTERS, tell};
use super::{Claimed, Desk, Handlers, Happened, LaneEnd, Opening, Order, RunLane, open, refused};
use crate::context::{Context, Patience};
use crate::partition::{Outcome, Seq, Step, Turn};
use crate::routes::{Call, Ended, Route, Routes, Unhandled, WithTx, run, within};

pub(crate) struct TxLanes<S: TransactionalStore> {
    pub(crate) routes: Routes<WithTx<S::Transaction>>,
    pub(crate) store: Arc<S>,
}

impl<S: TransactionalStore> RunLane for TxLanes<S> {
    fn run(self: Arc<Self>, ctx: Arc<Context>, claimed: Claimed) -> BoxFuture<'static, LaneEnd> {
        Box::pin(async move {
            let patience = Patience::new(&ctx.commit);
            match open::open(ctx, claimed, Handlers::WithinTransactions).await {
                Opening::End(end) => end,
                Opening::Open(desk) => {
                    let mut lane = Lane {
                        lanes: self,
                        desk: *desk,
                        patience,
                        draining: None,
                        rng: fastrand::Rng::new(),
                    };
                    let end = lane.run().await;
                    lane.desk.leave(&end).await;
                    end
                }
            }
        })
    }
}

struct Lane<S: TransactionalStore> {
    lanes: Arc<TxLanes<S>>,
    desk: Desk,
    patience: Patience,
    draining: Option<Instant>,
    rng: fastrand::Rng,
}

/// A record whose handler failed, in a transaction that is not committed yet.
type Failed = (Turn, Outcome);

impl<S: TransactionalStore> Lane<S> {
    async fn run(&mut self) -> LaneEnd {
        loop {
            let now = Instant::now();
            if self.desk.lease_over(now) {
                return LaneEnd::LeaseOver;
            }
            self.hear();
            self.desk.partition.wake(now);
            if !self.desk.partition.has_turn() {
                self.desk.care.rest();
            }
            self.desk.start_due(now, self.draining.is_some(), false);
            let turn = self.draining.is_none() && self.desk.partition.has_turn();
            let letters = self.desk.partition.has_letters_to_write();
            if turn || letters || self.desk.step_due(now, self.draining.is_some()) {
                match self.transaction().await {
                    Ok(()) => self.patience.reset(),
                    Err(Stop::Lane(end)) => return end,
                    Err(Stop::GraceOver) => return LaneEnd::Drained,
                    Err(Stop::Later(error)) => {
                        self.desk.board.trouble("transactions", &error);
                        let until = Instant::now() + self.patience.delay();
                        if let Err(end) = self.pass(until).await {
                            return end;
                        }
                    }
                }
                tokio::task::consume_budget().await;
            }
            self.desk.report(None);
            if let Some(end) = self.desk.spent() {
                return end;
            }
            let now = Instant::now();
            if self.draining.is_some_and(|until| self.drained(now, until)) {
                return LaneEnd::Drained;
            }
            let idle = !(self.draining.is_none() && self.desk.partition.has_turn());
            if idle {
                let alarm = self.alarm(now);
                if let Happened::End(end) = self.desk.happen(alarm).await {
                    return end;
                }
            }
        }
    }

    /// Takes an order in.
    fn hear(&mut self) {
        if let (None, Order::Drain(until)) = (self.draining, self.desk.order()) {
            self.draining = Some(until);
            self.desk.stop_reading();
        }
    }

    /// Until when this may go on, where the lane is to end.
    fn end_of(&self, what: Work) -> Option<Instant> {
        let retry_max = self.desk.ctx.commit.retry_max;
        self.draining.map(|until| if what == Work::Handler { until } else { until + retry_max })
    }

    /// When to look again although nothing has happened.
    fn alarm(&self, now: Instant) -> Option<Instant> {
        let grace = self
            .draining
            .map(|until| if now < until { until } else { until + self.desk.ctx.commit.retry_max });
        [grace, self.desk.step_alarm(now)].into_iter().flatten().min()
    }

    fn drained(&self, now: Instant, until: Instant) -> bool {
        let settled = self.desk.partition.finished() == 0 && self.desk.partition.letters() == 0;
        settled || now >= until + self.desk.ctx.commit.retry_max
    }

    /// Lets things happen until then.
    async fn pass(&mut self, until: Instant) -> Result<(), LaneEnd> {
        while Instant::now() < until {
            self.hear();
            if self.end_of(Work::Store).is_some_and(|end| Instant::now() >= end) {
                return Err(LaneEnd::Drained);
            }
            let until = self.end_of(Work::Store).map_or(until, |end| end.min(until));
            if let Happened::End(end) = self.desk.happen(Some(until)).await {
                return Err(end);
            }
            self.desk.start_due(Instant::now(), false, false);
        }
        Ok(())
    }

    /// One transaction: as many records as fit.
    async fn transaction(&mut self) -> Result<(), Stop> {
        let (began, at) = (Instant::now(), Timestamp::now());
        let policy = self.desk.ctx.commit;
        let mut tx = None;
        let mut failed: Vec<Failed> = Vec::new();
        let mut handled: Vec<Seq> = Vec::new();
        while handled.len() + failed.len() < policy.records && began.elapsed() < policy.interval {
            if self.draining.is_some() || self.desk.order() != Order::Run {
                break;
            }
            let Some(turn) = self.desk.partition.next_turn(at) else { break };
            let Some(event_type) = turn.item.content.as_ref().ok().map(|c| c.event_type.clone()) else {
                continue;
            };
            if let Some(deaths) = self.desk.care.condemned(&turn.item.record.eb_ref) {
                failed.push((turn, Outcome::Deadly(deaths)));
                continue;
            }
            let handler = match self.lanes.routes.find(&event_type) {
                Route::To(handler) => Arc::clone(handler),
                Route::Nowhere(Unhandled::Skip) => {
                    self.desk.ctx.metrics.skipped.increment(1);
                    self.settle(&turn, Outcome::Skipped);
                    continue;
                }
                Route::Nowhere(Unhandled::DeadLetter) => {
                    let why = format!("no handler for events of type `{event_type}`");
                    failed.push((turn, Outcome::Never(DeadReason::Permanent, vec![why])));
                    continue;
                }
            };
            let seq = turn.seq;
            match self.handle(&mut tx, turn, &handler).await {
                Ok(Handled::Yes(turn)) => {
                    self.settle(&turn, Outcome::Handled);
                    handled.push(turn.seq);
                }
                Ok(Handled::No(failure)) => failed.push(failure),
                Ok(Handled::Dropped) => {
                    self.desk.partition.not_handled(seq);
                    break;
                }
                Err(stop) => {
                    drop(tx);
                    self.roll_back(&failed, Some(seq));
                    return Err(stop);
                }
            }
        }
        self.commit(tx, &failed).await?;
        let metrics = &self.desk.ctx.metrics;
        metrics.handled.increment(handled.len() as u64);
        self.desk.board.handled.fetch_add(handled.len() as u64, Relaxed);
        self.desk.board.well("transactions");
        for (turn, outcome) in failed {
            self.settle(&turn, outcome);
        }
        Ok(())
    }

    /// Calls a handler within the transaction, which is opened for the first one.
    async fn handle(
        &mut self,
        tx: &mut Option<S::Transaction>,
        turn: Turn,
        handler: &WithTx<S::Transaction>,
    ) -> Result<Handled, Stop> {
        if self.desk.care.covers(turn.seq) {
            self.desk.care.try_record(&turn.item.record.eb_ref);
            self.noted().await?;
        }
        let store = Arc::clone(&self.lanes.store);
        if tx.is_none() {
            let opening = Arc::clone(&store);
            let begun = self.drive(Work::Store, async move { opening.begin().await }).await?;
            *tx = Some(begun.map_err(Stop::Later)?);
        }
        let open = tx.as_mut().expect("it was just opened where there was none");
        self.drive(Work::Store, store.save(open)).await?.map_err(Stop::Later)?;
        let began = Instant::now();
        let call = Call { item: Arc::clone(&turn.item), attempt: turn.attempt, hold: self.desk.hold.clone() };
        let limit = self.desk.ctx.limits.handler_time;
        let ran =
            self.drive(Work::Handler, run(within(limit, async { handler(call, &mut *open).await }))).await;
        if matches!(ran, Err(Stop::GraceOver)) {
            self.drive(Work::Store, store.undo(open)).await?.map_err(Stop::Later)?;
            return Ok(Handled::Dropped);
        }
        let (ended, outcome) = ran?;
        let metrics = &self.desk.ctx.metrics;
        metrics.handle.record(began.elapsed().as_secs_f64());
        if ended == Ended::Ok {
            return Ok(Handled::Yes(turn));
        }
        metrics.failed(ended);
        self.drive(Work::Store, store.undo(open)).await?.map_err(Stop::Later)?;
        Ok(Handled::No((turn, outcome)))
    }

    /// Until the note of crashes is durable as it stands.
    async fn noted(&mut self) -> Result<(), Stop> {
        while !self.desk.care.is_settled() {
            self.hear();
            let end = self.end_of(Work::Store);
            if end.is_some_and(|end| Instant::now() >= end) {
                return Err(Stop::Lane(LaneEnd::Drained));
            }
            self.desk.start_due(Instant::now(), false, false);
            if let Happened::End(end) = self.desk.happen(end).await {
                return Err(Stop::Lane(end));
            }
        }
        Ok(())
    }

    /// Commits what is finished, with the transaction's effects, and the letters that are to be written.
    async fn commit(&mut self, tx: Option<S::Transaction>, failed: &[Failed]) -> Result<(), Stop> {
        if tx.is_none()
            && self.desk.partition.finished() == 0
            && !self.desk.partition.has_letters_to_write()
            && !self.desk.step_due(Instant::now(), self.draining.is_some())
        {
            return Ok(());
        }
        let store = Arc::clone(&self.lanes.store);
        let mut tx = match tx {
            Some(tx) => tx,
            None => {
                let opening = Arc::clone(&store);
                match self.drive(Work::Store, async move { opening.begin().await }).await {
                    Ok(Ok(tx)) => tx,
                    Ok(Err(error)) => return Err(self.undone(failed, Stop::Later(error))),
                    Err(stop) => return Err(self.undone(failed, stop)),
                }
            }
        };
        let taken = self.desk.partition.take_letters(LETTERS);
        if !taken.is_empty() {
            let letters: Vec<NewDeadLetter> = taken.iter().map(|(_, letter)| letter.clone()).collect();
            let buried = self.drive(Work::Store, store.bury(&mut tx, &letters)).await;
            taken.iter().for_each(|(seq, _)| self.desk.partition.bury(*seq));
            let failure = match buried {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(self.not_stored(error, "dead_letter")),
                Err(stop) => Some(stop),
            };
            if let Some(stop) = failure {
                drop(tx);
                let step = self.desk.partition.step();
                self.take_back(step, failed, taken);
                return Err(stop);
            }
        }
        self.desk.finished_since = None;
        let step = self.desk.partition.step();
        let writing = self.desk.ledger.writing(step);
        let (progress, lease) = (writing.progress().clone(), self.desk.ledger.lease.clone());
        let sent = progress.checkpoint.clone();
        let committing = async move { store.record_and_commit(tx, &progress, &lease).await };
        let answer = self.drive(Work::Store, committing).await?;
        let stored = match answer {
            Ok(stored) => Ok(stored),
            Err(error) => self.resolve(&sent, error).await?,
        };
        match stored {
            Ok(stored) => {
                taken.iter().for_each(|(_, letter)| tell(&self.desk.ctx, letter));
                self.desk.partition.letters_stored(taken.iter().map(|(_, letter)| letter));
                self.desk.record(writing.committed(stored));
                Ok(())
            }
            Err(error) => {
                let stop = self.not_stored(error, "processed");
                self.take_back(writing.into_step(), failed, taken);
                Err(stop)
            }
        }
    }

    /// What a refusal or failure of a store leads to.
    fn not_stored(&self, error: Error, store: &'static str) -> Stop {
        self.desk.ctx.metrics.store_failed(store, &error);
        match refused(&error) {
            Some(end) => Stop::Lane(end),
            None => Stop::Later(error),
        }
    }

    /// Whether a commit without a clear answer was made: the stored checkpoint tells. It is asked until it answers.
    ///
    /// A conflict of versions is clear: this transaction was refused, and the stored step is another, with other effects, be it one of ours that
    /// landed late. One that was not made when it was looked at may still land; then the next of its version is refused, and the marks tell.
    async fn resolve(&mut self, sent: &Checkpoint, error: Error) -> Result<Result<Checkpoint>, Stop> {
        if error.effect() != Effect::Unknown {
            return Ok(Err(error));
        }
        let lease = self.desk.ledger.lease.clone();
        loop {
            let checkpoints = Arc::clone(&self.desk.ctx.stores.checkpoints);
            let key = sent.clone();
            let look = async move { checkpoints.load(&key.consumer, &key.topic, key.partition_id).await };
            match self.drive(Work::Store, look).await? {
                Ok(Some(stored))
                    if stored.version == sent.version + 1
                        && stored.lease.as_ref() == Some(&lease)
                        && stored.cut == sent.cut =>
                {
                    tracing::info!(consumer = %sent.consumer, topic = %sent.topic, partition = %sent.partition_id, "a commit whose answer was lost was made");
                    return Ok(Ok(stored));
                }
                Ok(_) => return Ok(Err(error)),
                Err(load) => {
                    self.desk.board.trouble("transactions", &load);
                    let until = Instant::now() + self.patience.delay();
                    self.pass(until).await.map_err(Stop::Lane)?;
                }
            }
        }
    }

    /// Runs something to its end while the partition's other business goes on. It is dropped when the lane has to end, a handler when the
    /// grace time is over.
    async fn drive<T>(&mut self, what: Work, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        let began = Instant::now();
        if let Some(done) = work.as_mut().now_or_never() {
            return Ok(done);
        }
        loop {
            let now = Instant::now();
            self.hear();
            let end = self.end_of(what);
            if end.is_some_and(|end| now >= end) {
                return Err(match what {
                    Work::Handler => Stop::GraceOver,
                    Work::Store => Stop::Lane(LaneEnd::Drained),
                });
            }
            self.desk.start_due(now, false, false);
            if what == Work::Handler {
                self.desk.report(Some(began));
            }
            tokio::select! { biased;
                done = &mut work => return Ok(done),
                happened = self.desk.happen(end) => {
                    if let Happened::End(end) = happened {
                        return Err(Stop::Lane(end));
                    }
                }
            }
        }
    }

    fn settle(&mut self, turn: &Turn, outcome: Outcome) {
        let luck = self.rng.f64();
        self.desk.settle(turn, outcome, luck);
    }

    fn undone(&mut self, failed: &[Failed], stop: Stop) -> Stop {
        self.roll_back(failed, None);
        stop
    }

    /// The transaction is gone: its records start over.
    fn roll_back(&mut self, failed: &[Failed], running: Option<Seq>) {
        let step = self.desk.partition.step();
        let running: Vec<Seq> = failed.iter().map(|(turn, _)| turn.seq).chain(running).collect();
        self.desk.partition.rolled_back(step, &running, Vec::new());
    }

    fn take_back(&mut self, step: Step, failed: &[Failed], letters: Vec<(Seq, NewDeadLetter)>) {
        let running: Vec<Seq> = failed.iter().map(|(turn, _)| turn.seq).collect();
        self.desk.partition.rolled_back(step, &running, letters);
    }
}

enum Handled {
    Yes(Turn),
    No(Failed),
    /// The grace time was over before it ended; what it wrote is undone.
    Dropped,
}

/// What takes its time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Handler,
    Store,
}

/// Why a transaction did not come to its end.
enum Stop {
    /// Neither can the lane go on.
    Lane(LaneEnd),
    /// It may work later.
    Later(Error),
    /// A handler was dropped because the grace time is over.
    GraceOver,
}
