//! How far a reader may see (FORMAT.md, section 8).
//!
//! While a writer of this process has the partition open, that is its [`TailState`]. Otherwise it is the sidecar's watermark,
//! which a writer in another process raises after each sync; and when the log is longer than that although nobody writes it (a writer died), the
//! reader *settles* the tail: under the writer's lock, it writes the whole lines that recovery would keep over themselves, syncs them, and only
//! then sees them. It never cuts, never sets aside, and leaves the sidecar alone: that is for a writer.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eb_contract::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use crate::assess::{Assessment, Fault, assess};
use crate::block::{Patience, read_at};
use crate::bus::{BusShared, PartitionState};
use crate::disk::{DiskFile, FileIdentity, OpenMode};
use crate::error::{corrupt, io_error};
use crate::format::sidecar::{HEADER_LEN, Header, Position};
use crate::index::{self, Found};
use crate::layout::TopicMeta;
use crate::lock::{Hopeless, lock_to_settle};
use crate::recovery::write_again;
use crate::state::TailState;

/// For how long open files are taken for those that the names stand for, without looking again.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// A header that is being overwritten may be read half old, half new; the next look finds it whole.
const HEADER_ATTEMPTS: u32 = 5;

/// How far the log is synced, and whether it goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// Everything below may be read.
    pub(crate) end: Position,
    /// Records that were synced lie behind `end`, out of reach of a damaged one.
    pub(crate) fault: Option<Fault>,
}

impl Horizon {
    fn at(end: Position) -> Self {
        Self { end, fault: None }
    }
}

/// The files of a partition as readers have them open.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) log: Arc<dyn DiskFile>,
    identity: Option<FileIdentity>,
    /// `None` where there is none.
    pub(crate) sidecar: Option<Arc<dyn DiskFile>>,
}

impl Handles {
    /// Whether the same log is meant, not another file that took its name.
    pub(crate) fn same_log(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// What the readers of one process know of a partition together.
#[derive(Debug, Default)]
pub(crate) struct ReadSide {
    known: Mutex<Known>,
    /// One look at a time, so that several followers do not settle the same tail.
    looking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    handles: Option<Arc<Handles>>,
    looked_at: Option<Instant>,
    seen: Option<Seen>,
    hopeless: Option<Hopeless>,
}

/// What one look at a log beyond its watermark has shown; it holds as long as both are the same.
#[derive(Debug, Clone, Copy)]
struct Seen {
    watermark: Option<Position>,
    len: u64,
    horizon: Horizon,
}

/// What a look found.
pub(crate) type View = (Arc<Handles>, Horizon);

/// One partition, looked at by a reader.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) shared: Arc<BusShared>,
    pub(crate) meta: TopicMeta,
    pub(crate) partition: Arc<PartitionState>,
}

impl Watched {
    /// The writer's own state, while one of this process has the partition open.
    pub(crate) fn tail(&self) -> Option<Arc<TailState>> {
        self.partition.tail()
    }

    /// How far readers may see, as far as that can be said without waiting for the device.
    ///
    /// # Errors
    /// What makes the log unreadable.
    pub(crate) fn look_ready(&self, op: &'static str) -> Result<Option<View>> {
        let known = self.partition.reads.known.lock();
        let Some(handles) = known.handles.clone() else { return Ok(None) };
        let trusted = known.looked_at.is_some_and(|at| at.elapsed() < TRUSTED_FOR);
        // Without its index, each look-up would be a scan: a writer may have made one since.
        if let Some(tail) = self.tail().filter(|_| trusted || handles.sidecar.is_some()) {
            return Ok(Some((handles, Horizon::at(tail.synced()))));
        }
        let seen = known.seen;
        drop(known);
        let Some(sidecar) = handles.sidecar.clone().filter(|_| trusted) else { return Ok(None) };
        let mut bytes = [0; HEADER_LEN];
        let Ok(HEADER_LEN) = read_at(&*sidecar, Patience::Ready, &mut bytes, 0) else { return Ok(None) };
        let Some(watermark) = Header::decode(&bytes).ok().filter(|h| self.owns(h)).map(|h| h.watermark)
        else {
            return Ok(None);
        };
        let len = self.len(op, &*handles.log)?;
        if len == watermark.bytes {
            return Ok(Some((handles, Horizon::at(watermark))));
        }
        let same = seen.filter(|s| s.watermark == Some(watermark) && s.len == len);
        Ok(same.map(|s| (handles, s.horizon)))
    }

    /// How far readers may see. Blocking; may settle the tail that a dead writer left.
    ///
    /// # Errors
    /// What makes the log unreadable: `FactsMissing` when it is shorter than what was synced, `WrongIncarnation` when the topic was made
    /// anew, `WrongVersion` for a sidecar of a later version, `Io` as the disk says.
    pub(crate) fn look(&self, op: &'static str) -> Result<View> {
        let reads = &self.partition.reads;
        let _one = reads.looking.lock();
        let handles = Arc::new(self.open(op)?);
        let horizon = match self.tail() {
            Some(tail) => Horizon::at(tail.synced()),
            None => self.measure(op, &handles)?,
        };
        let mut known = reads.known.lock();
        // The same file keeps its handle, so that cursors need not compare.
        let handles = match known.handles.take() {
            Some(old) if old.same_log(&handles) && old.sidecar.is_some() == handles.sidecar.is_some() => old,
            _ => handles,
        };
        known.handles = Some(handles.clone());
        known.looked_at = Some(Instant::now());
        Ok((handles, horizon))
    }

    fn open(&self, op: &'static str) -> Result<Handles> {
        let (disk, files) = (&*self.shared.disk, &self.partition.files);
        let log = disk.open(&files.log, OpenMode::Read).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                missing(op, &files.log, "the topic exists, but this log of it does not".to_owned())
            } else {
                io_error(op, &files.log, "cannot open the log", e)
            }
        })?;
        let identity = log.identity().map_err(|e| io_error(op, &files.log, "cannot look at the log", e))?;
        let sidecar = match disk.open(&files.sidecar, OpenMode::Read) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error(op, &files.sidecar, "cannot open the sidecar", e)),
        };
        Ok(Handles { log, identity, sidecar })
    }

    fn measure(&self, op: &'static str, handles: &Handles) -> Result<Horizon> {
        let watermark = self.watermark(op)?;
        let len = self.len(op, &*handles.log)?;
        let seen = self.partition.reads.known.lock().seen;
        if let Some(seen) = seen.filter(|s| s.watermark == watermark && s.len == len) {
            return Ok(seen.horizon);
        }
        let Some((watermark, len, horizon)) = self.beyond(op, handles, watermark, len)? else {
            // It may have been waited for: recovery raises it.
            return Ok(Horizon::at(self.watermark(op)?.unwrap_or_default()));
        };
        self.partition.reads.known.lock().seen = Some(Seen { watermark, len, horizon });
        Ok(horizon)
    }

    /// Judges what lies past the watermark; `None` while it is a living writer's business.
    fn beyond(
        &self,
        op: &'static str,
        handles: &Handles,
        watermark: Option<Position>,
        len: u64,
    ) -> Result<Option<(Option<Position>, u64, Horizon)>> {
        let path = &self.partition.files.log;
        if watermark.is_some_and(|w| len == w.bytes) || (watermark.is_none() && len == 0) {
            return Ok(None);
        }
        let unreadable = |e| io_error(op, path, "cannot read the log", e);
        let mut hopeless = self.partition.reads.known.lock().hopeless.take();
        let patience = self.shared.config.settle_patience;
        let locked = lock_to_settle(&*self.shared.disk, &self.partition.files.lock, patience, &mut hopeless);
        self.partition.reads.known.lock().hopeless = hopeless;
        let lock = match locked {
            Ok(None) if watermark.is_some() => return Ok(None),
            Ok(lock) => lock,
            // Nobody can write here who could not lock; without a lock only what proves itself is shown.
            Err(e) if is_read_only(&e) => None,
            Err(e) => {
                return Err(io_error(op, &self.partition.files.lock, "cannot see whether it is locked", e));
            }
        };
        // A writer may have come and gone since.
        let watermark = self.watermark(op)?;
        let len = self.len(op, &*handles.log)?;
        let start = watermark.unwrap_or_default();
        if len < start.bytes {
            let what = format!(
                "it has {len} bytes, but {} records in {} bytes were synced",
                start.next, start.bytes
            );
            return Err(missing(op, path, what));
        }
        let seen = assess(&*handles.log, start, len, start, |_, _| {}).map_err(unreadable)?;
        let horizon = match seen.fault.filter(|f| f.evidence.is_some()) {
            Some(fault) => Horizon { end: seen.end, fault: Some(fault) },
            None if lock.is_some() && self.settle(op, &seen)? => Horizon::at(seen.end),
            None => Horizon::at(seen.proven),
        };
        Ok(Some((watermark, len, horizon)))
    }

    /// Makes the lines that nothing proves to be on disk durable; whether it could. The lock is held.
    fn settle(&self, op: &'static str, seen: &Assessment) -> Result<bool> {
        if seen.end.bytes == seen.proven.bytes {
            return Ok(true);
        }
        let path = &self.partition.files.log;
        let failed =
            |e| io_error(op, path, "cannot make the log's last lines durable before showing them", e);
        let file = match self.shared.disk.open(path, OpenMode::Write) {
            Ok(file) => file,
            Err(e) if is_read_only(&e) => return Ok(false),
            Err(e) => return Err(failed(e)),
        };
        let bytes = write_again(&*file, seen.proven.bytes, seen.end.bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        tracing::info!(
            partition = %self.partition, from = seen.proven.next, to = seen.end.next, bytes,
            "nobody writes this log: its last lines were synced before they are read"
        );
        Ok(true)
    }

    /// The watermark on disk; `None` where nothing believable says one.
    fn watermark(&self, op: &'static str) -> Result<Option<Position>> {
        let path = &self.partition.files.sidecar;
        for attempt in 1..=HEADER_ATTEMPTS {
            let found = index::find(&*self.shared.disk, path, self.meta.incarnation, self.partition.id.0)
                .map_err(|e| io_error(op, path, "cannot read the sidecar", e))?;
            match found {
                Found::Usable(header, _) => return Ok(Some(header.watermark)),
                Found::Newer(version) => {
                    let what = format!("the sidecar has version {version}, which this program does not know");
                    return Err(Error::new(ErrorKind::WrongVersion, op, what)
                        .at(path.display())
                        .advise("use a newer program"));
                }
                Found::Unusable(_) if attempt < HEADER_ATTEMPTS => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Found::Unusable(why) => self.report_sidecar(op, &why)?,
            }
        }
        Ok(None)
    }

    /// A sidecar that is not ours may mean that the whole topic is another one by now.
    fn report_sidecar(&self, op: &'static str, why: &str) -> Result<()> {
        let now = self.shared.layout.load_topic(&*self.shared.disk, op, &self.meta.topic)?;
        if now.incarnation != self.meta.incarnation {
            return Err(Error::new(ErrorKind::WrongIncarnation, op, "the topic was deleted and made anew")
                .at(&self.partition)
                .advise("open the bus again; positions of the old topic mean nothing in the new one"));
        }
        tracing::debug!(partition = %self.partition, why, "the sidecar is of no use: the log is read by scan");
        Ok(())
    }

    fn owns(&self, header: &Header) -> bool {
        header.incarnation == self.meta.incarnation && header.partition == self.partition.id.0
    }

    fn len(&self, op: &'static str, log: &dyn DiskFile) -> Result<u64> {
        log.len().map_err(|e| io_error(op, &self.partition.files.log, "cannot look at the log", e))
    }
}

fn is_read_only(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn missing(op: &'static str, path: &Path, what: String) -> Error {
    Error::new(ErrorKind::FactsMissing, op, what)
        .at(path.display())
        .advise("restore the log from a copy; `eb verify` says which records are missing")
}

/// A damaged record in a reader's way.
pub(crate) fn fault_error(op: &'static str, path: &Path, fault: &Fault) -> Error {
    let what = format!("record {} is damaged: {}", fault.offset, fault.damage);
    corrupt(op, path, Some(fault.offset + 1), Some(fault.byte), what)
        .advise("see what `eb verify` says, and restore the log from a copy")
}
