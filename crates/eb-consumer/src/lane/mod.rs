//! One partition at work: what is common to handlers on their own and handlers within transactions.

mod burial;
mod open;
pub(crate) mod plain;
pub(crate) mod tx;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use eb_contract::stores::{Lease, LeaseKey};
use eb_contract::{BoxFuture, BusIncarnation, Cut, Error, ErrorKind, PartitionKey, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use burial::Burial;
pub(crate) use open::{Handlers, Opening};

use crate::care::Care;
use crate::context::{Context, Patience};
use crate::fetch::{Fetch, Fetched};
use crate::hold::Hold;
use crate::ledger::{Ledger, Writing};
use crate::partition::Partition;
use crate::room::Taken;
use crate::status::{PartitionBoard, Phase};

/// What the holder of a partition is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    /// Start nothing; handlers that run may go on until then.
    Drain(Instant),
}

/// Why a lane has ended.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    /// The partition is closed and processed to its end.
    Ended,
    /// It was told to.
    Drained,
    /// The lease's time was over.
    LeaseOver,
    /// Another holder has taken over.
    Fenced(Error),
    /// Somebody moved the checkpoint.
    Moved(Error),
    /// It cannot be read, or its stores refuse for good.
    Failed(Error),
}

/// A partition that was claimed.
pub(crate) struct Claimed {
    pub(crate) key: LeaseKey,
    pub(crate) lease: Lease,
    pub(crate) incarnation: BusIncarnation,
    /// It came out of a resharding, of partitions that this consumer has processed.
    pub(crate) is_child: bool,
    /// When the lease ends.
    pub(crate) ends: watch::Receiver<Instant>,
    pub(crate) orders: watch::Receiver<Order>,
}

/// How partitions are run: with handlers on their own, or within transactions.
pub(crate) trait RunLane: Send + Sync + 'static {
    fn run(self: Arc<Self>, ctx: Arc<Context>, claimed: Claimed) -> BoxFuture<'static, LaneEnd>;
}

/// Something has happened to a partition.
pub(crate) enum Happened {
    /// Look again at what can be done.
    Something,
    End(LaneEnd),
}

/// A partition and everything that goes on around it but its handlers.
pub(crate) struct Desk {
    pub(crate) ctx: Arc<Context>,
    pub(crate) partition: Partition,
    pub(crate) ledger: Ledger,
    pub(crate) board: Arc<PartitionBoard>,
    ends: watch::Receiver<Instant>,
    /// The same for handlers; where there are no leases, none.
    pub(crate) hold: Option<Arc<Hold>>,
    orders: watch::Receiver<Order>,
    fetch: Option<Fetch>,
    fetched: mpsc::Receiver<Fetched>,
    here: Taken,
    total: Taken,
    /// What stopped reading for good: the partition is given up once everything that was read is recorded, unless it can be read by then.
    read_failed: Option<Error>,
    writing: Option<BoxFuture<'static, (Writing, Result<()>)>>,
    /// A step that could not be stored, and when to try again.
    rewrite: Option<(Writing, Instant)>,
    write_patience: Patience,
    /// When the first of the finished records was finished.
    finished_since: Option<Instant>,
    last_write: Instant,
    /// Steps are stored here, and not within transactions.
    stepping: bool,
    burial: Burial,
    pub(crate) care: Care,
    noting: Option<BoxFuture<'static, Result<u64>>>,
    /// After a failure: when to note it again.
    note_again: Option<Instant>,
    note_patience: Patience,
    parking: Option<BoxFuture<'static, Result<Vec<PartitionKey>>>>,
    parked_at: Instant,
    keeping: Option<BoxFuture<'static, Result<()>>>,
    kept_at: Instant,
    gauge: metrics::Gauge,
}

/// How often keys that are parked are looked at: one may have been resolved.
const PARKED_FRESH: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a note may take when a partition is given back.
const LEAVING: std::time::Duration = std::time::Duration::from_secs(5);

impl Desk {
    /// The time on the lease, and what it was told.
    pub(crate) fn order(&self) -> Order {
        *self.orders.borrow()
    }

    pub(crate) fn lease_over(&self, now: Instant) -> bool {
        now >= *self.ends.borrow()
    }

    /// Reads nothing more; what was read and not begun is left to the next holder.
    pub(crate) fn stop_reading(&mut self) {
        self.fetch = None;
        self.board.phase(Phase::Draining);
    }

    /// Whether a step is on its way, or has to be tried again.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some() || self.rewrite.is_some()
    }

    /// Why reading stopped, once everything that was read is recorded.
    pub(crate) fn spent(&mut self) -> Option<LaneEnd> {
        if self.is_writing() || !self.partition.is_empty() {
            return None;
        }
        if matches!(self.ledger.committed(), Cut::End) {
            return Some(LaneEnd::Ended);
        }
        self.read_failed.take().map(LaneEnd::Failed)
    }

    /// Whether enough is finished, or old enough, to be stored now. With `all` anything is.
    pub(crate) fn step_due(&mut self, now: Instant, all: bool) -> bool {
        let finished = self.partition.finished();
        if finished == 0 {
            self.finished_since = None;
            let cut = self.partition.cut();
            let ahead = cut.compare(&self.ledger.committed()).is_some_and(std::cmp::Ordering::is_gt);
            let idle = now >= self.last_write + self.ctx.commit.idle;
            return self.ctx.in_order && (ahead && (all || idle || matches!(cut, Cut::End)))
                || self.ctx.in_order && self.ctx.forgets && idle && self.partition.is_caught_up();
        }
        let since = *self.finished_since.get_or_insert(now);
        let enough = self.ctx.commit.records.min(self.ctx.limits.partition_records / 2);
        all || finished >= enough || now >= since + self.ctx.commit.interval
    }

    /// When [`Desk::step_due`] may change its mind.
    fn step_alarm(&self, now: Instant) -> Option<Instant> {
        match self.finished_since {
            Some(since) => Some(since + self.ctx.commit.interval),
            // Past it, what there was to say was said.
            None => Some(self.last_write + self.ctx.commit.idle).filter(|at| *at > now),
        }
    }

    /// Starts what is due: with `steps` a step and letters, in any case a look at parked keys.
    pub(crate) fn start_due(&mut self, now: Instant, all: bool, steps: bool) {
        self.stepping = steps;
        if steps && !self.is_writing() && self.step_due(now, all) {
            self.finished_since = None;
            let step = self.partition.step();
            let writing = self.ledger.writing(step);
            self.writing = Some(self.ledger.write(writing));
        }
        if let Some((writing, _)) = self.rewrite.take_if(|(_, at)| *at <= now) {
            self.writing = Some(self.ledger.write(writing));
        }
        self.care.end_if_done(&mut self.partition);
        if self.noting.is_none() && self.care.is_due() && self.note_again.is_none_or(|at| at <= now) {
            self.note_again = None;
            self.noting = self.care.write();
        }
        // Within transactions letters become durable with the step.
        if steps {
            let ends = *self.ends.borrow();
            self.burial.start(&self.ctx, &mut self.partition, now, ends);
        }
        if self.parking.is_none() && self.partition.has_parked() && now >= self.parked_at + PARKED_FRESH {
            let (ctx, topic) = (Arc::clone(&self.ctx), self.ledger.scope.topic.clone());
            self.partition.begin_parked_look();
            self.parking =
                Some(Box::pin(
                    async move { ctx.stores.dead_letters.parked_keys(&ctx.consumer, &topic).await },
                ));
        }
        if !self.ctx.in_order && self.keeping.is_none() && now >= self.kept_at + self.ctx.claim_idle / 3 {
            self.kept_at = now;
            let places = self.partition.unfinished_places();
            self.keeping = if places.is_empty() { None } else { self.ledger.keep(places) };
        }
    }

    fn alarm(&self, now: Instant) -> Option<Instant> {
        let mut alarms = [self.partition.next_alarm(), self.burial.alarm(), None, None, None, None];
        if self.care.is_due() && self.noting.is_none() {
            alarms[5] = Some(self.note_again.unwrap_or(now));
        }
        alarms[2] = match &self.rewrite {
            Some((_, at)) => Some(*at),
            None if self.writing.is_none() && self.stepping => self.step_alarm(now),
            None => None,
        };
        if self.partition.has_parked() && self.parking.is_none() {
            alarms[3] = Some(self.parked_at + PARKED_FRESH);
        }
        if !self.ctx.in_order && self.keeping.is_none() {
            alarms[4] = Some(self.kept_at + self.ctx.claim_idle / 3);
        }
        alarms.into_iter().flatten().min()
    }

    /// Waits for something to happen, or for the time of `alarm`, and takes it in. Dropping the future loses nothing.
    pub(crate) async fn happen(&mut self, alarm: Option<Instant>) -> Happened {
        let ends = *self.ends.borrow_and_update();
        let alarm = [self.alarm(Instant::now()), alarm].into_iter().flatten().min().unwrap_or(ends);
        tokio::select! { biased;
            () = tokio::time::sleep_until(ends) => return Happened::End(LaneEnd::LeaseOver),
            // A sender that is gone has aborted this lane as well.
            _ = self.ends.changed() => {}
            _ = self.orders.changed() => {}
            (writing, result) = pending(&mut self.writing) => {
                self.writing = None;
                if let Some(end) = self.wrote(writing, result) {
                    return Happened::End(end);
                }
            }
            answers = pending(&mut self.burial.putting) => {
                self.burial.done(&self.ctx, &mut self.partition, &self.board, answers);
            }
            noted = pending(&mut self.noting) => {
                self.noting = None;
                if let Some(end) = self.noted(noted) {
                    return Happened::End(end);
                }
            }
            fetched = self.fetched.recv(), if self.fetch.is_some() => self.take_in(fetched),
            keys = pending(&mut self.parking) => {
                self.parking = None;
                self.parked_at = Instant::now();
                match keys {
                    Ok(keys) => {
                        self.board.well("parked keys");
                        self.partition.end_parked_look(keys.into_iter().collect());
                    }
                    Err(error) => self.board.trouble("parked keys", &error),
                }
            }
            kept = pending(&mut self.keeping) => {
                self.keeping = None;
                match kept {
                    Ok(()) => self.board.well("keeping records"),
                    Err(error) => self.board.trouble("keeping records", &error),
                }
            }
            () = tokio::time::sleep_until(alarm) => {}
        }
        Happened::Something
    }

    /// The note of crashes was written, or not.
    fn noted(&mut self, noted: Result<u64>) -> Option<LaneEnd> {
        self.care.written(noted.as_ref().ok().copied());
        match noted {
            Ok(_) => {
                self.note_patience.reset();
                self.board.well("noting crashes");
                None
            }
            Err(error) => {
                self.ctx.metrics.store_failed("register", &error);
                self.board.trouble("noting crashes", &error);
                self.note_again = Some(Instant::now() + self.note_patience.delay());
                refused(&error)
            }
        }
    }

    /// The lane has ended, and its worker lives: nobody is to take that for a crash. What is left to do takes its time; everything else has ended
    /// by then.
    pub(crate) fn leave(self, end: &LaneEnd) -> BoxFuture<'static, ()> {
        let halted = self.partition.halted().is_some();
        let Some(giving_back) = self.care.give_back(halted) else { return Box::pin(std::future::ready(())) };
        let (ctx, scope) = (self.ctx, self.ledger.scope);
        let limit = ctx.leases.time_to_live.min(LEAVING);
        let giving_back = async move {
            let error = match tokio::time::timeout(limit, giving_back).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => Error::new(ErrorKind::Timeout, "note crash", format!("no answer within {limit:?}")),
            };
            tracing::warn!(
                consumer = %ctx.consumer, topic = %scope.topic, partition = %scope.partition_id, %error,
                "the next holder may take this for a crash"
            );
        };
        match end {
            // There is no time left: the next holder is on its way.
            LaneEnd::LeaseOver | LaneEnd::Fenced(_) => {
                drop(tokio::spawn(giving_back));
                Box::pin(std::future::ready(()))
            }
            _ => Box::pin(giving_back),
        }
    }

    fn take_in(&mut self, fetched: Option<Fetched>) {
        match fetched {
            Some(Fetched::Batch { batch, here, total, closed }) => {
                self.here.add(here);
                self.total.add(total);
                self.board.read_to(batch.next);
                let head = closed || batch.caught_up_at.is_some();
                let known = self.partition.admit(batch);
                self.care.read_to(self.partition.end(), head);
                if known > 0 {
                    self.ctx.metrics.known.increment(known);
                }
                if closed {
                    self.fetch = None;
                }
            }
            Some(Fetched::Failed(error)) => {
                self.board.trouble("reading", &error);
                self.read_failed = Some(error);
            }
            Some(Fetched::Again) => self.read_failed = None,
            None => self.fetch = None,
        }
    }

    /// A step was stored, or not.
    fn wrote(&mut self, writing: Writing, result: Result<()>) -> Option<LaneEnd> {
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.board.well("storing steps");
                self.write_patience.reset();
                self.record(writing);
                None
            }
            Err(error) => {
                self.ctx.metrics.store_failed("processed", &error);
                if let Some(end) = refused(&error) {
                    return Some(end);
                }
                self.board.trouble("storing steps", &error);
                self.rewrite = Some((writing, now + self.write_patience.delay()));
                None
            }
        }
    }

    /// The step is durable: gives its room back.
    pub(crate) fn record(&mut self, writing: Writing) {
        let metrics = &self.ctx.metrics;
        metrics.step_seconds.record(writing.began().elapsed().as_secs_f64());
        let step = self.ledger.wrote(writing);
        metrics.step_records.record(step.seqs.len() as f64);
        let freed = self.partition.recorded(&step);
        self.total.give_back(freed.records, freed.bytes);
        self.here.give_back(freed.passed, freed.bytes);
        self.last_write = Instant::now();
        self.board.committed(self.ledger.committed());
    }

    /// Tells the board how things stand, and since when the oldest handler runs that does.
    pub(crate) fn report(&self, running: Option<Instant>) {
        let board = &self.board;
        board.running(running);
        board.idle.store(running.is_none() && !self.partition.has_turn(), Relaxed);
        board.keys_retrying.store(self.partition.keys_retrying(), Relaxed);
        self.gauge.set(self.partition.unfinished() as f64);
        board.in_flight.store(self.partition.unfinished(), Relaxed);
        board.retrying.store(self.partition.backing_off(), Relaxed);
        board.dying.store(self.partition.letters(), Relaxed);
        board.unrecorded.store(self.partition.unrecorded(), Relaxed);
    }
}

/// Whether a store's refusal ends the lane.
pub(crate) fn refused(error: &Error) -> Option<LaneEnd> {
    match error.kind() {
        ErrorKind::Fenced => Some(LaneEnd::Fenced(error.clone())),
        ErrorKind::VersionConflict { .. }
        | ErrorKind::BackwardCommit { .. }
        | ErrorKind::WrongIncarnation => Some(LaneEnd::Moved(error.clone())),
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::Corrupt { .. } => {
            Some(LaneEnd::Failed(error.clone()))
        }
        _ => None,
    }
}

/// The future if there is one, else never. It stays where it is.
async fn pending<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
