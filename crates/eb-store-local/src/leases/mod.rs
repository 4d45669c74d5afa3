//! Leases as files, for the workers of one machine.
//!
//! ```text
//! <dir>/leases/<consumer>/<topic>/leases.json       every lease and living worker of the consumer on the topic
//! <dir>/leases/<consumer>/<topic>/leases.json.tmp   its next content, until it is renamed
//! <dir>/leases/<consumer>/<topic>/lock              held while a process looks or changes
//! ```
//!
//! **Every call** takes the lock (`flock`), reads the file, changes it, and replaces it durably: temporary file, sync, rename, sync of the
//! folder. So processes agree, and an epoch is on disk before it is answered.
//!
//! **Ends** are times of the machine's boot clock (`CLOCK_BOOTTIME`: it goes on while the machine sleeps, no change of the time of day moves
//! it, all processes share it), beside the id of the boot. What another boot has written has ended: its workers are gone with it.
//! On systems without a boot id an end further away than the lease was ever given for has ended too.
//!
//! | what happens | what follows |
//! |---|---|
//! | a process dies between two calls | its leases end by themselves; its lock is free at once |
//! | a process or the power dies within a call | the old content or the new one, each whole. A new epoch that nobody was told of may have been given: the next is higher |
//! | a byte flips, the file is cut short | `Corrupt`, naming the file: epochs are never guessed. Remove the file to begin anew: first epochs are times of day, so they rise above the old ones |
//! | the disk is full, or fails | the error; the old content stands. After a failed sync the outcome is unknown |
//! | the file system is shared by machines (NFS) | not supported: clocks of boots do not compare. Use the Postgres store |

mod document;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{
    Claim, Heartbeat, Lease, LeaseInfo, LeaseKey, LeaseStore, Renewal, Reported, check_lease_request,
    check_owner, first_epoch,
};
use eb_contract::{BoxFuture, ConsumerName, Effect, Error, ErrorKind, PartitionId, Result, Timestamp, Topic};
use eb_disk::offload::offload;
use eb_disk::{read_small, replace_file};
use parking_lot::Mutex;

use self::document::{Document, Held, Until};
use crate::files::{Folder, io_error};
use crate::host::Host;

const FOLDER: &str = "leases";
const FILE: &str = "leases.json";
/// Some ten thousand leases and workers.
const MAX_FILE: usize = 16 << 20;

/// Leases in files; see the [module](self). Clones share their state.
///
/// Blocking work runs on threads of its own. A call whose future is dropped is still carried out once it has begun.
#[derive(Clone)]
pub struct EmbeddedLeases {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    host: Host,
    /// Tasks of this process queue here, so that only one asks for the folder's lock.
    folders: Mutex<HashMap<Key, Arc<Mutex<Folder>>>>,
}

/// What a document is of.
type Key = (ConsumerName, Topic);

impl std::fmt::Debug for EmbeddedLeases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLeases").field("root", &self.inner.root).finish_non_exhaustive()
    }
}

impl EmbeddedLeases {
    /// Leases in `<dir>/leases`. Touches nothing yet; folders are made by the first claim.
    #[must_use]
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self::open_on(dir, Host::default())
    }

    /// As [`EmbeddedLeases::open`], on another disk and clock: for tests.
    #[must_use]
    pub fn open_on(dir: impl Into<PathBuf>, host: Host) -> Self {
        let root = dir.into().join(FOLDER);
        Self { inner: Arc::new(Inner { root, host, folders: Mutex::default() }) }
    }

    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        of: Key,
        work: impl FnOnce(&mut Document, Duration) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        offload(op, move || inner.change(op, &of, work)).await
    }
}

fn of(key: &LeaseKey) -> Key {
    (key.consumer.clone(), key.topic.clone())
}

impl Inner {
    fn folder(&self, of: &Key) -> Arc<Mutex<Folder>> {
        let path = || self.root.join(of.0.as_str()).join(of.1.as_str());
        self.folders
            .lock()
            .entry(of.clone())
            .or_insert_with(|| Arc::new(Mutex::new(Folder::new(path()))))
            .clone()
    }

    /// Changes a document under its lock; it is written only if `work` succeeds and has changed it.
    fn change<T>(
        &self,
        op: &'static str,
        of: &Key,
        work: impl FnOnce(&mut Document, Duration) -> Result<T>,
    ) -> Result<T> {
        let disk = &*self.host.disk;
        let folder = self.folder(of);
        let mut folder = folder.lock();
        folder.make(disk, op)?;
        let _lock = folder.lock(disk, op)?.ok_or_else(|| folder.gone(op))?;
        let path = folder.path().join(FILE);
        let boot = disk.boot_id();
        let before = match read_small(disk, &path, MAX_FILE) {
            Ok(bytes) => Document::decode(op, &path, &bytes, of, boot)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Document::new(of, boot),
            Err(e) => return Err(io_error(op, &path, "it cannot be read", e)),
        };
        let mut document = before.clone();
        let answer = work(&mut document, self.host.clock.uptime())?;
        if document != before {
            let bytes = document.encode();
            if bytes.len() > MAX_FILE {
                let kind = ErrorKind::TooLarge { size: bytes.len(), limit: MAX_FILE };
                return Err(Error::new(kind, op, "there are too many leases and workers").at(path.display()));
            }
            replace_file(disk, &path, &bytes)
                .map_err(|e| io_error(op, &path, "it cannot be replaced", e).with_effect(Effect::Unknown))?;
        }
        Ok(answer)
    }

    fn list(&self, consumer: Option<&ConsumerName>) -> Result<Vec<LeaseInfo>> {
        const OP: &str = "list leases";
        let disk = &*self.host.disk;
        let names = |path: &std::path::Path| match disk.list(path) {
            Ok(entries) => Ok(entries.into_iter().filter(|e| e.is_dir).map(|e| e.name).collect::<Vec<_>>()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(io_error(OP, path, "the folder cannot be read", e)),
        };
        let mut list = Vec::new();
        for consumer in names(&self.root)?
            .iter()
            .filter_map(|n| ConsumerName::new(n).ok())
            .filter(|c| consumer.is_none_or(|wanted| c == wanted))
        {
            for topic in names(&self.root.join(consumer.as_str()))?.iter().filter_map(|n| Topic::new(n).ok())
            {
                let of = (consumer.clone(), topic);
                // Nothing is changed, so nothing is written.
                list.extend(self.change(OP, &of, |document, now| Ok(document.infos(now)))?);
            }
        }
        list.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(list)
    }

    fn probe(&self) -> Result<()> {
        const OP: &str = "probe leases";
        let mut folder = Folder::new(self.root.clone());
        folder.make(&*self.host.disk, OP)?;
        let _lock = folder.lock(&*self.host.disk, OP)?.ok_or_else(|| folder.gone(OP))?;
        let path = self.root.join("probe");
        let failed = |e| io_error(OP, &path, "a file cannot be made", e);
        replace_file(&*self.host.disk, &path, b"probe\n").map_err(failed)?;
        self.host.disk.remove(&path).map_err(failed)
    }
}

impl Document {
    fn claim(
        &mut self,
        key: &LeaseKey,
        owner: &str,
        until: Until,
        now: Duration,
        first: u64,
    ) -> Result<Claim> {
        let epoch = match self.leases.get_mut(&key.partition_id) {
            None => first,
            Some(held) => match held.left(now) {
                Some(_) if held.lease.owner == owner => {
                    held.extend(until);
                    return Ok(Claim::Held(held.lease.clone()));
                }
                Some(left) => return Ok(Claim::Taken { by: held.lease.clone(), left }),
                None => held.lease.epoch.checked_add(1).ok_or_else(|| {
                    let message = "there is no epoch left above the last one";
                    Error::new(ErrorKind::ProtocolViolation, "claim lease", message).at(place(key))
                })?,
            },
        };
        let lease = Lease { owner: owner.to_owned(), epoch };
        let held = Held { lease: lease.clone(), until: Some(until), reported: None };
        self.leases.insert(key.partition_id, held);
        Ok(Claim::Held(lease))
    }

    fn heartbeat(
        &mut self,
        owner: &str,
        until: Until,
        (now, at): (Duration, Timestamp),
        held: &[Renewal],
    ) -> Heartbeat {
        self.workers.retain(|_, until| until.left(now).is_some());
        let mine = self.workers.entry(owner.to_owned()).or_insert(until);
        *mine = mine.later(until);
        let renewed = held.iter().map(|Renewal { partition_id, lease, report }| {
            match self.leases.get_mut(partition_id) {
                Some(h) if h.lease == *lease && lease.owner == owner && h.left(now).is_some() => {
                    h.extend(until);
                    h.reported = report.map(|work| Reported { work, at }).or(h.reported);
                    Ok(())
                }
                _ => {
                    let what = format!("the lease of `{}` with epoch {} has ended", lease.owner, lease.epoch);
                    Err(Error::new(ErrorKind::Fenced, "renew lease", what)
                        .at(format!("{} {}/{partition_id}", self.consumer, self.topic))
                        .advise("claim it anew"))
                }
            }
        });
        Heartbeat { renewed: renewed.collect(), workers: self.workers.keys().cloned().collect() }
    }

    fn infos(&self, now: Duration) -> Vec<LeaseInfo> {
        let info = |(partition_id, held): (&PartitionId, &Held)| LeaseInfo {
            key: LeaseKey {
                consumer: self.consumer.clone(),
                topic: self.topic.clone(),
                partition_id: *partition_id,
            },
            lease: held.lease.clone(),
            left: held.left(now),
            reported: held.reported(now),
        };
        self.leases.iter().map(info).collect()
    }
}

fn place(key: &LeaseKey) -> String {
    format!("{} {}/{}", key.consumer, key.topic, key.partition_id)
}

impl LeaseStore for EmbeddedLeases {
    fn claim<'a>(
        &'a self,
        key: &'a LeaseKey,
        owner: &'a str,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<Claim>> {
        const OP: &str = "claim lease";
        Box::pin(async move {
            check_lease_request(OP, owner, time_to_live)?;
            let (key, owner) = (key.clone(), owner.to_owned());
            let first = first_epoch(self.inner.host.clock.now());
            self.run(OP, of(&key), move |document, now| {
                document.claim(&key, &owner, Until::after(now, time_to_live), now, first)
            })
            .await
        })
    }

    fn heartbeat<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
        time_to_live: Duration,
        held: &'a [Renewal],
    ) -> BoxFuture<'a, Result<Heartbeat>> {
        const OP: &str = "heartbeat";
        Box::pin(async move {
            check_lease_request(OP, owner, time_to_live)?;
            let (owner, held) = (owner.to_owned(), held.to_vec());
            let at = self.inner.host.clock.now();
            self.run(OP, (consumer.clone(), topic.clone()), move |document, now| {
                Ok(document.heartbeat(&owner, Until::after(now, time_to_live), (now, at), &held))
            })
            .await
        })
    }

    fn release<'a>(&'a self, key: &'a LeaseKey, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (partition_id, lease) = (key.partition_id, lease.clone());
            self.run("release lease", of(key), move |document, _| {
                if let Some(held) = document.leases.get_mut(&partition_id).filter(|h| h.lease == lease) {
                    held.release();
                }
                Ok(())
            })
            .await
        })
    }

    fn leave<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_owner("leave", owner)?;
            let owner = owner.to_owned();
            self.run("leave", (consumer.clone(), topic.clone()), move |document, _| {
                document.workers.remove(&owner);
                document.leases.values_mut().filter(|h| h.lease.owner == owner).for_each(Held::release);
                Ok(())
            })
            .await
        })
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<LeaseInfo>>> {
        let (inner, consumer) = (self.inner.clone(), consumer.cloned());
        Box::pin(offload("list leases", move || inner.list(consumer.as_ref())))
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        let inner = self.inner.clone();
        Box::pin(offload("probe leases", move || inner.probe()))
    }
}
