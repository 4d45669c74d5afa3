//! The index as the gate sees it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, OpenReservation,
    PolicyEpoch, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BoxFuture, Error, ErrorKind, Result};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use super::layout;
use super::offload::offload;
use super::store::Store;
use super::tail::Tail;
use super::writer::Shared;
use crate::AdmissionIndexConfig;
use crate::error;
use crate::lock::DirLock;

const LOCK_FILE: &str = "lock";
/// Entries that are applied in one go; up to so many of the first on the caller's thread.
const APPLY_INLINE: usize = 64;
const APPLY_CHUNK: usize = 4_096;

/// The admission index of one gate, in a folder of its own. See the [crate docs](crate) for what it promises.
///
/// Dropping it without [`AdmissionIndex::close`] is like a crash: what was only in memory is read from the log the
/// next time. Dropping waits for a write or merge under way, up to about a second.
pub struct EmbeddedAdmissionIndex {
    shared: Arc<Shared>,
    max_lag: usize,
    holding: Mutex<Option<Holding>>,
}

/// What ends with the index's use.
struct Holding {
    threads: Vec<JoinHandle<()>>,
    _lock: DirLock,
}

/// What an index holds, for people and gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexStats {
    /// Events on disk.
    pub stored: u64,
    /// Admissions in memory only.
    pub in_memory: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Tables that wait to be merged.
    pub unmerged_tables: u64,
}

impl EmbeddedAdmissionIndex {
    /// Opens the index in its folder, or makes a new one there. Blocks: some milliseconds for each GiB on disk.
    ///
    /// # Errors
    /// `Locked` with the holder while another process (or handle) has it open; `WrongVersion` or `Corrupt`, saying to
    /// rebuild, when it is not one that this program can read; `InvalidInput` for limits out of range; `Io` or
    /// `StorageFull`.
    pub fn open(config: &AdmissionIndexConfig) -> Result<Self> {
        const OP: &str = "open";
        if !(1..=AdmissionIndexConfig::LARGEST_LAG).contains(&config.max_lag) {
            let what = format!("max_lag must be 1 to {}", AdmissionIndexConfig::LARGEST_LAG);
            return Err(Error::new(ErrorKind::InvalidInput, OP, what).at(config.dir.display()));
        }
        let dir = config.dir.as_path();
        fs::create_dir_all(dir).map_err(|e| error::io(OP, dir, e))?;
        let lock = DirLock::acquire(OP, &dir.join(LOCK_FILE))?;
        let (store, header) = Store::open(dir, config.cache_bytes)?;
        let tail = Tail::new(header.count, header.checkpoint, header.policies);
        let index = Self {
            shared: Arc::new(Shared::new(store, tail, config.flush_at())),
            max_lag: config.max_lag,
            holding: Mutex::new(Some(Holding { threads: Vec::new(), _lock: lock })),
        };
        index.start("eb-index write", Shared::write_batches)?;
        index.start("eb-index merge", Shared::merge_tables)?;
        Ok(index)
    }

    fn start(&self, name: &str, life: fn(&Shared)) -> Result<()> {
        let shared = self.shared.clone();
        let thread =
            thread::Builder::new().name(name.to_owned()).spawn(move || life(&shared)).map_err(|e| {
                Error::new(ErrorKind::Unavailable, "open", "the index's threads could not be started")
                    .with_source(e)
            })?;
        if let Some(holding) = self.holding.lock().as_mut() {
            holding.threads.push(thread);
        }
        Ok(())
    }

    /// Removes the index in `dir`, so that the next open starts empty and the gate refills it from the log. Other
    /// files in the folder stay. Blocks.
    ///
    /// # Errors
    /// `Locked` while the index is in use; `Io`. A removal that was cut short can be repeated, and what is left opens
    /// as an empty index.
    pub fn remove(dir: &Path) -> Result<()> {
        const OP: &str = "remove";
        if !dir.exists() {
            return Ok(());
        }
        let _lock = DirLock::acquire(OP, &dir.join(LOCK_FILE))?;
        layout::remove(dir).map_err(|e| error::io(OP, dir, e))
    }

    /// What it holds now.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        let tail = self.shared.tail.lock();
        IndexStats {
            stored: tail.count,
            in_memory: tail.len() as u64,
            disk_bytes: self.shared.store.disk_bytes(),
            unmerged_tables: self.shared.store.unmerged() as u64,
        }
    }

    /// Looks keys up in the table and hands `then` what it holds, with the tail, at one moment: nothing that was
    /// known before it is missed.
    fn at_one_moment<T>(
        shared: &Shared,
        op: &'static str,
        keys: &(impl Iterator<Item = AdmissionKey> + Clone),
        then: impl FnOnce(&mut Tail, Vec<Option<AdmissionEntry>>) -> T,
    ) -> Result<T> {
        loop {
            let done = usable(&mut shared.tail.lock(), op)?.done;
            let stored = keys.clone().map(|key| shared.store.get(op, &key)).collect::<Result<Vec<_>>>()?;
            let mut tail = shared.tail.lock();
            let tail = usable(&mut tail, op)?;
            // Otherwise entries have moved from the tail to the table in between, perhaps behind our back.
            if tail.done == done {
                return Ok(then(tail, stored));
            }
        }
    }

    fn reserve_now(&self, requests: &[ReserveRequest]) -> Result<Vec<Reserved>> {
        let keys = requests.iter().map(|request| request.key);
        Self::at_one_moment(&self.shared, "reserve", &keys, |tail, stored| {
            let known = |(request, stored): (&ReserveRequest, Option<AdmissionEntry>)| match tail
                .get(&request.key)
                .cloned()
                .or(stored)
            {
                Some(entry) => Reserved::Admitted(entry),
                None => Reserved::Fresh(tail.reserve()),
            };
            requests.iter().zip(stored).map(known).collect()
        })
    }

    /// Waits until the tail has room for `n` more and hands it to `then`, which says whether it used it.
    async fn with_room<T>(
        &self,
        op: &'static str,
        n: usize,
        mut then: impl FnMut(&mut Tail) -> T,
    ) -> Result<T> {
        loop {
            // From before the look at the tail, so that no change is missed.
            let mut progress = self.shared.progress.subscribe();
            {
                let mut tail = self.shared.tail.lock();
                let tail = usable(&mut tail, op)?;
                if self.has_room(tail, n) {
                    let done = then(tail);
                    self.shared.wake_if_due(tail);
                    return Ok(done);
                }
                if let Some(cause) = &tail.write_error {
                    return Err(Error::new(
                        cause.kind().clone(),
                        op,
                        format!("{} admissions wait to be written, and the index cannot write", tail.len()),
                    )
                    .with_retry(cause.retry())
                    .with_source(cause.clone()));
                }
                tail.request(None);
                self.shared.work.notify_one();
            }
            // The sender lives as long as this handle.
            let _ = progress.changed().await;
        }
    }

    /// An empty tail takes any number: a call that is larger than the tail must not wait for ever.
    fn has_room(&self, tail: &Tail, n: usize) -> bool {
        tail.len() == 0 || tail.len() + n <= self.max_lag
    }

    async fn confirm_all(&self, mut confirmed: Vec<Confirmation>) -> Result<()> {
        let n = confirmed.len();
        let rest = self
            .with_room("confirm", n, |tail| {
                let mut rest = Vec::new();
                for confirmation in confirmed.drain(..) {
                    if tail.vouches(confirmation.reservation) {
                        tail.confirm(confirmation);
                    } else {
                        rest.push(confirmation.entry);
                    }
                }
                rest
            })
            .await?;
        self.apply_all("confirm", rest).await
    }

    async fn apply_all(&self, op: &'static str, entries: Vec<AdmissionEntry>) -> Result<()> {
        let mut entries = entries;
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(APPLY_CHUNK).min(self.max_lag));
            self.apply_chunk(op, entries.into()).await?;
            entries = rest;
        }
        Ok(())
    }

    async fn apply_chunk(&self, op: &'static str, chunk: Arc<[AdmissionEntry]>) -> Result<()> {
        loop {
            self.with_room(op, chunk.len(), |_| ()).await?;
            let (shared, chunk, max_lag) = (self.shared.clone(), chunk.clone(), self.max_lag);
            let inline = chunk.len() <= APPLY_INLINE;
            let work = move || {
                let keys = chunk.iter().map(|entry| entry.key);
                Self::at_one_moment(&shared, op, &keys, |tail, stored| {
                    // Another call may have taken the room.
                    let room = tail.len() == 0 || tail.len() + chunk.len() <= max_lag;
                    if room {
                        for (entry, stored) in chunk.iter().zip(&stored) {
                            tail.apply(entry.clone(), stored.as_ref());
                        }
                    }
                    shared.wake_if_due(tail);
                    room
                })
            };
            let applied = if inline { work()? } else { offload(op, work).await? };
            if applied {
                return Ok(());
            }
        }
    }

    /// Has everything that is in memory stored, with what `add` puts to it, and waits.
    async fn store_all(&self, op: &'static str, add: impl FnOnce(&mut Tail) -> u64) -> Result<()> {
        let mut progress = self.shared.progress.subscribe();
        let failures = progress.borrow().failures;
        let ticket = {
            let mut tail = self.shared.tail.lock();
            add(usable(&mut tail, op)?)
        };
        self.wait_stored(op, &mut progress, failures, ticket).await
    }

    async fn wait_stored(
        &self,
        op: &'static str,
        progress: &mut tokio::sync::watch::Receiver<super::writer::Progress>,
        failures: u64,
        ticket: u64,
    ) -> Result<()> {
        self.shared.work.notify_one();
        let settled = progress.wait_for(|p| p.done >= ticket || p.failures > failures || p.ended).await;
        match settled {
            Ok(p) if p.done >= ticket => Ok(()),
            Ok(p) => Err(p.error.clone().unwrap_or_else(|| error::closed(op))),
            Err(_) => Err(error::closed(op)),
        }
    }

    async fn close_all(&self) -> Result<()> {
        const OP: &str = "close";
        let mut progress = self.shared.progress.subscribe();
        let failures = progress.borrow().failures;
        let ticket = {
            let mut tail = self.shared.tail.lock();
            if tail.closed {
                return Ok(());
            }
            tail.closed = true;
            tail.fatal.is_none().then(|| tail.request(None))
        };
        let stored = match ticket {
            Some(ticket) => self.wait_stored(OP, &mut progress, failures, ticket).await,
            // What cannot be stored any more is read from the log by the next open.
            None => Ok(()),
        };
        self.shared.stop();
        let holding = self.holding.lock().take();
        if let Some(holding) = holding {
            offload(OP, move || {
                holding.end();
                Ok(())
            })
            .await?;
        }
        stored
    }
}

/// The tail of an index that was neither closed nor given up.
fn usable<'a>(tail: &'a mut Tail, op: &'static str) -> Result<&'a mut Tail> {
    if tail.closed {
        return Err(error::closed(op));
    }
    match &tail.fatal {
        Some(fatal) => Err(fatal.clone()),
        None => Ok(tail),
    }
}

impl Holding {
    fn end(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the admission index panicked");
            }
        }
        // The lock goes last, when nothing writes any more.
    }
}

impl Drop for EmbeddedAdmissionIndex {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(holding) = self.holding.lock().take() {
            holding.end();
        }
    }
}

impl std::fmt::Debug for EmbeddedAdmissionIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedAdmissionIndex").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl AdmissionIndex for EmbeddedAdmissionIndex {
    fn is_shared(&self) -> bool {
        false
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
    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<()>> {
        self.confirm_all(confirmed).boxed()
    }

    fn release(&self, _: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        ready(usable(&mut self.shared.tail.lock(), "release").map(|_| ())).boxed()
    }

    /// Dropped half-way, the first of them are taken: applying again is harmless.
    fn apply(&self, entries: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<()>> {
        self.apply_all("apply", entries).boxed()
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
        let found = Self::at_one_moment(&self.shared, "get", &std::iter::once(key), |tail, mut stored| {
            tail.get(&key).cloned().or_else(|| stored.pop().flatten())
        });
        ready(found).boxed()
    }

    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let shared = self.shared.clone();
        let work = move || {
            const OP: &str = "find_event";
            // The tail first: what leaves it now is in the table already.
            let newer = usable(&mut shared.tail.lock(), OP)?.entries(|key| key.event == event);
            Ok(overlay(shared.store.find_event(OP, event)?, newer))
        };
        offload("find_event", work).boxed()
    }

    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let shared = self.shared.clone();
        let work = move || {
            const OP: &str = "scan";
            let mut newer =
                usable(&mut shared.tail.lock(), OP)?.entries(|key| after.is_none_or(|a| *key > a));
            let stored = shared.store.page(OP, after, max)?;
            if stored.len() == max {
                // Behind a full page there may be stored entries that sort before those of the tail.
                let last = stored.last().map(|entry| entry.key);
                newer.retain(|key, _| last.is_some_and(|last| *key <= last));
            }
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

/// Both in key order, each key once, the newer state of it.
fn overlay(
    stored: Vec<AdmissionEntry>,
    mut newer: std::collections::HashMap<AdmissionKey, AdmissionEntry>,
) -> Vec<AdmissionEntry> {
    let mut all: Vec<_> = stored.into_iter().map(|entry| newer.remove(&entry.key).unwrap_or(entry)).collect();
    if !newer.is_empty() {
        all.extend(newer.into_values());
        all.sort_unstable_by_key(|entry| entry.key);
    }
    all
}
