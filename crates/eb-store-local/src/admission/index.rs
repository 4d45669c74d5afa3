//! The index: opening, the steps that its calls are made of, closing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use eb_contract::stores::{AdmissionEntry, Confirmation, ReserveRequest, Reserved};
use eb_contract::{Error, ErrorKind, Result};
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
/// Dropping it without [`close`](eb_contract::stores::AdmissionIndex::close) is like a crash: what was only in memory is read from the log the
/// next time. Dropping waits for a write or merge under way, up to about a second.
pub struct EmbeddedAdmissionIndex {
    pub(super) shared: Arc<Shared>,
    pub(super) max_lag: usize,
    holding: Mutex<Option<Holding>>,
}

/// Where entries come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Their own publishes, each under a reservation of its key.
    Confirmed,
    /// The log: their keys may be reserved by others.
    Found,
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
    /// `Locked` while the index is in use; `Io`. A removal that was cut short can be repeated; the next open finishes it,
    /// too, and starts empty.
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

    /// Asks the table and hands `then` its answer, with the tail, at one moment: nothing that was known before it is
    /// missed.
    pub(super) fn at_one_moment<Q, T>(
        shared: &Shared,
        op: &'static str,
        ask: impl Fn(&Store) -> Result<Q>,
        then: impl FnOnce(&mut Tail, Q) -> T,
    ) -> Result<T> {
        loop {
            let done = usable(&mut shared.tail.lock(), op)?.done;
            let answer = ask(&shared.store)?;
            let mut tail = shared.tail.lock();
            let tail = usable(&mut tail, op)?;
            // Otherwise entries have moved from the tail to the table in between, perhaps behind our back.
            if tail.done == done {
                return Ok(then(tail, answer));
            }
        }
    }

    pub(super) fn reserve_now(&self, requests: &[ReserveRequest]) -> Result<Vec<Reserved>> {
        let look_up =
            |store: &Store| requests.iter().map(|r| store.get("reserve", &r.key)).collect::<Result<Vec<_>>>();
        Self::at_one_moment(&self.shared, "reserve", look_up, |tail, stored| {
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

    /// Gives back what stands in place of confirmed entries.
    pub(super) async fn confirm_all(&self, mut confirmed: Vec<Confirmation>) -> Result<Vec<AdmissionEntry>> {
        const OP: &str = "confirm";
        let n = confirmed.len();
        let (mut standing, rest) = self
            .with_room(OP, n, |tail| {
                let (mut standing, mut rest) = (Vec::new(), Vec::new());
                for Confirmation { reservation, entry } in confirmed.drain(..) {
                    if tail.vouches(reservation) {
                        standing.extend(tail.take(entry, None));
                    } else {
                        rest.push(entry);
                    }
                }
                (standing, rest)
            })
            .await?;
        if !rest.is_empty() {
            standing.extend(self.take_all(OP, rest, Origin::Confirmed).await?);
        }
        Ok(standing)
    }

    /// Gives back what stands in place of found entries.
    pub(super) async fn apply_all(&self, entries: Vec<AdmissionEntry>) -> Result<Vec<AdmissionEntry>> {
        self.take_all("apply", entries, Origin::Found).await
    }

    async fn take_all(
        &self,
        op: &'static str,
        mut entries: Vec<AdmissionEntry>,
        origin: Origin,
    ) -> Result<Vec<AdmissionEntry>> {
        let mut standing = Vec::new();
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(APPLY_CHUNK).min(self.max_lag));
            standing.extend(self.take_chunk(op, entries.into(), origin).await?);
            entries = rest;
        }
        Ok(standing)
    }

    async fn take_chunk(
        &self,
        op: &'static str,
        chunk: Arc<[AdmissionEntry]>,
        origin: Origin,
    ) -> Result<Vec<AdmissionEntry>> {
        loop {
            self.with_room(op, chunk.len(), |_| ()).await?;
            let (shared, chunk, max_lag) = (self.shared.clone(), chunk.clone(), self.max_lag);
            let inline = chunk.len() <= APPLY_INLINE;
            let work = move || {
                let look_up = |store: &Store| {
                    chunk.iter().map(|entry| store.get(op, &entry.key)).collect::<Result<Vec<_>>>()
                };
                Self::at_one_moment(&shared, op, look_up, |tail, stored| {
                    // Another call may have taken the room.
                    let room = tail.len() == 0 || tail.len() + chunk.len() <= max_lag;
                    let standing = room.then(|| {
                        if origin == Origin::Found {
                            tail.distrust_reservations();
                        }
                        let taken = chunk.iter().zip(&stored);
                        taken.filter_map(|(e, stored)| tail.take(e.clone(), stored.as_ref())).collect()
                    });
                    shared.wake_if_due(tail);
                    standing
                })
            };
            let taken = if inline { work()? } else { offload(op, work).await? };
            if let Some(standing) = taken {
                return Ok(standing);
            }
        }
    }

    /// Has everything that is in memory stored, with what `add` puts to it, and waits.
    pub(super) async fn store_all(&self, op: &'static str, add: impl FnOnce(&mut Tail) -> u64) -> Result<()> {
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
        // A failure that a later attempt has made good since is no answer: what was asked for may still come.
        let failed = |p: &super::writer::Progress| p.failures > failures && p.error.is_some();
        let settled = progress.wait_for(|p| p.done >= ticket || failed(p) || p.ended).await;
        match settled {
            Ok(p) if p.done >= ticket => Ok(()),
            Ok(p) => Err(p.error.clone().unwrap_or_else(|| error::closed(op))),
            Err(_) => Err(error::closed(op)),
        }
    }

    pub(super) async fn close_all(&self) -> Result<()> {
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
pub(super) fn usable<'a>(tail: &'a mut Tail, op: &'static str) -> Result<&'a mut Tail> {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_failure_that_was_made_good_before_anybody_looked_is_not_answered_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let index = EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.path())).unwrap();
        let mut progress = index.shared.progress.subscribe();
        // The batch before the one that is waited for failed once and then went through.
        index.shared.progress.send_modify(|p| (p.failures, p.done) = (1, 1));
        let mut waiting = Box::pin(index.wait_stored("test", &mut progress, 0, 2));
        assert!(waiting.as_mut().now_or_never().is_none(), "its own batch is still to come");
        index.shared.progress.send_modify(|p| p.done = 2);
        waiting.await.unwrap();
    }
}
