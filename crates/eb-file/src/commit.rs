//! What happens to a group on the disk: written, synced, answered; or undone; or nobody knows (FORMAT.md, section 5).

use std::io;
use std::sync::Arc;

use eb_contract::{Effect, Error, ErrorKind, Result, Retry, Timestamp};
use parking_lot::MutexGuard;

use crate::disk::write_full;
use crate::error::io_error;
use crate::publisher::OP;
use crate::queue::{Acked, Group, Taken, answer_all};
use crate::recovery::{OpenLog, RecoveryReport};
use crate::reserve::Reserve;
use crate::state::TailState;
use crate::writer::{PartitionWriter, Phase};

/// A log that is open for appending.
pub(crate) struct Open {
    pub(crate) log: OpenLog,
    pub(crate) tail: Arc<TailState>,
    pub(crate) report: RecoveryReport,
    /// Whether anything was.
    pub(crate) appended: bool,
    /// Up to where blank lines were written ahead.
    pub(crate) padded_to: u64,
    /// Room beyond the end that the file system holds for the log.
    pub(crate) reserve: Reserve,
}

impl PartitionWriter {
    /// Writes, syncs and answers the group at the front.
    pub(crate) fn commit(&self, mut log: MutexGuard<'_, Option<Open>>) {
        let Some(open) = &mut *log else { return };
        let taken = {
            let mut state = self.state.lock();
            state.expected = 1;
            let taken = state.queue.take(Timestamp::now());
            self.arrivals.set(state.queue.front_calls());
            taken
        };
        let Some(Taken { mut group, end, spacing }) = taken else { return };
        if !open.appended {
            open.appended = true;
            open.log.sidecar.begin();
        }
        if self.shared.config.preallocate_bytes == 0 {
            let lines = open.log.end.bytes..end.bytes;
            open.reserve.reach(&*open.log.file, lines, self.shared.config.reserve_bytes);
        }
        let written = self
            .pad(open, end.bytes)
            .and_then(|()| write_full(&*open.log.file, &group.lines, open.log.end.bytes));
        if let Err(error) = written {
            return self.undo(open, group, error);
        }
        if let Err(error) = open.log.file.sync_data() {
            return self.poison(open, group, "the sync failed", error);
        }
        open.log.end = end;
        open.log.spacing = spacing;
        // Before the ACK, so that whoever hears of it finds the record, also from another process.
        open.tail.advance(end);
        open.log.sidecar.raise(end, &mut group.entries);
        {
            // Those who came meanwhile are there, and those who are answered come back, as a rule. Counted before the first of them can.
            let mut state = self.state.lock();
            state.expected = group.calls + state.queue.front_calls();
        }
        let (base, times) = (group.base, std::mem::take(&mut group.times));
        group.answer(Ok(Acked { base, times }));
        open.log.sidecar.sync_sometimes();
        self.state.lock().queue.reuse(std::mem::take(&mut group.lines));
    }

    /// Sees to it that lines up to `end` overwrite padding, if that is asked for: what is synced then is only their bytes, not the length
    /// of the file. Where there is no room for padding, the log grows as it would without.
    fn pad(&self, open: &mut Open, end: u64) -> io::Result<()> {
        let ahead = self.shared.config.preallocate_bytes;
        if ahead == 0 || end <= open.padded_to {
            return Ok(());
        }
        let from = open.padded_to.max(open.log.end.bytes);
        let to = end + ahead;
        let blank = vec![b'\n'; usize::try_from(to - from).unwrap_or(usize::MAX)];
        open.padded_to = to;
        if let Err(error) = write_full(&*open.log.file, &blank, from) {
            tracing::warn!(partition = %self.partition, %error, "cannot write padding ahead: the log grows by its lines");
            open.log.file.set_len(open.log.end.bytes)?;
        }
        Ok(())
    }

    /// After a failed write: cuts the log back to its last good record and syncs that, so that nothing of the group can come back.
    fn undo(&self, open: &mut Open, mut group: Group, error: io::Error) {
        let end = open.log.end;
        open.padded_to = end.bytes;
        open.reserve.given_back(end.bytes);
        if let Err(second) = open.log.file.set_len(end.bytes).and_then(|()| open.log.file.sync_all()) {
            tracing::error!(partition = %self.partition, error = %second, "cannot cut the log back after a failed write");
            return self.poison(open, group, "a write failed and could not be undone", error);
        }
        let failed =
            io_error(OP, &open.log.path, "cannot write the records; the log is as it was before", error)
                .with_retry(Retry::Later);
        let waiting = {
            let mut state = self.state.lock();
            let waiting = state.queue.drain();
            state.queue.go_on_from(end, open.log.spacing);
            waiting
        };
        tracing::warn!(partition = %self.partition, error = %failed, "a group of records was not written");
        group.answer(Err(failed));
        answer_all(waiting, &self.not_attempted());
    }

    /// After this nobody knows what is on disk: no publish succeeds until the log is opened anew.
    fn poison(&self, open: &Open, mut group: Group, what: &str, error: io::Error) {
        let reopen = "close this publisher and open a new one, which recovers the log";
        let poisoned = Error::new(ErrorKind::Poisoned, OP, what)
            .at(open.log.path.display())
            .with_source(error)
            .advise(reopen);
        tracing::error!(partition = %self.partition, error = %poisoned, "the partition is poisoned");
        let waiting = {
            let mut state = self.state.lock();
            state.phase = Phase::Failed(poisoned.clone());
            state.queue.drain()
        };
        group.answer(Err(poisoned.with_effect(Effect::Unknown)));
        answer_all(waiting, &self.not_attempted());
    }

    fn not_attempted(&self) -> Error {
        Error::new(ErrorKind::NotAttempted, OP, "an earlier group of records could not be made durable")
            .at(&self.partition)
            .advise("publish it again once the earlier ones are settled")
    }
}

/// Cuts what padding is left, gives back what room is, and marks the sidecar clean, in this order.
pub(crate) fn close_log(open: &mut Open) -> Result<()> {
    let log = &mut open.log;
    if open.padded_to > log.end.bytes {
        let cut = log.file.set_len(log.end.bytes).and_then(|()| log.file.sync_all());
        cut.map_err(|e| {
            io_error("close", &log.path, "every record is durable, but padding is left behind them", e)
        })?;
    }
    if open.reserve.is_held() {
        // The length stays: there is nothing to make durable, and what a crash leaves reserved is given back by the next recovery.
        if let Err(error) = log.file.set_len(log.end.bytes) {
            tracing::warn!(log = %log.path.display(), %error, "room that was reserved behind the records stays taken");
        }
    }
    log.sidecar.close().map_err(|e| {
        io_error("close", log.sidecar.path(), "every record is durable, but the sidecar is not", e)
    })
}
