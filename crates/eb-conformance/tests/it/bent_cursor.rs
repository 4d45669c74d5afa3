//! The broken cursor.

use std::time::Duration;

use eb_contract::{
    BoxFuture, Cursor, Cut, ErrorKind, EventBusReader, PartitionId, PartitionKey, ReadBatch, ReadLimit,
    ReadState, Record, Result, StartAt, Topic,
};
use eb_memory::MemoryBus;

use crate::bent_bus::Bend;

pub(crate) struct BentCursor {
    bend: Bend,
    inner: Box<dyn Cursor>,
    bus: MemoryBus,
    partition: PartitionId,
    last: Option<Record>,
    caught_up: bool,
    /// Where a batch that went too far has left us.
    position: Option<Cut>,
}

impl BentCursor {
    pub(crate) fn new(bend: Bend, inner: Box<dyn Cursor>, bus: MemoryBus, partition: PartitionId) -> Self {
        Self { bend, inner, bus, partition, last: None, caught_up: false, position: None }
    }

    fn bend_limit(&self, limit: ReadLimit) -> ReadLimit {
        match self.bend {
            Bend::AnyNumberOfRecords => ReadLimit { max_records: usize::MAX, ..limit },
            Bend::AnyNumberOfBytes => ReadLimit { max_bytes: usize::MAX, ..limit },
            Bend::NeverWaits => ReadLimit { wait: Duration::ZERO, ..limit },
            Bend::WaitsForGood if !limit.wait.is_zero() => ReadLimit { wait: Duration::MAX, ..limit },
            _ => limit,
        }
    }

    async fn restart(&mut self, start: StartAt) -> Result<()> {
        let topic = self.inner.topic().clone();
        self.inner = self.bus.reader().cursor(&topic, self.partition, start).await?;
        Ok(())
    }

    fn bend_batch(&mut self, batch: &mut ReadBatch) {
        match self.bend {
            Bend::DeliversTwice => {
                let last = batch.records.last().cloned();
                if let Some(again) = self.last.take()
                    && !batch.records.is_empty()
                {
                    batch.records.insert(0, again);
                }
                self.last = last;
            }
            Bend::CaughtUpTooEarly => batch.state = ReadState::CaughtUp,
            Bend::NextCutTooFar => {
                if let Cut::Next(o) = batch.next
                    && let Some(further) = o.successor()
                {
                    batch.next = Cut::Next(further);
                }
            }
            Bend::BatchesBackwards => batch.records.reverse(),
            Bend::ChildrenUnnamed => {
                if let ReadState::Closed { children } = &mut batch.state {
                    children.clear();
                }
            }
            Bend::AnotherPartitionRule => {
                for r in &mut batch.records {
                    if let Some(key) = r.partition_key.as_str().strip_suffix('\u{1}') {
                        let key = PartitionKey::new(key.to_owned());
                        r.partition_key = key.expect("the key that was published");
                    }
                }
            }
            _ => {}
        }
        self.position = Some(batch.next);
        self.caught_up = batch.state == ReadState::CaughtUp;
    }
}

impl Cursor for BentCursor {
    fn topic(&self) -> &Topic {
        self.inner.topic()
    }

    fn partition_id(&self) -> PartitionId {
        self.partition
    }

    fn position(&self) -> Cut {
        self.position.unwrap_or_else(|| self.inner.position())
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        Box::pin(async move {
            let limit = self.bend_limit(limit);
            if self.bend == Bend::GapAtTheHead && self.caught_up && !limit.wait.is_zero() {
                self.restart(StartAt::Latest).await?;
            }
            let mut read = self.inner.next(limit).await;
            if self.bend == Bend::JumpsSilently
                && let Err(e) = &read
                && matches!(e.kind(), ErrorKind::OutOfRange { .. })
            {
                self.restart(StartAt::Earliest).await?;
                read = self.inner.next(limit).await;
            }
            if self.bend == Bend::DroppedReadsLoseRecords {
                // The place has moved, the records are not handed out yet.
                tokio::task::yield_now().await;
            }
            let mut batch = read?;
            self.bend_batch(&mut batch);
            Ok(batch)
        })
    }
}
