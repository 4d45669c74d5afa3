//! Finding a record by offset or time: the sparse index says where to look, the lines say whether it is right.
//!
//! An entry is believed when its own checksum holds and the line it names is the one it says. From there newlines are counted
//! to the target, and the offset in the line found there is checked; where anything disagrees, an earlier entry is taken, in the
//! end the start of the log. So a damaged or missing index costs time, never a wrong answer.

use std::io;
use std::path::Path;
use std::sync::Arc;

use eb_contract::{Error, ErrorKind, Timestamp};

use crate::block::{Block, BlockPool, FIRST_BLOCK, LARGEST_BLOCK, Patience, read_at, read_block};
use crate::disk::DiskFile;
use crate::error::{corrupt, io_error};
use crate::format::line::{Line, LineDamage, LineDecoder, MAX_LINE_BYTES};
use crate::format::sidecar::{ENTRY_LEN, Entry, HEADER_LEN, Header};
use crate::horizon::{View, Watched};
use crate::offload::offload;

/// Why a look-up did not end with an answer.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It needs the device: ask again with patience.
    NotReady,
    /// It cannot be answered.
    Failed(Error),
}

impl Stop {
    /// For a look-up that had patience.
    pub(crate) fn into_error(self, op: &'static str) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::NotReady => {
                Error::new(ErrorKind::Unavailable, op, "the disk gave no answer where it may wait")
            }
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A log, its index, and how far to look.
pub(crate) struct Seeker<'a> {
    pub(crate) op: &'static str,
    pub(crate) path: &'a Path,
    pub(crate) log: &'a dyn DiskFile,
    pub(crate) sidecar: Option<&'a dyn DiskFile>,
    pub(crate) pool: &'a Arc<BlockPool>,
    pub(crate) patience: Patience,
    /// The log ends here, after a whole line.
    pub(crate) end: u64,
}

/// A place where a line starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Start {
    pub(crate) offset: u64,
    pub(crate) byte: u64,
}

/// The line that was looked for, in the block it was found in.
#[derive(Debug)]
pub(crate) struct FoundLine {
    pub(crate) start: Start,
    pub(crate) block: Block,
}

impl Seeker<'_> {
    /// The line of this offset, which lies before the end.
    pub(crate) fn offset(&self, target: u64) -> Result<FoundLine, Stop> {
        let mut limit = None;
        loop {
            let (slot, start) = self.before(limit, |entry| entry.offset <= target)?;
            match self.count_to(start, target)? {
                Ok(found) => return Ok(found),
                // The index was wrong, or a line between is damaged: an earlier entry tells.
                Err(()) if slot.is_some() => limit = slot,
                Err(()) => return Err(self.first_damage(start)?),
            }
        }
    }

    /// The first line published at `time` or later; `None` when there is none before the end.
    pub(crate) fn time(&self, time: Timestamp) -> Result<Option<FoundLine>, Stop> {
        let mut limit = None;
        loop {
            let (slot, start) = self.before(limit, |entry| entry.time < time)?;
            if start.byte > 0 && !self.agrees(start)? {
                limit = slot;
                continue;
            }
            let mut found = None;
            self.walk(start, |start, line, block| {
                if line.published_at < time {
                    return true;
                }
                found = Some((start, block.clone()));
                false
            })?;
            return Ok(found.map(|(start, block)| FoundLine { start, block }));
        }
    }

    /// The last entry below slot `limit` of which `wanted` holds, and the line it names; the first line of the log where there is none.
    fn before(
        &self,
        limit: Option<u64>,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<(Option<u64>, Start), Stop> {
        let Some(sidecar) = self.sidecar else { return Ok((None, Start::default())) };
        let mut bytes = [0; HEADER_LEN];
        self.read_sidecar(sidecar, &mut bytes, 0)?;
        // A header that cannot be read now, or is another's, leaves a scan; entries prove themselves against the lines.
        let entries = Header::decode(&bytes).map_or(0, |h| h.entries);
        let entries = limit.map_or(entries, |l| l.min(entries));
        let found = match self.halve(sidecar, entries, &wanted)? {
            Ok(found) => found,
            Err(slot) => {
                tracing::warn!(
                    log = %self.path.display(), entry = slot,
                    "an index entry is damaged: searching the whole index; the next writer makes it anew"
                );
                self.sift(sidecar, entries, &wanted)?
            }
        };
        Ok(found.map_or((None, Start::default()), |(slot, entry)| {
            (Some(slot), Start { offset: entry.offset, byte: entry.byte })
        }))
    }

    /// Binary search; `Err` with a slot that holds no entry.
    #[allow(clippy::type_complexity)]
    fn halve(
        &self,
        sidecar: &dyn DiskFile,
        entries: u64,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Result<Option<(u64, Entry)>, u64>, Stop> {
        let (mut low, mut high) = (0, entries);
        let mut best = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let mut bytes = [0; ENTRY_LEN];
            self.read_sidecar(sidecar, &mut bytes, Entry::place(middle))?;
            match Entry::decode(&bytes, middle) {
                // The index may know more by now than the reader saw of the log.
                Some(entry) if entry.byte < self.end && wanted(&entry) => {
                    best = Some((middle, entry));
                    low = middle + 1;
                }
                Some(_) => high = middle,
                None => return Ok(Err(middle)),
            }
        }
        Ok(Ok(best))
    }

    /// Looks at every entry, leaving out those that hold nothing.
    fn sift(
        &self,
        sidecar: &dyn DiskFile,
        entries: u64,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Option<(u64, Entry)>, Stop> {
        let mut best = None;
        let mut block = vec![0; 2048 * ENTRY_LEN];
        let mut slot = 0;
        while slot < entries {
            let want =
                usize::try_from(entries - slot).map_or(block.len(), |n| block.len().min(n * ENTRY_LEN));
            let read = self.read_sidecar(sidecar, &mut block[..want], Entry::place(slot))?;
            for bytes in block[..read].chunks(ENTRY_LEN) {
                if let Some(entry) = Entry::decode(bytes, slot).filter(|e| e.byte < self.end && wanted(e)) {
                    best = Some((slot, entry));
                }
                slot += 1;
            }
            if read < want {
                break;
            }
        }
        Ok(best)
    }

    /// Counts newlines from a line to another; the inner `Err` when what is found is not the line that was meant.
    #[allow(clippy::type_complexity)]
    fn count_to(&self, start: Start, target: u64) -> Result<Result<FoundLine, ()>, Stop> {
        let mut at = start;
        let mut size = FIRST_BLOCK;
        let mut checked = start.byte == 0;
        while at.byte < self.end {
            let block = self.block(at.byte, size)?;
            if !checked {
                if !is_record(&block.bytes, at.offset) {
                    return Ok(Err(()));
                }
                checked = true;
            }
            let skip = target - at.offset;
            let mut newlines = memchr::memchr_iter(b'\n', &block.bytes);
            let place = match usize::try_from(skip) {
                Ok(0) => Some(0),
                Ok(n) => newlines.nth(n - 1).map(|newline| newline + 1),
                Err(_) => None,
            };
            match place {
                Some(place) if place < block.bytes.len() => {
                    if !is_record(&block.bytes[place..], target) {
                        return Ok(Err(()));
                    }
                    let start = Start { offset: target, byte: block.byte + place as u64 };
                    let block = Block::unchecked(start.byte, block.bytes.slice(place..));
                    return Ok(Ok(FoundLine { start, block }));
                }
                _ => {
                    let lines = memchr::memchr_iter(b'\n', &block.bytes).count() as u64;
                    at = Start { offset: at.offset + lines, byte: block.end() };
                }
            }
            size = (size * 4).min(LARGEST_BLOCK);
        }
        Ok(Err(()))
    }

    /// Whether the line at `start` is the record it should be.
    fn agrees(&self, start: Start) -> Result<bool, Stop> {
        if start.byte >= self.end {
            return Ok(false);
        }
        Ok(is_record(&self.block(start.byte, FIRST_BLOCK)?.bytes, start.offset))
    }

    /// Decodes line after line until `each` has seen enough or the log ends. The block that `each` gets starts at its line.
    fn walk(&self, start: Start, mut each: impl FnMut(Start, &Line<'_>, &Block) -> bool) -> Result<(), Stop> {
        let mut at = start;
        let mut size = FIRST_BLOCK;
        let mut decoder = LineDecoder::default();
        while at.byte < self.end {
            let mut block = self.block(at.byte, size)?;
            while !block.bytes.is_empty() {
                let (text, whole) = first_line(&block.bytes);
                let line = check_line(&mut decoder, text, whole, false, at.offset)
                    .map_err(|damage| self.damaged(at, damage))?;
                if !each(at, &line, &block) {
                    return Ok(());
                }
                let next = text.len() + 1;
                at = Start { offset: at.offset + 1, byte: block.byte + next as u64 };
                block = Block::unchecked(at.byte, block.bytes.slice(next..));
            }
            size = (size * 4).min(LARGEST_BLOCK);
        }
        Ok(())
    }

    /// Why the record that was looked for from `start` on is not where it should be.
    fn first_damage(&self, start: Start) -> Result<Stop, Stop> {
        let mut end = start;
        if let Err(stop) = self.walk(start, |at, _, _| {
            end = Start { offset: at.offset + 1, ..at };
            true
        }) {
            return Ok(stop);
        }
        let what = format!("the log has {} whole records where more were synced", end.offset);
        Ok(Stop::Failed(corrupt(self.op, self.path, Some(end.offset + 1), None, what)))
    }

    fn block(&self, from: u64, size: usize) -> Result<Block, Stop> {
        read_block(self.log, self.pool, self.patience, from, self.end, size)
            .map_err(|e| self.unreadable(self.path, e))
    }

    fn read_sidecar(&self, sidecar: &dyn DiskFile, bytes: &mut [u8], at: u64) -> Result<usize, Stop> {
        read_at(sidecar, self.patience, bytes, at).map_err(|e| self.unreadable(self.path, e))
    }

    fn unreadable(&self, path: &Path, e: io::Error) -> Stop {
        match e.kind() {
            io::ErrorKind::WouldBlock => Stop::NotReady,
            _ => Stop::Failed(read_error(self.op, path, e)),
        }
    }

    fn damaged(&self, at: Start, damage: LineDamage) -> Stop {
        Stop::Failed(damage_error(self.op, self.path, at, damage))
    }
}

/// Looks lines up in a partition as it was seen.
#[derive(Clone)]
pub(crate) struct Seek {
    pub(crate) watched: Watched,
    pub(crate) view: View,
    pub(crate) pool: Arc<BlockPool>,
}

impl Seek {
    /// Runs a look-up here if all it needs is in memory, else on an I/O thread.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        op: &'static str,
        look_up: impl Fn(&Seeker<'_>) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Error> {
        match look_up(&self.seeker(op, Patience::Ready)) {
            Ok(found) => Ok(found),
            Err(Stop::Failed(e)) => Err(e),
            Err(Stop::NotReady) => {
                offload(op, move || {
                    look_up(&self.seeker(op, Patience::Blocking)).map_err(|stop| stop.into_error(op))
                })
                .await
            }
        }
    }

    fn seeker(&self, op: &'static str, patience: Patience) -> Seeker<'_> {
        let (handles, horizon) = &self.view;
        Seeker {
            op,
            path: &self.watched.partition.files.log,
            log: &*handles.log,
            sidecar: handles.sidecar.as_deref(),
            pool: &self.pool,
            patience,
            end: horizon.end.bytes,
        }
    }
}

/// The text of the first line, and whether a newline ends it.
#[inline]
pub(crate) fn first_line(bytes: &[u8]) -> (&[u8], bool) {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => (&bytes[..end], true),
        None => (bytes, false),
    }
}

/// Decodes a line that should be the record `offset`; `summed` says that its checksum was found to hold.
#[inline]
pub(crate) fn check_line<'a>(
    decoder: &mut LineDecoder,
    text: &'a [u8],
    whole: bool,
    summed: bool,
    offset: u64,
) -> Result<Line<'a>, LineDamage> {
    if !whole {
        return Err(if text.len() > MAX_LINE_BYTES { LineDamage::TooLong } else { LineDamage::Unterminated });
    }
    let line = decoder.decode_summed(text, summed)?;
    if line.offset == offset {
        Ok(line)
    } else {
        Err(LineDamage::Offset { expected: offset, found: line.offset })
    }
}

fn is_record(bytes: &[u8], offset: u64) -> bool {
    let (text, whole) = first_line(bytes);
    check_line(&mut LineDecoder::default(), text, whole, false, offset).is_ok()
}

/// A damaged line in a reader's way.
pub(crate) fn damage_error(op: &'static str, path: &Path, at: Start, damage: LineDamage) -> Error {
    let what = format!("record {} is damaged: {damage}", at.offset);
    corrupt(op, path, Some(at.offset + 1), Some(at.byte), what)
        .advise("see what `eb verify` says, and restore the log from a copy")
}

/// A log that cannot be read as far as it was synced.
pub(crate) fn read_error(op: &'static str, path: &Path, e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(ErrorKind::FactsMissing, op, "the log became shorter than what was synced")
            .at(path.display())
            .advise("restore the log from a copy; `eb verify` says which records are missing");
    }
    io_error(op, path, "cannot read it", e)
}
