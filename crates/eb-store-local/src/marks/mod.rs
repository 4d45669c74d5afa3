//! Marks as files: what the consumers of one machine have handled.
//!
//! ```text
//! <dir>/marks/<subscriber>/<topic>/partition=<n>/0000000007.jsonl   a segment; the highest number is written to
//! <dir>/marks/<subscriber>/<topic>/partition=<n>/lock               held while a process looks or writes
//! ```
//!
//! FORMAT.md tells the lines, the rules and what each damage comes to. In short:
//!
//! - **A step is one line**, written and synced before its `Ok`. Its marks are there whole or not at all.
//! - **In memory** are the marks past the stored checkpoint alone, and, once the second guard is asked, the events of the newest
//!   [`max_events`](MarksConfig::max_events) marks. What lies before the checkpoint stays on disk, for audit, until
//!   [`forget_before`](eb_contract::stores::ProcessedStore::forget_before) or [`max_bytes`](MarksConfig::max_bytes).
//! - **A new segment begins** with all that is in memory past the checkpoint and the newest lease, so opening reads the last
//!   segment alone.
//! - **Who writes** is decided by the lease: a line carries its epoch, and every process reads the lines that others have
//!   appended, under the folder's lock, before it answers or appends. A stale owner is fenced across processes.
//!
//! # Measured
//! `cargo run --release -p eb-store-local --example consumer_marks`: steps of 500 marks, each looked up and then recorded, one partition,
//! two cores with much other work beside; medians of 3 rounds in turn: 133,000 events/s (93,000 with the second guard), where a bare append of
//! as many bytes with `fdatasync` reaches 120,000 and the LSM tree of the admission index, asked for the same, 12,000: it writes a table
//! and a list of tables for every step.

mod config;
mod events;
mod forget;
mod line;
mod scope;
mod state;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use eb_contract::stores::{Checkpoint, Lease, Mark, MarkScope, ProcessedStore, Progress, Seen, check_owner};
use eb_contract::{BoxFuture, ConsumerName, Cut, Error, ErrorKind, PartitionId, Result, Timestamp, Topic};
use eb_disk::offload::offload;
use eb_disk::replace_file;
use parking_lot::Mutex;

pub use self::config::MarksConfig;
use self::scope::Scope;
use crate::files::{Folder, io_error};
use crate::host::Host;

const FOLDER: &str = "marks";
/// A line of these stays far below the longest that is read.
const MAX_MARKS: usize = 100_000;

/// Marks in files; see the [module](self). Clones share their state. Checkpoints are kept elsewhere.
///
/// Blocking work runs on threads of its own. A call whose future is dropped is still carried out once it has begun.
#[derive(Clone)]
pub struct EmbeddedProcessed {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    config: MarksConfig,
    host: Host,
    scopes: Mutex<HashMap<Key, Arc<Mutex<Scope>>>>,
}

/// Whose marks of which partition; lives of the bus share a folder.
pub(crate) type Key = (ConsumerName, Topic, PartitionId);

impl std::fmt::Debug for EmbeddedProcessed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedProcessed").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl EmbeddedProcessed {
    /// Marks in `<dir>/marks`. Touches nothing yet; folders are made by the first step.
    #[must_use]
    pub fn open(config: &MarksConfig) -> Self {
        Self::open_on(config, Host::default())
    }

    /// As [`EmbeddedProcessed::open`], on another disk and clock: for tests.
    #[must_use]
    pub fn open_on(config: &MarksConfig, host: Host) -> Self {
        let inner =
            Inner { root: config.dir.join(FOLDER), config: config.clone(), host, scopes: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Runs `work` off the caller's thread.
    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        offload(op, move || work(&inner)).await
    }
}

impl Inner {
    fn scope(&self, key: &Key) -> Arc<Mutex<Scope>> {
        let mut scopes = self.scopes.lock();
        if let Some(scope) = scopes.get(key) {
            return scope.clone();
        }
        let folder = self.root.join(key.0.as_str()).join(key.1.as_str()).join(format!("partition={}", key.2));
        let scope = Scope::new(key.clone(), folder, self.host.clone(), self.config.clone());
        scopes.entry(key.clone()).or_insert(Arc::new(Mutex::new(scope))).clone()
    }

    /// The partitions of a topic that a subscriber has marks of, on disk.
    fn partitions(&self, op: &'static str, subscriber: &ConsumerName, topic: &Topic) -> Result<Vec<Key>> {
        let names = self.folders(op, &self.root.join(subscriber.as_str()).join(topic.as_str()))?;
        let number = |name: String| {
            let digits = name.strip_prefix("partition=")?;
            digits.parse().ok().filter(|n: &u32| n.to_string() == digits)
        };
        let key = |n| (subscriber.clone(), topic.clone(), PartitionId(n));
        Ok(names.into_iter().filter_map(number).map(key).collect())
    }

    fn folders(&self, op: &'static str, path: &std::path::Path) -> Result<Vec<String>> {
        match self.host.disk.list(path) {
            Ok(entries) => Ok(entries.into_iter().filter(|e| e.is_dir).map(|e| e.name).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(io_error(op, path, "the folder cannot be read", e)),
        }
    }

    fn seen(&self, scope: &MarkScope, records: &[Mark], by_event: bool) -> Result<Vec<Seen>> {
        const OP: &str = "look up marks";
        let own = key(scope);
        let mut seen = self.scope(&own).lock().seen(scope, records, by_event)?;
        let open = |seen: &[Seen]| {
            by_event && records.iter().zip(seen).any(|(r, s)| r.event.is_some() && *s == Seen::No)
        };
        if !open(&seen) {
            return Ok(seen);
        }
        // A copy may lie in a parent of the partition.
        for other in self.partitions(OP, &scope.subscriber, &scope.topic)? {
            if other != own && open(&seen) {
                self.scope(&other).lock().copies(&scope.bus_incarnation, records, &mut seen)?;
            }
        }
        Ok(seen)
    }

    fn probe(&self) -> Result<()> {
        const OP: &str = "probe marks";
        let disk = &*self.host.disk;
        let mut folder = Folder::new(self.root.clone());
        folder.make(disk, OP)?;
        let _lock = folder.lock(disk, OP)?.ok_or_else(|| folder.gone(OP))?;
        let path = self.root.join("probe");
        let failed = |e| io_error(OP, &path, "a file cannot be made", e);
        replace_file(disk, &path, b"probe\n").map_err(failed)?;
        disk.remove(&path).map_err(failed)
    }
}

fn key(scope: &MarkScope) -> Key {
    (scope.subscriber.clone(), scope.topic.clone(), scope.partition_id)
}

fn scope_of(c: &Checkpoint) -> MarkScope {
    MarkScope {
        subscriber: c.consumer.clone(),
        bus_incarnation: c.bus_incarnation.clone(),
        topic: c.topic.clone(),
        partition_id: c.partition_id,
    }
}

fn few_enough(op: &'static str, marks: &[Mark]) -> Result<()> {
    if marks.len() <= MAX_MARKS {
        return Ok(());
    }
    let kind = ErrorKind::TooLarge { size: marks.len(), limit: MAX_MARKS };
    Err(Error::new(kind, op, "there are too many marks in one step").advise("record them in several steps"))
}

impl ProcessedStore for EmbeddedProcessed {
    fn keeps_checkpoints(&self) -> bool {
        false
    }

    fn seen<'a>(
        &'a self,
        scope: &'a MarkScope,
        records: &'a [Mark],
        by_event: bool,
    ) -> BoxFuture<'a, Result<Vec<Seen>>> {
        Box::pin(async move {
            let (scope, records) = (scope.clone(), records.to_vec());
            self.run("look up marks", move |inner| inner.seen(&scope, &records, by_event)).await
        })
    }

    fn record<'a>(
        &'a self,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        const OP: &str = "record step";
        Box::pin(async move {
            let scope = scope_of(&step.checkpoint);
            check_owner(OP, &lease.owner).map_err(|e| e.at(place(&key(&scope))))?;
            few_enough(OP, &step.marks)?;
            let (step, lease) = (step.clone(), lease.clone());
            self.run(OP, move |inner| inner.scope(&key(&scope)).lock().record(&step, &lease)).await?;
            Ok(None)
        })
    }

    fn mark<'a>(&'a self, scope: &'a MarkScope, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        const OP: &str = "mark";
        Box::pin(async move {
            few_enough(OP, marks)?;
            let (scope, marks) = (scope.clone(), marks.to_vec());
            self.run(OP, move |inner| inner.scope(&key(&scope)).lock().mark(&scope, &marks)).await
        })
    }

    fn forget_before<'a>(
        &'a self,
        subscriber: &'a ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let subscriber = subscriber.clone();
            self.run("forget marks", move |inner| inner.forget_before(&subscriber, before, limit)).await
        })
    }

    fn forget_from<'a>(&'a self, scope: &'a MarkScope, from: &'a Cut) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let (scope, from) = (scope.clone(), *from);
            self.run("forget marks", move |inner| inner.scope(&key(&scope)).lock().forget_from(&scope, &from))
                .await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.run("probe marks", Inner::probe))
    }
}

fn place(key: &Key) -> String {
    format!("{} {}/{}", key.0, key.1, key.2)
}
