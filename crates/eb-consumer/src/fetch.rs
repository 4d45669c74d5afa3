//! Reading ahead: from the source to records that are decoded and known to be new, in a task of its own beside the handlers.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use eb_contract::stores::{Mark, MarkScope, Seen};
use eb_contract::{Cut, Error, ErrorKind, ReadBatch, ReadLimit, ReadState, Result, Retry, Timestamp};
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::context::{Context, Patience};
use crate::item::Item;
use crate::partition::Batch;
use crate::room::{Room, Taken};
use crate::source::Feed;
use crate::status::PartitionBoard;

/// What comes out of reading.
pub(crate) enum Fetched {
    Batch {
        batch: Batch,
        /// The room it takes in its partition, and among all.
        here: Taken,
        total: Taken,
        /// The partition is closed, and this was its end.
        closed: bool,
    },
    /// Reading failed for good. Nothing more comes, unless [`Fetched::Again`] does.
    Failed(Error),
    /// The source was opened anew, and is read again.
    Again,
}

/// The task that reads; ends when dropped.
pub(crate) struct Fetch {
    task: JoinHandle<()>,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many batches may be between reading and the window: one being decoded, one in the channel, one on its way out of it.
pub(crate) const READ_AHEAD: usize = 3;

impl Fetch {
    pub(crate) fn start(
        ctx: Arc<Context>,
        scope: MarkScope,
        feed: Box<dyn Feed>,
        committed: Cut,
        room: Arc<Room>,
        board: Arc<PartitionBoard>,
        letters: bool,
    ) -> (Self, mpsc::Receiver<Fetched>) {
        let (to, from) = mpsc::channel(1);
        let fetcher = Fetcher { ctx, scope, feed, committed, room, board, letters };
        let task = tokio::spawn(async move {
            // The receiver is gone: nobody wants it any more.
            let _ = fetcher.run(to).await;
        });
        (Self { task }, from)
    }
}

/// Waits for room, and says so for as long as there is none.
async fn full<T>(board: &PartitionBoard, room: impl Future<Output = T>) -> T {
    let mut room = std::pin::pin!(room);
    if let Some(there) = room.as_mut().now_or_never() {
        return there;
    }
    board.full.store(true, Relaxed);
    let there = room.await;
    board.full.store(false, Relaxed);
    there
}

struct Fetcher {
    ctx: Arc<Context>,
    scope: MarkScope,
    feed: Box<dyn Feed>,
    /// The cut that was stored when the partition was opened: what lies before it is done.
    committed: Cut,
    room: Arc<Room>,
    board: Arc<PartitionBoard>,
    /// Records may have open letters although they are not marked: whoever held the partition before may have put them last. At the head
    /// that is over, where one worker holds it at a time.
    letters: bool,
}

/// Nobody wants it any more.
type Gone = mpsc::error::SendError<Fetched>;

impl Fetcher {
    async fn run(mut self, to: mpsc::Sender<Fetched>) -> Result<(), Gone> {
        let mut patience = Patience::new(&self.ctx.commit);
        loop {
            full(&self.board, self.room.some()).await;
            let limits = &self.ctx.limits;
            let limit = ReadLimit {
                max_records: limits.read_records.min(self.room.free_records()),
                max_bytes: limits.read_bytes,
                wait: limits.read_wait,
            };
            let began = Timestamp::now();
            let read = match self.feed.next(limit).await {
                Ok(read) => read,
                Err(error) => {
                    self.recover(error, &mut patience, &to).await?;
                    continue;
                }
            };
            self.board.well("reading");
            patience.reset();
            let closed = matches!(read.state, ReadState::Closed { .. });
            let fetched = self.prepare(read, began).await;
            to.send(fetched).await?;
            if closed {
                return Ok(());
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Waits until reading may be tried again, and opens the source anew where it takes that: what was read is still being worked on, and
    /// may be for ever.
    async fn recover(
        &mut self,
        mut error: Error,
        patience: &mut Patience,
        to: &mpsc::Sender<Fetched>,
    ) -> Result<(), Gone> {
        loop {
            let (anew, delay) = match error.retry() {
                Retry::Never => (true, self.ctx.leases.retry_failed),
                Retry::AfterReopen => (true, patience.delay()),
                Retry::After(after) => (false, after.max(patience.delay())),
                Retry::Later => (false, patience.delay()),
            };
            let for_good = !error.is_retryable();
            if for_good {
                to.send(Fetched::Failed(error)).await?;
            } else {
                self.board.trouble("reading", &error);
            }
            tokio::time::sleep(delay).await;
            if !anew {
                return Ok(());
            }
            match self.reopen().await {
                Ok(()) => return to.send(Fetched::Again).await,
                Err(again) => error = again,
            }
        }
    }

    async fn reopen(&mut self) -> Result<()> {
        let there = self.ctx.source.reader().partitions(&self.scope.topic).await?.incarnation;
        if there != self.scope.bus_incarnation {
            let what = format!(
                "the topic was made anew while it was read ({}, it is now {there})",
                self.scope.bus_incarnation
            );
            return Err(Error::new(ErrorKind::WrongIncarnation, "consume", what).at(&self.scope.topic));
        }
        self.feed.reopen().await
    }

    async fn prepare(&mut self, read: ReadBatch, began: Timestamp) -> Fetched {
        let ReadBatch { records, next, state } = read;
        let caught_up_at = (state == ReadState::CaughtUp).then_some(began);
        let closed = matches!(state, ReadState::Closed { .. });
        let bytes = records.iter().map(|r| r.envelope.len()).sum();
        let here = full(&self.board, self.room.take(records.len(), bytes)).await;
        let total = full(&self.board, self.ctx.room.take(records.len(), bytes)).await;
        let mut items: Vec<_> = records.into_iter().map(Item::read).collect();
        self.find_letters(&mut items).await;
        let items: Vec<_> = items.into_iter().map(Arc::new).collect();
        let seen = self.seen(&items).await;
        self.letters &= !self.ctx.in_order || caught_up_at.is_none();
        let next = if closed { Cut::End } else { next };
        let items = items.into_iter().zip(seen).collect();
        Fetched::Batch { batch: Batch { items, next, caught_up_at }, here, total, closed }
    }

    /// Which of them are open dead letters.
    async fn find_letters(&mut self, items: &mut [Item]) {
        if items.is_empty() || !self.letters {
            return;
        }
        let places: Vec<_> = items.iter().map(|i| i.record.eb_ref.clone()).collect();
        let (ctx, life) = (&self.ctx, &self.scope.bus_incarnation);
        let ask = || ctx.stores.dead_letters.open_of(&ctx.consumer, life, &places);
        let letters = answers(ctx, &self.board, ("dead letters", "dead_letter"), places.len(), ask).await;
        items.iter_mut().zip(letters).for_each(|(item, letter)| item.letter = letter);
    }

    /// What the store knows of them.
    async fn seen(&mut self, items: &[Arc<Item>]) -> Vec<Seen> {
        if items.is_empty() {
            return Vec::new();
        }
        let marks: Vec<Mark> = items.iter().map(|i| i.mark()).collect();
        let (ctx, scope) = (&self.ctx, &self.scope);
        let ask = || ctx.stores.processed.seen(scope, &marks, ctx.by_event);
        let mut seen = answers(ctx, &self.board, ("processed store", "processed"), marks.len(), ask).await;
        for (mark, seen) in marks.iter().zip(&mut seen) {
            if self.ctx.in_order && self.committed.is_before(&mark.offset) == Some(false) {
                *seen = Seen::Here;
            }
        }
        seen
    }
}

/// Asks a store until it answers so many questions. It is named as the health and as the counters have it.
async fn answers<T, F: Future<Output = Result<Vec<T>>>>(
    ctx: &Context,
    board: &PartitionBoard,
    (what, store): (&'static str, &'static str),
    questions: usize,
    ask: impl Fn() -> F,
) -> Vec<T> {
    let mut patience = Patience::new(&ctx.commit);
    loop {
        let error = match ask().await {
            Ok(answers) if answers.len() == questions => {
                board.well(what);
                return answers;
            }
            Ok(answers) => {
                let text = format!("{} answers to {questions} questions", answers.len());
                Error::new(ErrorKind::ProtocolViolation, "ask", text)
            }
            Err(error) => error,
        };
        board.trouble(what, &error);
        ctx.metrics.store_failed(store, &error);
        tokio::time::sleep(patience.delay()).await;
    }
}
