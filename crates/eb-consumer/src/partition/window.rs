//! The records of a partition that the cut has not passed, in the log's order, and the lines of their keys.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use eb_contract::stores::FailedAttempt;
use eb_contract::{Cut, EbRef, PartitionKey};

use crate::item::Item;

/// A record's number in its partition's window: counts from 0 when the partition was opened.
pub(crate) type Seq = u64;

/// Where a record is in its life. See the crate's docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// For an earlier record of its key.
    Waiting,
    Ready,
    Running,
    BackingOff,
    Dying,
    Finished,
    Recorded,
}

#[derive(Debug)]
pub(crate) struct Slot {
    /// Let go when recorded.
    pub(crate) item: Option<Arc<Item>>,
    pub(crate) place: EbRef,
    pub(crate) bytes: usize,
    pub(crate) state: State,
    /// A mark is needed: it was handled, or is a dead letter.
    pub(crate) marks: bool,
    /// It is a dead letter.
    pub(crate) buried: bool,
    pub(crate) attempts: u32,
    /// An attempt failed, and there is to be another.
    pub(crate) failing: bool,
    /// The last failures, oldest first.
    pub(crate) failures: Vec<FailedAttempt>,
    /// The next record of its key.
    behind: Option<Seq>,
}

/// What may be given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    /// Records that were recorded, with their bytes.
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// Records that the cut has passed.
    pub(crate) passed: usize,
}

#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    base: Seq,
    /// The first record that is neither finished nor recorded, or the end.
    frontier: Seq,
    /// The last unfinished record of each key that has any.
    lines: HashMap<PartitionKey, Seq>,
    ready: VecDeque<Seq>,
    /// The cut before the first slot.
    head: Cut,
    /// The cut behind the last record read.
    tail: Cut,
    in_order: bool,
}

impl Window {
    /// An empty window at `cut`; without `in_order` keys do not matter.
    pub(crate) fn new(cut: Cut, in_order: bool) -> Self {
        Self {
            slots: VecDeque::new(),
            base: 0,
            frontier: 0,
            lines: HashMap::new(),
            ready: VecDeque::new(),
            head: cut,
            tail: cut,
            in_order,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The number that the next record will have.
    pub(crate) fn end(&self) -> Seq {
        self.base + self.slots.len() as u64
    }

    pub(crate) fn base(&self) -> Seq {
        self.base
    }

    pub(crate) fn slot(&mut self, seq: Seq) -> &mut Slot {
        &mut self.slots[(seq - self.base) as usize]
    }

    /// Whether everything read is finished.
    pub(crate) fn is_finished(&mut self) -> bool {
        self.advance();
        self.frontier == self.end()
    }

    /// Whether everything before this record is finished.
    pub(crate) fn is_finished_to(&mut self, end: Seq) -> bool {
        self.advance();
        self.frontier >= end
    }

    /// Appends a record; `done` if there is nothing to do for it.
    pub(crate) fn push(&mut self, item: Arc<Item>, done: bool) -> Seq {
        let seq = self.end();
        let mut state = State::Ready;
        if done {
            state = State::Finished;
        } else if self.in_order
            && let Some(before) = self.lines.insert(item.record.partition_key.clone(), seq)
        {
            self.slot(before).behind = Some(seq);
            state = State::Waiting;
        }
        if state == State::Ready {
            self.ready.push_back(seq);
        }
        let (place, bytes) = (item.record.eb_ref.clone(), item.bytes());
        let slot = Slot {
            item: Some(item),
            place,
            bytes,
            state,
            marks: false,
            buried: false,
            attempts: 0,
            failing: false,
            failures: Vec::new(),
            behind: None,
        };
        self.slots.push_back(slot);
        seq
    }

    /// Where reading has got to.
    pub(crate) fn read_to(&mut self, cut: Cut) {
        self.tail = cut;
        if self.slots.is_empty() {
            self.head = cut;
        }
    }

    /// The next record whose turn it is, now running.
    pub(crate) fn take_ready(&mut self) -> Option<(Seq, Arc<Item>)> {
        let seq = self.ready.pop_front()?;
        let slot = self.slot(seq);
        slot.state = State::Running;
        let item = slot.item.clone().expect("a record keeps its item until it is recorded");
        Some((seq, item))
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// It is its turn again, before those that wait for theirs.
    pub(crate) fn ready_again(&mut self, seq: Seq) {
        self.slot(seq).state = State::Ready;
        self.ready.push_front(seq);
    }

    /// It is finished: the next of its key has its turn.
    pub(crate) fn finish(&mut self, seq: Seq, marks: bool) {
        let slot = self.slot(seq);
        slot.state = State::Finished;
        slot.marks = marks;
        let behind = slot.behind.take();
        let key = slot.item.as_ref().map(|i| i.record.partition_key.clone());
        if !self.in_order {
            return;
        }
        match (behind, key) {
            (Some(next), _) => {
                self.slot(next).state = State::Ready;
                self.ready.push_back(next);
            }
            (None, Some(key)) => _ = self.lines.remove(&key),
            (None, None) => {}
        }
    }

    fn advance(&mut self) {
        while self.frontier < self.end()
            && self.slots[(self.frontier - self.base) as usize].state >= State::Finished
        {
            self.frontier += 1;
        }
    }

    /// The lowest unfinished cut.
    pub(crate) fn cut(&mut self) -> Cut {
        self.advance();
        if self.frontier == self.end() {
            self.tail
        } else if self.frontier == self.base {
            self.head
        } else {
            Cut::past(self.slots[(self.frontier - self.base) as usize - 1].place.offset)
        }
    }

    /// These are recorded, and the cut is stored: lets go of what nobody needs any more.
    pub(crate) fn recorded(&mut self, seqs: &[Seq]) -> Freed {
        let mut freed = Freed::default();
        for seq in seqs {
            let slot = self.slot(*seq);
            slot.state = State::Recorded;
            slot.item = None;
            freed.records += 1;
            freed.bytes += slot.bytes;
        }
        while self.slots.front().is_some_and(|s| s.state == State::Recorded) {
            if let Some(slot) = self.slots.pop_front() {
                self.head = Cut::past(slot.place.offset);
                self.base += 1;
                freed.passed += 1;
            }
        }
        if self.slots.is_empty() {
            self.head = self.tail;
        }
        self.frontier = self.frontier.max(self.base);
        freed
    }

    /// Everything that is not recorded starts over, but what backs off or is dying, unless that waits for an earlier one of its key: a
    /// transaction was rolled back.
    pub(crate) fn rewind(&mut self, seqs: &[Seq]) {
        for seq in seqs {
            let slot = self.slot(*seq);
            slot.marks = false;
            slot.state = State::Waiting;
        }
        self.lines.clear();
        self.ready.clear();
        for at in 0..self.slots.len() {
            let seq = self.base + at as u64;
            let slot = &mut self.slots[at];
            slot.behind = None;
            let Some(item) = slot.item.as_ref().filter(|_| slot.state < State::Finished) else { continue };
            let before =
                if self.in_order { self.lines.insert(item.record.partition_key.clone(), seq) } else { None };
            match before {
                Some(before) => {
                    self.slots[at].state = State::Waiting;
                    self.slot(before).behind = Some(seq);
                }
                None if matches!(self.slots[at].state, State::BackingOff | State::Dying) => {}
                None => {
                    self.slots[at].state = State::Ready;
                    self.ready.push_back(seq);
                }
            }
        }
        self.frontier = self.base;
    }

    /// The records that are not finished.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|s| s.state < State::Finished)
    }
}
