//! The publishing handle: calls go to the writers of their partitions, answers come back as futures.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eb_contract::{
    BoxFuture, Capabilities, EbRef, Error, ErrorKind, EventBusPublisher, Offset, OffsetKind, PublishRecord,
    Result, Topic, partition_for,
};
use parking_lot::RwLock;

use crate::block_on::block_on;
use crate::bus::{BusShared, PartitionState, TopicState};
use crate::offload::offload;
use crate::queue::{Acked, Run};
use crate::recovery::RecoveryReport;
use crate::writer::{PartitionWriter, Unattended, closed};

pub(crate) const OP: &str = "publish";

/// Publishes to a file bus; see [`FileBus::publisher`](crate::FileBus::publisher). Clones are the same publisher.
///
/// A partition is locked and recovered by the first call that needs it, on its writer's thread. When the last clone is dropped without
/// [`close`](EventBusPublisher::close), what was called is still written and the logs are closed in the background.
#[derive(Clone)]
pub struct FilePublisher {
    session: Arc<Session>,
}

impl fmt::Debug for FilePublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePublisher")
            .field("root", &self.session.shared.layout.root())
            .finish_non_exhaustive()
    }
}

/// The life of a publisher, from the bus's first handing it out to its close.
pub(crate) struct Session {
    shared: Arc<BusShared>,
    pub(crate) capabilities: Capabilities,
    writers: RwLock<Writers>,
}

#[derive(Default)]
struct Writers {
    closed: bool,
    topics: HashMap<Topic, TopicWriters>,
}

struct TopicWriters {
    state: Arc<TopicState>,
    /// By partition; made when first needed.
    partitions: Vec<Option<Arc<PartitionWriter>>>,
}

impl Session {
    pub(crate) fn new(shared: Arc<BusShared>, capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self { shared, capabilities, writers: RwLock::default() })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.writers.read().closed
    }

    /// How many partitions the topic has.
    pub(crate) fn partitions(&self, op: &'static str, topic: &Topic) -> Result<u32> {
        {
            let writers = self.writers.read();
            if writers.closed {
                return Err(closed(op));
            }
            if let Some(known) = writers.topics.get(topic) {
                return Ok(known.state.meta.partitions);
            }
        }
        let state = self.shared.topic(op, topic)?;
        let mut writers = self.writers.write();
        let partitions = state.partitions.iter().map(|_| None).collect();
        writers.topics.entry(topic.clone()).or_insert(TopicWriters { state: state.clone(), partitions });
        Ok(state.meta.partitions)
    }

    /// The writer of a partition, made if it is the first call for it. The topic must have been asked for before.
    pub(crate) fn writer(&self, op: &'static str, topic: &Topic, index: u32) -> Result<Arc<PartitionWriter>> {
        let index = index as usize;
        {
            let writers = self.writers.read();
            let known = writers.topics.get(topic).and_then(|t| t.partitions[index].as_ref());
            if let Some(writer) = known.filter(|_| !writers.closed) {
                return Ok(writer.clone());
            }
        }
        let mut writers = self.writers.write();
        // Under the same lock as close sets it, so that close misses no writer.
        if writers.closed {
            return Err(closed(op));
        }
        let Some(TopicWriters { state, partitions }) = writers.topics.get_mut(topic) else {
            return Err(Error::new(ErrorKind::NotFound, op, "the topic does not exist").at(topic));
        };
        let (meta, partition) = (&state.meta, &state.partitions[index]);
        let make = || PartitionWriter::new(self.shared.clone(), meta.clone(), partition.clone());
        Ok(partitions[index].get_or_insert_with(make).clone())
    }

    pub(crate) fn check(&self, record: &PublishRecord) -> Result<()> {
        let (size, limit) = (record.envelope.len(), self.capabilities.max_envelope_bytes);
        if size > limit {
            let what = format!("the envelope has {size} bytes, the limit is {limit}");
            return Err(Error::new(ErrorKind::TooLarge { size, limit }, OP, what));
        }
        Ok(())
    }

    fn publish(&self, topic: &Topic, record: &PublishRecord, may_block: bool) -> Result<PublishOne> {
        let partitions = self.partitions(OP, topic)?;
        self.check(record).map_err(|e| e.at(topic))?;
        let partition = partition_for(&record.partition_key, partitions);
        let writer = self.writer(OP, topic, partition.0)?;
        let (run, unattended) = writer.enqueue_one(record, may_block)?;
        Ok(PublishOne { writer, run, slot: None, unattended })
    }

    fn begin_close(&self) -> Vec<Arc<PartitionWriter>> {
        let mut writers = self.writers.write();
        writers.closed = true;
        let all: Vec<_> =
            writers.topics.values().flat_map(|t| t.partitions.iter().flatten().cloned()).collect();
        drop(writers);
        for writer in &all {
            writer.begin_close();
        }
        all
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.begin_close();
    }
}

impl FilePublisher {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session }
    }

    /// Publishes one record from a thread that may block, such as a plain program's; with few publishers about, this thread writes and syncs
    /// by itself, without any hand-over.
    ///
    /// # Errors
    /// As for [`publish`](EventBusPublisher::publish).
    #[expect(clippy::needless_pass_by_value, reason = "as `publish` takes it")]
    pub fn publish_blocking(&self, topic: &Topic, record: PublishRecord) -> Result<EbRef> {
        let mut publish = self.session.publish(topic, &record, true)?;
        publish.unattended.see_to_now();
        block_on(publish)
    }

    /// Locks and recovers all partitions of a topic now instead of at their first publish, and says what was found. Starts no
    /// writer thread. Dropping the future does not stop what it began.
    ///
    /// # Errors
    /// `Locked` when another writer holds a partition, `Corrupt` or `FactsMissing` when recovery refuses one, `NotFound` for a
    /// topic that does not exist, `Closed` after close. Partitions that were opened before the error stay open.
    pub fn recover(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<RecoveryReport>>> {
        let session = self.session.clone();
        let topic = topic.clone();
        Box::pin(offload("recover", move || {
            let partitions = session.partitions("recover", &topic)?;
            (0..partitions).map(|p| session.writer("recover", &topic, p)?.ensure_open()).collect()
        }))
    }
}

impl EventBusPublisher for FilePublisher {
    fn capabilities(&self) -> &Capabilities {
        &self.session.capabilities
    }

    /// Appends one record; the future is ready once it is synced. The first call for a topic reads its metadata, two small file operations.
    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        match self.session.publish(topic, &record, false) {
            Ok(future) => Box::pin(future),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Appends several records. Those of one partition lie next to each other and are synced together, in as few groups as
    /// [`max_group_bytes`](crate::FileBusConfig::max_group_bytes) allows.
    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        Box::pin(self.session.publish_batch(topic, records))
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        let recovered = self.recover(topic);
        Box::pin(async move { recovered.await.map(drop) })
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        let writers = self.session.begin_close();
        Box::pin(async move {
            let mut outcome = Ok(());
            for writer in writers {
                let mut slot = None;
                let closed = std::future::poll_fn(|cx| writer.poll_closed(cx, &mut slot)).await;
                outcome = outcome.and(closed);
            }
            outcome
        })
    }
}

/// Where a record of a synced group lies.
pub(crate) fn eb_ref(partition: &PartitionState, acked: &Acked, index: usize) -> EbRef {
    EbRef {
        topic: partition.topic.clone(),
        partition_id: partition.id,
        offset: Offset::from_u64(OffsetKind::FileLine, acked.base + index as u64),
        published_at_utc: acked.times[index],
    }
}

/// One record on its way. Dropping it does not withdraw the record.
struct PublishOne {
    writer: Arc<PartitionWriter>,
    run: Run,
    slot: Option<usize>,
    unattended: Unattended,
}

impl Future for PublishOne {
    type Output = Result<EbRef>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<EbRef>> {
        let Self { writer, run, slot, unattended } = self.get_mut();
        unattended.see_to();
        run.group.poll(cx, slot).map(|outcome| match outcome {
            Ok(acked) => Ok(eb_ref(writer.partition(), acked, run.first)),
            Err(error) => Err(error.clone()),
        })
    }
}

impl Drop for PublishOne {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.run.group.forget(slot);
        }
    }
}
