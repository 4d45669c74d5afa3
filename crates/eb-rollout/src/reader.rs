//! The reading side: topics as chains of segments.

use std::cmp::Ordering;
use std::sync::Arc;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, Error, ErrorKind, EventBusReader, Head, PartitionId, Result,
    StartAt, Topic, TopicPartitions,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::Running;
use crate::chain::{self, Bounds, bounds, physical};
use crate::cursor::RolloutCursor;
use crate::error::{closed, no_partition, no_topic, wrong_incarnation};
use crate::shared::Shared;
use crate::state::{EndState, Side, State};
use crate::switch;

/// Reads the chain of each topic; see the [crate](crate)'s documentation. Every call asks the register, cursors only where their
/// lease has ended.
pub struct RolloutReader {
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
    _running: Arc<Running>,
}

impl RolloutReader {
    pub(crate) fn new(shared: Arc<Shared>, running: Arc<Running>) -> Self {
        Self { shared, closed: watch::Sender::new(false), _running: running }
    }

    fn check_open(&self, op: &'static str) -> Result<()> {
        if *self.closed.borrow() { Err(closed(op)) } else { Ok(()) }
    }

    async fn state(&self, op: &'static str) -> Result<State> {
        self.check_open(op)?;
        Ok(self.shared.refresh_since(Instant::now()).await?.state.clone())
    }
}

/// The bounds of a logical partition, which must be part of the chain.
pub(crate) fn known(op: &'static str, state: &State, topic: &Topic, id: PartitionId) -> Result<Bounds> {
    if !state.is_implicit() && !state.topics.contains_key(topic) {
        return Err(no_topic(op, topic));
    }
    let (segment, physical) = physical(id);
    bounds(state, topic, segment, physical).ok_or_else(|| no_partition(op, topic, id))
}

/// Positions mean nothing in another life of a topic.
pub(crate) async fn check_life(
    shared: &Shared,
    op: &'static str,
    state: &State,
    topic: &Topic,
    id: PartitionId,
) -> Result<()> {
    let (segment, _) = physical(id);
    let Some(of) = state.topics.get(topic).and_then(|c| c.get(segment)) else { return Ok(()) };
    let now = shared.side(of.side).reader.partitions(topic).await?.incarnation;
    if now == of.incarnation { Ok(()) } else { Err(wrong_incarnation(op, topic)) }
}

impl EventBusReader for RolloutReader {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        Box::pin(async {
            let state = self.state("topics").await?;
            if state.is_implicit() {
                return self.shared.side(Side::Old).reader.topics().await;
            }
            Ok(state.topics.keys().cloned().collect())
        })
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        Box::pin(async move {
            let state = self.state("partitions").await?;
            chain::partitions(&self.shared, &state, topic).await
        })
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        Box::pin(async move {
            let mut state = self.state("head").await?;
            let mut of = known("head", &state, topic, partition)?;
            let (_, id) = physical(partition);
            if of.end == EndState::Pending {
                switch::settle_topic(&self.shared, topic).await?;
                state = self.state("head").await?;
                of = known("head", &state, topic, partition)?;
            }
            if let Some(cut) = of.end_cut {
                return Ok(Head { cut, last: of.last, last_published_at: None });
            }
            let mut head = self.shared.side(of.side).reader.head(topic, PartitionId(id)).await?;
            // What lies before the start is no part of the segment.
            if head.last.is_some_and(|last| of.start.is_before(&last) != Some(true)) {
                (head.last, head.last_published_at) = (None, None);
            }
            if of.start.compare(&head.cut) == Some(Ordering::Greater) {
                head.cut = of.start;
            }
            Ok(head)
        })
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(async move {
            const OP: &str = "cursor";
            let state = self.state(OP).await?;
            let of = known(OP, &state, topic, partition)?;
            check_life(&self.shared, OP, &state, topic, partition).await?;
            let cursor = RolloutCursor::open(
                self.shared.clone(),
                self.closed.subscribe(),
                topic,
                partition,
                of,
                start,
            )
            .await?;
            Ok(Box::new(cursor) as Box<dyn Cursor>)
        })
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.send_replace(true);
        Box::pin(async { Ok(()) })
    }
}

/// A cut that can only belong to a segment that has ended.
pub(crate) fn no_end_yet(topic: &Topic, partition: PartitionId) -> Error {
    Error::new(ErrorKind::InvalidInput, "cursor", "the partition is open and has no end yet")
        .at(format!("{topic}/{partition}"))
}

/// The further one of two cuts of one kind; `a` where they are of different kinds.
pub(crate) fn later(a: Cut, b: Cut) -> Cut {
    if b.compare(&a) == Some(Ordering::Greater) { b } else { a }
}
