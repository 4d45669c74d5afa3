//! The reference store of marks.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use eb_contract::stores::{
    Checkpoint, EventIdentity, Lease, Mark, MarkScope, ProcessedStore, Progress, Seen, check_owner,
};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, Cut, Error, ErrorKind, Offset, OffsetKind, PartitionId, Result,
    Timestamp, Topic,
};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use crate::MemoryClock;
use crate::error::invalid;

/// Marks in memory: they live as long as any clone of the store, and cloning is the way to reopen it. Checkpoints are kept
/// elsewhere.
///
/// Calls are done when they return their future; dropping it changes nothing.
#[derive(Clone, Default)]
pub struct MemoryProcessed {
    clock: MemoryClock,
    pub(crate) state: Arc<Mutex<Marks>>,
}

/// All marks, and what goes with them.
#[derive(Default)]
pub(crate) struct Marks {
    scopes: HashMap<MarkScope, Scope>,
    /// Where the records of an event lie that were handled, the first one first.
    events: HashMap<EventKey, Vec<(PartitionId, Offset)>>,
    fences: HashMap<(ConsumerName, Topic, PartitionId), Lease>,
    outage: Option<Error>,
}

type EventKey = (ConsumerName, BusIncarnation, Topic, [u8; 32]);

#[derive(Default)]
struct Scope {
    marks: BTreeMap<Place, Stored>,
    /// The checkpoint's cut; `None` while no step was recorded.
    committed: Option<Cut>,
}

struct Stored {
    event: Option<EventIdentity>,
    at: Timestamp,
}

/// An offset among others of its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(Offset);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or_else(|| self.0.kind().cmp(&other.0.kind()))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MemoryProcessed {
    /// No marks yet, by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No marks yet, by this clock.
    #[must_use]
    pub fn with_clock(clock: MemoryClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// From now on every call answers `error`, until [`MemoryProcessed::recover`]: for tests and drills.
    pub fn outage(&self, error: Error) {
        self.state.lock().outage = Some(error);
    }

    /// Ends an outage.
    pub fn recover(&self) {
        self.state.lock().outage = None;
    }

    /// The marks of a scope in the order of their places, with when they were recorded.
    #[must_use]
    pub fn marks(&self, scope: &MarkScope) -> Vec<(Mark, Timestamp)> {
        let state = self.state.lock();
        let marks = state.scopes.get(scope).map(|s| &s.marks);
        let all = marks.into_iter().flatten();
        all.map(|(place, m)| (Mark { offset: place.0, event: m.event.clone() }, m.at)).collect()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Marks) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match &state.outage {
            Some(outage) => Err(outage.clone()),
            None => work(&mut state),
        }
    }
}

pub(crate) fn scope_of(c: &Checkpoint) -> MarkScope {
    MarkScope {
        subscriber: c.consumer.clone(),
        bus_incarnation: c.bus_incarnation.clone(),
        topic: c.topic.clone(),
        partition_id: c.partition_id,
    }
}

fn place(scope: &MarkScope) -> String {
    format!("{} {}/{}", scope.subscriber, scope.topic, scope.partition_id)
}

impl Marks {
    /// Whether the marks of the step can be put: all of one kind, under a lease that nobody has overtaken.
    pub(crate) fn check(&self, step: &Progress, lease: &Lease) -> Result<()> {
        const OP: &str = "record step";
        let scope = scope_of(&step.checkpoint);
        check_owner(OP, &lease.owner).map_err(|e| e.at(place(&scope)))?;
        let cuts = [&step.checkpoint.cut, &step.committed].map(Cut::offset_kind);
        self.check_kinds(OP, &scope, cuts.into_iter().flatten(), &step.marks)?;
        let key = (scope.subscriber.clone(), scope.topic.clone(), scope.partition_id);
        match self.fences.get(&key) {
            Some(f) if lease.epoch < f.epoch || lease.epoch == f.epoch && lease.owner != f.owner => {
                let message =
                    format!("epoch {} of `{}` has taken over from epoch {}", f.epoch, f.owner, lease.epoch);
                Err(Error::new(ErrorKind::Fenced, OP, message).at(place(&scope)))
            }
            _ => Ok(()),
        }
    }

    fn check_kinds(
        &self,
        op: &'static str,
        scope: &MarkScope,
        cuts: impl Iterator<Item = OffsetKind>,
        marks: &[Mark],
    ) -> Result<()> {
        let stored = self.scopes.get(scope).and_then(|s| s.marks.keys().next()).map(|p| p.0.kind());
        let mut kinds = cuts.chain(marks.iter().map(|m| m.offset.kind()));
        let kind = stored.or_else(|| kinds.next());
        if kinds.any(|k| Some(k) != kind) {
            return Err(invalid(op, place(scope), "its offsets are not of the one kind that the scope has"));
        }
        Ok(())
    }

    /// Puts what [`Marks::check`] let pass; `committed` is the cut that is stored from now on.
    pub(crate) fn put(&mut self, step: &Progress, lease: &Lease, committed: Cut, at: Timestamp) {
        let scope = scope_of(&step.checkpoint);
        let fence = (scope.subscriber.clone(), scope.topic.clone(), scope.partition_id);
        self.fences.insert(fence, lease.clone());
        self.put_marks(&scope, &step.marks, at).committed = Some(committed);
    }

    fn put_marks(&mut self, scope: &MarkScope, marks: &[Mark], at: Timestamp) -> &mut Scope {
        let stored = self.scopes.entry(scope.clone()).or_default();
        for mark in marks {
            if stored.marks.contains_key(&Place(mark.offset)) {
                continue;
            }
            stored.marks.insert(Place(mark.offset), Stored { event: mark.event.clone(), at });
            if let Some(event) = &mark.event {
                let copies = self.events.entry(event_key(scope, event.dedupe)).or_default();
                copies.push((scope.partition_id, mark.offset));
            }
        }
        stored
    }

    fn seen(&self, scope: &MarkScope, record: &Mark, by_event: bool) -> Seen {
        if self.scopes.get(scope).is_some_and(|s| s.marks.contains_key(&Place(record.offset))) {
            return Seen::Here;
        }
        let Some(event) = record.event.as_ref().filter(|_| by_event) else { return Seen::No };
        let copies = self.events.get(&event_key(scope, event.dedupe)).map_or(&[][..], Vec::as_slice);
        let itself = (scope.partition_id, record.offset);
        match copies.iter().find(|copy| **copy != itself) {
            Some(&(partition_id, offset)) => Seen::Copy { partition_id, offset },
            None => Seen::No,
        }
    }

    fn remove(&mut self, scope: &MarkScope, offset: Offset) {
        let Some(stored) = self.scopes.get_mut(scope) else { return };
        let Some(Stored { event: Some(event), .. }) = stored.marks.remove(&Place(offset)) else { return };
        let key = event_key(scope, event.dedupe);
        if let Some(copies) = self.events.get_mut(&key) {
            copies.retain(|copy| *copy != (scope.partition_id, offset));
            if copies.is_empty() {
                self.events.remove(&key);
            }
        }
    }

    fn forget_before(&mut self, subscriber: &ConsumerName, before: Timestamp, limit: usize) -> u64 {
        let mut old = Vec::new();
        for (scope, stored) in self.scopes.iter().filter(|(scope, _)| scope.subscriber == *subscriber) {
            let done = |offset| stored.committed.is_none_or(|cut| cut.is_before(offset) == Some(false));
            let gone = stored.marks.iter().filter(|(place, mark)| mark.at < before && done(&place.0));
            old.extend(gone.map(|(place, mark)| (mark.at, scope.clone(), place.0)));
        }
        old.sort_by_key(|(at, ..)| *at);
        old.truncate(limit);
        for (_, scope, offset) in &old {
            self.remove(scope, *offset);
        }
        old.len() as u64
    }

    fn forget_from(&mut self, scope: &MarkScope, from: &Cut) -> Result<u64> {
        let Some(stored) = self.scopes.get_mut(scope) else { return Ok(0) };
        let mut behind = Vec::new();
        for place_of in stored.marks.keys() {
            match from.is_before(&place_of.0) {
                Some(true) => behind.push(place_of.0),
                Some(false) => {}
                None => {
                    return Err(invalid("forget marks", place(scope), "the cut is of another offset kind"));
                }
            }
        }
        if stored.committed.is_some_and(|cut| from.compare(&cut).is_some_and(Ordering::is_lt)) {
            stored.committed = Some(*from);
        }
        for offset in &behind {
            self.remove(scope, *offset);
        }
        Ok(behind.len() as u64)
    }
}

fn event_key(scope: &MarkScope, dedupe: [u8; 32]) -> EventKey {
    (scope.subscriber.clone(), scope.bus_incarnation.clone(), scope.topic.clone(), dedupe)
}

impl MemoryProcessed {
    pub(crate) fn mark_now(&self, scope: &MarkScope, marks: &[Mark]) -> Result<()> {
        let now = self.now();
        self.with(|all| {
            all.check_kinds("mark", scope, std::iter::empty(), marks)?;
            all.put_marks(scope, marks, now);
            Ok(())
        })
    }
}

impl ProcessedStore for MemoryProcessed {
    fn keeps_checkpoints(&self) -> bool {
        false
    }

    fn seen<'a>(
        &'a self,
        scope: &'a MarkScope,
        records: &'a [Mark],
        by_event: bool,
    ) -> BoxFuture<'a, Result<Vec<Seen>>> {
        let seen = self.with(|marks| Ok(records.iter().map(|r| marks.seen(scope, r, by_event)).collect()));
        ready(seen).boxed()
    }

    fn record<'a>(
        &'a self,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        let now = self.now();
        let recorded = self.with(|marks| {
            marks.check(step, lease)?;
            marks.put(step, lease, step.committed, now);
            Ok(None)
        });
        ready(recorded).boxed()
    }

    fn mark<'a>(&'a self, scope: &'a MarkScope, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        ready(self.mark_now(scope, marks)).boxed()
    }

    fn forget_before<'a>(
        &'a self,
        subscriber: &'a ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<u64>> {
        ready(self.with(|marks| Ok(marks.forget_before(subscriber, before, limit)))).boxed()
    }

    fn forget_from<'a>(&'a self, scope: &'a MarkScope, from: &'a Cut) -> BoxFuture<'a, Result<u64>> {
        ready(self.with(|marks| marks.forget_from(scope, from))).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        ready(self.with(|_| Ok(()))).boxed()
    }
}
