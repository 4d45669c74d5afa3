//! The sidecar as a file: reading what it knows, and keeping it up to date behind the writer.
//!
//! Nothing here may fail a publish: the watermark is a lower bound in every state, and the index is derived. What cannot be written is
//! reported once and tried again with the next group.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode, read_full, write_full};
use crate::format::sidecar::{ENTRY_LEN, Entry, HEADER_LEN, Header, HeaderDamage, Position};

/// After this many log bytes the sidecar itself is synced, which bounds what a recovery after a power cut has to scan.
const SYNC_EVERY: u64 = 64 << 20;
const ENTRIES_PER_READ: u64 = 4096;

/// What was found in place of a usable sidecar, or in it.
#[derive(Debug)]
pub(crate) enum Found {
    /// A header to believe, and its file.
    Usable(Header, Arc<dyn DiskFile>),
    /// Nothing to believe, and why.
    Unusable(String),
    /// A later version's: not ours to overwrite.
    Newer(u32),
}

/// Reads a sidecar's header and holds it against the topic it should belong to.
pub(crate) fn find(
    disk: &dyn Disk,
    path: &std::path::Path,
    incarnation: [u8; 16],
    partition: u32,
) -> io::Result<Found> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Found::Unusable("it was missing".to_owned()));
        }
        Err(e) => return Err(e),
    };
    let mut bytes = [0; HEADER_LEN];
    let len = read_full(&*file, &mut bytes, 0)?;
    Ok(match Header::decode(&bytes[..len]) {
        Ok(h) if h.incarnation != incarnation => {
            Found::Unusable("it belonged to another incarnation".to_owned())
        }
        Ok(h) if h.partition != partition => {
            Found::Unusable(format!("it belonged to partition {}", h.partition))
        }
        Ok(header) => Found::Usable(header, file),
        Err(HeaderDamage::Version(version)) => Found::Newer(version),
        Err(damage) => Found::Unusable(damage.to_string()),
    })
}

/// How many of the entries that the header counts can be believed, and the last of them.
///
/// After a clean close or within one boot, the last one speaks for all: either everything was synced, or the page cache has kept it. Otherwise each
/// is read, since a power cut may have lost any of them.
pub(crate) fn believable(
    file: &dyn DiskFile,
    header: &Header,
    same_boot: bool,
) -> io::Result<(u64, Option<Entry>)> {
    let Some(last) = header.entries.checked_sub(1) else { return Ok((0, None)) };
    if header.clean || same_boot {
        let mut bytes = [0; ENTRY_LEN];
        let len = read_full(file, &mut bytes, Entry::place(last))?;
        if let Some(entry) = Entry::decode(&bytes[..len], last).filter(|e| is_below(e, header.watermark)) {
            return Ok((header.entries, Some(entry)));
        }
    }
    let mut good = None;
    let mut slot = 0;
    let mut block = vec![0; ENTRIES_PER_READ as usize * ENTRY_LEN];
    while slot < header.entries {
        let want = (header.entries - slot).min(ENTRIES_PER_READ) as usize * ENTRY_LEN;
        let len = read_full(file, &mut block[..want], Entry::place(slot))?;
        for bytes in block[..len].chunks(ENTRY_LEN) {
            match Entry::decode(bytes, slot).filter(|e| is_below(e, header.watermark) && follows(e, good)) {
                Some(entry) => good = Some(entry),
                None => return Ok((slot, good)),
            }
            slot += 1;
        }
        if len < want {
            break;
        }
    }
    Ok((slot, good))
}

fn is_below(entry: &Entry, watermark: Position) -> bool {
    entry.offset < watermark.next && entry.byte < watermark.bytes
}

fn follows(entry: &Entry, before: Option<Entry>) -> bool {
    before.is_none_or(|b| entry.offset > b.offset && entry.byte > b.byte)
}

/// The open sidecar of the one writer.
#[derive(Debug)]
pub(crate) struct Sidecar {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: Header,
    /// Entries that could not be written yet.
    pending: Vec<Entry>,
    synced_bytes: u64,
    complained: bool,
}

impl Sidecar {
    /// Opens or makes the file and writes what recovery found, durably: header, the `kept` first entries as they are, then `new` ones.
    pub(crate) fn write(
        disk: &dyn Disk,
        path: PathBuf,
        header: Header,
        kept: u64,
        new: &[Entry],
    ) -> io::Result<Self> {
        let file = disk.open(&path, OpenMode::Create)?;
        if let Some(dir) = path.parent() {
            disk.sync_dir(dir)?;
        }
        let header = Header { entries: kept + new.len() as u64, ..header };
        let mut bytes = Vec::with_capacity(new.len() * ENTRY_LEN);
        for (slot, entry) in (kept..).zip(new) {
            bytes.extend_from_slice(&entry.encode(slot));
        }
        write_full(&*file, &bytes, Entry::place(kept))?;
        file.set_len(Entry::place(header.entries))?;
        // Entries first: a header must never count what a power cut may have lost across a clean close.
        file.sync_data()?;
        write_full(&*file, &header.encode(), 0)?;
        file.sync_all()?;
        let synced_bytes = header.watermark.bytes;
        Ok(Self { file, path, header, pending: Vec::new(), synced_bytes, complained: false })
    }

    /// Opens the file of a log that was closed in order: all of it is as it should be, but for the boot.
    pub(crate) fn adopt(disk: &dyn Disk, path: PathBuf, header: Header) -> io::Result<Self> {
        let file = disk.open(&path, OpenMode::Write)?;
        write_full(&*file, &header.encode(), 0)?;
        let synced_bytes = header.watermark.bytes;
        Ok(Self { file, path, header, pending: Vec::new(), synced_bytes, complained: false })
    }

    /// Says, before anything is appended, that the log is no longer as it was closed. Recovery does not depend on it: it compares lengths.
    pub(crate) fn begin(&mut self) {
        self.header.clean = false;
        let written = self.write_header();
        self.report(written);
    }

    /// After a sync: raises the watermark and adds the index entries of what was synced.
    pub(crate) fn raise(&mut self, synced: Position, entries: &mut Vec<Entry>) {
        self.pending.append(entries);
        self.header.watermark = synced;
        let written = self.write_pending().and_then(|()| self.write_header());
        self.report(written);
    }

    /// Syncs now and then; apart from [`Sidecar::raise`], so that no ACK waits for it.
    pub(crate) fn sync_sometimes(&mut self) {
        let end = self.header.watermark.bytes;
        if end - self.synced_bytes >= SYNC_EVERY {
            self.synced_bytes = end;
            let synced = self.file.sync_data();
            self.report(synced);
        }
    }

    /// Marks the sidecar clean, once the log is closed for good at the watermark.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.write_pending()?;
        self.file.sync_data()?;
        self.header.clean = true;
        self.write_header()?;
        self.file.sync_all()
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let first = self.header.entries;
        let bytes: Vec<u8> = (first..).zip(&self.pending).flat_map(|(slot, e)| e.encode(slot)).collect();
        write_full(&*self.file, &bytes, Entry::place(first))?;
        self.header.entries += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        write_full(&*self.file, &self.header.encode(), 0)
    }

    fn report(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) if self.complained => {
                self.complained = false;
                tracing::info!(file = %self.path.display(), "the sidecar can be written again");
            }
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(
                    file = %self.path.display(), %error,
                    "cannot update the sidecar: publishing goes on, readers of other processes lag, the next recovery scans more"
                );
            }
            _ => {}
        }
    }
}
