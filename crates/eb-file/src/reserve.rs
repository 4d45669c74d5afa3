//! Room ahead of a growing log: blocks that are its own and not yet part of its length (FORMAT.md, section 5.7).

use std::io;
use std::ops::Range;

use crate::disk::DiskFile;

/// Room is asked for by groups from this part of the limit on, 512 KiB by default. Groups of 500 records of 1 KiB reached 0.91 of the raw
/// loop with it and 0.85 without, medians of seven runs of each in turn (0.86–0.93 and 0.80–0.86). Groups of 64 or 500 records of
/// 256 B gained nothing, or lost: their syncs convert the blocks and have few to find.
const WORTH_IT_FROM: u64 = 32;

/// How far room was asked for.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    /// Up to this byte of the file nothing more is to be asked.
    asked_to: u64,
    /// Whether any of it was granted since the length was last set.
    granted: bool,
    unsupported: bool,
}

impl Reserve {
    /// Sees to room for the bytes of `lines`, and behind them for as many as the log then holds, at most `limit`. It grows without
    /// room all the same; groups that are small against the limit have nothing to gain, and do.
    pub(crate) fn reach(&mut self, file: &dyn DiskFile, lines: Range<u64>, limit: u64) {
        let worth_it = limit > 0 && lines.end - lines.start >= limit / WORTH_IT_FROM;
        if !worth_it || lines.end <= self.asked_to || self.unsupported {
            return;
        }
        self.asked_to = lines.end + lines.end.min(limit);
        match file.reserve(lines.start, self.asked_to - lines.start) {
            Ok(()) => self.granted = true,
            Err(e) if e.kind() == io::ErrorKind::Unsupported => self.unsupported = true,
            Err(error) => tracing::debug!(%error, "no room is reserved ahead: the log grows by its lines"),
        }
    }

    /// Whether something of it may be beyond the end of the file.
    pub(crate) fn is_held(&self) -> bool {
        self.granted
    }

    /// After the file's length was set to `end`, which gives back what lay beyond.
    pub(crate) fn given_back(&mut self, end: u64) {
        (self.asked_to, self.granted) = (end, false);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Answers as it is told, and remembers what it was asked.
    #[derive(Debug, Default)]
    struct Asked {
        calls: Mutex<Vec<(u64, u64)>>,
        refuses: Option<io::ErrorKind>,
    }

    impl DiskFile for Asked {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn write_at(&self, buf: &[u8], _: u64) -> io::Result<usize> {
            Ok(buf.len())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
            self.calls.lock().push((position, bytes));
            self.refuses.map_or(Ok(()), |kind| Err(kind.into()))
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn sync_all(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn grow(asked: &Asked, ends: &[u64], limit: u64) -> Vec<(u64, u64)> {
        let mut reserve = Reserve::default();
        let starts = std::iter::once(&0).chain(ends);
        for (start, end) in starts.zip(ends) {
            reserve.reach(asked, *start..*end, limit);
        }
        std::mem::take(&mut *asked.calls.lock())
    }

    #[test]
    fn a_log_is_given_as_much_again_as_it_holds_up_to_the_limit() {
        let calls = grow(&Asked::default(), &[10, 15, 20, 21, 40, 60, 110, 111], 50);
        assert_eq!(calls, [(0, 20), (20, 22), (40, 70), (110, 51)]);
    }

    #[test]
    fn where_there_is_no_room_it_is_asked_for_again_only_further_on() {
        let full = Asked { refuses: Some(io::ErrorKind::StorageFull), ..Asked::default() };
        assert_eq!(grow(&full, &[10, 15, 20, 21, 22], 50), [(0, 20), (20, 22)]);
    }

    #[test]
    fn a_file_system_that_cannot_is_asked_once() {
        let unable = Asked { refuses: Some(io::ErrorKind::Unsupported), ..Asked::default() };
        assert_eq!(grow(&unable, &[10, 100, 1000], 50), [(0, 20)]);
    }

    #[test]
    fn a_small_group_asks_for_nothing() {
        let calls = grow(&Asked::default(), &[3_900, 7_800, 12_000, 13_000], 4_000 * WORTH_IT_FROM);
        assert_eq!(calls, [(7_800, 16_200)]);
    }

    #[test]
    fn nothing_is_asked_where_it_is_turned_off() {
        assert_eq!(grow(&Asked::default(), &[10, 100], 0), []);
    }
}
