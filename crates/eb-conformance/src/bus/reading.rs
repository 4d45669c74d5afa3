//! A cursor that checks what holds for every read.

use eb_contract::{
    Cursor, Cut, Offset, OffsetKind, PartitionId, ReadBatch, ReadLimit, ReadState, Record, StartAt, Topic,
};
use tokio::time::Instant;

use crate::bus::BusCase;
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome, Pace};

/// A cursor that checks every batch it brings: kinds, order, limits, and that the cuts say what was read.
pub(crate) struct Reading {
    pub(crate) cursor: Box<dyn Cursor>,
    last: Option<Offset>,
    topic: Topic,
    partition: PartitionId,
    kind: OffsetKind,
    pace: Pace,
}

impl Reading {
    pub(crate) async fn open(
        case: &BusCase,
        topic: &Topic,
        partition: PartitionId,
        start: impl Into<StartAt>,
    ) -> Outcome<Self> {
        let start = start.into();
        let cursor = case.reader().cursor(topic, partition, start).await?;
        ensure_eq!(cursor.topic(), topic, "the cursor's topic");
        ensure_eq!(cursor.partition_id(), partition, "the cursor's partition");
        Ok(Self {
            cursor,
            last: None,
            topic: topic.clone(),
            partition,
            kind: case.caps.offset_kind,
            pace: case.pace,
        })
    }

    /// One read.
    pub(crate) async fn step(&mut self, limit: ReadLimit) -> Outcome<ReadBatch> {
        let before = self.cursor.position();
        let batch = self.cursor.next(limit).await?;
        self.check(before, &limit, &batch)?;
        Ok(batch)
    }

    /// What holds for every batch that a read from `before` has brought.
    pub(crate) fn check(&mut self, before: Cut, limit: &ReadLimit, batch: &ReadBatch) -> Outcome {
        let place = format!("{}/{}", self.topic, self.partition);
        ensure!(
            batch.records.len() <= limit.max_records.max(1),
            "{place}: {} records came, {} were asked for",
            batch.records.len(),
            limit.max_records
        );
        for r in &batch.records {
            let at = &r.eb_ref;
            ensure_eq!(
                (&at.topic, at.partition_id),
                (&self.topic, self.partition),
                "the place of a record read"
            );
            ensure_eq!(at.offset.kind(), self.kind, "{place}: the kind of an offset read");
            if let Some(last) = self.last {
                ensure!(at.offset > last, "{place}: {} was read after {last}", at.offset);
            }
            ensure_eq!(
                before.is_before(&at.offset),
                Some(true),
                "{place}: {} lies after `{before}`",
                at.offset
            );
            self.last = Some(at.offset);
        }
        let position = self.cursor.position();
        ensure!(
            position == batch.next,
            "{place}: the cursor stands at `{position}`, the batch says `{}`",
            batch.next
        );
        match &batch.state {
            ReadState::Closed { .. } => {
                ensure!(batch.next == Cut::End, "{place}: closed, yet the next cut is `{}`", batch.next);
            }
            _ => match batch.records.last() {
                Some(r) => ensure!(
                    batch.next == Cut::past(r.eb_ref.offset),
                    "{place}: `{}` is not right after {}, the last record of the batch",
                    batch.next,
                    r.eb_ref.offset
                ),
                // An empty batch may move on over an empty stretch, never back.
                None => ensure!(
                    batch.next.compare(&before).is_some_and(std::cmp::Ordering::is_ge),
                    "{place}: an empty read moved from `{before}` back to `{}`",
                    batch.next
                ),
            },
        }
        Ok(())
    }

    /// Exactly the next `count` records, waiting as long as they may take to show up.
    pub(crate) async fn take(&mut self, count: usize) -> Outcome<Vec<Record>> {
        let mut all: Vec<Record> = Vec::with_capacity(count);
        let deadline = Instant::now() + self.pace.visible_within;
        while all.len() < count {
            let wait = deadline.saturating_duration_since(Instant::now());
            let batch = self.step(ReadLimit::records(count - all.len()).waiting(wait)).await?;
            let came = batch.records.len();
            all.extend(batch.records);
            if matches!(batch.state, ReadState::Closed { .. }) && all.len() < count {
                return Err(Failure::new(format!("closed after {} of {count} records", all.len())));
            }
            if came == 0 && wait.is_zero() {
                return Err(Failure::new(format!(
                    "{}/{}: only {} of {count} records came",
                    self.topic,
                    self.partition,
                    all.len()
                )));
            }
        }
        Ok(all)
    }

    /// All that is there now, to the head or to the end.
    pub(crate) async fn rest(&mut self) -> Outcome<Vec<Record>> {
        let mut all = Vec::new();
        loop {
            let batch = self.step(ReadLimit::default()).await?;
            all.extend(batch.records);
            if batch.state != ReadState::More {
                return Ok(all);
            }
        }
    }

    /// Nothing is there now.
    pub(crate) async fn expect_head(&mut self) -> Outcome {
        let more = self.rest().await?;
        ensure!(
            more.is_empty(),
            "{}/{}: {} more records came than expected, the first at {}",
            self.topic,
            self.partition,
            more.len(),
            more[0].eb_ref.offset
        );
        Ok(())
    }
}
