//! Opening a log for writing (FORMAT.md, section 6): lock, check, set aside what is torn, write again what nothing proves, go on.
//!
//! Each step leaves a state from which running all of them again gives the same log, so a crash in the middle of a recovery
//! costs nothing but its time.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eb_contract::{Error, ErrorKind, PartitionId, Result, Timestamp, Topic};

use crate::assess::{Assessment, Fault, assess};
use crate::disk::{Disk, DiskFile, OpenMode, create_anew, read_full, write_full};
use crate::error::{corrupt, io_error};
use crate::format::line::decode_line;
use crate::format::sidecar::{Entry, Header, IndexSpacing, Position};
use crate::index::{self, Found, Sidecar};
use crate::layout::{PartitionFiles, TopicMeta};
use crate::lock::{WriterId, WriterLock, lock_writer};
use crate::scan::LineScanner;

const OP: &str = "recover";
const BLOCK: usize = 1 << 20;

/// What opening a partition for writing found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition_id: PartitionId,
    /// Records in the log; also the next offset.
    pub records: u64,
    /// Bytes of log.
    pub bytes: u64,
    /// It had been closed in order, and nothing had to be done.
    pub clean: bool,
    /// The torn tail that was set aside.
    pub torn: Option<TornTail>,
    /// Bytes of whole lines that were written and synced again, because nothing proved that they had been synced.
    pub rewritten_bytes: u64,
    /// Why watermark or index had to be made anew from the lines.
    pub rebuilt: Option<String>,
}

/// A tail that was never ACKed, and now lies in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Where its bytes are now.
    pub file: PathBuf,
    /// The offset that its first line had or should have had; the next append takes it.
    pub offset: u64,
    /// Where in the log it began.
    pub byte: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// What is wrong with its first line.
    pub damage: String,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {} records, {} bytes", self.topic, self.partition_id, self.records, self.bytes)?;
        if let Some(torn) = &self.torn {
            let (bytes, byte, file) = (torn.bytes, torn.byte, torn.file.display());
            write!(
                f,
                "; a torn tail of {bytes} bytes at byte {byte} ({}) was set aside in {file}",
                torn.damage
            )?;
        }
        if self.rewritten_bytes > 0 {
            write!(f, "; {} bytes were written and synced again", self.rewritten_bytes)?;
        }
        if let Some(why) = &self.rebuilt {
            write!(f, "; the sidecar was made anew: {why}")?;
        }
        Ok(())
    }
}

/// A log that is open for writing, locked, with everything before `end` synced.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) sidecar: Sidecar,
    pub(crate) end: Position,
    pub(crate) spacing: IndexSpacing,
    /// Last, so that it is given up after the files.
    pub(crate) _lock: WriterLock,
}

/// Locks and recovers a partition. Blocking.
pub(crate) fn open_log(
    disk: &dyn Disk,
    files: &PartitionFiles,
    meta: &TopicMeta,
    partition: PartitionId,
    boot_id: [u8; 16],
    me: WriterId,
) -> Result<(OpenLog, RecoveryReport)> {
    let lock = lock_writer(OP, disk, files, me)?;
    recover_locked(lock, disk, files, meta, partition, boot_id, false)
}

/// Recovers a partition whose lock is held; with `thorough`, its whole index is made anew. Blocking.
pub(crate) fn recover_locked(
    lock: WriterLock,
    disk: &dyn Disk,
    files: &PartitionFiles,
    meta: &TopicMeta,
    partition: PartitionId,
    boot_id: [u8; 16],
    thorough: bool,
) -> Result<(OpenLog, RecoveryReport)> {
    let file = disk.open(&files.log, OpenMode::Write).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            missing(&files.log, "the topic exists, but this log of it does not".to_owned())
        } else {
            io_error(OP, &files.log, "cannot open the log", e)
        }
    })?;
    let known = Known::read(disk, files, meta, partition, boot_id)?;
    let len = file.len().map_err(|e| io_error(OP, &files.log, "cannot look at the log", e))?;
    let watermark = known.watermark();
    if len < watermark.bytes {
        let what = format!(
            "it has {len} bytes, but {} records in {} bytes were synced",
            watermark.next, watermark.bytes
        );
        return Err(missing(&files.log, what));
    }

    let Checked { seen, kept, entries, rebuilt } = check(&*file, files, &known, len, thorough)?;
    let torn = match seen.fault {
        Some(fault) if fault.evidence.is_some() => return Err(interior(&files.log, &fault)),
        Some(fault) if seen.content_end > fault.byte => {
            let aside = set_aside(disk, files, &*file, fault.byte, seen.content_end)
                .map_err(|e| io_error(OP, &files.log, "cannot set the torn tail aside", e))?;
            Some(TornTail {
                file: aside,
                offset: fault.offset,
                byte: fault.byte,
                bytes: seen.content_end - fault.byte,
                damage: fault.damage.to_string(),
            })
        }
        _ => None,
    };

    let clean = known.clean() && len == watermark.bytes && rebuilt.is_none();
    let mut rewritten_bytes = 0;
    if !clean {
        let cut = || -> io::Result<u64> {
            // Also where the log ends there already: it may show a cut whose sync failed.
            file.set_len(seen.end.bytes)?;
            let rewritten = write_again(&*file, seen.proven.bytes, seen.end.bytes)?;
            file.sync_all()?;
            Ok(rewritten)
        };
        rewritten_bytes =
            cut().map_err(|e| io_error(OP, &files.log, "cannot make the log's end durable", e))?;
    }

    let header = Header {
        incarnation: meta.incarnation,
        boot_id,
        partition: partition.0,
        clean,
        watermark: seen.end,
        entries: 0,
    };
    let last_entry = entries.last().map(|e| e.byte).or(kept.1.map(|e| e.byte)).unwrap_or(0);
    let sidecar = match &known {
        Known::Sidecar { header: old, .. } if clean => {
            Sidecar::adopt(disk, files.sidecar.clone(), Header { entries: old.entries, ..header })
        }
        _ => Sidecar::write(disk, files.sidecar.clone(), header, kept.0, &entries),
    };
    let sidecar = sidecar.map_err(|e| io_error(OP, &files.sidecar, "cannot write the sidecar", e))?;

    let report = RecoveryReport {
        topic: meta.topic.clone(),
        partition_id: partition,
        records: seen.end.next,
        bytes: seen.end.bytes,
        clean,
        torn,
        rewritten_bytes,
        rebuilt,
    };
    let spacing = IndexSpacing::after(last_entry);
    lock.recovered(disk);
    Ok((OpenLog { file, path: files.log.clone(), sidecar, end: seen.end, spacing, _lock: lock }, report))
}

/// What the sidecar says.
enum Known {
    Sidecar { header: Header, file: Arc<dyn DiskFile>, same_boot: bool },
    Nothing(String),
}

impl Known {
    fn read(
        disk: &dyn Disk,
        files: &PartitionFiles,
        meta: &TopicMeta,
        partition: PartitionId,
        boot_id: [u8; 16],
    ) -> Result<Self> {
        let found = index::find(disk, &files.sidecar, meta.incarnation, partition.0)
            .map_err(|e| io_error(OP, &files.sidecar, "cannot read the sidecar", e))?;
        match found {
            Found::Usable(header, file) => {
                let same_boot = boot_id != [0; 16] && header.boot_id == boot_id;
                Ok(Self::Sidecar { header, file, same_boot })
            }
            Found::Unusable(why) => Ok(Self::Nothing(why)),
            Found::Newer(version) => {
                let what = format!("the sidecar has version {version}, which this program does not know");
                let e = Error::new(ErrorKind::WrongVersion, OP, what).at(files.sidecar.display());
                Err(e.advise("use a newer program"))
            }
        }
    }

    fn watermark(&self) -> Position {
        match self {
            Self::Sidecar { header, .. } => header.watermark,
            Self::Nothing(_) => Position::default(),
        }
    }

    fn clean(&self) -> bool {
        matches!(self, Self::Sidecar { header, .. } if header.clean)
    }
}

/// The lines as they were read, and the index that fits them.
struct Checked {
    seen: Assessment,
    /// How many entries of the sidecar stay as they are, and the last of them.
    kept: (u64, Option<Entry>),
    /// Those that follow.
    entries: Vec<Entry>,
    rebuilt: Option<String>,
}

fn check(
    file: &dyn DiskFile,
    files: &PartitionFiles,
    known: &Known,
    len: u64,
    thorough: bool,
) -> Result<Checked> {
    let unreadable = |e| io_error(OP, &files.log, "cannot read the log", e);
    let watermark = known.watermark();
    let from = |kept: (u64, Option<Entry>)| -> io::Result<(Assessment, Vec<Entry>)> {
        let start = kept.1.map_or(Position::default(), |e| Position {
            next: e.offset,
            bytes: e.byte,
            last_time: None,
        });
        let mut spacing = IndexSpacing::after(start.bytes);
        let mut entries = Vec::new();
        let seen = assess(file, start, len, watermark, |line, byte| {
            if spacing.takes(byte) {
                entries.push(Entry { offset: line.offset, byte, time: line.published_at });
            }
        })?;
        Ok((seen, entries))
    };
    let mut rebuilt = None;
    let kept = match known {
        Known::Sidecar { .. } if thorough => {
            rebuilt = Some("a repair was asked for".to_owned());
            (0, None)
        }
        Known::Sidecar { header, file: sidecar, same_boot } => {
            let kept = index::believable(&**sidecar, header, *same_boot)
                .map_err(|e| io_error(OP, &files.sidecar, "cannot read the index", e))?;
            if kept.0 < header.entries {
                rebuilt = Some(format!("index entry {} of {} was damaged", kept.0 + 1, header.entries));
            }
            let (seen, entries) = from(kept).map_err(unreadable)?;
            // An entry that its line does not bear out: the line may be damaged, or the entry wrong. Reading it all tells.
            let disagrees = kept.1.is_some_and(|e| seen.fault.is_some_and(|f| f.byte == e.byte));
            if !disagrees {
                return Ok(Checked { seen, kept, entries, rebuilt });
            }
            rebuilt = Some("its index did not fit the log".to_owned());
            (0, None)
        }
        Known::Nothing(why) => {
            // A new log has no sidecar yet; that is no news.
            if len > 0 {
                rebuilt = Some(why.clone());
            }
            (0, None)
        }
    };
    let (seen, entries) = from(kept).map_err(unreadable)?;
    Ok(Checked { seen, kept, entries, rebuilt })
}

fn missing(path: &Path, what: String) -> Error {
    Error::new(ErrorKind::FactsMissing, OP, what)
        .at(path.display())
        .advise("restore the log from a copy; `eb verify` says which records are missing")
}

fn interior(path: &Path, fault: &Fault) -> Error {
    let evidence = fault.evidence.map_or_else(String::new, |e| format!(", and {e}"));
    let what = format!("record {}: {}{evidence}", fault.offset, fault.damage);
    corrupt(OP, path, Some(fault.offset + 1), Some(fault.byte), what)
        .advise("nothing was changed; restore the log from a copy, or see what `eb verify` says")
}

/// Copies a torn tail into a file of its own, durably, before anyone cuts it off.
fn set_aside(
    disk: &dyn Disk,
    files: &PartitionFiles,
    log: &dyn DiskFile,
    from: u64,
    to: u64,
) -> io::Result<PathBuf> {
    let prefix = files.torn_prefix();
    let temporary = files.torn_temporary();
    for entry in disk.list(&files.dir)? {
        let path = files.dir.join(&entry.name);
        if entry.is_dir || !entry.name.starts_with(&prefix) || path == temporary {
            continue;
        }
        let copy = disk.open(&path, OpenMode::Read)?;
        if copy.len()? == to - from && same_bytes(&*copy, log, from, to)? {
            // A recovery before this one got as far as here.
            disk.open(&path, OpenMode::Write)?.sync_all()?;
            disk.sync_dir(&files.dir)?;
            return Ok(path);
        }
    }

    let copy = create_anew(disk, &temporary)?;
    let mut block = vec![0; BLOCK.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let want = block.len().min((to - at) as usize);
        read_exactly(log, &mut block[..want], at)?;
        write_full(&*copy, &block[..want], at - from)?;
        at += want as u64;
    }
    copy.sync_all()?;
    drop(copy);
    let mut now = Timestamp::now();
    let path = loop {
        let path = files.torn(now);
        match disk.open(&path, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => break path,
            Ok(_) => now = now.saturating_add(std::time::Duration::from_micros(1)),
            Err(e) => return Err(e),
        }
    };
    disk.rename(&temporary, &path)?;
    disk.sync_dir(&files.dir)?;
    Ok(path)
}

fn same_bytes(copy: &dyn DiskFile, log: &dyn DiskFile, from: u64, to: u64) -> io::Result<bool> {
    let size = BLOCK.min((to - from) as usize);
    let (mut a, mut b) = (vec![0; size], vec![0; size]);
    let mut at = from;
    while at < to {
        let want = size.min((to - at) as usize);
        read_exactly(log, &mut a[..want], at)?;
        read_exactly(copy, &mut b[..want], at - from)?;
        if a[..want] != b[..want] {
            return Ok(false);
        }
        at += want as u64;
    }
    Ok(true)
}

fn read_exactly(file: &dyn DiskFile, buf: &mut [u8], at: u64) -> io::Result<()> {
    if read_full(file, buf, at)? < buf.len() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was read",
        ));
    }
    Ok(())
}

/// Writes whole lines over themselves. Each is checked in the very bytes that are written: after a failed sync, a second read may
/// give other bytes than the first.
pub(crate) fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<u64> {
    let mut scanner = LineScanner::new(file, from, to);
    let mut block = Vec::new();
    let mut at = from;
    while let Some(raw) = scanner.next_line()? {
        if !raw.terminated || raw.overlong || decode_line(raw.text).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log changed while it was recovered"));
        }
        block.extend_from_slice(raw.text);
        block.push(b'\n');
        if block.len() >= BLOCK {
            write_full(file, &block, at)?;
            at += block.len() as u64;
            block.clear();
        }
    }
    write_full(file, &block, at)?;
    Ok(to - from)
}
