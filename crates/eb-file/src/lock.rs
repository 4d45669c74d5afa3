//! One writer per partition: an advisory lock that lives as long as the open log, and dies with the process.
//!
//! The lock file says in its first line who holds the lock, or held it last, and what for ([`Doing`]): that decides who waits. A writer
//! waits for readers that settle a dead writer's tail; a reader that would settle it waits for others that do, and for a writer
//! that recovers the log, since one of them may already have shown what lies beyond the watermark.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eb_contract::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, DiskLock, OpenMode, read_small, write_full};
use crate::error::io_error;
use crate::host::{Doing, Holder};
use crate::layout::PartitionFiles;

const HOLDER_LIMIT: usize = 1024;

/// The holder's line is padded to this, so that a later one overwrites it whole.
const HOLDER_LINE: usize = 256;

/// So long a writer goes on asking: someone may only be looking whether it is held.
const PATIENCE: Duration = Duration::from_millis(200);
/// A reader in another process holds the lock, and says so in it, while it settles a dead writer's tail: a sync, on whatever device.
const PATIENCE_WITH_THE_BUSY: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// Where whoever holds it is soon done, as a rule.
const ASK_SOON: Duration = Duration::from_millis(2);

/// The lock, held.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _lock: Box<dyn DiskLock>,
    path: PathBuf,
}

impl WriterLock {
    /// Notes that the log is recovered and its watermark raised: readers need not wait any more.
    pub(crate) fn recovered(&self, disk: &dyn Disk) {
        self.note(disk, Doing::Writing);
    }

    fn note(&self, disk: &dyn Disk, doing: Doing) {
        // Only for the message that the next one gets, and for readers, which otherwise wait a while. The lock holds without it.
        if let Err(error) = describe(disk, &self.path, &Holder::this_process(doing)) {
            tracing::warn!(file = %self.path.display(), %error, "cannot note in the lock file who holds it");
        }
    }
}

/// Takes the writer's lock of a partition. Blocks while a writer of this process is on its way out, and a moment for others.
pub(crate) fn lock_writer(
    op: &'static str,
    disk: &dyn Disk,
    files: &PartitionFiles,
    me: WriterId,
) -> Result<WriterLock> {
    let path = &files.lock;
    let since = Instant::now();
    let lock = loop {
        match disk.try_lock(path) {
            Ok(lock) => break lock,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !leaving().wait_for_others(path, me) {
                    let holder = holder(disk, path);
                    let settling = holder.as_ref().is_some_and(|h| h.doing == Doing::Settling);
                    if since.elapsed() >= if settling { PATIENCE_WITH_THE_BUSY } else { PATIENCE } {
                        return Err(held(op, holder, path));
                    }
                    std::thread::sleep(ASK_AGAIN);
                }
            }
            Err(e) => return Err(io_error(op, path, "cannot lock the partition", e)),
        }
    };
    let lock = WriterLock { _lock: lock, path: path.clone() };
    lock.note(disk, Doing::Recovering);
    Ok(lock)
}

/// The writer's lock, held by a reader for the moment of a look. A writer of this process that opens meanwhile waits for it.
#[derive(Debug)]
pub(crate) struct Settling {
    // Dropped in this order: the lock first, then the word that it will be.
    _lock: Box<dyn DiskLock>,
    _leaving: LeavingSoon,
}

impl Settling {
    fn begin(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let leaving = LeavingSoon::announce(path, WriterId::fresh());
        let lock = disk.try_lock(path)?;
        // So that others know to wait. Without it, a writer is refused on a slow device, and a reader sees no further than the watermark.
        if let Err(error) = describe(disk, path, &Holder::this_process(Doing::Settling)) {
            tracing::debug!(file = %path.display(), %error, "cannot note in the lock file who holds it");
        }
        Ok(Self { _lock: lock, _leaving: leaving })
    }
}

/// For whom a reader has waited in vain, by the line in the lock file.
pub(crate) type Hopeless = Option<Holder>;

/// Takes the lock for a reader; `None` when a writer has it. While someone recovers the log or settles its tail, waits up to
/// `patience`, but not for `hopeless` again.
///
/// # Errors
/// As the operating system says.
pub(crate) fn lock_to_settle(
    disk: &dyn Disk,
    path: &Path,
    patience: Duration,
    hopeless: &mut Option<Hopeless>,
) -> io::Result<Option<Settling>> {
    let since = Instant::now();
    loop {
        match Settling::begin(disk, path) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            taken => {
                *hopeless = None;
                return taken.map(Some);
            }
        }
        // No line that can be read is one that is just being written.
        let holder = holder(disk, path);
        let writes = holder.as_ref().is_some_and(|h| h.doing == Doing::Writing);
        if writes || hopeless.as_ref() == Some(&holder) {
            return Ok(None);
        }
        if since.elapsed() >= patience {
            let who = holder.as_ref().map_or_else(|| "someone".to_owned(), Holder::to_string);
            tracing::warn!(file = %path.display(), who, "is still making the log's end durable: reading up to the watermark only");
            *hopeless = Some(holder);
            return Ok(None);
        }
        std::thread::sleep(ASK_SOON);
    }
}

/// Takes a lock that nobody holds for long: waits for whoever has it.
///
/// # Errors
/// As the operating system says; `WouldBlock` when someone does hold it for long.
pub(crate) fn lock_for_a_moment(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn DiskLock>> {
    let since = Instant::now();
    loop {
        match disk.try_lock(path) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && since.elapsed() < PATIENCE_WITH_THE_BUSY => {
                std::thread::sleep(ASK_SOON);
            }
            done => return done,
        }
    }
}

/// Whether someone holds the lock. To find out it is taken for a moment; a writer of this process that opens just then waits.
///
/// # Errors
/// As the operating system says.
pub(crate) fn peek(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    let _leaving = LeavingSoon::announce(path, WriterId::fresh());
    match disk.try_lock(path) {
        Ok(lock) => {
            drop(lock);
            Ok(false)
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// Notes in the lock file who holds it. In place, so that nobody finds the file empty meanwhile.
fn describe(disk: &dyn Disk, path: &Path, holder: &Holder) -> io::Result<()> {
    let mut text = serde_json::to_vec(holder)?;
    text.resize(text.len().max(HOLDER_LINE - 1), b' ');
    text.push(b'\n');
    write_full(&*disk.open(path, OpenMode::Write)?, &text, 0)
}

fn holder(disk: &dyn Disk, path: &Path) -> Option<Holder> {
    let bytes = read_small(disk, path, HOLDER_LIMIT).ok()?;
    let line = bytes.split(|b| *b == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

fn held(op: &'static str, holder: Option<Holder>, path: &Path) -> Error {
    let (what, advice) = match &holder {
        Some(reader) if reader.doing == Doing::Settling => {
            ("is reading the end of this partition", "try again, or see why that process hangs")
        }
        _ => ("is writing this partition", "publish through that process, or stop it"),
    };
    let holder = holder.map_or_else(|| "another writer".to_owned(), |holder| holder.to_string());
    let what = format!("{holder} {what}");
    Error::new(ErrorKind::Locked { holder }, op, what).at(path.display()).advise(advice)
}

/// Tells writers of one process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterId(u64);

impl WriterId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Locks whose holders in this process have been told to close and only finish their work: who opens the same partition
/// again waits for them instead of being refused.
#[derive(Default)]
struct Leaving {
    holders: Mutex<Vec<(PathBuf, WriterId)>>,
    gone: Condvar,
}

fn leaving() -> &'static Leaving {
    static LEAVING: OnceLock<Leaving> = OnceLock::new();
    LEAVING.get_or_init(Leaving::default)
}

impl Leaving {
    /// Waits while a writer other than `me` is leaving `path`; whether one was.
    fn wait_for_others(&self, path: &Path, me: WriterId) -> bool {
        let mut holders = self.holders.lock();
        let other = |holders: &Vec<(PathBuf, WriterId)>| holders.iter().any(|(p, id)| p == path && *id != me);
        let was_there = other(&holders);
        while other(&holders) {
            self.gone.wait(&mut holders);
        }
        was_there
    }
}

/// Announces that a writer will give up the lock on a path soon, until dropped; drop it after the lock.
#[derive(Debug)]
pub(crate) struct LeavingSoon {
    id: WriterId,
}

impl LeavingSoon {
    pub(crate) fn announce(path: &Path, id: WriterId) -> Self {
        leaving().holders.lock().push((path.to_owned(), id));
        Self { id }
    }
}

impl Drop for LeavingSoon {
    fn drop(&mut self) {
        let leaving = leaving();
        leaving.holders.lock().retain(|(_, id)| *id != self.id);
        leaving.gone.notify_all();
    }
}
