//! Consumer checkpoints as files, independent of any log.
//!
//! ```text
//! <root>/checkpoints/<consumer>/<topic>/partition=<n>.json       one checkpoint
//! <root>/checkpoints/<consumer>/<topic>/partition=<n>.json.tmp   its next content, until it is renamed
//! <root>/checkpoints/<consumer>/<topic>/commit.lock              held while a process commits here
//! ```
//!
//! A checkpoint is one JSON object that a person can read: the checkpoint, the newest lease seen, and the newest 100 resets with
//! their reasons, under a CRC-32C of its own. To change one by hand, use a reset.
//!
//! **Commit**: under the folder's lock each file is read and checked; what passes is written to a temporary file and synced; all are
//! renamed; the folder is synced once. So a crash leaves the old or the new content of each, and checks and change are one step for all
//! tasks and processes. **Crash outcomes**: before the rename the old one; after it the new one, and until the folder is synced a power cut
//! may bring back the old one, which nobody was told of. A temporary file left behind is overwritten by the next commit. A file that cannot be
//! read is an error that names it, never "no checkpoint".

mod stored;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{BoxFuture, ConsumerName, Effect, Error, ErrorKind, PartitionId, Result, Topic};
use parking_lot::Mutex;

pub use self::stored::PastReset;
use self::stored::{MAX_FILE_BYTES, Stored};
use crate::disk::{Disk, DiskLock, OpenMode, RealDisk, create_anew, create_dir_all, read_small, write_full};
use crate::error::io_error;
use crate::offload::offload;

const FOLDER: &str = "checkpoints";
const LOCK: &str = "commit.lock";
/// How long a commit waits for another process to finish its own.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Durable checkpoints in files; see the [module](self). Clones share their state.
///
/// Of several reasons to refuse a commit the first of these is answered: `InvalidInput`, `Fenced`, `WrongIncarnation`,
/// `VersionConflict`, `BackwardCommit`. A refused commit changes nothing. Each checkpoint of a commit stands alone. A reset forgets
/// `caught_up_at`.
///
/// All I/O runs on the crate's own I/O threads, on any runtime. A commit whose future is dropped is still carried out once it has begun.
#[derive(Clone)]
pub struct FileCheckpointStore {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// One per folder that was committed to: tasks of this process queue here, and only one asks for the file's lock.
    places: Mutex<HashMap<PathBuf, Arc<Place>>>,
}

#[derive(Default)]
struct Place {
    /// Whether the folder is known to be there durably.
    made: Mutex<bool>,
}

impl fmt::Debug for FileCheckpointStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileCheckpointStore").field("folder", &self.inner.folder).finish_non_exhaustive()
    }
}

impl FileCheckpointStore {
    /// How many resets of a checkpoint are remembered.
    pub const HISTORY: usize = stored::HISTORY;

    /// Checkpoints in `<root>/checkpoints`. Touches nothing yet; folders are made by the first commit.
    #[must_use]
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self::open_on(root, Arc::new(RealDisk))
    }

    /// As [`FileCheckpointStore::open`], on another disk: for tests that make a disk fail.
    #[must_use]
    pub fn open_on(root: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Self {
        let folder = root.into().join(FOLDER);
        Self { inner: Arc::new(Inner { disk, folder, places: Mutex::default() }) }
    }

    /// The resets of a checkpoint, oldest first; none where there is no checkpoint. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// As [`CheckpointStore::load`].
    pub async fn history(
        &self,
        consumer: &ConsumerName,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<Vec<PastReset>> {
        let (inner, key) = (self.inner.clone(), (consumer.clone(), topic.clone(), partition));
        offload("history", move || Ok(inner.read("history", &key)?.map(|s| s.resets).unwrap_or_default()))
            .await
    }
}

type Key = (ConsumerName, Topic, PartitionId);

fn key_of(c: &Checkpoint) -> Key {
    (c.consumer.clone(), c.topic.clone(), c.partition_id)
}

impl CheckpointStore for FileCheckpointStore {
    fn load<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        let (inner, key) = (self.inner.clone(), (consumer.clone(), topic.clone(), partition));
        Box::pin(offload("load", move || Ok(inner.read("load", &key)?.map(|s| s.checkpoint))))
    }

    fn commit<'a>(
        &'a self,
        checkpoints: &'a [Checkpoint],
        lease: &'a Lease,
    ) -> BoxFuture<'a, Vec<Result<Checkpoint>>> {
        let (inner, wanted, lease) = (self.inner.clone(), checkpoints.to_vec(), lease.clone());
        Box::pin(async move {
            let count = wanted.len();
            match offload("commit", move || Ok(inner.commit(&wanted, &lease))).await {
                Ok(results) => results,
                Err(e) => vec![Err(e.with_effect(Effect::Unknown)); count],
            }
        })
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<Checkpoint>>> {
        let (inner, consumer) = (self.inner.clone(), consumer.cloned());
        Box::pin(offload("list", move || inner.list(consumer.as_ref())))
    }

    fn reset<'a>(&'a self, request: &'a ResetRequest) -> BoxFuture<'a, Result<Checkpoint>> {
        let (inner, request) = (self.inner.clone(), request.clone());
        Box::pin(offload("reset", move || inner.reset(&request)))
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        Box::pin(offload("probe", move || inner.probe()))
    }
}

impl Inner {
    fn dir(&self, consumer: &ConsumerName, topic: &Topic) -> PathBuf {
        self.folder.join(consumer.as_str()).join(topic.as_str())
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.dir(&key.0, &key.1).join(format!("partition={}.json", key.2))
    }

    fn read(&self, op: &'static str, key: &Key) -> Result<Option<Stored>> {
        let path = self.file(key);
        match read_small(&*self.disk, &path, MAX_FILE_BYTES) {
            Ok(bytes) => Stored::decode(op, &path, &bytes, key).map(Some),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(io_error(op, &path, "cannot read the checkpoint", e)),
        }
    }

    fn commit(&self, wanted: &[Checkpoint], lease: &Lease) -> Vec<Result<Checkpoint>> {
        let mut results: Vec<Option<Result<Checkpoint>>> = wanted.iter().map(|_| None).collect();
        let mut done = HashSet::new();
        for first in wanted {
            let dir = self.dir(&first.consumer, &first.topic);
            if !done.insert(dir.clone()) {
                continue;
            }
            let same = |c: &Checkpoint| c.consumer == first.consumer && c.topic == first.topic;
            let indices: Vec<usize> = (0..wanted.len()).filter(|i| same(&wanted[*i])).collect();
            let here: Vec<&Checkpoint> = indices.iter().map(|i| &wanted[*i]).collect();
            for (index, result) in indices.into_iter().zip(self.commit_in(&dir, &here, lease)) {
                results[index] = Some(result);
            }
        }
        let unanswered = || Err(Error::new(ErrorKind::NotAttempted, "commit", "it was not reached"));
        results.into_iter().map(|r| r.unwrap_or_else(unanswered)).collect()
    }

    /// Commits checkpoints of one folder.
    fn commit_in(&self, dir: &Path, wanted: &[&Checkpoint], lease: &Lease) -> Vec<Result<Checkpoint>> {
        let change = |next: &mut HashMap<Key, Stored>| {
            let mut take = |c: &&Checkpoint| -> Result<Checkpoint> {
                let key = key_of(c);
                let before = match next.get(&key) {
                    Some(stored) => Some(stored.clone()),
                    None => self.read("commit", &key)?,
                };
                let stored = Stored::committed(before, c, lease)?;
                let answer = stored.checkpoint.clone();
                next.insert(key, stored);
                Ok(answer)
            };
            wanted.iter().map(&mut take).collect::<Vec<_>>()
        };
        match self.change("commit", dir, change) {
            Ok((mut results, failed)) => {
                for (result, c) in results.iter_mut().zip(wanted) {
                    if let Some(error) = failed.get(&key_of(c)).filter(|_| result.is_ok()) {
                        *result = Err(error.clone());
                    }
                }
                results
            }
            Err(e) => vec![Err(e); wanted.len()],
        }
    }

    fn reset(&self, request: &ResetRequest) -> Result<Checkpoint> {
        let key = (request.consumer.clone(), request.topic.clone(), request.partition_id);
        stored::check_reason(&key, &request.reason)?;
        let change = |next: &mut HashMap<Key, Stored>| -> Result<Checkpoint> {
            let stored = Stored::reset(self.read("reset", &key)?, request);
            let answer = stored.checkpoint.clone();
            next.insert(key.clone(), stored);
            Ok(answer)
        };
        let (answer, failed) = self.change("reset", &self.dir(&request.consumer, &request.topic), change)?;
        match failed.into_values().next() {
            Some(error) => Err(error),
            None => answer,
        }
    }

    /// Lets `decide` read what is stored and say what is to be stored, and stores it, as one step for all tasks and processes. Says which
    /// of it could not be stored.
    fn change<T>(
        &self,
        op: &'static str,
        dir: &Path,
        decide: impl FnOnce(&mut HashMap<Key, Stored>) -> T,
    ) -> Result<(T, HashMap<Key, Error>)> {
        let place = self.places.lock().entry(dir.to_owned()).or_default().clone();
        let mut made = place.made.lock();
        if !*made {
            create_dir_all(&*self.disk, dir).map_err(|e| io_error(op, dir, "cannot make the folder", e))?;
            *made = true;
        }
        let _lock = match self.lock(op, dir) {
            Ok(lock) => lock,
            Err(e) => {
                // Someone may have removed the folder.
                *made = false;
                return Err(e);
            }
        };
        let mut next = HashMap::new();
        let decided = decide(&mut next);
        let mut failed = HashMap::new();
        let mut renamed = Vec::new();
        for (key, stored) in next {
            match self.put(op, &self.file(&key), &stored) {
                Ok(()) => renamed.push(key),
                Err(e) => _ = failed.insert(key, e),
            }
        }
        if !renamed.is_empty()
            && let Err(e) = self.disk.sync_dir(dir)
        {
            let error = io_error(op, dir, "cannot sync the folder", e).with_effect(Effect::Unknown);
            failed.extend(renamed.into_iter().map(|key| (key, error.clone())));
        }
        Ok((decided, failed))
    }

    /// Replaces a file's content, durable once its folder is synced.
    fn put(&self, op: &'static str, path: &Path, stored: &Stored) -> Result<()> {
        let temporary = path.with_extension("json.tmp");
        let written = create_anew(&*self.disk, &temporary).and_then(|file| {
            write_full(&*file, &stored.encode(), 0)?;
            file.sync_all()
        });
        written.map_err(|e| io_error(op, &temporary, "cannot write it; the former checkpoint stays", e))?;
        self.disk.rename(&temporary, path).map_err(|e| {
            io_error(op, path, "cannot put the new checkpoint in its place", e).with_effect(Effect::Unknown)
        })
    }

    fn lock(&self, op: &'static str, dir: &Path) -> Result<Box<dyn DiskLock>> {
        let path = dir.join(LOCK);
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.disk.try_lock(&path) {
                Ok(lock) => return Ok(lock),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let holder = "another process that commits checkpoints".to_owned();
                    let what = format!("it was locked for {} seconds", LOCK_PATIENCE.as_secs());
                    return Err(Error::new(ErrorKind::Locked { holder }, op, what)
                        .at(path.display())
                        .advise("find the process that hangs while it commits, then try again"));
                }
                Err(e) => return Err(io_error(op, &path, "cannot lock the folder", e)),
            }
        }
    }

    fn list(&self, consumer: Option<&ConsumerName>) -> Result<Vec<Checkpoint>> {
        let consumers = match consumer {
            Some(one) => vec![one.clone()],
            None => self.folders(&self.folder, ConsumerName::new)?,
        };
        let mut all = Vec::new();
        for consumer in consumers {
            for topic in self.folders(&self.folder.join(consumer.as_str()), Topic::new)? {
                for partition in self.partitions(&self.dir(&consumer, &topic))? {
                    let key = (consumer.clone(), topic.clone(), partition);
                    // One that vanished since it was listed was never ours to report.
                    all.extend(self.read("list", &key)?.map(|s| s.checkpoint));
                }
            }
        }
        all.sort_by_cached_key(key_of);
        Ok(all)
    }

    /// The folders in `dir` that have a name of this kind.
    fn folders<T, E>(&self, dir: &Path, name: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>> {
        match self.disk.list(dir) {
            Ok(entries) => {
                Ok(entries.iter().filter(|e| e.is_dir).filter_map(|e| name(&e.name).ok()).collect())
            }
            Err(e) if is_absent(&e) => Ok(Vec::new()),
            Err(e) => Err(io_error("list", dir, "cannot list the folder", e)),
        }
    }

    fn partitions(&self, dir: &Path) -> Result<Vec<PartitionId>> {
        let entries = self.disk.list(dir).map_err(|e| io_error("list", dir, "cannot list the folder", e))?;
        let number = |name: &str| {
            let text = name.strip_prefix("partition=")?.strip_suffix(".json")?;
            text.parse::<u32>().ok().filter(|n| n.to_string() == text).map(PartitionId)
        };
        Ok(entries.iter().filter(|e| !e.is_dir).filter_map(|e| number(&e.name)).collect())
    }

    fn probe(&self) -> Result<()> {
        let failed = |e| io_error("probe", &self.folder, "checkpoints cannot be written", e);
        create_dir_all(&*self.disk, &self.folder).map_err(failed)?;
        let path = self.folder.join(format!("probe-{}.tmp", std::process::id()));
        let written = self.disk.open(&path, OpenMode::Create).and_then(|file| {
            write_full(&*file, b"probe", 0)?;
            file.sync_all()
        });
        match self.disk.remove(&path) {
            // Another task of this process probes at the same time.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => written.and(removed).map_err(failed)?,
        }
        Ok(())
    }
}

fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
