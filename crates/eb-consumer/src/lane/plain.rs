//! Handlers on their own: many at once, each key in order, steps stored beside them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use eb_contract::stores::DeadReason;
use eb_contract::{BoxFuture, Timestamp};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::Instrument;

use super::{Claimed, Desk, Handlers, Happened, LaneEnd, Opening, Order, RunLane, open};
use crate::context::Context;
use crate::partition::{Consequence, Outcome, Seq, Turn};
use crate::routes::{Call, Ended, Plain, Route, Routes, Unhandled, run, within};

/// How many records whose handlers are done at once are handled before anything else is looked at.
const AT_ONCE: usize = 256;

pub(crate) struct PlainLanes {
    pub(crate) routes: Routes<Plain>,
}

impl RunLane for PlainLanes {
    fn run(self: Arc<Self>, ctx: Arc<Context>, claimed: Claimed) -> BoxFuture<'static, LaneEnd> {
        Box::pin(async move {
            match open::open(ctx, claimed, Handlers::OnTheirOwn).await {
                Opening::End(end) => end,
                Opening::Open(desk) => {
                    let mut lane = Lane::new(self, *desk);
                    let end = lane.run().await;
                    // Handlers that still run are dropped before anybody is told that nothing runs.
                    drop(lane.running);
                    lane.desk.leave(&end).await;
                    end
                }
            }
        })
    }
}

type Running = BoxFuture<'static, (Turn, Instant, (Ended, Outcome), OwnedSemaphorePermit)>;

struct Lane {
    lanes: Arc<PlainLanes>,
    desk: Desk,
    running: FuturesUnordered<Running>,
    /// Since when each of them runs.
    begun: BTreeSet<(Instant, Seq)>,
    /// Waits for its turn among the partitions, where all slots for handlers are taken.
    queueing: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// A slot that was waited for.
    slot: Option<OwnedSemaphorePermit>,
    /// A record that is to be called alone, once nothing else runs and it is noted.
    on_trial: Option<Turn>,
    /// Whatever runs, runs alone.
    alone: bool,
    rng: fastrand::Rng,
}

impl Lane {
    fn new(lanes: Arc<PlainLanes>, desk: Desk) -> Self {
        let rng = fastrand::Rng::new();
        Self {
            lanes,
            desk,
            running: FuturesUnordered::new(),
            begun: BTreeSet::new(),
            queueing: None,
            slot: None,
            on_trial: None,
            alone: false,
            rng,
        }
    }

    async fn run(&mut self) -> LaneEnd {
        let mut draining: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if self.desk.lease_over(now) {
                return LaneEnd::LeaseOver;
            }
            if let (None, Order::Drain(until)) = (draining, self.desk.order()) {
                draining = Some(until);
                self.desk.stop_reading();
                self.slot = None;
                self.queueing = None;
                self.on_trial = None;
            }
            if draining.is_none() {
                self.start_handlers(now);
            } else if draining.is_some_and(|until| now >= until) {
                self.running.clear();
                self.begun.clear();
            }
            self.desk.start_due(now, draining.is_some(), true);
            self.desk.report(self.begun.first().map(|(began, _)| *began));
            if let Some(end) = self.desk.spent() {
                return end;
            }
            if draining.is_some_and(|until| self.drained(now, until)) {
                return LaneEnd::Drained;
            }
            if let Some(end) = self.wait(draining).await {
                return end;
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Whether nothing is left that could still be finished, or stored.
    fn drained(&self, now: Instant, until: Instant) -> bool {
        let stored = !self.desk.is_writing() && self.desk.partition.finished() == 0;
        let settled = self.running.is_empty() && self.desk.partition.letters() == 0;
        stored && (settled || now >= until) || now >= until + self.desk.ctx.commit.retry_max
    }

    async fn wait(&mut self, draining: Option<Instant>) -> Option<LaneEnd> {
        let held_up = self.on_trial.is_some() || self.alone && !self.running.is_empty();
        let more = draining.is_none() && self.slot.is_some() && self.desk.partition.has_turn() && !held_up;
        let grace = draining
            .map(|until| if Instant::now() < until { until } else { until + self.desk.ctx.commit.retry_max });
        tokio::select! { biased;
            happened = self.desk.happen(grace) => {
                if let Happened::End(end) = happened {
                    return Some(end);
                }
            }
            Some(done) = self.running.next(), if !self.running.is_empty() => {
                self.settle_running(done);
                // Those that are done by now, without going round for each.
                while let Some(Some(done)) = self.running.next().now_or_never() {
                    self.settle_running(done);
                }
            }
            slot = queue(&mut self.queueing) => {
                self.queueing = None;
                self.slot = slot;
            }
            () = std::future::ready(()), if more => {}
        }
        None
    }

    /// Calls handlers for records whose turn it is. One that is done at once costs no more than the call.
    fn start_handlers(&mut self, now: Instant) {
        self.desk.partition.wake(now);
        let at = Timestamp::now();
        if let Some(turn) = self.on_trial.take()
            && !self.try_alone(turn)
        {
            return;
        }
        for _ in 0..AT_ONCE {
            self.alone &= !self.running.is_empty();
            if self.alone {
                return;
            }
            if !self.desk.partition.has_turn() {
                // Others may need it.
                self.slot = None;
                if self.running.is_empty() {
                    self.desk.care.rest();
                }
                return;
            }
            if self.slot.is_none() {
                self.slot = self.take_slot();
            }
            if self.slot.is_none() {
                return;
            }
            let Some(turn) = self.desk.partition.next_turn(at) else { continue };
            if let Some(deaths) = self.desk.care.condemned(&turn.item.record.eb_ref) {
                self.settle(&turn, Outcome::Deadly(deaths));
            } else if !self.desk.care.covers(turn.seq) {
                self.call(turn);
            } else if !self.try_alone(turn) {
                return;
            }
        }
    }

    /// Calls a record alone, if it can be by now; else it is the next to be.
    fn try_alone(&mut self, turn: Turn) -> bool {
        let place = &turn.item.record.eb_ref;
        if self.running.is_empty() {
            self.desk.care.try_record(place);
            if self.desk.care.is_on_trial(place) {
                self.alone = true;
                self.call(turn);
                return true;
            }
        }
        self.on_trial = Some(turn);
        false
    }

    /// A slot for a handler, or a place in the queue for one.
    fn take_slot(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.queueing.is_some() {
            return None;
        }
        let slots = &self.desk.ctx.slots;
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Some(slot);
        }
        let slots: Arc<Semaphore> = Arc::clone(slots);
        // Never closed: there always comes one.
        self.queueing = Some(Box::pin(async move { slots.acquire_owned().await.ok() }));
        None
    }

    fn call(&mut self, turn: Turn) {
        let event_type = turn.item.content.as_ref().map(|c| c.event_type.clone()).unwrap_or_default();
        let handler = match self.lanes.routes.find(&event_type) {
            Route::To(handler) => Arc::clone(handler),
            Route::Nowhere(Unhandled::Skip) => {
                self.desk.ctx.metrics.skipped.increment(1);
                return self.settle(&turn, Outcome::Skipped);
            }
            Route::Nowhere(Unhandled::DeadLetter) => {
                let why = format!("no handler for events of type `{event_type}`");
                return self.settle(&turn, Outcome::Never(DeadReason::Permanent, vec![why]));
            }
        };
        let began = Instant::now();
        let call = Call { item: Arc::clone(&turn.item), attempt: turn.attempt, hold: self.desk.hold.clone() };
        let span = tracing::debug_span!(
            "handle", consumer = %self.desk.ctx.consumer, place = %turn.item.record.eb_ref, attempt = turn.attempt
        );
        // The handler is called within, so that its panics are caught wherever they come from.
        let limit = self.desk.ctx.limits.handler_time;
        let mut work = Box::pin(run(within(limit, async move { handler(call).await })).instrument(span));
        match (&mut work).now_or_never() {
            Some(done) => self.settle_call(&turn, began, done),
            None => {
                let slot = self.slot.take().expect("a handler is called only with a slot");
                self.begun.insert((began, turn.seq));
                self.running.push(Box::pin(async move { (turn, began, work.await, slot) }));
            }
        }
    }

    fn settle_running(
        &mut self,
        (turn, began, done, slot): (Turn, Instant, (Ended, Outcome), OwnedSemaphorePermit),
    ) {
        drop(slot);
        self.begun.remove(&(began, turn.seq));
        self.settle_call(&turn, began, done);
    }

    fn settle_call(&mut self, turn: &Turn, began: Instant, (ended, outcome): (Ended, Outcome)) {
        let metrics = &self.desk.ctx.metrics;
        metrics.handle.record(began.elapsed().as_secs_f64());
        if ended == Ended::Ok {
            metrics.handled.increment(1);
            self.desk.board.handled.fetch_add(1, Relaxed);
        } else {
            metrics.failed(ended);
        }
        self.settle(turn, outcome);
    }

    fn settle(&mut self, turn: &Turn, outcome: Outcome) {
        let luck = self.rng.f64();
        self.desk.settle(turn, outcome, luck);
    }
}

async fn queue(
    queueing: &mut Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
) -> Option<OwnedSemaphorePermit> {
    match queueing {
        Some(queueing) => queueing.await,
        None => std::future::pending().await,
    }
}

impl Desk {
    /// An attempt has ended: tells the partition, and whoever listens.
    pub(crate) fn settle(&mut self, turn: &Turn, outcome: Outcome, luck: f64) {
        let said = match &outcome {
            Outcome::Later(errors) | Outcome::Never(_, errors) => errors.join(": "),
            Outcome::Deadly(_) => "its workers ended".to_owned(),
            Outcome::Handled | Outcome::Skipped => String::new(),
        };
        let place = &turn.item.record.eb_ref;
        if !matches!(outcome, Outcome::Deadly(_)) {
            self.care.survived(place);
        }
        match self.partition.settle(turn, outcome, Instant::now(), Timestamp::now(), luck) {
            Consequence::Finished => {}
            Consequence::RetryAt(at) => {
                self.ctx.metrics.retries.increment(1);
                self.board.retries.fetch_add(1, Relaxed);
                let wait = at.saturating_duration_since(Instant::now());
                tracing::info!(consumer = %self.ctx.consumer, %place, attempt = turn.attempt, ?wait, error = %said, "tried again later");
            }
            Consequence::DeadLetter(reason) => {
                tracing::warn!(consumer = %self.ctx.consumer, %place, attempt = turn.attempt, ?reason, error = %said, "given up");
            }
            Consequence::Halted => {
                tracing::error!(consumer = %self.ctx.consumer, %place, attempt = turn.attempt, error = %said, "the partition is halted");
                if let Some(why) = self.partition.halted() {
                    self.board.halted(why);
                }
            }
        }
    }
}
