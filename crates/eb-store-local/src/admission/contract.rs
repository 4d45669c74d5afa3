//! The contract's calls, each in terms of what [`super::index`] offers.

use std::collections::HashMap;
use std::time::Duration;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, OpenReservation,
    PolicyEpoch, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BoxFuture, Result};
use futures_util::FutureExt;
use futures_util::future::ready;

use super::index::{EmbeddedAdmissionIndex, usable};
use super::offload::offload;
use super::store::Store;

impl AdmissionIndex for EmbeddedAdmissionIndex {
    fn is_shared(&self) -> bool {
        false
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn max_lag(&self) -> u64 {
        self.max_lag as u64
    }

    /// Done when it returns: dropping the future gives nothing back, and costs nothing, since a reservation here is
    /// a number that nobody waits for.
    fn reserve<'a>(&'a self, requests: &'a [ReserveRequest]) -> BoxFuture<'a, Result<Vec<Reserved>>> {
        ready(self.reserve_now(requests)).boxed()
    }

    /// Waits while the tail is full. Dropped while it waits, none of them is taken.
    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.confirm_all(confirmed).boxed()
    }

    fn renew(&self, _: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(usable(&mut self.shared.tail.lock(), "renew").map(|_| ())).boxed()
    }

    fn release(&self, _: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(usable(&mut self.shared.tail.lock(), "release").map(|_| ())).boxed()
    }

    fn give_up(&self, _: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(usable(&mut self.shared.tail.lock(), "give_up").map(|_| ())).boxed()
    }

    /// Dropped half-way, the first of them are taken: applying again is harmless.
    fn apply(&self, entries: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.apply_all(entries).boxed()
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<IndexCheckpoint>>> {
        ready(usable(&mut self.shared.tail.lock(), "checkpoint").map(|tail| tail.checkpoint.clone())).boxed()
    }

    /// Once polled, it is stored even if the future is dropped. After an error it may still be stored, by a later
    /// attempt, and always with everything before it.
    fn commit_checkpoint(&self, checkpoint: IndexCheckpoint) -> BoxFuture<'_, Result<()>> {
        self.store_all("commit_checkpoint", |tail| tail.request(Some(checkpoint))).boxed()
    }

    fn get(&self, key: AdmissionKey) -> BoxFuture<'_, Result<Option<AdmissionEntry>>> {
        let look_up = |store: &Store| store.get("get", &key);
        let found = Self::at_one_moment(&self.shared, "get", look_up, |tail, stored| {
            tail.get(&key).cloned().or(stored)
        });
        ready(found).boxed()
    }

    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let shared = self.shared.clone();
        let work = move || {
            const OP: &str = "find_event";
            let (stored, newer) = Self::at_one_moment(
                &shared,
                OP,
                |store| store.find_event(OP, event),
                |tail, stored| (stored, tail.entries(|key| key.event == event)),
            )?;
            Ok(overlay(stored, newer))
        };
        offload("find_event", work).boxed()
    }

    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let shared = self.shared.clone();
        let work = move || {
            const OP: &str = "scan";
            let (stored, newer) = Self::at_one_moment(
                &shared,
                OP,
                |store| store.page(OP, after, max),
                |tail, stored| {
                    // Behind a full page there may be stored entries that sort before those of the tail.
                    let full = stored.len() == max;
                    let last = stored.last().map(|entry| entry.key);
                    let within = |key: &AdmissionKey| !full || last.is_some_and(|last| *key <= last);
                    let newer = tail.entries(|key| after.is_none_or(|after| *key > after) && within(key));
                    (stored, newer)
                },
            )?;
            let mut page = overlay(stored, newer);
            page.truncate(max);
            Ok(page)
        };
        offload("scan", work).boxed()
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<OpenReservation>>> {
        ready(usable(&mut self.shared.tail.lock(), "open_reservations").map(|_| Vec::new())).boxed()
    }

    fn record_policy(&self, epoch: PolicyEpoch) -> BoxFuture<'_, Result<()>> {
        self.store_all("record_policy", |tail| {
            if tail.all_policies().next_back().is_none_or(|newest| newest.policy != epoch.policy) {
                tail.add_policy(epoch);
            }
            tail.request(None)
        })
        .boxed()
    }

    fn policy_history(&self) -> BoxFuture<'_, Result<Vec<PolicyEpoch>>> {
        ready(usable(&mut self.shared.tail.lock(), "policy_history").map(|tail| tail.policies.clone()))
            .boxed()
    }

    fn approximate_len(&self) -> u64 {
        let tail = self.shared.tail.lock();
        tail.count + tail.len() as u64
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        let failing = {
            let mut tail = self.shared.tail.lock();
            match usable(&mut tail, "probe") {
                Ok(tail) => tail.write_error.clone().or_else(|| tail.compact_error.clone()),
                Err(e) => Some(e),
            }
        };
        let nobody = AdmissionKey { event: [0; 8], dedupe: [0; 32] };
        let answer = failing.map_or_else(|| self.shared.store.get("probe", &nobody).map(|_| ()), Err);
        ready(answer).boxed()
    }

    /// Dropped half-way, the index is closed all the same, and dropping the handle ends the rest.
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.close_all().boxed()
    }
}

/// Both in key order, each key once.
fn overlay(
    stored: Vec<AdmissionEntry>,
    mut newer: HashMap<AdmissionKey, AdmissionEntry>,
) -> Vec<AdmissionEntry> {
    let mut all: Vec<_> = stored.into_iter().map(|entry| newer.remove(&entry.key).unwrap_or(entry)).collect();
    if !newer.is_empty() {
        all.extend(newer.into_values());
        all.sort_unstable_by_key(|entry| entry.key);
    }
    all
}
