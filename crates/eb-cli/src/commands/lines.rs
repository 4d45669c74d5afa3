//! The lines of an input, read on a thread of their own.
//!
//! Standard input cannot be read without blocking, and a thread that blocks on it cannot be called back. So the thread only reads and
//! splits; it is left behind when the program ends. At most two chunks of lines wait, so a huge input takes no more memory
//! than a small one. A chunk is what one read brought: lines of a slow producer are not kept waiting for more.

use std::fs::File;
use std::io::{self, Read};
use std::thread;

use bytes::{Bytes, BytesMut};
use memchr::memchr_iter;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// The longest line. What is longer than the gate takes, but not longer than this, is quarantined by the gate.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 256 << 10;

/// One line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1, blank lines counted.
    pub(crate) number: u64,
    /// Without its line break.
    pub(crate) bytes: Bytes,
}

/// Why the lines end before the input does.
#[derive(Debug)]
pub(crate) enum Fault {
    /// This line has more than [`MAX_LINE_BYTES`].
    TooLong { number: u64 },
    /// The input cannot be read on after this line.
    Read { after: u64, error: io::Error },
}

/// What one read brought.
pub(crate) type Chunk = Result<Vec<Line>, Fault>;

/// An input and what is known of it.
pub(crate) struct Input {
    pub(crate) name: String,
    /// Its size in bytes, for a file.
    pub(crate) size: Option<u64>,
    pub(crate) chunks: mpsc::Receiver<Chunk>,
}

impl Input {
    /// Starts to read a file, or standard input for `-`, from a line on.
    pub(crate) fn open(path: &str, from_line: u64) -> Result<Self, Failure> {
        if path == "-" {
            return Self::start("standard input".to_owned(), None, io::stdin(), from_line);
        }
        let cannot = |e: io::Error| {
            Failure::failed("input", format!("cannot read {path}: {e}"))
                .advise("give a file of JSON lines, or -")
        };
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(cannot(io::ErrorKind::IsADirectory.into()));
        }
        let size = metadata.is_file().then_some(metadata.len());
        Self::start(path.to_owned(), size, file, from_line)
    }

    pub(crate) fn start(
        name: String,
        size: Option<u64>,
        source: impl Read + Send + 'static,
        from_line: u64,
    ) -> Result<Self, Failure> {
        let (sender, chunks) = mpsc::channel(2);
        thread::Builder::new()
            .name("eb input".to_owned())
            .spawn(move || read(source, from_line, &sender))
            .map_err(|e| Failure::failed("io", format!("cannot start a thread to read {name}: {e}")))?;
        Ok(Self { name, size, chunks })
    }
}

/// Reads to the end, or until nobody listens any more.
fn read(mut source: impl Read, from_line: u64, chunks: &mpsc::Sender<Chunk>) {
    let mut splitter = Splitter { rest: BytesMut::new(), number: 0, from_line };
    loop {
        let (lines, end) = match splitter.fill(&mut source) {
            Ok(0) => (splitter.last(), Some(None)),
            Ok(new) => {
                let (lines, fault) = splitter.split(new);
                (lines, fault.map(Some))
            }
            Err(error) => (Vec::new(), Some(Some(Fault::Read { after: splitter.number, error }))),
        };
        if !lines.is_empty() && chunks.blocking_send(Ok(lines)).is_err() {
            return;
        }
        if let Some(fault) = end {
            if let Some(fault) = fault {
                // Whoever has stopped listening has no use for it.
                let _ = chunks.blocking_send(Err(fault));
            }
            return;
        }
    }
}

struct Splitter {
    /// What was read and does not end in a line break yet.
    rest: BytesMut,
    /// Lines that have ended.
    number: u64,
    from_line: u64,
}

impl Splitter {
    /// Reads once. Gives back how many bytes came; 0 at the end.
    fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let held = self.rest.len();
        self.rest.resize(held + READ_BYTES, 0);
        let read = loop {
            match source.read(&mut self.rest[held..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.rest.truncate(held + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Takes the lines that ended within the last `new` bytes, up to one that is too long.
    fn split(&mut self, new: usize) -> (Vec<Line>, Option<Fault>) {
        let before = self.rest.len() - new;
        let ends: Vec<usize> = memchr_iter(b'\n', &self.rest[before..]).map(|end| before + end).collect();
        let mut lines = Vec::with_capacity(ends.len());
        let mut start = 0;
        for end in ends {
            let mut line = self.rest.split_to(end + 1 - start);
            start = end + 1;
            line.truncate(line.len() - 1);
            self.number += 1;
            if line.len() > MAX_LINE_BYTES {
                return (lines, Some(Fault::TooLong { number: self.number }));
            }
            self.keep(&mut lines, line);
        }
        let too_long = self.rest.len() > MAX_LINE_BYTES;
        (lines, too_long.then_some(Fault::TooLong { number: self.number + 1 }))
    }

    fn keep(&self, lines: &mut Vec<Line>, line: BytesMut) {
        if self.number >= self.from_line && !line.iter().all(u8::is_ascii_whitespace) {
            lines.push(Line { number: self.number, bytes: line.freeze() });
        }
    }

    /// What stands behind the last line break.
    fn last(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        if !self.rest.is_empty() {
            self.number += 1;
            let line = std::mem::take(&mut self.rest);
            self.keep(&mut lines, line);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brings its parts one per read, as a pipe does.
    struct Parts(Vec<Vec<u8>>);

    impl Read for Parts {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let Some(part) = self.0.first_mut() else { return Ok(0) };
            let n = part.len().min(buf.len());
            buf[..n].copy_from_slice(&part[..n]);
            part.drain(..n);
            if part.is_empty() {
                self.0.remove(0);
            }
            Ok(n)
        }
    }

    fn lines_of(parts: &[&[u8]], from_line: u64) -> (Vec<(u64, String)>, Option<Fault>) {
        let parts = Parts(parts.iter().map(|p| p.to_vec()).collect());
        let mut input = Input::start("test".to_owned(), None, parts, from_line).unwrap();
        let mut lines = Vec::new();
        while let Some(chunk) = input.chunks.blocking_recv() {
            match chunk {
                Ok(chunk) => lines.extend(
                    chunk.into_iter().map(|l| (l.number, String::from_utf8_lossy(&l.bytes).into_owned())),
                ),
                Err(fault) => return (lines, Some(fault)),
            }
        }
        (lines, None)
    }

    #[test]
    fn lines_are_put_together_across_reads_and_counted_with_blank_ones() {
        let (lines, fault) = lines_of(&[b"a", b"b\n\n  \r\nc\n", b"d"], 1);
        assert!(fault.is_none());
        assert_eq!(lines, [(1, "ab".to_owned()), (4, "c".to_owned()), (5, "d".to_owned())]);
        assert_eq!(lines_of(&[b"a\nb\nc"], 3).0, [(3, "c".to_owned())]);
        assert_eq!(lines_of(&[], 1).0, []);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_after_those_before_it_have_come() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        for end in ["", "\n", "\nz\n"] {
            let input = [b"a\n".as_slice(), &long, end.as_bytes()].concat();
            let (lines, fault) = lines_of(&[&input], 1);
            assert_eq!(lines, [(1, "a".to_owned())]);
            assert!(matches!(fault, Some(Fault::TooLong { number: 2 })), "{fault:?}");
        }
        let longest = [&long[1..], b"\n"].concat();
        assert_eq!(lines_of(&[&longest], 1).0.len(), 1);
    }
}
