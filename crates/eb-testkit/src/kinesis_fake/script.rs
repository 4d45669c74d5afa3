//! Scripts: what the fake does otherwise than the model says.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::log::Request;
use super::model::Entry;
use super::{Fault, Gate, Op};

/// What becomes of one entry of a put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fate {
    /// As the model says: stored, unless its shard throttles.
    #[default]
    Model,
    /// Not stored, and answered with this error.
    Refuse(Fault),
    /// Stored, but answered with this error: what an `InternalFailure` may hide.
    StoreAndDeny(Fault),
}

/// Where an answer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The connection is reset before a byte of the answer.
    Reset,
    /// The connection is closed in order, before a byte of the answer.
    Close,
    /// The head and half of the body are sent, then the connection is closed.
    HalfBody,
}

type FateFn = Arc<dyn Fn(usize, &Entry) -> Fate + Send + Sync>;
type Edit = Arc<dyn Fn(&mut Value) + Send + Sync>;
type Rule = Arc<Mutex<dyn FnMut(&Request) -> Option<Reaction> + Send>>;

/// What the fake does with one request, in this order: wait, act on the model (or not), wait again, answer (with what
/// the model said, that edited, an error, or anything), and send the answer whole or cut.
///
/// The request is carried through even when the client goes away meanwhile: a call that timed out may still land.
#[derive(Clone)]
pub struct Reaction {
    pub(super) before: Vec<Wait>,
    pub(super) act: bool,
    fates: HashMap<usize, Fate>,
    fate_by: Option<FateFn>,
    order: Option<Order>,
    pub(super) read: Read,
    pub(super) after: Vec<Wait>,
    pub(super) answer: Answer,
    pub(super) edits: Vec<Edit>,
    pub(super) cut: Option<Cut>,
}

#[derive(Clone)]
pub(super) enum Wait {
    Gate(Gate),
    Abandoned,
}

#[derive(Clone)]
pub(super) enum Answer {
    Model,
    Fault(Fault),
    Raw { status: u16, body: Bytes },
}

#[derive(Debug, Clone)]
enum Order {
    Reversed,
    Given(Vec<usize>),
}

/// How a script bends a put.
#[derive(Debug, Default)]
pub(super) struct Put {
    fates: Vec<Fate>,
    order: Option<Order>,
}

impl Put {
    pub(super) fn fate(&self, index: usize) -> Fate {
        self.fates.get(index).cloned().unwrap_or_default()
    }

    /// The indexes below `len` in the order of acceptance.
    pub(super) fn order(&self, len: usize) -> Vec<usize> {
        match &self.order {
            None => (0..len).collect(),
            Some(Order::Reversed) => (0..len).rev().collect(),
            Some(Order::Given(first)) => {
                let mut order = Vec::with_capacity(len);
                for index in first.iter().copied().chain(0..len) {
                    if index < len && !order.contains(&index) {
                        order.push(index);
                    }
                }
                order
            }
        }
    }
}

/// How a script bends a read.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    pub(super) after_returns_start: bool,
    pub(super) page: Option<usize>,
    pub(super) empty: bool,
    pub(super) millis_behind: Option<i64>,
}

impl Reaction {
    /// As the model says.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            before: Vec::new(),
            act: true,
            fates: HashMap::new(),
            fate_by: None,
            order: None,
            read: Read::default(),
            after: Vec::new(),
            answer: Answer::Model,
            edits: Vec::new(),
            cut: None,
        }
    }

    /// The whole call is refused; nothing happens to the streams.
    #[must_use]
    pub fn refuse(fault: Fault) -> Self {
        Self { act: false, answer: Answer::Fault(fault), ..Self::plain() }
    }

    /// Nothing happens to the streams, and there is no answer.
    #[must_use]
    pub fn lose(cut: Cut) -> Self {
        Self { act: false, answer: Answer::Fault(Fault::internal()), cut: Some(cut), ..Self::plain() }
    }

    /// Nothing happens to the streams; the answer is this, such as the HTML page of a proxy.
    #[must_use]
    pub fn raw(status: u16, body: impl Into<Bytes>) -> Self {
        Self { act: false, answer: Answer::Raw { status, body: body.into() }, ..Self::plain() }
    }

    /// What becomes of the `index`-th entry of a put.
    #[must_use]
    pub fn entry(mut self, index: usize, fate: Fate) -> Self {
        self.fates.insert(index, fate);
        self
    }

    /// What becomes of the first entries of a put, in turn.
    #[must_use]
    pub fn entries(mut self, fates: impl IntoIterator<Item = Fate>) -> Self {
        self.fates.extend(fates.into_iter().enumerate());
        self
    }

    /// Refuses the entries of a put whose bits are set in `mask`: bit 0 is the first entry.
    #[must_use]
    pub fn refuse_mask(self, mask: u64, fault: &Fault) -> Self {
        let bits = (0..64).filter(|bit| mask & (1 << bit) != 0);
        bits.fold(self, |reaction, bit| reaction.entry(bit, Fate::Refuse(fault.clone())))
    }

    /// Decides each entry of a put by its index and content; [`entry`](Self::entry) wins where both speak.
    #[must_use]
    pub fn entries_by(mut self, decide: impl Fn(usize, &Entry) -> Fate + Send + Sync + 'static) -> Self {
        self.fate_by = Some(Arc::new(decide));
        self
    }

    /// Accepts the entries of a put in this order, so that sequence numbers do not follow the call's; entries that are
    /// not named come last.
    #[must_use]
    pub fn accept_in(mut self, order: impl IntoIterator<Item = usize>) -> Self {
        self.order = Some(Order::Given(order.into_iter().collect()));
        self
    }

    /// Accepts the entries of a put from the last to the first.
    #[must_use]
    pub fn accept_reversed(mut self) -> Self {
        self.order = Some(Order::Reversed);
        self
    }

    /// Waits at a gate before anything happens.
    #[must_use]
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.before.push(Wait::Gate(gate.clone()));
        self
    }

    /// Waits until the client has given up (closed the connection) before anything happens: what a timed-out call may
    /// do later.
    #[must_use]
    pub fn once_abandoned(mut self) -> Self {
        self.before.push(Wait::Abandoned);
        self
    }

    /// Acts, then keeps the answer back until the gate opens.
    #[must_use]
    pub fn hold_answer(mut self, gate: &Gate) -> Self {
        self.after.push(Wait::Gate(gate.clone()));
        self
    }

    /// Acts, then answers only when the client has given up: it never hears of it.
    #[must_use]
    pub fn never_answer(mut self) -> Self {
        self.after.push(Wait::Abandoned);
        self
    }

    /// Acts, but answers with this error.
    #[must_use]
    pub fn but_answer(mut self, fault: Fault) -> Self {
        self.answer = Answer::Fault(fault);
        self
    }

    /// Acts, but answers with this body, whole or malformed.
    #[must_use]
    pub fn but_send(mut self, status: u16, body: impl Into<Bytes>) -> Self {
        self.answer = Answer::Raw { status, body: body.into() };
        self
    }

    /// Acts, but cuts the answer.
    #[must_use]
    pub fn cut(mut self, cut: Cut) -> Self {
        self.cut = Some(cut);
        self
    }

    /// Changes the answer's JSON, errors excepted.
    #[must_use]
    pub fn edit(mut self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.edits.push(Arc::new(edit));
        self
    }

    /// Lies in `FailedRecordCount`.
    #[must_use]
    pub fn failed_count(self, count: i64) -> Self {
        self.edit(move |answer| answer["FailedRecordCount"] = count.into())
    }

    /// Leaves `n` results off the end of a `PutRecords` answer.
    #[must_use]
    pub fn fewer_results(self, n: usize) -> Self {
        self.edit(move |answer| {
            if let Some(records) = answer["Records"].as_array_mut() {
                records.truncate(records.len().saturating_sub(n));
            }
        })
    }

    /// Adds `n` results that belong to no entry to a `PutRecords` answer.
    #[must_use]
    pub fn more_results(self, n: usize) -> Self {
        self.edit(move |answer| {
            if let Some(records) = answer["Records"].as_array_mut() {
                let extra = json!({"ShardId": "shardId-000000000000", "SequenceNumber": "1"});
                records.extend(std::iter::repeat_n(extra, n));
            }
        })
    }

    /// An `AFTER_SEQUENCE_NUMBER` iterator that returns the record it should start after, as some emulators do.
    #[must_use]
    pub fn after_returns_its_start(mut self) -> Self {
        self.read.after_returns_start = true;
        self
    }

    /// A `GetRecords` page without records that does not move, this far behind: allowed wherever the shard has gaps.
    #[must_use]
    pub fn empty_page(mut self, millis_behind: i64) -> Self {
        self.read.empty = true;
        self.read.millis_behind = Some(millis_behind);
        self
    }

    /// A `GetRecords` page of at most `n` records.
    #[must_use]
    pub fn page_of(mut self, n: usize) -> Self {
        self.read.page = Some(n);
        self
    }

    /// Says this in `MillisBehindLatest`.
    #[must_use]
    pub fn millis_behind(mut self, millis: i64) -> Self {
        self.read.millis_behind = Some(millis);
        self
    }

    pub(super) fn put(&self, entries: &[Entry]) -> Put {
        let fate = |(index, entry): (usize, &Entry)| match (self.fates.get(&index), &self.fate_by) {
            (Some(fate), _) => fate.clone(),
            (None, Some(decide)) => decide(index, entry),
            (None, None) => Fate::Model,
        };
        Put { fates: entries.iter().enumerate().map(fate).collect(), order: self.order.clone() }
    }
}

impl fmt::Debug for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaction")
            .field("waits", &(self.before.len(), self.after.len()))
            .field("acts", &self.act)
            .field("fates", &self.fates)
            .field("order", &self.order)
            .field("read", &self.read)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

/// The scripts in force.
#[derive(Default)]
pub(super) struct Book {
    queues: Mutex<HashMap<Op, VecDeque<Reaction>>>,
    rules: Mutex<Vec<(Op, Rule)>>,
}

impl Book {
    pub(super) fn queue(&self, op: Op, reactions: impl IntoIterator<Item = Reaction>) {
        self.queues.lock().entry(op).or_default().extend(reactions);
    }

    pub(super) fn rule(&self, op: Op, rule: impl FnMut(&Request) -> Option<Reaction> + Send + 'static) {
        self.rules.lock().push((op, Arc::new(Mutex::new(rule))));
    }

    pub(super) fn queued(&self, op: Op) -> usize {
        self.queues.lock().get(&op).map_or(0, VecDeque::len)
    }

    pub(super) fn clear(&self) {
        self.queues.lock().clear();
        self.rules.lock().clear();
    }

    pub(super) fn reaction(&self, request: &Request) -> Reaction {
        if let Some(next) = self.queues.lock().get_mut(&request.op).and_then(VecDeque::pop_front) {
            return next;
        }
        // Rules are the test's code and may call the fake: nothing of the book is locked while they run.
        let rules: Vec<_> = self
            .rules
            .lock()
            .iter()
            .filter(|(op, _)| *op == request.op)
            .map(|(_, r)| Arc::clone(r))
            .collect();
        rules.iter().find_map(|rule| (rule.lock())(request)).unwrap_or_else(Reaction::plain)
    }
}
