//! Handlers within transactions: one record after the other, several in a transaction; their writes, their marks and the checkpoint become
//! durable together or not at all.
//!
//! A record that fails is taken back alone (save and undo), and what becomes of it (another attempt, a dead letter) is decided
//! once the transaction is committed: until then its neighbours of the same key may have to start over with it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use eb_contract::stores::{Checkpoint, DeadReason, TransactionalStore};
use eb_contract::{BoxFuture, Effect, Error, ErrorKind, Result, Timestamp};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Claimed, Desk, Happened, LaneEnd, Opening, Order, RunLane, open, refused};
use crate::context::{Context, Patience};
use crate::ledger::Writing;
use crate::partition::{Outcome, Seq, Turn};
use crate::routes::{Call, Ended, Route, Routes, Unhandled, WithTx, run};

pub(crate) struct TxLanes<S: TransactionalStore> {
    pub(crate) routes: Routes<WithTx<S::Transaction>>,
    pub(crate) store: Arc<S>,
}

impl<S: TransactionalStore> RunLane for TxLanes<S> {
    fn run(self: Arc<Self>, ctx: Arc<Context>, claimed: Claimed) -> BoxFuture<'static, LaneEnd> {
        Box::pin(async move {
            let patience = Patience::new(&ctx.commit);
            match open::open(ctx, claimed).await {
                Opening::End(end) => end,
                Opening::Open(desk) => {
                    let lane = Lane {
                        lanes: self,
                        desk: *desk,
                        patience,
                        draining: None,
                        rng: fastrand::Rng::new(),
                    };
                    lane.run().await
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
    async fn run(mut self) -> LaneEnd {
        loop {
            let now = Instant::now();
            if self.desk.lease_over(now) {
                return LaneEnd::LeaseOver;
            }
            if let (None, Order::Drain(until)) = (self.draining, self.desk.order()) {
                self.draining = Some(until);
                self.desk.stop_reading();
            }
            self.desk.partition.wake(now);
            self.desk.start_due(now, self.draining.is_some(), false);
            let turn = self.draining.is_none() && self.desk.partition.has_turn();
            if turn || self.desk.step_due(now, self.draining.is_some()) {
                match self.transaction().await {
                    Ok(()) => self.patience.reset(),
                    Err(Stop::Lane(end)) => return end,
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
            self.desk.report(0);
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
        let store = Arc::clone(&self.lanes.store);
        if tx.is_none() {
            let opening = Arc::clone(&store);
            *tx = Some(self.drive(async move { opening.begin().await }).await?.map_err(Stop::Later)?);
        }
        let open = tx.as_mut().expect("it was just opened where there was none");
        self.drive(store.save(open)).await?.map_err(Stop::Later)?;
        let began = Instant::now();
        let call = Call { item: Arc::clone(&turn.item), attempt: turn.attempt };
        let (ended, outcome) = self.drive(run(async { handler(call, &mut *open).await })).await?;
        let metrics = &self.desk.ctx.metrics;
        metrics.handle.record(began.elapsed().as_secs_f64());
        if ended == Ended::Ok {
            return Ok(Handled::Yes(turn));
        }
        metrics.failed(ended);
        self.drive(store.undo(open)).await?.map_err(Stop::Later)?;
        Ok(Handled::No((turn, outcome)))
    }

    /// Commits what is finished, with the transaction's effects.
    async fn commit(&mut self, tx: Option<S::Transaction>, failed: &[Failed]) -> Result<(), Stop> {
        if tx.is_none()
            && self.desk.partition.finished() == 0
            && !self.desk.step_due(Instant::now(), self.draining.is_some())
        {
            return Ok(());
        }
        let store = Arc::clone(&self.lanes.store);
        let tx = match tx {
            Some(tx) => tx,
            None => {
                let opening = Arc::clone(&store);
                match self.drive(async move { opening.begin().await }).await {
                    Ok(Ok(tx)) => tx,
                    Ok(Err(error)) => return Err(self.undone(failed, Stop::Later(error))),
                    Err(stop) => return Err(self.undone(failed, stop)),
                }
            }
        };
        self.desk.finished_since = None;
        let step = self.desk.partition.step();
        let writing = self.desk.ledger.writing(step);
        let (progress, lease) = (writing.progress().clone(), self.desk.ledger.lease.clone());
        let sent = progress.checkpoint.clone();
        let committing = async move { store.record_and_commit(tx, &progress, &lease).await };
        let answer = match self.drive(committing).await {
            Ok(answer) => answer,
            Err(stop) => return Err(stop),
        };
        let stored = match answer {
            Ok(stored) => Ok(stored),
            Err(error) => self.resolve(&sent, error).await?,
        };
        match stored {
            Ok(stored) => {
                self.desk.record(writing.committed(stored));
                Ok(())
            }
            Err(error) => {
                self.desk.ctx.metrics.store_failed("processed", &error);
                if let Some(end) = refused(&error) {
                    return Err(Stop::Lane(end));
                }
                self.take_back(writing, failed);
                Err(Stop::Later(error))
            }
        }
    }

    /// Whether a commit without a clear answer was made: the stored checkpoint tells. It is asked until it answers.
    async fn resolve(&mut self, sent: &Checkpoint, error: Error) -> Result<Result<Checkpoint>, Stop> {
        let conflict = matches!(error.kind(), ErrorKind::VersionConflict { .. });
        if !conflict && error.effect() != Effect::Unknown {
            return Ok(Err(error));
        }
        let lease = self.desk.ledger.lease.clone();
        loop {
            let checkpoints = Arc::clone(&self.desk.ctx.stores.checkpoints);
            let key = sent.clone();
            let look = async move { checkpoints.load(&key.consumer, &key.topic, key.partition_id).await };
            match self.drive(look).await? {
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

    /// Runs something to its end while the partition's other business goes on. It is dropped when the lane has to end.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        if let Some(done) = work.as_mut().now_or_never() {
            return Ok(done);
        }
        loop {
            let now = Instant::now();
            if self.draining.is_none()
                && let Order::Drain(until) = self.desk.order()
            {
                self.draining = Some(until);
                self.desk.stop_reading();
            }
            let grace = self.draining.map(|until| until + self.desk.ctx.commit.retry_max);
            if grace.is_some_and(|until| now >= until) {
                return Err(Stop::Lane(LaneEnd::Drained));
            }
            self.desk.start_due(now, false, false);
            self.desk.report(1);
            tokio::select! { biased;
                done = &mut work => return Ok(done),
                happened = self.desk.happen(grace) => {
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
        self.desk.partition.rolled_back(step, &running);
    }

    fn take_back(&mut self, writing: Writing, failed: &[Failed]) {
        let running: Vec<Seq> = failed.iter().map(|(turn, _)| turn.seq).collect();
        self.desk.partition.rolled_back(writing.into_step(), &running);
    }
}

enum Handled {
    Yes(Turn),
    No(Failed),
}

/// Why a transaction did not come to its end.
enum Stop {
    /// Neither can the lane go on.
    Lane(LaneEnd),
    /// It may work later.
    Later(Error),
}
