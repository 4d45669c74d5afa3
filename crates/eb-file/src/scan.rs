//! Lines of a log in order, read in large blocks: what recovery and `verify` walk through.

use std::io;

use crate::disk::{DiskFile, read_full};
use crate::format::line::MAX_LINE_BYTES;

const BLOCK: usize = 256 * 1024;

/// One line as it lies in the file, good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLine<'a> {
    /// Where it starts.
    pub byte: u64,
    /// Where the next one starts, or the file ends.
    pub end: u64,
    /// Its bytes without the newline. Of one that is longer than any line may be, only a part.
    pub text: &'a [u8],
    /// Whether a newline ends it; otherwise the end of the scanned range does.
    pub terminated: bool,
    /// Longer than a line may be: `text` is not all of it.
    pub overlong: bool,
}

/// Walks over the lines from one byte to another.
#[derive(Debug)]
pub struct LineScanner<'f> {
    file: &'f dyn DiskFile,
    /// Bytes read and not yet handed out are `buf[start..filled]`.
    buf: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where in the file `buf[start]` lies.
    at: u64,
    end: u64,
}

impl<'f> LineScanner<'f> {
    /// Scans from `from`, which is where a line starts, up to `end`.
    #[must_use]
    pub fn new(file: &'f dyn DiskFile, from: u64, end: u64) -> Self {
        Self { file, buf: Vec::new(), start: 0, filled: 0, at: from, end }
    }

    /// The next line, `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before `end`.
    pub fn next_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        let mut searched = 0;
        let mut overlong_from = None;
        loop {
            let unread = &self.buf[self.start..self.filled];
            if let Some(found) = memchr::memchr(b'\n', &unread[searched..]) {
                let len = searched + found;
                return Ok(Some(self.hand_out(len, true, overlong_from)));
            }
            searched = unread.len();
            if self.at + searched as u64 == self.end {
                if searched == 0 && overlong_from.is_none() {
                    return Ok(None);
                }
                return Ok(Some(self.hand_out(searched, false, overlong_from)));
            }
            if searched > MAX_LINE_BYTES {
                // Memory stays bounded: what is known to be no line is dropped on the way to its end.
                overlong_from.get_or_insert(self.at);
                self.at += searched as u64;
                (self.start, self.filled, searched) = (0, 0, 0);
            }
            self.fill()?;
        }
    }

    fn hand_out(&mut self, len: usize, terminated: bool, overlong_from: Option<u64>) -> RawLine<'_> {
        let byte = overlong_from.unwrap_or(self.at);
        let text = self.start..self.start + len;
        self.start += len + usize::from(terminated);
        self.at += (len + usize::from(terminated)) as u64;
        let overlong = overlong_from.is_some() || len > MAX_LINE_BYTES;
        RawLine { byte, end: self.at, text: &self.buf[text], terminated, overlong }
    }

    /// Reads a block behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        let position = self.at + self.filled as u64;
        let want = usize::try_from(self.end - position).map_or(BLOCK, |left| left.min(BLOCK));
        if self.buf.len() < self.filled + want {
            self.buf.resize(self.filled + want, 0);
        }
        let read = read_full(self.file, &mut self.buf[self.filled..self.filled + want], position)?;
        if read < want {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.filled += read;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode, RealDisk, write_full};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn file_with(content: &[u8]) -> (tempfile::TempDir, Arc<dyn DiskFile>) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        write_full(&*file, content, 0).unwrap();
        (dir, file)
    }

    fn lines(file: &dyn DiskFile, from: u64, end: u64) -> Vec<(u64, u64, Vec<u8>, bool, bool)> {
        let mut scanner = LineScanner::new(file, from, end);
        let mut out = Vec::new();
        while let Some(l) = scanner.next_line().unwrap() {
            out.push((l.byte, l.end, l.text.to_vec(), l.terminated, l.overlong));
        }
        out
    }

    #[test]
    fn lines_come_with_their_places_and_the_last_may_lack_its_end() {
        let (_dir, file) = file_with(b"one\n\nthree\nfo");
        assert_eq!(
            lines(&*file, 0, 13),
            [
                (0, 4, b"one".to_vec(), true, false),
                (4, 5, b"".to_vec(), true, false),
                (5, 11, b"three".to_vec(), true, false),
                (11, 13, b"fo".to_vec(), false, false),
            ]
        );
        assert_eq!(lines(&*file, 5, 11).len(), 1);
        assert!(lines(&*file, 11, 11).is_empty());
        let mut scanner = LineScanner::new(&*file, 0, 14);
        while let Ok(Some(_)) = scanner.next_line() {}
        assert!(scanner.next_line().is_err(), "a file that ends early is an error, not an end");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_in_bounded_memory() {
        let mut content = vec![b'x'; MAX_LINE_BYTES * 2 + 17];
        content.extend_from_slice(b"\nshort\n");
        let (_dir, file) = file_with(&content);
        let len = content.len() as u64;
        let mut scanner = LineScanner::new(&*file, 0, len);
        let first = scanner.next_line().unwrap().unwrap();
        assert!(first.overlong && first.terminated);
        assert_eq!((first.byte, first.end), (0, len - 6));
        assert!(scanner.buf.len() <= MAX_LINE_BYTES + 2 * BLOCK);
        assert_eq!(scanner.next_line().unwrap().unwrap().text, b"short");
        assert_eq!(scanner.next_line().unwrap(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn lines_join_to_the_file(
            sizes in proptest::collection::vec(prop_oneof![0usize..300, 200_000usize..600_000], 0..12),
            tail: bool,
        ) {
            let mut content = Vec::new();
            for size in &sizes {
                content.extend(std::iter::repeat_n(b'a', *size));
                content.push(b'\n');
            }
            if tail {
                content.extend_from_slice(b"tail");
            }
            let (_dir, file) = file_with(&content);
            let got = lines(&*file, 0, content.len() as u64);
            prop_assert_eq!(got.len(), sizes.len() + usize::from(tail));
            let mut at = 0;
            for (byte, end, text, terminated, overlong) in got {
                prop_assert_eq!(byte, at);
                prop_assert_eq!(end, byte + text.len() as u64 + u64::from(terminated));
                prop_assert!(!overlong);
                at = end;
            }
            prop_assert_eq!(at, content.len() as u64);
        }
    }
}
