//! The two threads behind an index: one writes the tail into the table, the other merges tables.
//!
//! The writer takes a batch when it is full enough or wanted. A batch that cannot be written stays, and is tried
//! again; those who wait for it hear of each failure. Damage, or a panic of the engine, ends the index's use: it is
//! remembered, and every later call answers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::{Error, ErrorKind};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::store::{Store, WriteSet};
use super::tail::{Batch, Tail};

/// Between attempts to write a batch that failed; a new request tries at once.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Merging costs as much as the larger side holds, so it waits for this many batches' worth of entries …
const MERGE_AFTER_BATCHES: u64 = 6;
const MERGE_FROM_TABLES: usize = 8;
/// … or, with tables of an earlier run, for the first batch after so many of them …
const MERGE_AFTER_OPEN: usize = 16;
/// … or for so many small tables that look-ups feel them.
const MERGE_SMALL_TABLES: usize = 32;
/// From here on writing waits for merging.
const STALL_AT_TABLES: usize = 48;

/// What waiters watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Batches written.
    pub(crate) done: u64,
    /// Attempts that failed.
    pub(crate) failures: u64,
    /// The newest failure.
    pub(crate) error: Option<Error>,
    /// Whether no further attempt will be made.
    pub(crate) ended: bool,
}

/// What an index, its callers and its threads share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) tail: Mutex<Tail>,
    /// Something to do for the writer.
    pub(crate) work: Condvar,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stop: AtomicBool,
    flush_at: usize,
    merging: Mutex<Merging>,
    merging_changed: Condvar,
}

#[derive(Default)]
struct Merging {
    wanted: bool,
    failed: bool,
    entries_since: u64,
}

impl Shared {
    pub(crate) fn new(store: Store, tail: Tail, flush_at: usize) -> Self {
        // How much the tables of an earlier run hold is not known; many of them are worth a merge.
        let entries_since = if store.unmerged() >= MERGE_AFTER_OPEN { u64::MAX >> 1 } else { 0 };
        Self {
            store,
            tail: Mutex::new(tail),
            work: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
            stop: AtomicBool::new(false),
            flush_at,
            merging: Mutex::new(Merging { entries_since, ..Merging::default() }),
            merging_changed: Condvar::new(),
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Ends both threads after the step they are at.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Each flag is read under its lock, so that taking the lock here makes the wake-up certain.
        drop(self.tail.lock());
        self.work.notify_all();
        drop(self.merging.lock());
        self.merging_changed.notify_all();
    }

    /// Wakes the writer when there is enough for a batch; each wake-up costs the caller some microseconds.
    pub(crate) fn wake_if_due(&self, tail: &Tail) {
        if tail.is_due(self.flush_at) {
            self.work.notify_one();
        }
    }

    /// The writer's life.
    pub(crate) fn write_batches(&self) {
        while let Some(batch) = self.wait_for_batch() {
            let mut entries: Vec<_> = batch.entries.values().collect();
            entries.sort_unstable_by_key(|entry| entry.key);
            let (count, known_policies) = {
                let tail = self.tail.lock();
                (tail.count + batch.entries.len() as u64, tail.policies.len() as u32)
            };
            let set = WriteSet {
                entries,
                count,
                checkpoint: batch.checkpoint.as_ref(),
                policies: (known_policies, &batch.policies),
            };
            match self.store.write(&set) {
                Ok(()) => {
                    self.written();
                    self.after_write(&batch);
                }
                Err(error) => self.write_failed(error),
            }
        }
        self.progress.send_modify(|p| p.ended = true);
    }

    fn wait_for_batch(&self) -> Option<Arc<Batch>> {
        let mut tail = self.tail.lock();
        loop {
            if self.stopped() || tail.fatal.is_some() {
                return None;
            }
            if let Some(batch) = tail.next_batch(self.flush_at) {
                return Some(batch);
            }
            self.work.wait(&mut tail);
        }
    }

    fn written(&self) {
        let mut tail = self.tail.lock();
        tail.stored();
        let done = tail.done;
        drop(tail);
        self.progress.send_modify(|p| {
            p.done = done;
            p.error = None;
        });
    }

    fn write_failed(&self, error: Error) {
        tracing::warn!(%error, "the admission index cannot write; it tries again");
        let mut tail = self.tail.lock();
        if is_final(&error) {
            tail.fatal = Some(error.clone());
        }
        tail.write_error = Some(error.clone());
        self.progress.send_modify(|p| {
            p.failures += 1;
            p.error = Some(error);
            p.ended = tail.fatal.is_some();
        });
        if tail.fatal.is_none() && !self.stopped() {
            self.work.wait_for(&mut tail, RETRY_EVERY);
        }
    }

    /// Sets merging going, and waits for it where it has fallen far behind.
    fn after_write(&self, batch: &Batch) {
        let mut merging = self.merging.lock();
        merging.entries_since += batch.entries.len() as u64;
        let tables = self.store.unmerged();
        let much = MERGE_AFTER_BATCHES * self.flush_at as u64;
        if tables >= MERGE_SMALL_TABLES || (tables >= MERGE_FROM_TABLES && merging.entries_since >= much) {
            merging.wanted = true;
            self.merging_changed.notify_all();
        }
        while merging.wanted && !merging.failed && self.store.unmerged() >= STALL_AT_TABLES && !self.stopped()
        {
            self.merging_changed.wait(&mut merging);
        }
    }

    /// The merger's life.
    pub(crate) fn merge_tables(&self) {
        loop {
            {
                let mut merging = self.merging.lock();
                while !merging.wanted && !self.stopped() {
                    self.merging_changed.wait(&mut merging);
                }
                if self.stopped() {
                    return;
                }
                merging.entries_since = 0;
            }
            let merged = self.store.compact(|| self.stopped());
            {
                let mut tail = self.tail.lock();
                if let Err(error) = &merged {
                    tracing::warn!(%error, "the admission index cannot merge its tables");
                    if is_final(error) {
                        tail.fatal = Some(error.clone());
                        self.progress.send_modify(|p| {
                            p.failures += 1;
                            p.error = Some(error.clone());
                            p.ended = true;
                        });
                        self.work.notify_all();
                    }
                }
                tail.compact_error = merged.as_ref().err().cloned();
            }
            let mut merging = self.merging.lock();
            merging.wanted = false;
            merging.failed = merged.is_err();
            self.merging_changed.notify_all();
        }
    }
}

/// Whether trying again is of no use.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt { .. } | ErrorKind::WrongVersion | ErrorKind::Unsupported)
}
