//! A place in a stream that moves forward.

use std::collections::VecDeque;
use std::sync::Arc;

use eb_contract::{
    BoxFuture, Cursor, Cut, ErrorKind, PartitionId, ReadBatch, ReadLimit, ReadState, Record, Result, Topic,
};
use tokio::time::Instant;

use super::Life;
use super::moment::{Range, Stream, range_start, wait_start};

const OP: &str = "read";

/// What records are taken to measure until some have been seen: few are asked for at first, for `XRANGE` knows no limit
/// of bytes.
const UNSEEN: usize = 16 << 10;
/// What a record is taken to measure at least.
const SMALL: usize = 64;

/// After how many reads that pass twice as much is asked for again.
const PASSES: u32 = 16;

/// A place in a stream. What a fetch brings beyond a read's limit in bytes is kept for the next one.
pub(super) struct RedisCursor {
    life: Arc<Life>,
    stream: Stream,
    position: Cut,
    /// Records behind `position`, fetched and not handed out yet.
    ahead: VecDeque<Record>,
    /// What the records of the last fetch measured on average.
    typical: usize,
    /// How many bytes may be asked for: fewer than the limit, after a read that was perhaps too large.
    room: usize,
    /// How many reads have passed since that changed.
    passed: u32,
    /// A record was handed out, so the place is not only what somebody said.
    has_read: bool,
}

impl RedisCursor {
    pub(super) fn new(life: Arc<Life>, stream: Stream, position: Cut) -> Self {
        Self {
            life,
            stream,
            position,
            ahead: VecDeque::new(),
            typical: UNSEEN,
            room: usize::MAX,
            passed: 0,
            has_read: false,
        }
    }

    /// Fetches what lies behind the position; whether that reaches to the head.
    async fn fetch(&mut self, limit: &ReadLimit) -> Result<bool> {
        let room = limit.max_bytes.min(self.room);
        let count = (room / self.typical).clamp(1, limit.max_records.max(1));
        let range = Range { from: range_start(&self.position), count };
        let session = self.stream.session(OP).await?;
        let looked = self.stream.look_over(OP, &session, Some(range)).await;
        self.learn_room(&looked, count);
        let (moment, entries) = looked?;
        let checked = self.stream.check_cut(OP, &self.position, &moment).await;
        if let Err(e) = &checked
            && *e.kind() == ErrorKind::FactsMissing
            && self.has_read
        {
            self.stream.poison(e);
        }
        checked?;
        let reaches_head = match (entries.last(), moment.stream.last) {
            (Some(fetched), Some(last)) => fetched.id == last,
            (None, _) => true,
            (Some(_), None) => false,
        };
        let bytes: usize = entries.iter().map(|e| e.envelope.len()).sum();
        if self.room != usize::MAX {
            // So much has passed.
            self.room = self.room.max(bytes);
        }
        if !entries.is_empty() {
            self.typical = (bytes / entries.len()).max(SMALL);
        }
        let records = entries
            .into_iter()
            .map(|entry| self.stream.record(OP, entry))
            .collect::<Result<VecDeque<_>>>()?;
        self.ahead = records;
        Ok(reaches_head)
    }

    /// Where the connection broke, or nothing came in time, the answer may have been too large for the server's
    /// `client-output-buffer-limit`, or for the time it may take: the same call might fail for ever.
    fn learn_room<T>(&mut self, looked: &Result<T>, count: usize) {
        match looked {
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                self.room = (count / 4).saturating_mul(self.typical).max(1);
                self.passed = 0;
            }
            Err(_) => {}
            Ok(_) if self.room == usize::MAX => {}
            Ok(_) => {
                self.passed += 1;
                if self.passed == PASSES {
                    (self.room, self.passed) = (self.room.saturating_mul(2), 0);
                }
            }
        }
    }

    /// Hands out what is ahead, within the limit.
    fn hand_out(&mut self, limit: &ReadLimit, reaches_head: bool) -> ReadBatch {
        let mut bytes = 0usize;
        let fits = |record: &&Record| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(record.envelope.len());
            first || bytes <= limit.max_bytes
        };
        let count = self.ahead.iter().take(limit.max_records.max(1)).take_while(fits).count();
        let records: Vec<Record> = self.ahead.drain(..count).collect();
        if let Some(last) = records.last() {
            self.position = Cut::past(last.eb_ref.offset);
            self.has_read = true;
        }
        let more = !self.ahead.is_empty() || !reaches_head;
        let state = if more { ReadState::More } else { ReadState::CaughtUp };
        ReadBatch { records, next: self.position, state }
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<ReadBatch> {
        if !self.ahead.is_empty() {
            // What came since that fetch is not known: there may be more.
            return Ok(self.hand_out(&limit, false));
        }
        // A wait too long for the clock has no end.
        let deadline = Instant::now().checked_add(limit.wait);
        loop {
            let reaches_head = self.fetch(&limit).await?;
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !self.ahead.is_empty() || !reaches_head || late {
                return Ok(self.hand_out(&limit, reaches_head));
            }
            let shared = &self.life.shared;
            self.life.waits.wait(&shared.reads, &self.stream.key, wait_start(&self.position), deadline).await;
        }
    }
}

impl Cursor for RedisCursor {
    fn topic(&self) -> &Topic {
        &self.stream.topic
    }

    fn partition_id(&self) -> PartitionId {
        self.stream.partition
    }

    fn position(&self) -> Cut {
        self.position
    }

    /// The place moves only together with handing records out, so a dropped future leaves it where it was.
    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        let life = self.life.clone();
        Box::pin(async move { life.unless_closed(OP, self.read(limit)).await })
    }
}
