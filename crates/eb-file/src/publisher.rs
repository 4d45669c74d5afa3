//! The publishing handle: calls go to the writers of their partitions, answers come back as futures.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use eb_contract::{
    BoxFuture, Capabilities, EbRef, Effect, Error, ErrorKind, EventBusPublisher, Offset, OffsetKind,
    PartitionKey, PublishRecord, Result, Topic, partition_for,
};
use parking_lot::RwLock;

use crate::block_on::block_on;
use crate::bus::{BusShared, PartitionState, TopicState};
use crate::offload::offload;
use crate::queue::{Acked, Run};
use crate::recovery::RecoveryReport;
use crate::writer::{PartitionWriter, Unattended, closed};

const OP: &str = "publish";

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
    capabilities: Capabilities,
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
    fn partitions(&self, op: &'static str, topic: &Topic) -> Result<u32> {
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
    fn writer(&self, op: &'static str, topic: &Topic, index: u32) -> Result<Arc<PartitionWriter>> {
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

    fn check(&self, record: &PublishRecord) -> Result<()> {
        let (size, limit) = (record.envelope.len(), self.capabilities.max_envelope_bytes);
        if size > limit {
            let what = format!("the envelope has {size} bytes, the limit is {limit}");
            return Err(Error::new(ErrorKind::TooLarge { size, limit }, OP, what));
        }
        Ok(())
    }

    fn publish(&self, topic: &Topic, record: PublishRecord, may_block: bool) -> Result<PublishOne> {
        let partitions = self.partitions(OP, topic)?;
        self.check(&record).map_err(|e| e.at(topic))?;
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
    pub fn publish_blocking(&self, topic: &Topic, record: PublishRecord) -> Result<EbRef> {
        let mut publish = self.session.publish(topic, record, true)?;
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
        match self.session.publish(topic, record, false) {
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

fn eb_ref(partition: &PartitionState, acked: &Acked, index: usize) -> EbRef {
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

/// The part of a batch that goes to one partition.
struct Part {
    writer: Arc<PartitionWriter>,
    runs: Vec<Run>,
    unattended: Unattended,
    /// For each record of the runs, in order, its place in the batch.
    positions: Vec<usize>,
}

impl Session {
    /// Queues a batch, in this call; what comes back only waits.
    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> impl Future<Output = Vec<Result<EbRef>>> + Send + 'static {
        let mut batch = Batch::new(records.len());
        match self.partitions(OP, topic).and_then(|n| self.check_count(records.len()).map(|()| n)) {
            Ok(partitions) => self.enqueue_batch(topic, records, partitions, &mut batch),
            Err(error) => batch.results.fill_with(|| Some(Err(error.clone()))),
        }
        batch.wait()
    }

    fn check_count(&self, size: usize) -> Result<()> {
        let limit = self.capabilities.max_batch_records;
        if size > limit {
            let what = format!("{size} records in one batch, the limit is {limit}");
            return Err(Error::new(ErrorKind::TooLarge { size, limit }, OP, what).advise("split the batch"));
        }
        Ok(())
    }

    fn enqueue_batch(&self, topic: &Topic, records: Vec<PublishRecord>, partitions: u32, batch: &mut Batch) {
        let mut by_partition: Vec<(u32, Vec<PublishRecord>, Vec<usize>)> = Vec::with_capacity(1);
        let mut refused: HashSet<PartitionKey> = HashSet::new();
        for (at, record) in records.into_iter().enumerate() {
            if let Err(error) = self.check(&record) {
                refused.insert(record.partition_key);
                batch.results[at] = Some(Err(error.at(format_args!("{topic}, record {at} of the batch"))));
                continue;
            }
            if !refused.is_empty() && refused.contains(&record.partition_key) {
                batch.results[at] = Some(Err(not_attempted(topic)));
                continue;
            }
            batch.keys.push((at, record.partition_key.clone()));
            let partition = partition_for(&record.partition_key, partitions).0;
            match by_partition.iter_mut().find(|(p, _, _)| *p == partition) {
                Some((_, records, positions)) => {
                    records.push(record);
                    positions.push(at);
                }
                None => by_partition.push((partition, vec![record], vec![at])),
            }
        }
        for (partition, records, positions) in by_partition {
            let queued = self.writer(OP, topic, partition).and_then(|writer| {
                let (runs, unattended) = writer.enqueue_all(records)?;
                Ok((writer, runs, unattended))
            });
            match queued {
                Ok((writer, runs, unattended)) => {
                    batch.parts.push(Part { writer, runs, unattended, positions });
                }
                Err(error) => positions.iter().for_each(|at| batch.results[*at] = Some(Err(error.clone()))),
            }
        }
        batch.topic = Some(topic.clone());
    }
}

fn not_attempted(topic: &Topic) -> Error {
    Error::new(ErrorKind::NotAttempted, OP, "an earlier record of the same key in this batch failed")
        .at(topic)
        .advise("publish it again once the earlier one is settled")
}

/// A batch on its way. Dropping it does not withdraw its records.
struct Batch {
    results: Vec<Option<Result<EbRef>>>,
    parts: Vec<Part>,
    /// Of the records that were queued.
    keys: Vec<(usize, PartitionKey)>,
    topic: Option<Topic>,
}

impl Batch {
    fn new(len: usize) -> Self {
        let results = std::iter::repeat_with(|| None).take(len).collect();
        Self { results, parts: Vec::new(), keys: Vec::new(), topic: None }
    }

    async fn wait(mut self) -> Vec<Result<EbRef>> {
        for mut part in std::mem::take(&mut self.parts) {
            part.unattended.see_to();
            let mut positions = part.positions.iter();
            for run in &part.runs {
                let mut waiting = Waiting { run, slot: None };
                std::future::poll_fn(|cx| waiting.run.group.poll(cx, &mut waiting.slot).map(drop)).await;
                let Some(outcome) = run.group.get() else { continue };
                for (index, at) in (run.first..run.first + run.len).zip(&mut positions) {
                    self.results[*at] = Some(match outcome {
                        Ok(acked) => Ok(eb_ref(part.writer.partition(), acked, index)),
                        Err(error) => Err(error.clone()),
                    });
                }
            }
        }
        self.settle_keys();
        let unanswered =
            || Error::new(ErrorKind::ProtocolViolation, OP, "a record of the batch got no answer");
        self.results
            .into_iter()
            .map(|r| r.unwrap_or_else(|| Err(unanswered().with_effect(Effect::Unknown))))
            .collect()
    }

    /// Where a record certainly failed, those of its key behind it that failed with it were not attempted.
    fn settle_keys(&mut self) {
        let Some(topic) = &self.topic else { return };
        let mut failed = HashSet::new();
        for (at, key) in &self.keys {
            if let Some(Err(error)) = &self.results[*at]
                && error.effect() == Effect::None
                && !failed.insert(key)
            {
                self.results[*at] = Some(Err(not_attempted(topic)));
            }
        }
    }
}

struct Waiting<'a> {
    run: &'a Run,
    slot: Option<usize>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.run.group.forget(slot);
        }
    }
}
