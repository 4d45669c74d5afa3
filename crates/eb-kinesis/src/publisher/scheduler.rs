//! What is sent next, and what an answer means for what waits: the publisher's rules, without I/O or clock of its own.
//!
//! A record is *ready* in the lane of its shard, *in flight* in a call, or *waits* behind an earlier record of its key.
//! With strict order a key has at most one record that is ready or in flight; the next one leaves the key's queue when
//! that one is settled. A record that must be sent again goes back to the front of its lane and its key stays taken, so
//! that nothing of the key can pass it. With batched order nothing waits: every record is ready at once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    EbRef, Effect, Error, ErrorKind, Offset, PartitionId, PublishRecord, Result, Timestamp, Topic,
};
use tokio::time::Instant;

use super::OP;
use super::call::{Answer, Outcome};
use super::intake::Pending;
use super::lanes::Lanes;
use super::pace::{Backoff, Pace};
use super::reply::{Batch, Reply};
use super::seen::Seen;
use crate::config::{Ordering, PublishConfig};
use crate::error;
use crate::shards::Layout;

const FAILED_BEFORE: &str = "an earlier record of this key and batch failed";

/// Names a call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CallId(u64);

/// An answer to be given out.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) reply: Reply,
    pub(super) result: Result<EbRef>,
    /// What the record cost in memory.
    pub(super) cost: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Scheduler {
    topic: Topic,
    config: PublishConfig,
    /// The most bytes of a record, its key included, that the stream itself takes.
    record_limit: usize,
    lanes: Lanes,
    /// Strict order: the records behind the one that is ready or in flight, for each key that has one.
    keys: HashMap<u128, VecDeque<Pending>>,
    seen: Seen,
    calls: HashMap<CallId, Vec<Pending>>,
    last_call: u64,
    /// All lanes rest: the service cannot be reached.
    outage: Backoff,
    swept: Option<Instant>,
    surprised: bool,
    settled: Vec<Settled>,
    /// The keys of records that may still come to lie in the log while their callers do not know it yet; a record of a
    /// batch is answered with the whole batch.
    lost: HashMap<u128, Option<Arc<Batch>>>,
    jitter: u64,
}

impl Scheduler {
    pub(super) fn new(topic: Topic, config: PublishConfig, now: Instant, seed: u64) -> Self {
        // No rate: what a stream of unknown shards takes is for the service to say.
        let lanes = Lanes::one(Pace::new(None, widest(&config), now));
        Self {
            topic,
            record_limit: config.max_record_bytes,
            config,
            lanes,
            keys: HashMap::new(),
            seen: Seen::default(),
            calls: HashMap::new(),
            last_call: 0,
            outage: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
            swept: None,
            surprised: false,
            settled: Vec::new(),
            lost: HashMap::new(),
            jitter: seed | 1,
        }
    }

    fn is_strict(&self) -> bool {
        self.config.ordering == Ordering::Strict
    }

    /// Nothing waits, is ready or in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.ready() == 0 && self.calls.is_empty()
    }

    /// Whether something is ready.
    pub(super) fn has_work(&self) -> bool {
        self.lanes.ready() > 0
    }

    /// An answer did not fit what is known of the stream's shards. Asking forgets it.
    pub(super) fn take_surprise(&mut self) -> bool {
        std::mem::take(&mut self.surprised)
    }

    /// Whether an answer that is still to be given tells of a record that may still come to lie in the log. Before any
    /// answers are given out then, whatever was called for until that moment must be [enqueued](Scheduler::enqueue).
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The answers that are due, in the order in which they became so.
    pub(super) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// All answers that were taken have been given.
    pub(super) fn answers_given(&mut self) {
        self.lost.retain(|_, batch| batch.as_ref().is_some_and(|batch| !batch.is_answered()));
    }

    /// Takes a record in. Records must come in the order of the calls.
    pub(super) fn enqueue(&mut self, pending: Pending) {
        if self.is_strict() {
            if self.lost.contains_key(&pending.key) {
                return self.behind_lost(VecDeque::from([pending]));
            }
            match self.keys.entry(pending.key) {
                Entry::Occupied(mut key) => return key.get_mut().push_back(pending),
                Entry::Vacant(key) => drop(key.insert(VecDeque::new())),
            }
        }
        self.lanes.push_back(pending);
    }

    /// The records of the next call, if one may begin now. Whoever asks must bring its answer to
    /// [`Scheduler::answered`].
    pub(super) fn next_call(&mut self, now: Instant) -> Option<(CallId, Vec<PublishRecord>)> {
        let may_begin = self.outage.until(now).is_none() && self.calls.len() < self.slots();
        if self.lanes.ready() == 0 || !may_begin {
            return None;
        }
        let (most, most_bytes) = (self.config.max_records_per_call, self.config.max_bytes_per_call);
        let mut call: Vec<Pending> = Vec::new();
        let mut bytes = 0;
        for at in self.lanes.turns() {
            if self.lanes[at].front().is_none() {
                continue;
            }
            self.lanes[at].pace.refill(now);
            while call.len() < most && self.lanes[at].pace.is_open(now) {
                let fits = |next: &Pending| call.is_empty() || bytes + next.bytes() <= most_bytes;
                if !self.lanes[at].front().is_some_and(fits) {
                    break;
                }
                let Some(mut next) = self.lanes.pop(at) else { break };
                if let Some(error) = self.cannot_go(&next) {
                    self.fail(next, error);
                    continue;
                }
                next.attempts.first.get_or_insert(now);
                self.lanes[at].pace.take(next.bytes());
                bytes += next.bytes();
                call.push(next);
            }
        }
        if call.is_empty() {
            return None;
        }
        self.last_call += 1;
        let records = call.iter().map(|p| p.record.clone()).collect();
        self.calls.insert(CallId(self.last_call), call);
        Some((CallId(self.last_call), records))
    }

    /// While the service cannot be reached one call at a time finds out whether it can.
    fn slots(&self) -> usize {
        if self.outage.is_failing() { 1 } else { self.config.calls_in_flight }
    }

    /// Why a record whose turn it is must not be sent.
    fn cannot_go(&self, pending: &Pending) -> Option<Error> {
        if pending.reply.has_failed(pending.key) {
            return Some(self.not_attempted(FAILED_BEFORE));
        }
        if pending.bytes() > self.record_limit {
            let (size, limit) = (pending.bytes(), self.record_limit);
            let message = format!("key and envelope have {size} bytes, the stream takes {limit}");
            return Some(
                Error::new(ErrorKind::TooLarge { size, limit }, OP, message)
                    .at(&self.topic)
                    .advise("raise the stream's maximum record size"),
            );
        }
        None
    }

    /// When [`Scheduler::next_call`] is worth asking again though nothing has happened but time.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.lanes.ready() == 0 || self.calls.len() >= self.slots() {
            return None;
        }
        let opens = self.lanes.opens_at(now)?;
        Some(self.outage.until(now).map_or(opens, |until| until.max(opens)))
    }

    /// A call has ended. Says how many records it had and how many of them are not settled by it.
    pub(super) fn answered(&mut self, id: CallId, answer: Answer, now: Instant) -> (usize, usize) {
        let Some(call) = self.calls.remove(&id) else { return (0, 0) };
        let records = call.len();
        let each = |outcome: Outcome| vec![outcome; call.len()];
        let reached = !matches!(answer, Answer::Unreachable(_));
        let (at, outcomes) = match answer {
            Answer::Each(at, outcomes) => (at, outcomes),
            Answer::All(outcome) => (Timestamp::EPOCH, each(outcome)),
            Answer::Unreachable(error) => (Timestamp::EPOCH, each(Outcome::Refused(error))),
        };
        self.pace_lanes(&call, &outcomes, now, reached);
        // An answer that got lost tells of the way to the service what a refused connection tells.
        let broken = |outcome: &Outcome| matches!(outcome, Outcome::Lost(e) if matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Unavailable));
        if reached && !outcomes.first().is_some_and(broken) {
            self.outage.succeed();
        } else {
            let jitter = self.next_jitter();
            self.outage.fail(now, jitter);
        }
        let mut again: Vec<Pending> = Vec::new();
        for (mut pending, outcome) in call.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Stored(partition, offset) => self.stored(pending, partition, offset, at),
                Outcome::Refused(error) => {
                    pending.attempts.last = Some(error);
                    again.push(pending);
                }
                Outcome::Doubtful(error) => {
                    pending.attempts.last = Some(error);
                    pending.attempts.maybe_stored = true;
                    again.push(pending);
                }
                Outcome::Failed(error) | Outcome::Lost(error) => self.fail(pending, error),
            }
        }
        let unsettled = again.len();
        self.send_again(again, now);
        if unsettled > 0 {
            self.sweep(now);
        }
        (records, unsettled)
    }

    /// Tells each lane how its records fared.
    fn pace_lanes(&mut self, call: &[Pending], outcomes: &[Outcome], now: Instant, reached: bool) {
        let mut counts: HashMap<usize, (usize, usize, usize)> = HashMap::new();
        for (pending, outcome) in call.iter().zip(outcomes) {
            let lane = self.lanes.of(pending.key);
            let count = counts.entry(lane).or_default();
            match outcome {
                Outcome::Stored(partition, _) => {
                    count.0 += 1;
                    let expected = &mut self.lanes[lane];
                    expected.trouble = None;
                    self.surprised |= expected.shard.is_some_and(|shard| shard != *partition);
                }
                Outcome::Refused(error) | Outcome::Doubtful(error) => {
                    // An outage is not the shard's.
                    *(if reached { &mut count.1 } else { &mut count.2 }) += 1;
                    self.lanes[lane].trouble = Some(error.clone());
                }
                Outcome::Failed(_) | Outcome::Lost(_) => count.2 += 1,
            }
        }
        for (lane, (taken, refused, other)) in counts {
            let jitter = self.next_jitter();
            self.lanes[lane].pace.answered(now, taken, refused, other, jitter);
        }
    }

    /// The service says that the record is stored.
    fn stored(&mut self, pending: Pending, partition_id: PartitionId, offset: Offset, at: Timestamp) {
        if self.is_strict()
            && let Err(before) = self.seen.rise(pending.key, offset)
        {
            let message = format!(
                "the sequence number {offset} does not lie behind {before}, which the key's record before it got"
            );
            let error = error::violation(OP, format!("{}/{partition_id}", self.topic), message)
                .with_effect(Effect::Unknown)
                .advise("the record is in the log, but maybe not in order: read the key's records there");
            tracing::error!(topic = %self.topic, %error, "the service broke the order of a key");
            // The stream may have been made anew.
            self.surprised = true;
            return self.fail(pending, error);
        }
        let (key, cost) = (pending.key, pending.cost());
        let eb_ref = EbRef { topic: self.topic.clone(), partition_id, offset, published_at_utc: at };
        self.settled.push(Settled { reply: pending.reply, result: Ok(eb_ref), cost });
        self.release(key);
    }

    /// The key's next record may go.
    fn release(&mut self, key: u128) {
        let Entry::Occupied(mut queue) = self.keys.entry(key) else { return };
        match queue.get_mut().pop_front() {
            Some(next) => self.lanes.push_back(next),
            None => drop(queue.remove()),
        }
    }

    /// A record that was ready or in flight fails for good.
    fn fail(&mut self, pending: Pending, error: Error) {
        let error = if pending.attempts.maybe_stored { error.with_effect(Effect::Unknown) } else { error };
        let (key, cost, unknown) = (pending.key, pending.cost(), error.effect() == Effect::Unknown);
        pending.reply.key_failed(key);
        let batch = pending.reply.batch().cloned();
        self.settled.push(Settled { reply: pending.reply, result: Err(error), cost });
        if !unknown {
            return self.release(key);
        }
        if self.is_strict() {
            self.lost.insert(key, batch);
            let behind = self.keys.remove(&key).unwrap_or_default();
            self.behind_lost(behind);
        }
    }

    /// A record before these may come to lie in the log yet: what was called for before its caller knows of that must
    /// not pass it.
    fn behind_lost(&mut self, behind: VecDeque<Pending>) {
        if behind.is_empty() {
            return;
        }
        let error = self.not_attempted("the outcome of an earlier record of this key is unknown");
        for waiting in behind {
            let cost = waiting.cost();
            self.settled.push(Settled { reply: waiting.reply, result: Err(error.clone()), cost });
        }
    }

    fn not_attempted(&self, why: &str) -> Error {
        Error::new(ErrorKind::NotAttempted, OP, why).at(&self.topic)
    }

    /// Puts records back to the front of their lanes, in their order, but for those whose time is over.
    fn send_again(&mut self, again: Vec<Pending>, now: Instant) {
        for pending in again.into_iter().rev() {
            let since = pending.attempts.first.unwrap_or(now);
            if now.saturating_duration_since(since) >= self.config.give_up_after {
                let error = self.gave_up(&pending);
                self.fail(pending, error);
                continue;
            }
            self.lanes.push_front(pending);
        }
    }

    /// Gives up what has waited too long in lanes in which nothing moves: otherwise each record of a long queue would
    /// have its full time only after the one before.
    fn sweep(&mut self, now: Instant) {
        let often = (self.config.give_up_after / 4).min(Duration::from_secs(1));
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < often) {
            return;
        }
        self.swept = Some(now);
        let limit = self.config.give_up_after;
        for at in 0..self.lanes.len() {
            if now.saturating_duration_since(self.lanes[at].pace.progress) < limit {
                continue;
            }
            let mut kept = Vec::new();
            while let Some(pending) = self.lanes.pop(at) {
                if now.saturating_duration_since(pending.called) < limit {
                    kept.push(pending);
                    continue;
                }
                let error = self.gave_up(&pending);
                // This makes the key's next record ready in the same lane.
                self.fail(pending, error);
            }
            kept.into_iter().for_each(|pending| self.lanes.push_back(pending));
        }
    }

    /// The answer to a record whose time is over.
    fn gave_up(&self, pending: &Pending) -> Error {
        if pending.reply.has_failed(pending.key) {
            return self.not_attempted(FAILED_BEFORE);
        }
        let lane = &self.lanes[self.lanes.of(pending.key)];
        let last = pending.attempts.last.as_ref().or(lane.trouble.as_ref());
        let limit = self.config.give_up_after;
        let error = match last {
            Some(last) => Error::new(
                last.kind().clone(),
                OP,
                format!("given up after {limit:?} of attempts: {}", last.message()),
            )
            .advise(last.advice().unwrap_or("publish it again later")),
            None => Error::new(
                ErrorKind::Throttled { after: None },
                OP,
                format!("given up after {limit:?} without an attempt"),
            )
            .advise("publish it again later"),
        };
        error.at(&self.topic)
    }

    /// What the stream looks like now.
    pub(super) fn shape(&mut self, layout: &Layout, remade: bool, now: Instant) {
        if remade {
            self.seen.clear();
        }
        self.record_limit =
            layout.record_limit.map_or(self.config.max_record_bytes, |l| l.min(self.config.max_record_bytes));
        let (rate, widest) = (self.config.shard_rate, widest(&self.config));
        let pace = |shard: Option<PartitionId>| Pace::new(shard.and(rate), widest, now);
        let in_flight = self.calls.values().flatten().map(|p| p.key);
        self.lanes.reshape(layout, pace, in_flight);
    }

    /// Answers all that is not in flight, or behind what is, with this error, which is about the stream as a whole.
    pub(super) fn refuse_all(&mut self, error: &Error) {
        while self.lanes.ready() > 0 {
            for pending in self.lanes.drain() {
                let error = if pending.reply.has_failed(pending.key) {
                    self.not_attempted(FAILED_BEFORE)
                } else {
                    error.clone()
                };
                // This makes the key's next record ready.
                self.fail(pending, error);
            }
        }
    }

    fn next_jitter(&mut self) -> f64 {
        // xorshift64: good enough to keep publishers apart.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        (self.jitter >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The most records of one shard that can be in flight.
fn widest(config: &PublishConfig) -> usize {
    config.max_records_per_call * config.calls_in_flight
}

impl Drop for Scheduler {
    /// The task ends with work unfinished, as when its runtime ends: each record's caller is told what is known of it.
    fn drop(&mut self) {
        let gone = |effect| {
            Error::new(ErrorKind::Closed, OP, "the publisher's task ended before the record was answered")
                .at(&self.topic)
                .with_effect(effect)
        };
        let (untouched, unknown) = (gone(Effect::None), gone(Effect::Unknown));
        let settled = std::mem::take(&mut self.settled);
        settled.into_iter().for_each(|s| s.reply.answer(s.result));
        let in_flight = self.calls.drain().flat_map(|(_, call)| call).map(|p| (p.reply, unknown.clone()));
        let lanes = self.lanes.drain();
        let waiting = self.keys.drain().flat_map(|(_, queue)| queue);
        let rest = lanes.into_iter().chain(waiting).map(|p| {
            let maybe = p.attempts.maybe_stored;
            (p.reply, if maybe { unknown.clone() } else { untouched.clone() })
        });
        for (reply, error) in in_flight.chain(rest) {
            reply.answer(Err(error));
        }
    }
}
