//! One partition's state machine: which record's turn it is, what becomes of it, and what may be committed.
//!
//! No I/O, no clock, no chance: the time and the luck of a delay are handed in, so that every history can be played.

mod letters;
mod window;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::sync::Arc;

use eb_contract::stores::{DeadLetterId, DeadReason, FailedAttempt, Mark, NewDeadLetter, Seen};
use eb_contract::{BusIncarnation, ConsumerName, Cut, EbRef, PartitionKey, Timestamp};
use tokio::time::Instant;

use window::Window;
pub(crate) use window::{Freed, Seq, State};

use crate::item::Item;
use crate::retry::{AfterMax, RetryPolicy};

/// What was read, in the log's order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) items: Vec<(Arc<Item>, Seen)>,
    /// The cut behind it: `End` when the partition is closed and read to its end.
    pub(crate) next: Cut,
    /// When the head had been reached, if it had.
    pub(crate) caught_up_at: Option<Timestamp>,
}

/// A record whose turn it is.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) seq: Seq,
    pub(crate) item: Arc<Item>,
    /// From 1.
    pub(crate) attempt: u32,
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    Handled,
    /// Done without being handled.
    Skipped,
    /// Will never succeed; with the errors, outermost first.
    Never(DeadReason, Vec<String>),
    /// May succeed later.
    Later(Vec<String>),
    /// It was not called: so many processes ended while they handled it.
    Deadly(u32),
}

/// Why a record is not called any more under which so many processes ended.
pub(crate) fn deadly(deaths: u32) -> String {
    format!(
        "the worker's process ended, or stopped renewing its lease, while this record was handled alone: {deaths} times in a row"
    )
}

/// What an outcome leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    Finished,
    RetryAt(Instant),
    DeadLetter(DeadReason),
    Halted,
}

/// What is finished and not yet recorded, and the cut that follows.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) seqs: Vec<Seq>,
    pub(crate) marks: Vec<Mark>,
    /// The places of all of them, for sources that want to be told of each.
    pub(crate) places: Vec<EbRef>,
    pub(crate) cut: Cut,
    pub(crate) caught_up_at: Option<Timestamp>,
}

/// Who a partition belongs to, as dead letters say it.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    pub(crate) consumer: ConsumerName,
    pub(crate) incarnation: BusIncarnation,
}

/// The rules that a partition goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) retry: RetryPolicy,
    pub(crate) in_order: bool,
    /// Watch out for copies of an event.
    pub(crate) by_event: bool,
    /// The most records that can be on their way between the question what was seen and the window.
    pub(crate) read_ahead: u64,
}

pub(crate) struct Partition {
    whose: Whose,
    rules: Rules,
    window: Window,
    /// When records that back off have their turn again.
    alarms: BinaryHeap<Reverse<(Instant, Seq)>>,
    backing_off: usize,
    /// Records that failed and are to be tried again: one of a key at most, where keys are in order.
    failing: usize,
    /// Records whose letters are to be written, with the letters.
    dying: VecDeque<(Seq, NewDeadLetter)>,
    /// How many letters are being written.
    buried: usize,
    /// Handled records with an open letter of somebody before, which is to be resolved.
    exhumed: VecDeque<(Seq, DeadLetterId)>,
    /// How many of these letters are being resolved.
    resolving: usize,
    parked: HashSet<PartitionKey>,
    /// A key was parked since somebody began to look which are.
    parked_since_look: bool,
    /// Records in the window that are not finished.
    unfinished: usize,
    /// Records of the step that is being stored.
    in_step: usize,
    /// Events that were finished lately, whose marks a question asked before does not show.
    lately: HashSet<[u8; 32]>,
    /// When to forget them: once the window's first record has at least this number.
    fading: VecDeque<(Seq, [u8; 32])>,
    finished: Vec<Seq>,
    caught_up_at: Option<Timestamp>,
    /// Why nothing further is handled.
    halted: Option<String>,
}

impl Partition {
    pub(crate) fn new(whose: Whose, rules: Rules, cut: Cut, parked: HashSet<PartitionKey>) -> Self {
        Self {
            window: Window::new(cut, rules.in_order),
            whose,
            rules,
            alarms: BinaryHeap::new(),
            backing_off: 0,
            failing: 0,
            dying: VecDeque::new(),
            buried: 0,
            exhumed: VecDeque::new(),
            resolving: 0,
            parked,
            parked_since_look: false,
            unfinished: 0,
            in_step: 0,
            lately: HashSet::new(),
            fading: VecDeque::new(),
            finished: Vec::new(),
            caught_up_at: None,
            halted: None,
        }
    }

    /// Takes in what was read. Records that were handled before are finished at once; how many is answered.
    pub(crate) fn admit(&mut self, batch: Batch) -> u64 {
        let mut known = 0;
        for (item, seen) in batch.items {
            let done = seen != Seen::No || self.is_late_copy(&item);
            known += u64::from(done);
            let seq = self.window.push(item, done);
            if done {
                self.finished.push(seq);
            } else {
                self.unfinished += 1;
            }
        }
        self.window.read_to(batch.next);
        self.caught_up_at = batch.caught_up_at;
        known
    }

    fn is_late_copy(&self, item: &Item) -> bool {
        self.rules.by_event && item.content.as_ref().is_ok_and(|c| self.lately.contains(&c.identity.dedupe))
    }

    /// The next record to be handled, now running. Records of parked keys, copies and undecodable ones are dealt with on the way.
    pub(crate) fn next_turn(&mut self, now: Timestamp) -> Option<Turn> {
        if self.halted.is_some() {
            return None;
        }
        while let Some((seq, item)) = self.window.take_ready() {
            if self.parked.contains(&item.record.partition_key) {
                self.doom(seq, &item, DeadReason::KeyParked, true);
            } else if self.is_late_copy(&item) {
                self.finish(seq, false);
            } else if let Err(why) = &item.content {
                let failure = FailedAttempt::from_texts(now, [why.clone()]);
                self.window.slot(seq).failures.push(failure);
                self.doom(seq, &item, DeadReason::Undecodable, false);
            } else {
                let attempt = self.window.slot(seq).attempts + 1;
                return Some(Turn { seq, item, attempt });
            }
        }
        None
    }

    pub(crate) fn has_turn(&self) -> bool {
        self.halted.is_none() && self.window.has_ready()
    }

    /// An attempt has ended.
    pub(crate) fn settle(
        &mut self,
        turn: &Turn,
        outcome: Outcome,
        now: Instant,
        at: Timestamp,
        luck: f64,
    ) -> Consequence {
        let seq = turn.seq;
        let slot = self.window.slot(seq);
        let (mut attempts, mut enough) = (turn.attempt, self.rules.retry.is_enough(turn.attempt));
        let (reason, errors) = match outcome {
            Outcome::Handled if turn.item.letter.is_some() => {
                slot.state = State::Dying;
                self.settled(seq);
                self.exhumed.extend(turn.item.letter.map(|letter| (seq, letter)));
                return Consequence::Finished;
            }
            Outcome::Handled => {
                self.finish(seq, true);
                self.remember(&turn.item);
                return Consequence::Finished;
            }
            Outcome::Skipped => {
                self.finish(seq, false);
                return Consequence::Finished;
            }
            Outcome::Never(reason, errors) => (Some(reason), errors),
            Outcome::Later(errors) => (None, errors),
            Outcome::Deadly(deaths) => {
                (attempts, enough) = (deaths, true);
                (None, vec![deadly(deaths)])
            }
        };
        slot.attempts = attempts;
        if slot.failures.len() == NewDeadLetter::MAX_FAILURES {
            slot.failures.remove(0);
        }
        slot.failures.push(FailedAttempt::from_texts(at, errors));
        if !std::mem::replace(&mut slot.failing, true) {
            self.failing += 1;
        }
        let policy = self.rules.retry;
        if let Some(reason) = reason {
            self.doom(seq, &turn.item, reason, false);
            return Consequence::DeadLetter(reason);
        }
        if !enough {
            slot.state = State::BackingOff;
            self.backing_off += 1;
            let until = now + policy.delay(turn.attempt, luck);
            self.alarms.push(Reverse((until, seq)));
            return Consequence::RetryAt(until);
        }
        match policy.after_max {
            AfterMax::Halt => {
                let last = slot.failures.last().and_then(|f| f.errors.first()).cloned().unwrap_or_default();
                self.halted = Some(format!("{} failed {attempts} times: {last}", slot.place));
                // It keeps its place: a restart tries it again.
                slot.state = State::BackingOff;
                self.backing_off += 1;
                Consequence::Halted
            }
            after => {
                let parks = after == AfterMax::DeadLetterAndPark;
                self.doom(seq, &turn.item, DeadReason::AttemptsExhausted, parks);
                Consequence::DeadLetter(DeadReason::AttemptsExhausted)
            }
        }
    }

    /// It is no longer to be tried again.
    fn settled(&mut self, seq: Seq) {
        if std::mem::take(&mut self.window.slot(seq).failing) {
            self.failing -= 1;
        }
    }

    fn finish(&mut self, seq: Seq, marks: bool) {
        self.settled(seq);
        self.window.finish(seq, marks);
        self.unfinished -= 1;
        self.finished.push(seq);
    }

    fn remember(&mut self, item: &Item) {
        if let (true, Ok(content)) = (self.rules.by_event, &item.content) {
            self.lately.insert(content.identity.dedupe);
        }
    }

    /// A record whose handler was dropped: it is its turn again.
    pub(crate) fn not_handled(&mut self, seq: Seq) {
        self.window.ready_again(seq);
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Somebody looks which keys are parked.
    pub(crate) fn begin_parked_look(&mut self) {
        self.parked_since_look = false;
    }

    /// These are parked, unless a key was parked while somebody looked: then the answer may be too old.
    pub(crate) fn end_parked_look(&mut self, keys: HashSet<PartitionKey>) {
        if !self.parked_since_look {
            self.parked = keys;
        }
    }

    /// Lets those go on whose delay has passed.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, seq))) = self.alarms.peek().copied() {
            if at > now {
                break;
            }
            self.alarms.pop();
            if self.window.slot(seq).state == State::BackingOff {
                self.backing_off -= 1;
                self.window.ready_again(seq);
            }
        }
    }

    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    pub(crate) fn backing_off(&self) -> usize {
        self.backing_off
    }

    pub(crate) fn keys_retrying(&self) -> usize {
        self.failing
    }

    pub(crate) fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Records read and not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Their places.
    pub(crate) fn unfinished_places(&self) -> Vec<EbRef> {
        self.window.unfinished().map(|s| s.place.clone()).collect()
    }

    /// Records that are finished, and whose step is not durable.
    pub(crate) fn unrecorded(&self) -> usize {
        self.finished.len() + self.in_step
    }

    /// Whether everything up to the head, as it was last seen, is finished.
    pub(crate) fn is_caught_up(&mut self) -> bool {
        self.caught_up_at.is_some() && self.window.is_finished()
    }

    /// The number that the next record read will have.
    pub(crate) fn end(&self) -> Seq {
        self.window.end()
    }

    /// Whether everything before this record is finished.
    pub(crate) fn is_finished_to(&mut self, end: Seq) -> bool {
        self.window.is_finished_to(end)
    }

    /// Whether everything read is finished and recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// How many are finished and not in a step yet.
    pub(crate) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// The lowest unfinished cut.
    pub(crate) fn cut(&mut self) -> Cut {
        self.window.cut()
    }

    /// Everything finished since the last step.
    pub(crate) fn step(&mut self) -> Step {
        let seqs = std::mem::take(&mut self.finished);
        self.in_step = seqs.len();
        let mut marks = Vec::with_capacity(seqs.len());
        let mut places = Vec::with_capacity(seqs.len());
        for seq in &seqs {
            let slot = self.window.slot(*seq);
            places.push(slot.place.clone());
            if let Some(item) = slot.item.as_ref().filter(|_| slot.marks) {
                marks.push(item.mark());
            }
        }
        let caught_up_at = self.caught_up_at.filter(|_| self.window.is_finished());
        Step { seqs, marks, places, cut: self.window.cut(), caught_up_at }
    }

    /// The step is durable.
    pub(crate) fn recorded(&mut self, step: &Step) -> Freed {
        if self.rules.by_event {
            let until = self.window.end() + self.rules.read_ahead;
            let dedupes = step.marks.iter().filter_map(|m| m.event.as_ref()).map(|e| (until, e.dedupe));
            self.fading.extend(dedupes);
        }
        self.in_step = 0;
        let freed = self.window.recorded(&step.seqs);
        while let Some((until, dedupe)) = self.fading.front().copied() {
            if self.window.base() < until {
                break;
            }
            self.fading.pop_front();
            self.lately.remove(&dedupe);
        }
        freed
    }

    /// The step was rolled back, with the effects of its records: they are to be handled again, and so are `running` ones. Its letters,
    /// which were taken and buried, are to be written again.
    pub(crate) fn rolled_back(&mut self, step: Step, running: &[Seq], letters: Vec<(Seq, NewDeadLetter)>) {
        let mut again: Vec<Seq> = Vec::new();
        for seq in step.seqs {
            let slot = self.window.slot(seq);
            // What was finished without an effect of its own stays so.
            if !slot.marks {
                self.finished.push(seq);
                continue;
            }
            if let Some(Ok(content)) = slot.item.as_ref().map(|i| &i.content) {
                self.lately.remove(&content.identity.dedupe);
            }
            self.unfinished += 1;
            if slot.buried {
                (slot.buried, slot.marks, slot.state) = (false, false, State::Dying);
            } else {
                slot.failing = slot.attempts > 0;
                self.failing += usize::from(slot.failing);
                again.push(seq);
            }
        }
        self.in_step = 0;
        self.buried -= letters.len();
        letters.into_iter().rev().for_each(|letter| self.dying.push_front(letter));
        again.extend_from_slice(running);
        self.window.rewind(&again);
        // What was given up behind a record that starts over waits for it, and is then given up again.
        let window = &mut self.window;
        self.dying.retain(|(seq, _)| window.slot(*seq).state == State::Dying);
    }
}
