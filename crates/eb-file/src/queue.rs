//! Calls on their way to the disk: records become lines of a group in the order of the calls, and a group's end answers them all.
//!
//! Only the group at the front is encoded as it is filled, into the very buffer that is written; its offsets, and with them
//! `durable` and checksum, are final there, because a group is written only if the one before it was synced. Groups behind a full one
//! hold just references to the caller's bytes until their turn comes. One completion per group wakes all of its callers.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use eb_contract::{Effect, Error, ErrorKind, PublishRecord, Timestamp};
use parking_lot::Mutex;

use crate::format::line::{LineEncoder, LineParts};
use crate::format::sidecar::{Entry, IndexSpacing, Position};

/// What a record costs in memory while it waits, besides its bytes.
const WAITING_OVERHEAD: usize = 128;

/// Something that happens once, and those who wait for it.
#[derive(Debug)]
pub(crate) struct Completion<T> {
    outcome: OnceLock<T>,
    waiting: Mutex<Vec<Option<Waker>>>,
}

impl<T> Default for Completion<T> {
    fn default() -> Self {
        Self { outcome: OnceLock::new(), waiting: Mutex::new(Vec::new()) }
    }
}

impl<T> Completion<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.outcome.get()
    }

    /// Sets the outcome, once, and wakes everyone in the order in which they came.
    pub(crate) fn complete(&self, outcome: T) {
        let _ = self.outcome.set(outcome);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// The outcome, or a wake-up when it is there. `slot` belongs to the caller and says where its waker is.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, slot: &mut Option<usize>) -> Poll<&T> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let mut waiting = self.waiting.lock();
        // The outcome is set before the wakers are taken: whoever registers too late for them sees it here.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        match slot.and_then(|slot| waiting.get_mut(slot)) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(empty) => *empty = Some(cx.waker().clone()),
            None => {
                *slot = Some(waiting.len());
                waiting.push(Some(cx.waker().clone()));
            }
        }
        Poll::Pending
    }

    /// Takes back a waker that nobody waits behind any more.
    pub(crate) fn forget(&self, slot: usize) {
        if let Some(waker) = self.waiting.lock().get_mut(slot) {
            *waker = None;
        }
    }
}

/// A synced group: the offset of its first record, and when each was published.
#[derive(Debug)]
pub(crate) struct Acked {
    pub(crate) base: u64,
    pub(crate) times: Vec<Timestamp>,
}

pub(crate) type GroupOutcome = Completion<Result<Acked, Error>>;

/// Records of one call that lie next to each other in one group.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) group: Arc<GroupOutcome>,
    /// The first one's index in the group.
    pub(crate) first: usize,
    pub(crate) len: usize,
}

/// A group on its way to the disk.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) group: Group,
    /// Where its last line ends.
    pub(crate) end: Position,
    pub(crate) spacing: IndexSpacing,
}

/// A group that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) outcome: Arc<GroupOutcome>,
    /// Encoded lines; the offset of the first is `base`.
    pub(crate) lines: Vec<u8>,
    pub(crate) base: u64,
    /// As many as there are lines.
    pub(crate) times: Vec<Timestamp>,
    /// Of the lines that get one.
    pub(crate) entries: Vec<Entry>,
    /// Calls that have a record here.
    pub(crate) calls: usize,
    /// Records that are not encoded yet, behind those that are.
    raw: Vec<PublishRecord>,
    raw_bytes: usize,
}

impl Group {
    fn len(&self) -> usize {
        self.times.len() + self.raw.len()
    }

    fn bytes(&self) -> usize {
        self.lines.len() + self.raw_bytes
    }

    /// Answers everyone in the group.
    pub(crate) fn answer(&mut self, outcome: Result<Acked, Error>) {
        self.outcome.complete(outcome);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only a panic between taking a group and answering it leads here with callers waiting; they must not wait for ever.
        if self.len() > 0 && self.outcome.get().is_none() {
            let what = "the writer stopped unexpectedly";
            let error = Error::new(ErrorKind::Poisoned, "publish", what).with_effect(Effect::Unknown);
            self.outcome.complete(Err(error));
        }
    }
}

/// What a record counts against the limit for waiting ones.
fn cost(record: &PublishRecord) -> usize {
    record.envelope.len() + record.partition_key.as_str().len() + WAITING_OVERHEAD
}

/// The text of the last record's time; most records share its second.
#[derive(Debug)]
struct TimeText {
    time: Timestamp,
    text: [u8; Timestamp::TEXT_LEN],
}

impl TimeText {
    fn of(&mut self, time: Timestamp) -> &[u8; Timestamp::TEXT_LEN] {
        const SECOND: i64 = 1_000_000;
        let (micros, last) = (time.as_micros(), self.time.as_micros());
        if micros / SECOND != last / SECOND {
            self.text = time.to_text();
        } else if micros != last {
            let mut fraction = micros % SECOND;
            for digit in self.text[20..26].iter_mut().rev() {
                *digit = b'0' + (fraction % 10) as u8;
                fraction /= 10;
            }
        }
        self.time = time;
        &self.text
    }
}

/// The groups of one partition that are not on their way to the disk yet.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Never empty; the last one is being filled.
    groups: VecDeque<Group>,
    /// Where the next line to be encoded goes; `None` until the log is open.
    end: Option<Position>,
    spacing: IndexSpacing,
    waiting_bytes: usize,
    max_group_bytes: usize,
    max_waiting_bytes: usize,
    encoder: LineEncoder,
    time_text: TimeText,
    /// A buffer that was written and can be filled again.
    spare: Vec<u8>,
}

impl Queue {
    pub(crate) fn new(max_group_bytes: usize, max_waiting_bytes: usize) -> Self {
        Self {
            groups: VecDeque::from([Group::default()]),
            end: None,
            spacing: IndexSpacing::default(),
            waiting_bytes: 0,
            max_group_bytes,
            max_waiting_bytes,
            encoder: LineEncoder::default(),
            time_text: TimeText { time: Timestamp::EPOCH, text: Timestamp::EPOCH.to_text() },
            spare: Vec::new(),
        }
    }

    /// The log is open, or has been cut back to here: what is encoded from now on goes there.
    pub(crate) fn go_on_from(&mut self, end: Position, spacing: IndexSpacing) {
        debug_assert!(self.groups.iter().all(|g| g.lines.is_empty()));
        self.end = Some(end);
        self.spacing = spacing;
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.len() == 1 && self.groups[0].len() == 0
    }

    /// How many calls the group at the front answers.
    pub(crate) fn front_calls(&self) -> usize {
        self.groups[0].calls
    }

    /// Whether the group at the front takes no more.
    pub(crate) fn front_is_full(&self) -> bool {
        self.groups.len() > 1 || self.groups[0].bytes() >= self.max_group_bytes
    }

    /// Whether these records may wait; otherwise how many bytes do already.
    pub(crate) fn admits<'r>(&self, records: impl Iterator<Item = &'r PublishRecord>) -> Result<(), usize> {
        if self.waiting_bytes == 0 && !self.front_is_full() {
            return Ok(());
        }
        let more: usize = records.map(cost).sum();
        // What alone exceeds the limit is let in when nothing else waits.
        if self.waiting_bytes > 0 && self.waiting_bytes + more > self.max_waiting_bytes {
            return Err(self.waiting_bytes);
        }
        Ok(())
    }

    /// Puts the one record of a call at the end.
    pub(crate) fn push_one(&mut self, record: &PublishRecord, now: Timestamp) -> Run {
        let index = self.push(record, now, true);
        Run { group: self.last_outcome().clone(), first: index, len: 1 }
    }

    /// Puts the records of a call at the end, in order.
    pub(crate) fn push_all<'r>(
        &mut self,
        records: impl Iterator<Item = &'r PublishRecord>,
        now: Timestamp,
    ) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::with_capacity(1);
        for record in records {
            let index = self.push(record, now, runs.is_empty());
            let outcome = self.last_outcome();
            match runs.last_mut() {
                Some(run) if Arc::ptr_eq(&run.group, outcome) => run.len += 1,
                _ => runs.push(Run { group: outcome.clone(), first: index, len: 1 }),
            }
        }
        runs
    }

    fn last_outcome(&self) -> &Arc<GroupOutcome> {
        let last = self.groups.len() - 1;
        &self.groups[last].outcome
    }

    /// Puts one record at the end; gives its index in the last group.
    fn push(&mut self, record: &PublishRecord, now: Timestamp, first_of_call: bool) -> usize {
        let mut starts_group = first_of_call;
        if self.groups.back().is_some_and(|g| g.bytes() >= self.max_group_bytes) {
            self.groups.push_back(Group::default());
            starts_group = true;
        }
        let direct = self.groups.len() == 1 && self.end.is_some() && self.groups[0].raw.is_empty();
        if direct {
            self.encode_at_front(record, now);
        }
        let last = self.groups.len() - 1;
        let group = &mut self.groups[last];
        group.calls += usize::from(starts_group);
        if !direct {
            let cost = cost(record);
            group.raw_bytes += cost;
            self.waiting_bytes += cost;
            group.raw.push(record.clone());
        }
        group.len() - 1
    }

    fn encode_at_front(&mut self, record: &PublishRecord, now: Timestamp) {
        let Some(end) = &mut self.end else { return };
        let group = &mut self.groups[0];
        if group.times.is_empty() {
            group.base = end.next;
            if group.lines.capacity() == 0 {
                group.lines = std::mem::take(&mut self.spare);
            }
        }
        let time = end.last_time.map_or(now, |last| last.max(now));
        let before = group.lines.len();
        let parts = LineParts {
            offset: end.next,
            durable: group.base,
            published_at: self.time_text.of(time),
            key: record.partition_key.as_str(),
            envelope: record.envelope.as_bytes(),
        };
        self.encoder.encode(&mut group.lines, &parts);
        if self.spacing.takes(end.bytes) {
            group.entries.push(Entry { offset: end.next, byte: end.bytes, time });
        }
        group.times.push(time);
        *end = Position {
            next: end.next + 1,
            bytes: end.bytes + (group.lines.len() - before) as u64,
            last_time: Some(time),
        };
    }

    /// Takes the group at the front to write it, all of it encoded. `None` when it is empty or the log is not open.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Taken> {
        self.end?;
        let raw = std::mem::take(&mut self.groups[0].raw);
        self.waiting_bytes -= std::mem::take(&mut self.groups[0].raw_bytes);
        for record in &raw {
            self.encode_at_front(record, now);
        }
        if self.groups[0].len() == 0 {
            return None;
        }
        let group = self.groups.pop_front()?;
        if self.groups.is_empty() {
            self.groups.push_back(Group::default());
        }
        Some(Taken { group, end: self.end?, spacing: self.spacing })
    }

    /// Gives a buffer back for the next group. One that an unusual group has blown up is let go.
    pub(crate) fn reuse(&mut self, mut lines: Vec<u8>) {
        if lines.capacity() <= 2 * self.max_group_bytes {
            lines.clear();
            self.spare = lines;
        }
    }

    /// Gives up everything that waits; see [`answer_all`].
    #[must_use]
    pub(crate) fn drain(&mut self) -> VecDeque<Group> {
        self.waiting_bytes = 0;
        std::mem::replace(&mut self.groups, VecDeque::from([Group::default()]))
    }
}

/// Answers everyone in groups that were given up. Not to be called with a lock held that a woken caller may want.
pub(crate) fn answer_all(groups: VecDeque<Group>, error: &Error) {
    for mut group in groups {
        group.answer(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_times_text_does_not_depend_on_the_one_before(micros in proptest::collection::vec(0i64..5_000_000, 1..40)) {
            let mut text = TimeText { time: Timestamp::EPOCH, text: Timestamp::EPOCH.to_text() };
            for time in micros.into_iter().filter_map(Timestamp::from_micros) {
                prop_assert_eq!(text.of(time), &time.to_text());
            }
        }
    }
}
