//! A place in a shard that moves forward.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, Cursor, Cut, PartitionId, ReadBatch, ReadLimit, ReadState, Record, Result, Topic,
};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::error;
use crate::reader::fetch::{Fetched, Place};
use crate::reader::open::Opened;
use crate::reader::page::Raw;
use crate::reader::shard::Shard;
use crate::reader::task::Task;

/// A cursor of a [`KinesisReader`](crate::KinesisReader).
///
/// It holds at most one page of records that were not asked for yet. A call that is dropped goes on where it was with the
/// next one: the request that is under way, and with it its turn at the shard, is kept.
///
/// `CaughtUp` is said by the read whose own request has seen the head. A page that was asked for before says how things
/// were then: who publishes, has the ACK and reads must not be told that there is nothing.
pub(crate) struct KinesisCursor {
    shard: Arc<Shard>,
    closed: watch::Receiver<bool>,
    /// Before the first of `ahead`: what the caller knows.
    position: Cut,
    /// Behind the last of `ahead`: where the next page starts.
    read_to: Place,
    ahead: VecDeque<Raw>,
    /// The last page had reached the head, and was asked for at this time.
    caught_up: Option<Instant>,
    iterator: Option<String>,
    fetching: Option<Task<(Fetched, Duration)>>,
    /// The shard ends behind `ahead`.
    children: Option<Vec<PartitionId>>,
}

impl KinesisCursor {
    pub(crate) fn new(shard: Arc<Shard>, closed: watch::Receiver<bool>, opened: Opened) -> Self {
        let mut cursor = Self {
            shard,
            closed,
            position: opened.place.cut,
            read_to: opened.place,
            ahead: VecDeque::new(),
            caught_up: None,
            iterator: opened.iterator,
            fetching: None,
            children: None,
        };
        if let Some(ahead) = opened.ahead {
            cursor.take(ahead);
        }
        cursor
    }

    /// At the end of a shard that has these children.
    pub(crate) fn at_end(
        shard: Arc<Shard>,
        closed: watch::Receiver<bool>,
        children: Vec<PartitionId>,
    ) -> Self {
        let place = Place { cut: Cut::End, unread_since: None, kept_for: Duration::ZERO };
        let opened = Opened { place, ahead: None, iterator: None };
        Self { children: Some(children), ..Self::new(shard, closed, opened) }
    }

    fn take(&mut self, fetched: Fetched) {
        if let Some(last) = fetched.records.back() {
            self.read_to.cut = Cut::past(last.offset);
            self.read_to.unread_since = Some(last.arrived);
        }
        if fetched.caught_up {
            self.read_to.unread_since = self.read_to.unread_since.max(Some(fetched.asked_at));
        }
        self.caught_up = fetched.caught_up.then_some(fetched.asked);
        self.ahead = fetched.records;
        self.iterator = fetched.iterator;
        self.children = fetched.children;
    }

    async fn fetch(&mut self) -> Result<()> {
        let (shard, read_to, iterator) = (&self.shard, self.read_to, &mut self.iterator);
        let fetching =
            self.fetching.get_or_insert_with(|| Task::start(shard.clone().fetch(read_to, iterator.take())));
        let fetched = fetching.answer("read").await;
        // Whether it went well or not, it is over. After an error the iterator is made anew from the place.
        self.fetching = None;
        let (fetched, kept_for) = fetched?;
        self.read_to.kept_for = kept_for;
        self.take(fetched);
        Ok(())
    }

    /// Hands out what lies ahead, within `limit`, to a read that began at this time.
    fn deal(&mut self, limit: &ReadLimit, began: Instant) -> Result<ReadBatch> {
        let most = limit.max_records.max(1);
        let mut records: Vec<Record> = Vec::with_capacity(self.ahead.len().min(most));
        let mut bytes = 0usize;
        while let Some(raw) = self.ahead.front()
            && records.len() < most
        {
            bytes = bytes.saturating_add(raw.len());
            if bytes > limit.max_bytes && !records.is_empty() {
                break;
            }
            match raw.record(&self.shard) {
                Ok(record) => records.push(record),
                // First what lies before it; then the error, for as long as the cursor stands here.
                Err(_) if !records.is_empty() => break,
                Err(e) => return Err(e),
            }
            self.ahead.pop_front();
        }
        if let Some(last) = records.last() {
            self.position = Cut::past(last.eb_ref.offset);
        }
        let state = self.state(began);
        Ok(ReadBatch { records, next: self.position, state })
    }

    /// How things stand behind what was handed out.
    fn state(&mut self, began: Instant) -> ReadState {
        if !self.ahead.is_empty() {
            return ReadState::More;
        }
        if let Some(children) = &self.children {
            self.position = Cut::End;
            return ReadState::Closed { children: children.clone() };
        }
        match self.caught_up {
            Some(asked) if asked >= began => ReadState::CaughtUp,
            _ => ReadState::More,
        }
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<ReadBatch> {
        let began = Instant::now();
        // A wait too long for the clock has no end.
        let deadline = began.checked_add(limit.wait);
        let over = |at: Instant| deadline.is_some_and(|deadline| at >= deadline);
        loop {
            if !self.ahead.is_empty() || self.children.is_some() {
                return self.deal(&limit, began);
            }
            self.fetch().await?;
            if !self.ahead.is_empty() || self.children.is_some() {
                continue;
            }
            if self.caught_up.is_some_and(|asked| asked < began) {
                continue;
            }
            let now = Instant::now();
            if over(now) {
                return self.deal(&limit, began);
            }
            if self.caught_up.is_some() {
                let poll = self.shard.shared.config.read.idle_poll;
                // Also the end of the wait looks once more, so that its answer is of now.
                sleep(deadline.map_or(poll, |deadline| poll.min(deadline - now))).await;
            }
        }
    }
}

impl Cursor for KinesisCursor {
    fn topic(&self) -> &Topic {
        &self.shard.topic
    }

    fn partition_id(&self) -> PartitionId {
        self.shard.partition
    }

    fn position(&self) -> Cut {
        self.position
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        async move {
            let mut closed = self.closed.clone();
            tokio::select! {
                biased;
                // An error would mean that the reader is gone without closing, and then its cursors go on.
                Ok(_) = closed.wait_for(|closed| *closed) => Err(error::closed("read")),
                batch = self.read(limit) => batch,
            }
        }
        .boxed()
    }
}
