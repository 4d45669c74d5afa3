//! A place in one segment's partition: a cursor of the bus that holds it, clipped to the segment.
//!
//! A batch is handed out only when it is sure on which side of the segment's end it lies: under a lease that was still
//! valid when the batch had been read, or after the register was asked once more. Until then the batch is kept, so that a dropped
//! read loses nothing.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, Cursor, Cut, Error, ErrorKind, PartitionId, ReadBatch, ReadLimit, ReadState, Result, StartAt,
    Topic,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::chain::{self, Bounds, bounds, physical};
use crate::error::{closed, no_partition, pending, unavailable};
use crate::reader::{later, no_end_yet};
use crate::shared::{Lease, Shared};
use crate::state::{EndState, State};
use crate::switch;

const OP: &str = "read";

/// How long a read at the place of a switch waits for its end beyond what it may wait for records.
const SWITCH_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct RolloutCursor {
    shared: Arc<Shared>,
    closed: watch::Receiver<bool>,
    topic: Topic,
    partition: PartitionId,
    segment: usize,
    id: u32,
    start: Cut,
    /// `None` once the end was reached before anything had to be read.
    inner: Option<Box<dyn Cursor>>,
    position: Cut,
    /// What was read and not handed out, and when that was read.
    held: Option<(ReadBatch, Instant)>,
    /// The children, once the end was handed out.
    ended: Option<Vec<PartitionId>>,
}

impl RolloutCursor {
    pub(crate) async fn open(
        shared: Arc<Shared>,
        closed: watch::Receiver<bool>,
        topic: &Topic,
        partition: PartitionId,
        of: Bounds,
        start: StartAt,
    ) -> Result<Self> {
        let (segment, id) = physical(partition);
        let reader = &shared.side(of.side).reader;
        let own = PartitionId(id);
        // Whoever begins at the start was there when the epoch began: nothing of it can have been missed before.
        let from_start = if matches!(of.start, Cut::Begin) {
            StartAt::Cut(Cut::Begin)
        } else {
            StartAt::Resume { cut: of.start, caught_up_at: of.opened_at }
        };
        if let (Cut::End, None) = (start.cut().unwrap_or(Cut::Begin), of.end_cut)
            && of.end == EndState::Pending
        {
            return Err(pending(format!("{topic}/{partition}")));
        }
        let inner = match (start, of.end_cut) {
            (StartAt::Latest | StartAt::Cut(Cut::End) | StartAt::Resume { cut: Cut::End, .. }, Some(_)) => {
                None
            }
            (StartAt::Earliest, _) => match reader.cursor(topic, own, from_start).await {
                Err(error) if matches!(error.kind(), ErrorKind::OutOfRange { .. }) => {
                    Some(reader.cursor(topic, own, StartAt::Earliest).await?)
                }
                opened => Some(opened?),
            },
            (StartAt::Cut(cut) | StartAt::Resume { cut, .. }, _) => {
                let before_start = cut.compare(&of.start).is_none_or(Ordering::is_le);
                let of_kind = cut.offset_kind().is_none() || cut.compare(&of.start).is_some();
                if before_start && of_kind {
                    Some(reader.cursor(topic, own, from_start).await?)
                } else {
                    match reader.cursor(topic, own, start).await {
                        // A partition that its bus may have closed since.
                        Err(error) if matches!(cut, Cut::End) && of.end == EndState::Open => {
                            return Err(if *error.kind() == ErrorKind::InvalidInput {
                                no_end_yet(topic, partition)
                            } else {
                                error
                            });
                        }
                        opened => Some(opened?),
                    }
                }
            }
            (StartAt::Latest | StartAt::Timestamp(_), _) => Some(reader.cursor(topic, own, start).await?),
        };
        let position = match &inner {
            Some(inner) => later(of.start, inner.position()),
            None => Cut::End,
        };
        Ok(Self {
            shared,
            closed,
            topic: topic.clone(),
            partition,
            segment,
            id,
            start: of.start,
            inner,
            position,
            held: None,
            ended: None,
        })
    }

    fn place(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    fn bounds(&self, state: &State) -> Result<Bounds> {
        bounds(state, &self.topic, self.segment, self.id)
            .ok_or_else(|| no_partition(OP, &self.topic, self.partition))
    }

    fn check_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(closed(OP)) } else { Ok(()) }
    }

    /// The end, with those that go on from here.
    fn end(
        &mut self,
        records: Vec<eb_contract::Record>,
        state: &State,
        of_bus: &[PartitionId],
    ) -> Result<ReadBatch> {
        let children = chain::children(state, &self.topic, self.segment, self.id, of_bus)?;
        self.position = Cut::End;
        self.ended = Some(children.clone());
        self.held = None;
        Ok(ReadBatch { records, next: Cut::End, state: ReadState::Closed { children } })
    }

    /// Reads a batch of the bus and keeps it, unless the register is heard to say something new first.
    async fn fetch(&mut self, limit: ReadLimit, seen: &Lease) -> Result<()> {
        let Some(inner) = &mut self.inner else { return Ok(()) };
        let mut changes = self.shared.listen();
        let changed = async {
            while changes.borrow_and_update().version == seen.version {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut closing = self.closed.clone();
        tokio::select! {
            batch = inner.next(limit) => {
                let batch = batch?;
                self.held = Some((batch, Instant::now()));
            }
            () = changed => {}
            _ = closing.wait_for(|closed| *closed) => return Err(closed(OP)),
        }
        Ok(())
    }

    /// The kept batch as it lies within the segment, by a state that is known to be right for it; `None` where that has
    /// to be asked for again.
    fn clip(&mut self, state: &State, of: &Bounds, limit: &ReadLimit) -> Result<Option<ReadBatch>> {
        let Some((batch, _)) = self.held.take() else { return Ok(None) };
        let ReadBatch { mut records, next, state: read } = batch;
        let start = self.start;
        records.retain(|r| start.is_before(&r.eb_ref.offset) != Some(false));
        let mut reached_end = false;
        if let Some(end) = &of.end_cut {
            let before = records.len();
            records.retain(|r| end.is_before(&r.eb_ref.offset) == Some(false));
            reached_end = records.len() < before
                || of.is_done(&next)
                || (read == ReadState::CaughtUp && of.is_done_at_head(&later(self.position, next)));
        }
        for record in &mut records {
            record.eb_ref.partition_id = self.partition;
        }
        if reached_end {
            return self.end(records, state, &[]).map(Some);
        }
        let next = later(self.position, next);
        if let ReadState::Closed { children } = read {
            return self.end(records, state, &children).map(Some);
        }
        self.position = next;
        // Of a segment that has ended more is there, until its end was reached; a service may just not show it yet.
        let read = if of.end_cut.is_some() { ReadState::More } else { read };
        // Copies and other epochs' records alone: nothing for the caller, and no reason to stop.
        if records.is_empty() && read == ReadState::More && !limit.wait.is_zero() {
            return Ok(None);
        }
        Ok(Some(ReadBatch { records, next, state: read }))
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<ReadBatch> {
        if let Some(children) = self.ended.clone() {
            self.check_open()?;
            return Ok(ReadBatch {
                records: Vec::new(),
                next: Cut::End,
                state: ReadState::Closed { children },
            });
        }
        let began = Instant::now();
        loop {
            self.check_open()?;
            let lease = self.shared.lease();
            if lease.version > 0 {
                let of = self.bounds(&lease.state)?;
                if of.is_done(&self.position) {
                    return self.end(Vec::new(), &lease.state, &[]);
                }
            }
            if self.held.is_none() {
                let left = limit.wait.saturating_sub(began.elapsed());
                self.fetch(limit.waiting(left), &lease).await?;
            }
            let Some((_, read_at)) = &self.held else { continue };
            let read_at = *read_at;
            let now = Instant::now();
            let mut lease = self.shared.lease();
            // A lease that is valid still was so when the batch was read.
            if !lease.is_valid(now) && !has_ended(&lease.state, &self.topic, self.segment) {
                lease = self.shared.refresh_since(read_at).await?;
            }
            let of = self.bounds(&lease.state)?;
            match of.end {
                EndState::Settled => {}
                EndState::Open if lease.state.is_active() => {}
                EndState::Open => {
                    // The end is being decided.
                    if began.elapsed() > limit.wait + SWITCH_PATIENCE {
                        return Err(unavailable(OP, "the bus is being switched").at(self.place()));
                    }
                    self.shared.renew.notify_one();
                    self.shared.changed(&lease, lease.length()).await;
                    continue;
                }
                EndState::Pending => {
                    // The bus has just answered, so where its epoch ends can be asked.
                    switch::settle_topic(&self.shared, &self.topic)
                        .await
                        .map_err(|e| pending(self.place()).with_source(e))?;
                    continue;
                }
            }
            if let Some(batch) = self.clip(&lease.state, &of, &limit)? {
                return Ok(batch);
            }
        }
    }
}

/// Whether a segment's end is settled, after which nothing about it changes.
fn has_ended(state: &State, topic: &Topic, segment: usize) -> bool {
    let chain = state.topics.get(topic);
    chain.and_then(|c| c.get(segment)).is_some_and(|s| s.end == EndState::Settled)
}

impl Cursor for RolloutCursor {
    fn topic(&self) -> &Topic {
        &self.topic
    }

    fn partition_id(&self) -> PartitionId {
        self.partition
    }

    fn position(&self) -> Cut {
        self.position
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        Box::pin(async move {
            let read = self.read(limit).await;
            // An error of the bus names its own partition.
            read.map_err(|e: Error| if e.place().is_none() { e.at(self.place()) } else { e })
        })
    }
}
