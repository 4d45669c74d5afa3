//! The reference admission index of one gate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, OpenReservation,
    PolicyEpoch, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BoxFuture, Error, ErrorKind, Result};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

/// An admission index in memory, for one gate.
///
/// What [`AdmissionIndex::commit_checkpoint`] or [`AdmissionIndex::close`] has stored counts as durable:
/// [`MemoryAdmissionIndex::reopen`] comes back with everything, [`MemoryAdmissionIndex::reopen_after_crash`] with
/// what was durable only. After more than [`AdmissionIndex::max_lag`] entries it stores by itself, so that no more
/// than those are ever lost.
///
/// A reservation is a number and nothing more: with one gate nobody else can be publishing the key, so one that was
/// neither confirmed nor released can be reserved again. Calls are done when they return their future; dropping it changes nothing.
pub struct MemoryAdmissionIndex {
    data: Arc<Mutex<Data>>,
    closed: AtomicBool,
    max_lag: u64,
}

#[derive(Default)]
struct Data {
    entries: BTreeMap<AdmissionKey, AdmissionEntry>,
    last_reservation: u64,
    checkpoint: Option<IndexCheckpoint>,
    policies: Vec<PolicyEpoch>,
    /// What a crash takes back.
    volatile: Vec<AdmissionKey>,
    outage: Option<Error>,
}

impl Default for MemoryAdmissionIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryAdmissionIndex {
    /// An empty index that a crash may leave 100,000 records behind its log.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_lag(100_000)
    }

    /// An empty index that a crash may leave `max_lag` records behind its log.
    #[must_use]
    pub fn with_max_lag(max_lag: u64) -> Self {
        Self { data: Arc::default(), closed: AtomicBool::new(false), max_lag }
    }

    /// Another opening of the same data, as after a clean restart.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self { data: self.data.clone(), closed: AtomicBool::new(false), max_lag: self.max_lag }
    }

    /// The index as a crash at this moment would leave it: what was not stored is gone. This one and its other
    /// openings share the loss.
    #[must_use]
    pub fn reopen_after_crash(&self) -> Self {
        let mut data = self.data.lock();
        while let Some(key) = data.volatile.pop() {
            data.entries.remove(&key);
        }
        drop(data);
        self.reopen()
    }

    /// From now on every call answers `error`, until [`MemoryAdmissionIndex::recover`]: for tests and drills.
    pub fn outage(&self, error: Error) {
        self.data.lock().outage = Some(error);
    }

    /// Ends an outage.
    pub fn recover(&self) {
        self.data.lock().outage = None;
    }

    fn with<T>(&self, op: &'static str, work: impl FnOnce(&mut Data) -> T) -> Result<T> {
        let mut data = self.data.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, op, "the index was closed").advise("open it anew"));
        }
        match &data.outage {
            Some(outage) => Err(outage.clone()),
            None => Ok(work(&mut data)),
        }
    }
}

impl Data {
    fn put(&mut self, entry: AdmissionEntry) {
        self.volatile.push(entry.key);
        self.entries.insert(entry.key, entry);
    }

    /// What stands stays; gives back what stands in place of other entries.
    fn apply(&mut self, entries: impl Iterator<Item = AdmissionEntry>, max_lag: u64) -> Vec<AdmissionEntry> {
        let mut standing = Vec::new();
        for entry in entries {
            match self.entries.get(&entry.key) {
                None => self.put(entry),
                Some(known) if *known != entry => standing.push(known.clone()),
                Some(_) => {}
            }
            if self.volatile.len() as u64 > max_lag {
                self.volatile.clear();
            }
        }
        standing
    }

    fn reserve(&mut self, requests: &[ReserveRequest]) -> Vec<Reserved> {
        requests
            .iter()
            .map(|request| match self.entries.get(&request.key) {
                Some(entry) => Reserved::Admitted(entry.clone()),
                None => {
                    self.last_reservation += 1;
                    Reserved::Fresh(ReservationId(self.last_reservation))
                }
            })
            .collect()
    }
}

impl AdmissionIndex for MemoryAdmissionIndex {
    fn is_shared(&self) -> bool {
        false
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn max_lag(&self) -> u64 {
        self.max_lag
    }

    fn reserve<'a>(&'a self, requests: &'a [ReserveRequest]) -> BoxFuture<'a, Result<Vec<Reserved>>> {
        ready(self.with("reserve", |data| data.reserve(requests))).boxed()
    }

    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let entries = confirmed.into_iter().map(|confirmation| confirmation.entry);
        ready(self.with("confirm", |data| data.apply(entries, self.max_lag))).boxed()
    }

    fn renew(&self, _reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(self.with("renew", |_| ())).boxed()
    }

    fn release(&self, _reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(self.with("release", |_| ())).boxed()
    }

    fn give_up(&self, _reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(self.with("give_up", |_| ())).boxed()
    }

    fn apply(&self, entries: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        ready(self.with("apply", |data| data.apply(entries.into_iter(), self.max_lag))).boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<IndexCheckpoint>>> {
        ready(self.with("checkpoint", |data| data.checkpoint.clone())).boxed()
    }

    fn commit_checkpoint(&self, checkpoint: IndexCheckpoint) -> BoxFuture<'_, Result<()>> {
        let committed = self.with("commit_checkpoint", |data| {
            data.checkpoint = Some(checkpoint);
            data.volatile.clear();
        });
        ready(committed).boxed()
    }

    fn get(&self, key: AdmissionKey) -> BoxFuture<'_, Result<Option<AdmissionEntry>>> {
        ready(self.with("get", |data| data.entries.get(&key).cloned())).boxed()
    }

    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let first = AdmissionKey { event, dedupe: [0; 32] };
        let last = AdmissionKey { event, dedupe: [0xff; 32] };
        let found = self.with("find_event", |data| {
            data.entries.range(first..=last).map(|(_, entry)| entry.clone()).collect()
        });
        ready(found).boxed()
    }

    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let page = self.with("scan", |data| {
            data.entries.range((from, Unbounded)).take(max).map(|(_, entry)| entry.clone()).collect()
        });
        ready(page).boxed()
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<OpenReservation>>> {
        ready(self.with("open_reservations", |_| Vec::new())).boxed()
    }

    fn record_policy(&self, epoch: PolicyEpoch) -> BoxFuture<'_, Result<()>> {
        let recorded = self.with("record_policy", |data| {
            if data.policies.last().is_none_or(|newest| newest.policy != epoch.policy) {
                data.policies.push(epoch);
            }
        });
        ready(recorded).boxed()
    }

    fn policy_history(&self) -> BoxFuture<'_, Result<Vec<PolicyEpoch>>> {
        ready(self.with("policy_history", |data| data.policies.clone())).boxed()
    }

    fn approximate_len(&self) -> u64 {
        self.data.lock().entries.len() as u64
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        ready(self.with("probe", |_| ())).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        let mut data = self.data.lock();
        data.volatile.clear();
        self.closed.store(true, Ordering::Relaxed);
        drop(data);
        ready(Ok(())).boxed()
    }
}
