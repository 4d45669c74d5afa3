//! The reading side, and cursors that wait for changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, EventBusReader, Head, PartitionId, ReadBatch, ReadLimit, ReadState,
    Result, StartAt, Topic, TopicPartitions,
};
use futures_util::FutureExt;
use futures_util::future::ready;
use tokio::time::{Instant, timeout_at};

use crate::error;
use crate::state::{Shared, State};

/// Reads from a [`MemoryBus`](crate::MemoryBus). Its calls answer at once; dropping their futures changes nothing.
pub struct MemoryReader {
    shared: Arc<Shared>,
    closed: Arc<AtomicBool>,
}

impl MemoryReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, closed: Arc::default() }
    }

    fn look<T>(&self, op: &'static str, look: impl FnOnce(&State) -> Result<T>) -> Result<T> {
        let state = self.shared.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(error::closed(op));
        }
        match &state.faults.outage {
            Some(outage) => Err(outage.clone()),
            None => look(&state),
        }
    }
}

impl EventBusReader for MemoryReader {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        ready(self.look("topics", |state| Ok(state.topic_names()))).boxed()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        ready(self.look("partitions", |state| Ok(state.topic("partitions", topic)?.describe()))).boxed()
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        ready(self.look("head", |state| Ok(state.partition("head", topic, partition)?.head()))).boxed()
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        let resolved =
            self.look("cursor", |state| state.partition("cursor", topic, partition)?.resolve(start));
        let cursor = resolved.map(|position| {
            Box::new(MemoryCursor {
                shared: self.shared.clone(),
                closed: self.closed.clone(),
                topic: topic.clone(),
                partition,
                position,
            }) as Box<dyn Cursor>
        });
        ready(cursor).boxed()
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        let state = self.shared.lock();
        self.closed.store(true, Ordering::Relaxed);
        drop(state);
        self.shared.notify();
        ready(Ok(())).boxed()
    }
}

/// A place in a partition of a [`MemoryBus`](crate::MemoryBus). Waiting needs a tokio runtime with its clock
/// enabled; reads without `wait` run anywhere.
pub struct MemoryCursor {
    shared: Arc<Shared>,
    closed: Arc<AtomicBool>,
    topic: Topic,
    partition: PartitionId,
    position: Cut,
}

impl MemoryCursor {
    fn read(&self, limit: &ReadLimit) -> Result<ReadBatch> {
        let state = self.shared.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(error::closed("read"));
        }
        if let Some(outage) = &state.faults.outage {
            return Err(outage.clone());
        }
        state.partition("read", &self.topic, self.partition)?.read(self.position, limit)
    }

    fn planned_error(&self) -> Result<()> {
        self.shared.lock().faults.read_errors.pop_front().map_or(Ok(()), Err)
    }
}

impl Cursor for MemoryCursor {
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
        // The place moves only together with handing the batch out, so a dropped future leaves it where it was.
        async move {
            self.planned_error()?;
            // Listening before the first look, so that no change falls between looking and waiting.
            let mut changes = self.shared.listen();
            let mut deadline = None;
            loop {
                changes.mark_unchanged();
                let batch = self.read(&limit)?;
                let idle = batch.records.is_empty() && batch.state == ReadState::CaughtUp;
                if idle && !limit.wait.is_zero() {
                    let until = *deadline.get_or_insert_with(|| Instant::now().checked_add(limit.wait));
                    // A wait too long for the clock has no end.
                    let timed_out = match until {
                        Some(until) => timeout_at(until, changes.changed()).await.is_err(),
                        None => changes.changed().await.is_err(),
                    };
                    if !timed_out {
                        continue;
                    }
                }
                self.position = batch.next;
                return Ok(batch);
            }
        }
        .boxed()
    }
}
