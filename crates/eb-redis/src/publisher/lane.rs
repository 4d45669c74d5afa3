//! The line of a partition: one append under way, and the next one gathering.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use eb_contract::{BusIncarnation, EbRef, Effect, Error, PartitionId, PartitionKey, Result, Topic};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::append::{Appended, Appender};
use super::door::turn_away;
use super::gone;
use super::pending::{Budget, Pending, not_attempted};
use crate::bus::Shared;
use crate::{error, reply};

/// How often a line lets others run before it sends less than it sent last time: those who were just answered publish
/// again in that time.
const GATHERING: usize = 8;

/// What a line works with.
pub(super) struct LaneContext {
    pub(super) shared: Arc<Shared>,
    pub(super) budget: Arc<Budget>,
    pub(super) topic: Topic,
    pub(super) partition: PartitionId,
    pub(super) incarnation: BusIncarnation,
}

pub(super) struct Lane {
    queue: Mutex<Queue>,
    arrived: Notify,
    /// How the line ended, once it has.
    end: watch::Sender<Option<Result<()>>>,
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<Pending>,
    closed: bool,
}

impl Lane {
    /// Opens a line; its task ends when the line is closed and empty.
    pub(super) fn open(context: LaneContext) -> Arc<Self> {
        let lane =
            Arc::new(Self { queue: Mutex::default(), arrived: Notify::new(), end: watch::Sender::new(None) });
        let runtime = context.shared.runtime.clone();
        runtime.spawn(run(lane.clone(), context));
        lane
    }

    pub(super) fn enter(&self, record: Pending) {
        let mut queue = self.queue.lock();
        queue.pending.push_back(record);
        let first = queue.pending.len() == 1;
        drop(queue);
        if first {
            self.arrived.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    pub(super) async fn ended(&self) -> Result<()> {
        match self.end.subscribe().wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(gone()),
        }
    }

    fn waiting(&self) -> usize {
        self.queue.lock().pending.len()
    }

    /// Whether there is somebody to serve; `None` when the line has ended.
    fn look(&self) -> Option<bool> {
        let queue = self.queue.lock();
        if queue.pending.is_empty() && queue.closed { None } else { Some(!queue.pending.is_empty()) }
    }
}

async fn run(lane: Arc<Lane>, context: LaneContext) {
    let mut appender = Appender::new(&context);
    let mut failed_closing = Ok(());
    let mut last = 0;
    while let Some(somebody) = lane.look() {
        if !somebody {
            lane.arrived.notified().await;
            continue;
        }
        gather(&lane, last).await;
        let group = take(&lane, &context);
        if group.is_empty() {
            continue;
        }
        last = group.len();
        let appended = appender.append(&group).await;
        let failed = settle(&lane, &context, group, appended);
        if let Some(e) = failed.filter(|_| lane.queue.lock().closed) {
            let message = format!("not all could be written: {}", e.message());
            let e = Error::new(e.kind().clone(), "close", message).with_effect(e.effect());
            failed_closing = failed_closing.and(Err(e.at(error::place(&context.topic, context.partition))));
        }
    }
    lane.end.send_replace(Some(failed_closing));
}

/// Lets those who were answered come again, as long as more come and fewer are here than last time.
async fn gather(lane: &Lane, last: usize) {
    for _ in 0..GATHERING {
        if lane.waiting() >= last {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes the next group off the line. Who must not be tried is answered.
fn take(lane: &Lane, context: &LaneContext) -> Vec<Pending> {
    let limits = &context.shared.config.publish;
    let mut group = Vec::new();
    let mut barred = Vec::new();
    let mut bytes = 0;
    {
        let mut queue = lane.queue.lock();
        while let Some(next) = queue.pending.front() {
            let full = group.len() == limits.max_records_per_group
                || bytes + next.bytes() > limits.max_bytes_per_group && !group.is_empty();
            if full {
                break;
            }
            let Some(next) = queue.pending.pop_front() else { break };
            if next.is_barred() {
                barred.push(next);
            } else {
                bytes += next.bytes();
                group.push(next);
            }
        }
    }
    let place = error::place(&context.topic, context.partition);
    turn_away(&context.budget, barred, &not_attempted(place));
    group
}

/// Answers a group. Gives back what failed, if anything did.
fn settle(lane: &Lane, context: &LaneContext, group: Vec<Pending>, appended: Appended) -> Option<Error> {
    let Appended { ids, failed } = appended;
    let mut group = group.into_iter();
    // The ids first: the group must not be asked for one more than there are.
    for (id, record) in ids.into_iter().zip(group.by_ref()) {
        context.budget.give_back(record.cost());
        record.answer(Ok(EbRef {
            topic: context.topic.clone(),
            partition_id: context.partition,
            offset: id,
            published_at_utc: reply::time_of(&id),
        }));
    }
    let failed = failed?;
    if failed.effect() == Effect::None {
        turn_away(&context.budget, group, &failed);
        return Some(failed);
    }
    // Nobody knows whether these are in the log. What was called for behind them must not be there without them.
    let lost: Vec<Pending> = group.collect();
    let keys: HashSet<PartitionKey> = lost.iter().map(|record| record.key().clone()).collect();
    let behind: Vec<Pending> = {
        let mut queue = lane.queue.lock();
        let (behind, others): (VecDeque<Pending>, VecDeque<Pending>) =
            queue.pending.drain(..).partition(|record| keys.contains(record.key()));
        queue.pending = others;
        Vec::from(behind)
    };
    for record in lost {
        context.budget.give_back(record.cost());
        record.answer(Err(failed.clone()));
    }
    turn_away(&context.budget, behind, &not_attempted(error::place(&context.topic, context.partition)));
    Some(failed)
}
