//! The reference store of dead letters.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use eb_contract::stores::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, NewDeadLetter, Resolution, Resolved,
    check_resolution,
};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, EbRef, Error, ErrorKind, PartitionKey, Result, Timestamp, Topic,
};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use crate::MemoryClock;

/// Dead letters in memory: they live as long as any clone of the store, and cloning is the way to reopen it.
///
/// Calls are done when they return their future; dropping it changes nothing.
#[derive(Clone, Default)]
pub struct MemoryDeadLetters {
    clock: MemoryClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    letters: BTreeMap<DeadLetterId, DeadLetter>,
    open: HashMap<(ConsumerName, BusIncarnation, EbRef), DeadLetterId>,
    outage: Option<Error>,
}

impl MemoryDeadLetters {
    /// No dead letters yet, by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No dead letters yet, by this clock.
    #[must_use]
    pub fn with_clock(clock: MemoryClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// From now on every call answers `error`, until [`MemoryDeadLetters::recover`]: for tests and drills.
    pub fn outage(&self, error: Error) {
        self.state.lock().outage = Some(error);
    }

    /// Ends an outage.
    pub fn recover(&self) {
        self.state.lock().outage = None;
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match &state.outage {
            Some(outage) => Err(outage.clone()),
            None => work(&mut state),
        }
    }

    fn put_one(&self, new: &NewDeadLetter) -> Result<DeadLetterId> {
        new.check()?;
        self.with(|state| Ok(state.put(new, self.clock.now())))
    }

    /// Whether these could be put now; then `work` is done, and they are put if it succeeds. Nobody sees the one without the other.
    pub(crate) fn put_with<T>(
        &self,
        letters: &[NewDeadLetter],
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if letters.is_empty() {
            return work();
        }
        letters.iter().try_for_each(NewDeadLetter::check)?;
        self.with(|state| {
            let done = work()?;
            letters.iter().for_each(|letter| _ = state.put(letter, self.clock.now()));
            Ok(done)
        })
    }

    /// Whether it can be resolved now; then `work` is done, and it is resolved if that succeeds.
    pub(crate) fn resolve_with(
        &self,
        id: DeadLetterId,
        how: Resolution,
        reason: &str,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<DeadLetter> {
        const OP: &str = "resolve dead letter";
        check_resolution(reason)?;
        self.with(|state| {
            let letter = state.letters.get_mut(&id).ok_or_else(|| not_found(OP, id))?;
            if letter.resolved.is_some() {
                let message = "it is resolved already";
                return Err(Error::new(ErrorKind::AlreadyExists, OP, message).at(id.0));
            }
            work()?;
            letter.resolved = Some(Resolved { how, at: self.clock.now(), reason: reason.to_owned() });
            let letter = letter.clone();
            state.open.remove(&place_of(&letter.letter));
            Ok(letter)
        })
    }
}

impl State {
    fn put(&mut self, new: &NewDeadLetter, now: Timestamp) -> DeadLetterId {
        let key = place_of(new);
        if let Some(id) = self.open.get(&key) {
            return *id;
        }
        let id = DeadLetterId(self.letters.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        let letter = DeadLetter { id, letter: new.clone(), put_at: now, resolved: None };
        self.letters.insert(id, letter);
        self.open.insert(key, id);
        id
    }
}

fn place_of(letter: &NewDeadLetter) -> (ConsumerName, BusIncarnation, EbRef) {
    (letter.consumer.clone(), letter.bus_incarnation.clone(), letter.record.eb_ref.clone())
}

fn not_found(op: &'static str, id: DeadLetterId) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such dead letter").at(id.0)
}

fn fits(filter: &DeadLetterFilter, letter: &DeadLetter) -> bool {
    let new = &letter.letter;
    (filter.resolved_too || letter.resolved.is_none())
        && filter.consumer.as_ref().is_none_or(|c| new.consumer == *c)
        && filter.topic.as_ref().is_none_or(|t| new.record.eb_ref.topic == *t)
        && filter.partition_key.as_ref().is_none_or(|k| new.record.partition_key == *k)
}

impl DeadLetterStore for MemoryDeadLetters {
    fn put<'a>(&'a self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Vec<Result<DeadLetterId>>> {
        ready(letters.iter().map(|letter| self.put_one(letter)).collect()).boxed()
    }

    fn list<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>>> {
        let page = self.with(|state| {
            let from = filter.after.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = state.letters.range((from, Bound::Unbounded)).map(|(_, letter)| letter);
            Ok(behind.filter(|letter| fits(filter, letter)).take(max).cloned().collect())
        });
        ready(page).boxed()
    }

    fn get(&self, id: DeadLetterId) -> BoxFuture<'_, Result<DeadLetter>> {
        let letter = self
            .with(|state| state.letters.get(&id).cloned().ok_or_else(|| not_found("read dead letter", id)));
        ready(letter).boxed()
    }

    fn resolve<'a>(
        &'a self,
        id: DeadLetterId,
        how: Resolution,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        ready(self.resolve_with(id, how, reason, || Ok(()))).boxed()
    }

    fn parked_keys<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Vec<PartitionKey>>> {
        let keys = self.with(|state| {
            let open = state.open.values().filter_map(|id| state.letters.get(id)).map(|l| &l.letter);
            let parked =
                open.filter(|l| l.parks_key && l.consumer == *consumer && l.record.eb_ref.topic == *topic);
            let mut keys: Vec<_> = parked.map(|l| l.record.partition_key.clone()).collect();
            keys.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            keys.dedup();
            Ok(keys)
        });
        ready(keys).boxed()
    }

    fn open_of<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        incarnation: &'a BusIncarnation,
        records: &'a [EbRef],
    ) -> BoxFuture<'a, Result<Vec<Option<DeadLetterId>>>> {
        let open = self.with(|state| {
            let of = |record: &EbRef| (consumer.clone(), incarnation.clone(), record.clone());
            Ok(records.iter().map(|record| state.open.get(&of(record)).copied()).collect())
        });
        ready(open).boxed()
    }

    fn count_open<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<u64>> {
        let count = self.with(|state| {
            Ok(state.open.keys().filter(|(c, ..)| consumer.is_none_or(|wanted| c == wanted)).count() as u64)
        });
        ready(count).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        ready(self.with(|_| Ok(()))).boxed()
    }
}
