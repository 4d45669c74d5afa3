//! The workers of a consumer on one topic, as one of them sees it: says that it lives, takes its share of the partitions, gives up what is more,
//! and runs a lane for each that it holds.
//!
//! Heartbeats, looks at the topic and claims are under way side by side, so that a slow bus never lets a lease run out.

mod share;
mod survey;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{Claim, Heartbeat, Lease, LeaseKey, Renewal};
use eb_contract::{BoxFuture, BusIncarnation, Error, ErrorKind, PartitionId, Result, Topic};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use metrics::Gauge;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::context::Context;
use crate::lane::{Claimed, LaneEnd, Order, RunLane};
use survey::Survey;
pub(crate) use survey::write_down_start;

/// A partition that this worker holds.
struct Held {
    lease: Lease,
    orders: watch::Sender<Order>,
    ends: watch::Sender<Instant>,
}

type Beat = (Instant, Vec<Renewal>, Result<Heartbeat>);
/// The partition, whether it is a child, when it was asked for, and the answer.
type Asked = (PartitionId, bool, Instant, Result<Claim>);

pub(crate) struct Team {
    ctx: Arc<Context>,
    topic: Topic,
    lanes: Arc<dyn RunLane>,
    /// Until when handlers may go on, once it is to stop.
    stop: watch::Receiver<Option<Instant>>,
    stopping: bool,
    held: BTreeMap<PartitionId, Held>,
    running: JoinSet<LaneEnd>,
    /// Which lane is whose.
    tasks: HashMap<Id, PartitionId>,
    /// Partitions that failed, and when to try again.
    again: BTreeMap<PartitionId, Instant>,
    /// The live workers; `None` until a heartbeat was answered.
    workers: Option<Vec<String>>,
    incarnation: Option<BusIncarnation>,
    beat: Option<BoxFuture<'static, Beat>>,
    look: Option<BoxFuture<'static, Result<Survey>>>,
    claims: FuturesUnordered<BoxFuture<'static, Asked>>,
    /// Releases on their way.
    releases: FuturesUnordered<BoxFuture<'static, PartitionId>>,
    /// Partitions with a claim or a release on its way. They are not asked for: a store may take calls in any order, and a release that
    /// comes after the next claim would end the lease of a lane that runs.
    busy: BTreeSet<PartitionId>,
    look_now: bool,
    gauge: Gauge,
}

impl Team {
    pub(crate) fn new(
        ctx: Arc<Context>,
        topic: Topic,
        lanes: Arc<dyn RunLane>,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let gauge = ctx.metrics.partitions(&topic);
        Self {
            ctx,
            topic,
            lanes,
            stop,
            stopping: false,
            held: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            again: BTreeMap::new(),
            workers: None,
            incarnation: None,
            beat: None,
            look: None,
            claims: FuturesUnordered::new(),
            releases: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            look_now: false,
            gauge,
        }
    }

    /// Runs until it is told to stop and everything is given back. Dropping the future drops all lanes; leases end by themselves.
    pub(crate) async fn run(mut self) {
        let mut beats = every(self.ctx.leases.heartbeat);
        let mut looks = every(self.ctx.leases.rebalance);
        loop {
            let stop = *self.stop.borrow_and_update();
            if let (Some(until), false) = (stop, self.stopping) {
                self.stopping = true;
                self.look = None;
                self.held.values().for_each(|h| _ = h.orders.send(Order::Drain(until)));
            }
            if self.stopping && self.held.is_empty() && self.claims.is_empty() && self.releases.is_empty() {
                return self.leave().await;
            }
            if self.look_now && self.look.is_none() {
                self.start_look();
            }
            tokio::select! { biased;
                _ = beats.tick(), if self.ctx.in_order => self.start_beat(),
                beat = pending(&mut self.beat) => self.beaten(beat),
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.ended(ended),
                Some(asked) = self.claims.next(), if !self.claims.is_empty() => self.claimed(asked),
                Some(released) = self.releases.next(), if !self.releases.is_empty() => {
                    self.busy.remove(&released);
                    self.look_now = !self.stopping;
                }
                look = pending(&mut self.look) => self.looked(look),
                _ = looks.tick(), if !self.stopping => self.look_now = true,
                changed = self.stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn start_beat(&mut self) {
        if self.beat.is_some() {
            return;
        }
        let renewal = |(partition, held): (&PartitionId, &Held)| Renewal {
            partition_id: *partition,
            lease: held.lease.clone(),
            report: self.ctx.board.report(&self.topic, *partition),
        };
        let held: Vec<_> = self.held.iter().map(renewal).collect();
        let (ctx, topic) = (Arc::clone(&self.ctx), self.topic.clone());
        self.beat = Some(Box::pin(async move {
            let (asked, ttl) = (Instant::now(), ctx.leases.time_to_live);
            let beat = ctx.stores.leases.heartbeat(&ctx.consumer, &topic, &ctx.owner, ttl, &held);
            let answer = within(ttl, "heartbeat", beat).await;
            (asked, held, answer)
        }));
    }

    fn beaten(&mut self, (asked, held, answer): Beat) {
        self.beat = None;
        let heartbeat = match answer {
            Ok(heartbeat) => heartbeat,
            Err(error) => {
                self.ctx.metrics.store_failed("lease", &error);
                return self.ctx.board.team_trouble(&self.topic, "leases", &error);
            }
        };
        self.ctx.board.team_well(&self.topic, "leases");
        if self.workers.as_ref() != Some(&heartbeat.workers) {
            tracing::info!(consumer = %self.ctx.consumer, topic = %self.topic, workers = ?heartbeat.workers, "workers");
            self.workers = Some(heartbeat.workers);
            self.look_now = !self.stopping;
        }
        for (Renewal { partition_id: partition, lease, .. }, renewed) in held.iter().zip(heartbeat.renewed) {
            let Some(held) = self.held.get(partition).filter(|h| h.lease == *lease) else { continue };
            match renewed {
                Ok(()) => held.ends.send_if_modified(|ends| {
                    let later = asked + self.ctx.leases.time_to_live;
                    std::mem::replace(ends, later.max(*ends)) < later
                }),
                Err(error) if matches!(error.kind(), ErrorKind::Fenced) => {
                    tracing::warn!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, "lease lost");
                    held.ends.send(asked).is_ok()
                }
                Err(_) => false,
            };
        }
    }

    fn start_look(&mut self) {
        self.look_now = false;
        if self.ctx.in_order && self.workers.is_none() {
            return;
        }
        let (ctx, topic) = (Arc::clone(&self.ctx), self.topic.clone());
        self.look = Some(Box::pin(async move { survey::survey(&ctx, &topic).await }));
    }

    fn looked(&mut self, look: Result<Survey>) {
        self.look = None;
        let survey = match look {
            Ok(survey) => survey,
            Err(error) => return self.ctx.board.team_trouble(&self.topic, "partitions", &error),
        };
        self.ctx.board.team_well(&self.topic, "partitions");
        self.incarnation = Some(survey.incarnation.clone());
        let now = Instant::now();
        self.again.retain(|_, at| *at > now);
        let draining = |h: &Held| *h.orders.borrow() != Order::Run;
        let mine: BTreeSet<_> = self.held.iter().filter(|(_, h)| !draining(h)).map(|(p, _)| *p).collect();
        let eligible: BTreeSet<_> = survey.eligible.keys().copied().collect();
        let plan = if self.ctx.in_order {
            let workers = self.workers.as_deref().unwrap_or_default();
            share::plan(&eligible, &mine, &survey.leases, workers, &self.ctx.owner)
        } else {
            let claim = eligible.iter().copied().filter(|p| !self.held.contains_key(p)).collect();
            share::Plan { claim, room: usize::MAX, give_up: Vec::new() }
        };
        for partition in plan.give_up {
            tracing::info!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, "given up to another worker");
            if let Some(held) = self.held.get(&partition) {
                _ = held.orders.send(Order::Drain(now + self.ctx.leases.grace));
            }
        }
        let asks = |p: &PartitionId| {
            !self.held.contains_key(p) && !self.again.contains_key(p) && !self.busy.contains(p)
        };
        let free = plan.claim.into_iter().filter(asks);
        for partition in free.take(plan.room.saturating_sub(self.claims.len())).collect::<Vec<_>>() {
            let is_child = survey.eligible.get(&partition).copied().unwrap_or(false);
            self.busy.insert(partition);
            self.claims.push(self.claim(partition, is_child));
        }
    }

    fn claim(&self, partition: PartitionId, is_child: bool) -> BoxFuture<'static, Asked> {
        let (ctx, key) = (Arc::clone(&self.ctx), self.key(partition));
        Box::pin(async move {
            let (asked, ttl) = (Instant::now(), ctx.leases.time_to_live);
            if !ctx.in_order {
                let lease = Lease { owner: ctx.owner.clone(), epoch: 0 };
                return (partition, is_child, asked, Ok(Claim::Held(lease)));
            }
            let answer = within(ttl, "claim", ctx.stores.leases.claim(&key, &ctx.owner, ttl)).await;
            (partition, is_child, asked, answer)
        })
    }

    fn key(&self, partition_id: PartitionId) -> LeaseKey {
        LeaseKey { consumer: self.ctx.consumer.clone(), topic: self.topic.clone(), partition_id }
    }

    fn claimed(&mut self, (partition, is_child, asked, answer): Asked) {
        self.busy.remove(&partition);
        let lease = match answer {
            Ok(Claim::Held(lease)) => lease,
            Ok(Claim::Taken { .. }) => return,
            Err(error) => {
                self.ctx.metrics.store_failed("lease", &error);
                return self.ctx.board.team_trouble(&self.topic, "leases", &error);
            }
        };
        let Some(incarnation) = self.incarnation.clone().filter(|_| !self.stopping) else {
            return self.release(partition, lease);
        };
        let ttl = if self.ctx.in_order { self.ctx.leases.time_to_live } else { FOR_GOOD };
        let (orders, orders_out) = watch::channel(Order::Run);
        let (ends, ends_out) = watch::channel(asked + ttl);
        tracing::info!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, epoch = lease.epoch, "partition taken");
        let claimed = Claimed {
            key: self.key(partition),
            lease: lease.clone(),
            incarnation,
            is_child,
            ends: ends_out,
            orders: orders_out,
        };
        self.held.insert(partition, Held { lease, orders, ends });
        self.gauge.set(self.held.len() as f64);
        let work = Arc::clone(&self.lanes).run(Arc::clone(&self.ctx), claimed);
        let task = self.running.spawn(work);
        self.tasks.insert(task.id(), partition);
    }

    fn ended(&mut self, ended: std::result::Result<(Id, LaneEnd), JoinError>) {
        let (task, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let what = format!("the lane ended by itself, which is a fault of this program: {error}");
                (error.id(), LaneEnd::Failed(Error::new(ErrorKind::ProtocolViolation, "consume", what)))
            }
        };
        let Some(partition) = self.tasks.remove(&task) else { return };
        let Some(held) = self.held.remove(&partition) else { return };
        self.gauge.set(self.held.len() as f64);
        self.ctx.board.close(&self.topic, partition, self.stopping);
        let lost = |why: &'static str| self.ctx.metrics.lost(why);
        let mut failed = None;
        let release = match end {
            LaneEnd::Ended | LaneEnd::Drained => true,
            LaneEnd::LeaseOver => {
                lost("lease");
                tracing::warn!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, "the lease is over");
                false
            }
            LaneEnd::Fenced(error) => {
                lost("fenced");
                tracing::warn!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, %error, "another worker has taken over");
                // Should it still be held, it is of no use: the next claim must bring a new epoch.
                true
            }
            LaneEnd::Moved(error) => {
                lost("moved");
                tracing::warn!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, %error, "the checkpoint was moved");
                true
            }
            LaneEnd::Failed(error) => {
                lost("failed");
                tracing::error!(consumer = %self.ctx.consumer, topic = %self.topic, %partition, %error, "the partition failed");
                self.again.insert(partition, Instant::now() + self.ctx.leases.retry_failed);
                failed = Some(error.to_string());
                true
            }
        };
        self.ctx.board.failed(&self.topic, partition, failed);
        if release && self.ctx.in_order {
            // Once it is done, the topic is looked at.
            self.release(partition, held.lease);
        } else {
            self.look_now = !self.stopping;
        }
    }

    fn release(&mut self, partition: PartitionId, lease: Lease) {
        let (ctx, key) = (Arc::clone(&self.ctx), self.key(partition));
        self.busy.insert(partition);
        self.releases.push(Box::pin(async move {
            let release = ctx.stores.leases.release(&key, &lease);
            if let Err(error) = within(ctx.leases.time_to_live, "release", release).await {
                tracing::warn!(topic = %key.topic, %partition, %error, "a lease could not be released; it ends by itself");
            }
            partition
        }));
    }

    async fn leave(self) {
        if !self.ctx.in_order {
            return;
        }
        let leave = self.ctx.stores.leases.leave(&self.ctx.consumer, &self.topic, &self.ctx.owner);
        if let Err(error) = within(Duration::from_secs(5), "leave", leave).await {
            tracing::warn!(topic = %self.topic, %error, "the others could not be told that this worker leaves; they notice by themselves");
        }
    }
}

/// As long as any program runs: for partitions that need no lease.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn within<T>(limit: Duration, op: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(ErrorKind::Timeout, op, format!("no answer within {limit:?}"))),
    }
}

async fn pending<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
