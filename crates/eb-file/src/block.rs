//! Blocks of a log: many lines read at once, handed out as slices, and their memory used again.
//!
//! A record's key and envelope are slices of the block it was read with, so that replay neither copies nor allocates per
//! record. A block's memory goes back to its [`BlockPool`] when the last of its records is dropped, wherever that happens.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{DiskFile, read_full};
use crate::format::line::{MAX_LINE_BYTES, checksum_holds};

/// What a cursor reads first, enough for a look-up: the distance of two index entries and a few lines.
pub(crate) const FIRST_BLOCK: usize = 80 * 1024;
/// What it grows to while it reads on. With 256 KiB the hand-over from the reading thread costs as much as it saves.
pub(crate) const LARGEST_BLOCK: usize = 1024 * 1024;
/// One being handed out, one being read ahead, one still held by the last batch.
const KEPT: usize = 3;
const PAGE: usize = 4096;

/// Whether a read may wait for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It may not: what is not in memory is [`io::ErrorKind::WouldBlock`]. For runtime threads.
    Ready,
    /// It may: on a thread of its own.
    Blocking,
}

/// Reads until `buf` is full or the file ends, with as much patience as given.
pub(crate) fn read_at(
    file: &dyn DiskFile,
    patience: Patience,
    buf: &mut [u8],
    position: u64,
) -> io::Result<usize> {
    if patience == Patience::Blocking {
        return read_full(file, buf, position);
    }
    let mut done = 0;
    while done < buf.len() {
        match file.read_ready(&mut buf[done..], position + done as u64)? {
            Some(0) => break,
            Some(n) => done += n,
            None => return Err(io::ErrorKind::WouldBlock.into()),
        }
    }
    Ok(done)
}

/// Memory of blocks that nobody holds any more.
#[derive(Debug, Default)]
pub(crate) struct BlockPool {
    free: Mutex<Vec<Vec<u8>>>,
}

impl BlockPool {
    fn take(&self, len: usize) -> Vec<u8> {
        let mut free = self.free.lock();
        // Sizes only grow, so what is too small will not be asked for again.
        free.retain(|buf| buf.len() >= len);
        let found = free.pop();
        drop(free);
        found.unwrap_or_else(|| vec![0; len])
    }

    fn give_back(&self, buf: Vec<u8>) {
        // One huge line must not keep its memory for good.
        if buf.len() <= LARGEST_BLOCK {
            let mut free = self.free.lock();
            if free.len() < KEPT {
                free.push(buf);
            }
        }
    }

    /// Gives all memory back, for a cursor that waits at the head.
    pub(crate) fn clear(&self) {
        self.free.lock().clear();
    }
}

/// Owns a block's memory on behalf of all slices of it.
struct Pooled {
    buf: Vec<u8>,
    pool: Arc<BlockPool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buf));
    }
}

/// Lines as they lie in the file.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Where in the file it starts, which is where a line starts.
    pub(crate) byte: u64,
    /// Whole lines, with their newlines. Where the range that was asked for has no newline at its end, or a line is longer than a line may be,
    /// the rest is there too, and is damage.
    pub(crate) bytes: Bytes,
    /// Where in `bytes` each line ends (behind its newline), up to the first whose checksum does not hold; empty where that was not looked at.
    pub(crate) checked: Vec<u32>,
}

impl Block {
    pub(crate) fn unchecked(byte: u64, bytes: Bytes) -> Self {
        Self { byte, bytes, checked: Vec::new() }
    }

    /// Finds the lines and checks their sums, so that the thread that hands out the records need not.
    pub(crate) fn check(&mut self) {
        let mut start = 0;
        // Room for the shortest lines that are usual; it grows for others.
        self.checked.reserve(self.bytes.len() / 256);
        for newline in memchr::memchr_iter(b'\n', &self.bytes) {
            let Ok(end) = u32::try_from(newline + 1) else { break };
            if !checksum_holds(&self.bytes[start..newline]) {
                break;
            }
            self.checked.push(end);
            start = newline + 1;
        }
    }

    /// Where the next block starts.
    pub(crate) fn end(&self) -> u64 {
        self.byte + self.bytes.len() as u64
    }
}

/// Reads the lines from `from`, where a line starts, of about `size` bytes, more when the first line is longer. `to` is beyond `from`, and is
/// where a line ends.
///
/// # Errors
/// As the disk says, [`io::ErrorKind::UnexpectedEof`] when the file ends before `to`, [`io::ErrorKind::WouldBlock`] without patience.
pub(crate) fn read_block(
    file: &dyn DiskFile,
    pool: &Arc<BlockPool>,
    patience: Patience,
    from: u64,
    to: u64,
    size: usize,
) -> io::Result<Block> {
    let left = usize::try_from(to - from).unwrap_or(usize::MAX);
    let mut want = left.min(size);
    loop {
        // A block's memory is not cut to measure, so that the next block can use it; at the head it is small.
        let mut buf = pool.take(want.next_multiple_of(PAGE));
        let read = read_at(file, patience, &mut buf[..want], from);
        match read {
            Ok(n) if n < want => {
                pool.give_back(buf);
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was read",
                ));
            }
            Ok(_) => {}
            Err(e) => {
                pool.give_back(buf);
                return Err(e);
            }
        }
        let whole = if want == left && buf[want - 1] != b'\n' {
            want
        } else {
            match memchr::memrchr(b'\n', &buf[..want]) {
                Some(last) => last + 1,
                None if want > MAX_LINE_BYTES => want,
                None => {
                    pool.give_back(buf);
                    want = left.min(want.saturating_mul(4).min(MAX_LINE_BYTES + 1));
                    continue;
                }
            }
        };
        let owner = Pooled { buf, pool: pool.clone() };
        return Ok(Block::unchecked(from, Bytes::from_owner(owner).slice(..whole)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode, RealDisk, write_full};

    fn file_with(content: &[u8]) -> (tempfile::TempDir, Arc<dyn DiskFile>) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        write_full(&*file, content, 0).unwrap();
        (dir, file)
    }

    fn block(file: &dyn DiskFile, from: u64, to: u64, size: usize) -> io::Result<Vec<u8>> {
        let pool = Arc::new(BlockPool::default());
        read_block(file, &pool, Patience::Blocking, from, to, size).map(|b| b.bytes.to_vec())
    }

    #[test]
    fn a_block_ends_where_a_line_ends() {
        let (_dir, file) = file_with(b"one\ntwo\nthree\n");
        assert_eq!(block(&*file, 0, 14, 5).unwrap(), b"one\n");
        assert_eq!(block(&*file, 4, 14, 4).unwrap(), b"two\n");
        assert_eq!(block(&*file, 0, 14, 100).unwrap(), b"one\ntwo\nthree\n");
        assert_eq!(block(&*file, 8, 14, 2).unwrap(), b"three\n", "grown to hold one line");
        assert_eq!(block(&*file, 4, 11, 100).unwrap(), b"two\nthr", "what should be whole lines and is not");
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let (_dir, file) = file_with(b"one\n");
        assert_eq!(block(&*file, 0, 8, 100).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_without_end_is_read_no_further_than_a_line_can_be() {
        let (_dir, file) = file_with(&vec![b'x'; MAX_LINE_BYTES * 2]);
        let read = block(&*file, 0, (MAX_LINE_BYTES * 2) as u64, 1000).unwrap();
        assert_eq!(read.len(), MAX_LINE_BYTES + 1);
    }

    #[test]
    fn memory_comes_back_when_the_last_slice_is_dropped() {
        let (_dir, file) = file_with(b"one\ntwo\n");
        let pool = Arc::new(BlockPool::default());
        let read = |pool| read_block(&*file, pool, Patience::Blocking, 0, 8, 8).unwrap();
        let first = read(&pool);
        let (slice, place) = (first.bytes.slice(4..7), first.bytes.as_ptr());
        drop(first);
        assert!(pool.free.lock().is_empty());
        assert_eq!(slice, b"two"[..]);
        drop(slice);
        assert_eq!(read(&pool).bytes.as_ptr(), place, "the same memory again");
        pool.clear();
        assert!(pool.free.lock().is_empty());
    }

    #[test]
    fn what_is_in_memory_is_read_without_waiting_and_alike() {
        let (_dir, file) = file_with(&[7; 10_000]);
        let mut buf = [0; 6000];
        match read_at(&*file, Patience::Ready, &mut buf, 5000) {
            Ok(n) => assert_eq!((n, buf[0], buf[4999]), (5000, 7, 7)),
            // A file system that cannot tell.
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
    }
}
