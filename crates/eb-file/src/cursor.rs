//! A place in a partition that moves forward.
//!
//! Records are slices of the block that the cursor has in memory; while they last, a read is decoding alone, on the caller's
//! thread. The next block comes from the page cache where it is there already (without waiting), and from an I/O thread where it is not; a
//! cursor that reads on has the block after that read ahead, and its checksums checked, meanwhile.
//!
//! # What was measured (`cargo xtask bench replay`, records of 256 B and 1 KiB, two processors)
//! Of a record's time on the caller's thread about a quarter is its checksum, a quarter copying from the page cache, a fifth the six
//! reference counts of topic, key and envelope (up and down), the rest finding fields. Reading ahead with the sums takes the first two off the caller: 1.4 to 1.7 times the rate
//! while there is a processor to spare. Where there is none, waiting for the thread halves it, so a block that no thread has begun is
//! read by the cursor itself, and a thread that is late for a block in memory sends the cursor off alone for a while.
//! Tried and dropped: a hand-over per block of 64 to 256 KiB (the thread's wake-up costs as much as the block), building records in place instead of moving them
//! into the batch (no difference), parsing each time in full (a tenth of the whole).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use eb_contract::{
    BoxFuture, Cursor, Cut, EbRef, EnvelopeRef, Error, ErrorKind, Offset, OffsetKind, PartitionId,
    PartitionKey, ReadBatch, ReadLimit, ReadState, Record, Result, Retry, Topic,
};

use crate::block::{Block, BlockPool, FIRST_BLOCK, LARGEST_BLOCK, Patience, read_block};
use crate::closing::Closing;
use crate::format::line::{LineDamage, LineDecoder, RawKey};
use crate::horizon::{Handles, Horizon, View, Watched, fault_error};
use crate::offload::{Offload, offload};
use crate::seek::{FoundLine, Seek, Start, check_line, damage_error, first_line, read_error};
use crate::timer::{sleep, sleep_until};

const OP: &str = "read";
/// How long a follower first waits for a writer in another process, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
/// A block that is in memory and still takes an I/O thread this long to bring, when it was begun a block ago: the machine has no processor
/// to spare, and for so many blocks the cursor reads alone.
const LATE: Duration = Duration::from_micros(250);
const ALONE: u32 = 64;
/// The most records that room is made for at once; a batch may still grow beyond.
const RESERVED: u64 = 16 * 1024;

/// Reads one partition of a file bus. See [`Cursor`].
pub(crate) struct FileCursor {
    watched: Watched,
    closing: Arc<Closing>,
    handles: Arc<Handles>,
    horizon: Horizon,
    /// Where the caller is: behind the last record that was handed out.
    handed: Cut,
    /// The next line to decode.
    next: u64,
    /// Where that line starts; not known while it lies past the horizon.
    byte: Option<u64>,
    /// Lines from `byte` on.
    block: Option<Block>,
    /// Which of the block's lines is the next.
    line: usize,
    ahead: Option<Ahead>,
    /// For how many blocks to come there is no reading ahead.
    alone: u32,
    /// The size of the next block.
    size: usize,
    pool: Arc<BlockPool>,
    /// Decoded and not yet handed out: a dropped future leaves them to the next call.
    batch: Vec<Record>,
    batch_bytes: usize,
    decoder: LineDecoder,
    /// Of the last line, to guess how many records a batch will have.
    line_len: usize,
}

/// A block on its way from an I/O thread.
struct Ahead {
    from: u64,
    answer: Offload<Fetched>,
    begun: Arc<AtomicBool>,
}

struct Fetched {
    block: Block,
    /// Nobody had to wait for the device.
    from_memory: bool,
}

impl Ahead {
    /// Whether no thread has begun with it; none will then. On a busy machine reading the block oneself is quicker than waiting for a
    /// thread to get its turn.
    fn claim(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }
}

/// Why decoding stopped.
enum Stopped {
    Full,
    NoBlock,
    Horizon,
}

impl FileCursor {
    pub(crate) fn new(watched: Watched, closing: Arc<Closing>, opened: Opened) -> Self {
        let Opened { view: (handles, horizon), cut, next, byte, block, pool } = opened;
        Self {
            watched,
            closing,
            handles,
            horizon,
            handed: cut,
            next,
            byte,
            block,
            line: 0,
            ahead: None,
            alone: 0,
            size: FIRST_BLOCK,
            pool,
            batch: Vec::new(),
            batch_bytes: 0,
            decoder: LineDecoder::default(),
            line_len: 512,
        }
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<ReadBatch> {
        let deadline = if limit.wait.is_zero() { None } else { Some(Instant::now().checked_add(limit.wait)) };
        let mut pause = FIRST_PAUSE;
        self.reserve(&limit);
        let state = loop {
            self.closing.check(OP)?;
            let step = match self.decode(&limit) {
                Ok(Stopped::Full) if self.next < self.horizon.end.next => break ReadState::More,
                Ok(Stopped::Full) => self.look_again().await.map(|_| Some(self.state())),
                Ok(Stopped::NoBlock) => self.next_block().await.map(|()| None),
                Ok(Stopped::Horizon) => match self.look_again().await {
                    Ok(true) => Ok(None),
                    Ok(false) if !self.batch.is_empty() => Ok(Some(ReadState::CaughtUp)),
                    Ok(false) => match deadline {
                        Some(until) if until.is_none_or(|at| Instant::now() < at) => {
                            self.rest();
                            self.wait(until, &mut pause).await;
                            Ok(None)
                        }
                        _ => {
                            self.rest();
                            Ok(Some(ReadState::CaughtUp))
                        }
                    },
                    Err(e) => Err(e),
                },
                Err(e) => Err(e),
            };
            match step {
                Ok(None) => {}
                Ok(Some(state)) => break state,
                // What was read before the error is handed out first; the next call meets it again.
                Err(_) if !self.batch.is_empty() => break ReadState::More,
                Err(e) => return Err(e),
            }
        };
        Ok(self.hand_out(&limit, state))
    }

    /// Makes room for as many records as are likely to come.
    fn reserve(&mut self, limit: &ReadLimit) {
        if self.batch.is_empty() && self.batch.capacity() == 0 {
            let left = self.horizon.end.next.saturating_sub(self.next).min(RESERVED);
            let fit = limit.max_bytes / self.line_len + 1;
            self.batch.reserve((left as usize).min(limit.max_records.max(1)).min(fit));
        }
    }

    fn hand_out(&mut self, limit: &ReadLimit, state: ReadState) -> ReadBatch {
        let mut records = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        // A call that was dropped may have left more records than this one asks for.
        let fit = how_many_fit(&records, limit);
        let state = if fit < records.len() {
            self.batch = records.split_off(fit);
            self.batch_bytes = self.batch.iter().map(|r| r.envelope.len()).sum();
            ReadState::More
        } else {
            state
        };
        if let Some(last) = records.last() {
            self.handed = Cut::past(last.eb_ref.offset);
        }
        ReadBatch { records, next: self.handed, state }
    }

    fn state(&self) -> ReadState {
        if self.next < self.horizon.end.next || self.horizon.fault.is_some() {
            ReadState::More
        } else {
            ReadState::CaughtUp
        }
    }

    /// Decodes lines of the block in memory into the batch.
    fn decode(&mut self, limit: &ReadLimit) -> Result<Stopped> {
        let (max_records, max_bytes) = (limit.max_records.max(1), limit.max_bytes);
        if self.batch.len() >= max_records || (self.batch_bytes >= max_bytes && !self.batch.is_empty()) {
            return Ok(Stopped::Full);
        }
        if self.next >= self.horizon.end.next {
            return Ok(Stopped::Horizon);
        }
        let (Some(block), Some(mut byte)) = (&self.block, self.byte) else { return Ok(Stopped::NoBlock) };
        let mut rest = &block.bytes[(byte - block.byte) as usize..];
        let mut next = self.next;
        let stopped = loop {
            if self.batch.len() >= max_records {
                break Ok(Stopped::Full);
            }
            if next >= self.horizon.end.next {
                break Ok(Stopped::Horizon);
            }
            if rest.is_empty() {
                break Ok(Stopped::NoBlock);
            }
            // The I/O thread has found this line and checked its sum, or that is done here.
            let (text, whole, summed) = match block.checked.get(self.line) {
                Some(end) => (&block.bytes[(byte - block.byte) as usize..*end as usize - 1], true, true),
                None => {
                    let (text, whole) = first_line(rest);
                    (text, whole, false)
                }
            };
            let decoded = check_line(&mut self.decoder, text, whole, summed, next);
            let line = match decoded {
                Ok(line) => line,
                Err(damage) => break Err(damage),
            };
            if self.batch_bytes + line.envelope.len() > max_bytes && !self.batch.is_empty() {
                break Ok(Stopped::Full);
            }
            let partition_key = match key_in(block, &line.key) {
                Ok(key) => key,
                Err(damage) => break Err(damage),
            };
            self.batch.push(Record {
                eb_ref: EbRef {
                    topic: self.watched.meta.topic.clone(),
                    partition_id: self.watched.partition.id,
                    offset: Offset::from_u64(OffsetKind::FileLine, next),
                    published_at_utc: line.published_at,
                },
                partition_key,
                envelope: EnvelopeRef::from_stored(block.bytes.slice_ref(line.envelope)),
            });
            self.batch_bytes += line.envelope.len();
            self.line_len = text.len() + 1;
            rest = &rest[self.line_len..];
            self.line += 1;
            byte += self.line_len as u64;
            next += 1;
        };
        self.next = next;
        self.byte = Some(byte);
        stopped.map_err(|damage| {
            let at = Start { offset: next, byte };
            damage_error(OP, &self.watched.partition.files.log, at, damage)
        })
    }

    /// Brings the block that starts at the next line.
    async fn next_block(&mut self) -> Result<()> {
        self.block = None;
        self.line = 0;
        let Some(from) = self.byte else {
            return self.locate().await;
        };
        if from >= self.horizon.end.bytes {
            let damage = LineDamage::Watermark { expected_byte: self.horizon.end.bytes };
            let at = Start { offset: self.next, byte: from };
            return Err(damage_error(OP, &self.watched.partition.files.log, at, damage));
        }
        let ahead = self.ahead.take_if(|ahead| ahead.from != from || ahead.claim());
        drop(ahead);
        let block = match &mut self.ahead {
            Some(ahead) => {
                let asked = Instant::now();
                let fetched = (&mut ahead.answer).await;
                self.ahead = None;
                let Fetched { block, from_memory } = fetched?;
                if from_memory && asked.elapsed() > LATE {
                    self.alone = ALONE;
                }
                block
            }
            None => {
                let (log, pool) = (&self.handles.log, &self.pool);
                match read_block(&**log, pool, Patience::Ready, from, self.horizon.end.bytes, self.size) {
                    Ok(block) => block,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                        self.fetch(from).answer.await?.block
                    }
                    Err(e) => return Err(read_error(OP, &self.watched.partition.files.log, e)),
                }
            }
        };
        self.size = (self.size * 4).min(LARGEST_BLOCK);
        let end = block.end();
        self.block = Some(block);
        if self.alone > 0 {
            self.alone -= 1;
        } else if self.horizon.end.bytes - end >= FIRST_BLOCK as u64 {
            self.ahead = Some(self.fetch(end));
        }
        Ok(())
    }

    /// Reads a block on an I/O thread.
    fn fetch(&self, from: u64) -> Ahead {
        let (log, pool, size) = (self.handles.log.clone(), self.pool.clone(), self.size);
        let (to, path) = (self.horizon.end.bytes, self.watched.partition.files.log.clone());
        let begun = Arc::new(AtomicBool::new(false));
        let claimed = begun.clone();
        let answer = offload(OP, move || {
            if claimed.swap(true, Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::NotAttempted, OP, "the cursor has read the block itself"));
            }
            let read = |patience| read_block(&*log, &pool, patience, from, to, size);
            let ready = read(Patience::Ready);
            let from_memory = ready.is_ok();
            let mut block =
                ready.or_else(|_| read(Patience::Blocking)).map_err(|e| read_error(OP, &path, e))?;
            block.check();
            Ok(Fetched { block, from_memory })
        });
        Ahead { from, answer, begun }
    }

    /// Finds the next line where only its offset is known.
    async fn locate(&mut self) -> Result<()> {
        let target = self.next;
        let view = (self.handles.clone(), self.horizon);
        let seek = Seek { watched: self.watched.clone(), view, pool: self.pool.clone() };
        let FoundLine { start, block } = seek.run(OP, move |seeker| seeker.offset(target)).await?;
        self.byte = Some(start.byte);
        self.block = Some(block);
        Ok(())
    }

    /// Asks how far the log goes by now; whether that is further.
    async fn look_again(&mut self) -> Result<bool> {
        let (handles, horizon) = match self.watched.look_ready(OP)? {
            Some(view) => view,
            None => {
                let watched = self.watched.clone();
                offload(OP, move || watched.look(OP)).await?
            }
        };
        if !Arc::ptr_eq(&handles, &self.handles) {
            if !handles.same_log(&self.handles) {
                return Err(Error::new(
                    ErrorKind::Io,
                    OP,
                    "the log was replaced by another file while it was read",
                )
                .at(self.watched.partition.files.log.display())
                .advise("take a new cursor, or open the bus again")
                .with_retry(Retry::AfterReopen));
            }
            self.handles = handles;
        }
        let before = self.horizon.end;
        if horizon.end.next >= before.next {
            if self.byte.is_none() && self.next == before.next {
                self.byte = Some(before.bytes);
            }
            self.horizon = horizon;
        }
        if self.next >= self.horizon.end.next
            && let Some(fault) = &self.horizon.fault
        {
            return Err(fault_error(OP, &self.watched.partition.files.log, fault));
        }
        Ok(self.next < self.horizon.end.next)
    }

    /// Waits for more, for the deadline, or for the reader's end.
    async fn wait(&self, until: Option<Instant>, pause: &mut Duration) {
        let mut closed = pin!(self.closing.closed());
        let mut timeout = pin!(sleep_until(until));
        let tail = self.watched.tail().filter(|tail| !tail.has_ended());
        if let Some(tail) = tail {
            let mut grown = pin!(tail.wait_for(self.next));
            std::future::poll_fn(|cx| {
                let ready = grown.as_mut().poll(cx).is_ready()
                    || closed.as_mut().poll(cx).is_ready()
                    || timeout.as_mut().poll(cx).is_ready();
                if ready { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            *pause = FIRST_PAUSE;
        } else {
            let mut turn = pin!(sleep(*pause));
            std::future::poll_fn(|cx| {
                let ready = turn.as_mut().poll(cx).is_ready()
                    || closed.as_mut().poll(cx).is_ready()
                    || timeout.as_mut().poll(cx).is_ready();
                if ready { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Gives back what only a cursor on its way needs.
    fn rest(&mut self) {
        self.block = None;
        self.ahead = None;
        self.size = FIRST_BLOCK;
        self.pool.clear();
    }
}

impl Cursor for FileCursor {
    fn topic(&self) -> &Topic {
        &self.watched.meta.topic
    }

    fn partition_id(&self) -> PartitionId {
        self.watched.partition.id
    }

    fn position(&self) -> Cut {
        self.handed
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        Box::pin(self.read(limit))
    }
}

fn how_many_fit(records: &[Record], limit: &ReadLimit) -> usize {
    let mut bytes = 0usize;
    let fits = |r: &&Record| {
        bytes = bytes.saturating_add(r.envelope.len());
        bytes <= limit.max_bytes
    };
    records.iter().take(limit.max_records.max(1)).take_while(fits).count().max(1).min(records.len())
}

/// The key as a slice of the block; a copy only where it is written with escapes.
fn key_in(block: &Block, key: &RawKey<'_>) -> Result<PartitionKey, LineDamage> {
    let made = match key.as_written() {
        (text, true) => PartitionKey::from_bytes(block.bytes.slice_ref(text)),
        (_, false) => PartitionKey::new(key.unescape().into_owned()),
    };
    made.map_err(|_| LineDamage::Field("partition_key"))
}

/// What a new cursor starts with.
pub(crate) struct Opened {
    pub(crate) view: View,
    /// Where it stands, as the caller put it.
    pub(crate) cut: Cut,
    pub(crate) next: u64,
    /// Where the line `next` starts, and that line, as far as that is known already.
    pub(crate) byte: Option<u64>,
    pub(crate) block: Option<Block>,
    pub(crate) pool: Arc<BlockPool>,
}
