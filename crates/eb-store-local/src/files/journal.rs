//! A file of checked lines that only grows, shared by processes that take turns under a folder's lock.
//!
//! - The file is made whole with its first line (temporary name, sync, rename, sync of the folder), so a file without a good
//!   first line is damaged, never young.
//! - An append is one write and one `fdatasync`. Every line says in `durable` up to which byte the file had been synced
//!   before it was written.
//! - **Tail**: where a line is bad, and no good line behind it says that it was durable, everything from it on was never answered:
//!   it is copied to `<file>.torn-<byte>-<micros>`, and cut off. Where a good line behind it says so, the file is damaged: a loud
//!   refusal.
//! - **A failed write or sync**: the file is cut back to where it was. Where that fails too, the outcome is unknown: whoever comes
//!   next, in any process, finds a good line or a bad tail.
//! - A line that this handle did not write and sync itself (another process may have died between the two) is written
//!   once more, with the next append, by the same write: after a failed sync reading it back proves nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eb_contract::{Effect, Error, Result, Timestamp};
use eb_disk::{Disk, DiskFile, OpenMode, create_anew, read_full, write_full};
use serde::Deserialize;

use super::{corrupt, io_error, line};

/// The longest line that is read.
const MAX_LINE: usize = 64 << 20;
const BLOCK: usize = 256 << 10;
/// To read one line.
const SMALL_BLOCK: usize = 8 << 10;

/// An open journal. To be used only while the folder's lock is held.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// The end of the lines that were looked at.
    known: u64,
    /// Where the last of them begins.
    last: u64,
    /// This handle has written and synced the last line itself.
    ours: bool,
}

/// Told where a line begins, its bytes without the newline, and whether the newline is there.
type EachLine<'a> = dyn FnMut(u64, &[u8], bool) -> Result<()> + 'a;

/// What every line says.
#[derive(Deserialize)]
struct Common {
    durable: u64,
}

impl Journal {
    /// Makes a journal of one line. A crash leaves it whole or not at all.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, first: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        let file = create_anew(disk, temporary)?;
        write_full(&*file, first, 0)?;
        file.sync_all()?;
        disk.rename(temporary, path)?;
        disk.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Opens a journal to be read from its beginning by [`Journal::catch_up`]; `None` where there is none.
    pub(crate) fn open(disk: &dyn Disk, op: &'static str, path: &Path) -> Result<Option<Self>> {
        match disk.open(path, OpenMode::Write) {
            Ok(file) => Ok(Some(Self { path: path.to_owned(), file, known: 0, last: 0, ours: false })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error(op, path, "it cannot be opened", e)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length, as far as it was looked at.
    pub(crate) fn len(&self) -> u64 {
        self.known
    }

    /// Its length on disk.
    pub(crate) fn size(&self, op: &'static str) -> Result<u64> {
        self.file.len().map_err(|e| io_error(op, &self.path, "it cannot be read", e))
    }

    /// What the next line is to say in `durable`.
    pub(crate) fn durable(&self) -> u64 {
        if self.ours { self.known } else { self.last }
    }

    /// Looks at the lines that are new since the last look, and sets a torn tail aside. An error of `each` ends it; the journal is then to be
    /// opened anew.
    pub(crate) fn catch_up(
        &mut self,
        disk: &dyn Disk,
        op: &'static str,
        now: Timestamp,
        each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let len = self.file.len().map_err(|e| io_error(op, &self.path, "it cannot be read", e))?;
        if len < self.known {
            let what = format!(
                "it is {len} bytes long, and was {}: lines that were answered are missing",
                self.known
            );
            return Err(corrupt(op, &self.path, len, what));
        }
        if len == self.known {
            return Ok(());
        }
        let mut bad = None;
        let mut durable = 0;
        let (mut known, mut last) = (self.known, self.last);
        self.lines(op, BLOCK, self.known, &mut |at, text, whole| {
            let good = whole && line::sort(text).is_some();
            match bad {
                None if good => {
                    each(at, text)?;
                    (last, known) = (at, at + text.len() as u64 + 1);
                }
                None => bad = Some(at),
                Some(_) if good => {
                    let says = serde_json::from_slice::<Common>(text).map(|c| c.durable);
                    durable = durable.max(says.unwrap_or(u64::MAX));
                }
                Some(_) => {}
            }
            Ok(())
        })?;
        if known > self.known {
            (self.known, self.last, self.ours) = (known, last, false);
        }
        let Some(bad) = bad else { return Ok(()) };
        if bad == 0 || durable > bad {
            let what = "a line is damaged that was durable: its checksum does not hold";
            return Err(corrupt(op, &self.path, bad, what).advise("restore the file from a copy"));
        }
        self.set_aside(disk, op, len, now)
    }

    fn set_aside(&mut self, disk: &dyn Disk, op: &'static str, len: u64, now: Timestamp) -> Result<()> {
        let failed = |e| io_error(op, &self.path, "its torn tail cannot be set aside", e);
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".torn-{}-{}", self.known, now.as_micros()));
        let copy = create_anew(disk, Path::new(&name)).map_err(failed)?;
        let mut buf = vec![0; BLOCK];
        let mut at = self.known;
        while at < len {
            let n = read_full(&*self.file, &mut buf, at).map_err(failed)?;
            if n == 0 {
                break;
            }
            write_full(&*copy, &buf[..n], at - self.known).map_err(failed)?;
            at += n as u64;
        }
        copy.sync_all().map_err(failed)?;
        disk.sync_dir(self.path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        self.file.set_len(self.known).and_then(|()| self.file.sync_all()).map_err(failed)?;
        tracing::warn!(
            file = %self.path.display(), byte = self.known, bytes = len - self.known, kept = %Path::new(&name).display(),
            "what was written behind the last durable line, and never answered, was set aside"
        );
        Ok(())
    }

    /// Appends lines that [`Journal::durable`] was written into, durably.
    ///
    /// # Errors
    /// [`Effect::None`] where the file is as it was; else [`Effect::Unknown`].
    pub(crate) fn append(&mut self, op: &'static str, lines: &[u8]) -> Result<()> {
        let mut with_last = Vec::new();
        let (from, bytes) = if self.ours {
            (self.known, lines)
        } else {
            with_last = self.read(op, self.last)?;
            with_last.push(b'\n');
            with_last.extend_from_slice(lines);
            (self.last, &with_last[..])
        };
        debug_assert!(
            from + bytes.len() as u64 == self.known + lines.len() as u64 && with_last.len() <= bytes.len()
        );
        if let Err(e) = write_full(&*self.file, bytes, from).and_then(|()| self.file.sync_data()) {
            self.ours = false;
            let undone = self.file.set_len(self.known).and_then(|()| self.file.sync_all());
            let effect = if undone.is_ok() { Effect::None } else { Effect::Unknown };
            return Err(io_error(op, &self.path, "it cannot be written", e).with_effect(effect));
        }
        let body = &lines[..lines.len().saturating_sub(1)];
        let last = memchr::memrchr(b'\n', body).map_or(0, |before| before + 1);
        self.last = self.known + last as u64;
        self.known += lines.len() as u64;
        self.ours = true;
        Ok(())
    }

    /// Sees to it that the last line is durable, whoever wrote it.
    ///
    /// # Errors
    /// When that is not known.
    pub(crate) fn settle(&mut self, op: &'static str) -> Result<()> {
        if self.ours {
            return Ok(());
        }
        let mut last = self.read(op, self.last)?;
        last.push(b'\n');
        write_full(&*self.file, &last, self.last)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| io_error(op, &self.path, "it cannot be written", e))?;
        self.ours = true;
        Ok(())
    }

    /// The line that begins at this byte, without its newline.
    pub(crate) fn read(&self, op: &'static str, at: u64) -> Result<Vec<u8>> {
        let mut found = None;
        self.lines(op, SMALL_BLOCK, at, &mut |_, text, whole| {
            if whole && line::sort(text).is_some() {
                found = Some(text.to_vec());
            }
            Err(Error::new(eb_contract::ErrorKind::NotAttempted, op, "one line is enough"))
        })
        .or_else(|e| if *e.kind() == eb_contract::ErrorKind::NotAttempted { Ok(()) } else { Err(e) })?;
        found.ok_or_else(|| corrupt(op, &self.path, at, "the line that was there is damaged"))
    }

    /// Hands out everything from this byte to the end of the file, line by line, and whether each has its newline.
    fn lines(&self, op: &'static str, block: usize, from: u64, each: &mut EachLine<'_>) -> Result<()> {
        let mut buf: Vec<u8> = Vec::new();
        // Where `buf` begins in the file, and how much of it was searched for a newline.
        let (mut at, mut searched) = (from, 0);
        loop {
            let filled = buf.len();
            buf.resize(filled + block, 0);
            let n = read_full(&*self.file, &mut buf[filled..], at + filled as u64)
                .map_err(|e| io_error(op, &self.path, "it cannot be read", e))?;
            buf.truncate(filled + n);
            let mut begin = 0;
            while let Some(len) = memchr::memchr(b'\n', &buf[begin + searched..]) {
                let end = begin + searched + len;
                each(at + begin as u64, &buf[begin..end], true)?;
                (begin, searched) = (end + 1, 0);
            }
            buf.drain(..begin);
            (at, searched) = (at + begin as u64, buf.len());
            if n < block {
                return if buf.is_empty() { Ok(()) } else { each(at, &buf, false) };
            }
            if buf.len() > MAX_LINE {
                return Err(corrupt(op, &self.path, at, format!("a line is longer than {MAX_LINE} bytes")));
            }
        }
    }
}
