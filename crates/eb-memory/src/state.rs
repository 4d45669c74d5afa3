//! What all handles of a bus share.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use eb_contract::{
    BusIncarnation, Capabilities, EbRef, Effect, Error, PartitionId, PartitionKey, PublishRecord, Result,
    Timestamp, Topic, TopicPartitions, key_hash,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{oneshot, watch};

use crate::config::MemoryConfig;
use crate::error;
use crate::faults::Fate;
use crate::log::{HashRange, PartitionLog, size_of};

pub(crate) type Answers = Vec<Result<EbRef>>;

/// The data of a bus and its wake-up call.
pub(crate) struct Shared {
    pub(crate) config: MemoryConfig,
    pub(crate) capabilities: Capabilities,
    state: Mutex<State>,
    /// Told after every change that somebody may wait for: records, closings, splits, trims, releases.
    changes: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(config: MemoryConfig) -> Self {
        let capabilities = config.capabilities();
        Self { config, capabilities, state: Mutex::default(), changes: watch::Sender::new(()) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn notify(&self) {
        self.changes.send_replace(());
    }

    /// A listener that hears of every change from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

#[derive(Default)]
pub(crate) struct State {
    topics: BTreeMap<Topic, TopicLog>,
    /// Bytes of keys and envelopes in all topics.
    bytes: usize,
    pub(crate) faults: FaultPlan,
}

pub(crate) struct TopicLog {
    pub(crate) incarnation: BusIncarnation,
    /// How many partitions it was made with.
    pub(crate) created_with: u32,
    pub(crate) partitions: Vec<PartitionLog>,
}

/// What was asked of [`Faults`](crate::Faults) and has not happened yet.
#[derive(Default)]
pub(crate) struct FaultPlan {
    pub(crate) fates: VecDeque<Fate>,
    pub(crate) read_errors: VecDeque<Error>,
    pub(crate) outage: Option<Error>,
    pub(crate) holding: bool,
    pub(crate) held: VecDeque<Held>,
}

/// A publish call that waits for the release.
pub(crate) struct Held {
    pub(crate) publisher: u64,
    pub(crate) topic: Topic,
    pub(crate) records: Vec<PublishRecord>,
    pub(crate) answer: oneshot::Sender<Answers>,
}

impl State {
    pub(crate) fn topic(&self, op: &'static str, topic: &Topic) -> Result<&TopicLog> {
        self.topics.get(topic).ok_or_else(|| error::no_topic(op, topic))
    }

    pub(crate) fn topic_mut(&mut self, op: &'static str, topic: &Topic) -> Result<&mut TopicLog> {
        self.topics.get_mut(topic).ok_or_else(|| error::no_topic(op, topic))
    }

    pub(crate) fn topic_names(&self) -> Vec<Topic> {
        self.topics.keys().cloned().collect()
    }

    pub(crate) fn partition(
        &self,
        op: &'static str,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<&PartitionLog> {
        // Numbers are given out in order and never taken back, so the number is the index.
        let log = self.topic(op, topic)?.partitions.get(partition.0 as usize);
        log.ok_or_else(|| error::no_partition(op, topic, partition))
    }

    pub(crate) fn create_topic(&mut self, topic: &Topic, partitions: u32, config: &MemoryConfig) {
        let logs = HashRange::split_evenly(partitions)
            .into_iter()
            .zip(0..)
            .map(|(range, id)| {
                PartitionLog::new(topic.clone(), PartitionId(id), vec![], range, config.offsets)
            })
            .collect();
        self.topics.insert(
            topic.clone(),
            TopicLog { incarnation: new_incarnation(), created_with: partitions, partitions: logs },
        );
    }

    pub(crate) fn held_records(&self) -> usize {
        self.faults.held.iter().map(|h| h.records.len()).sum()
    }

    /// Appends what is not refused, and answers each record.
    pub(crate) fn append_batch(
        &mut self,
        topic: &Topic,
        records: Vec<PublishRecord>,
        config: &MemoryConfig,
    ) -> Answers {
        let (count, limit) = (records.len(), config.max_batch_records);
        if count > limit {
            return refuse_all(count, &error::batch_too_large(topic, count, limit));
        }
        if let Some(outage) = &self.faults.outage {
            return refuse_all(count, outage);
        }
        let mut failed: HashSet<PartitionKey> = HashSet::new();
        records
            .into_iter()
            .map(|record| {
                if failed.contains(&record.partition_key) {
                    return Err(error::not_attempted(topic));
                }
                let key = record.partition_key.clone();
                let answer = self.append(topic, record, config);
                if answer.is_err() {
                    failed.insert(key);
                }
                answer
            })
            .collect()
    }

    fn append(&mut self, topic: &Topic, record: PublishRecord, config: &MemoryConfig) -> Result<EbRef> {
        let log = self.topics.get_mut(topic).ok_or_else(|| error::no_topic("publish", topic))?;
        if record.envelope.len() > config.max_envelope_bytes {
            return Err(error::too_large(topic, record.envelope.len(), config.max_envelope_bytes));
        }
        let bytes = self.bytes + size_of(&record.partition_key, record.envelope.len());
        if bytes > config.max_bytes {
            return Err(error::full(topic, config.max_bytes));
        }
        let lost_ack = match self.faults.fates.pop_front().unwrap_or(Fate::Ack) {
            Fate::Ack => None,
            Fate::Fail(error) => return Err(error),
            Fate::LoseAck(error) => Some(error.with_effect(Effect::Unknown)),
        };
        let hash = key_hash(&record.partition_key);
        let partition = log
            .partitions
            .iter_mut()
            .find(|p| p.children.is_none() && p.range.contains(hash))
            .expect("the ranges of a topic's open partitions cover every hash");
        let eb_ref = partition.append(record);
        self.bytes = bytes;
        lost_ack.map_or(Ok(eb_ref), Err)
    }

    /// Appends what was held, in the order of the calls.
    pub(crate) fn release_held(&mut self, config: &MemoryConfig) {
        for held in std::mem::take(&mut self.faults.held) {
            let answers = self.append_batch(&held.topic, held.records, config);
            // Nobody listens when the publish future was dropped; the records stay all the same.
            _ = held.answer.send(answers);
        }
    }

    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}

impl TopicLog {
    pub(crate) fn describe(&self) -> TopicPartitions {
        TopicPartitions {
            incarnation: self.incarnation.clone(),
            partitions: self.partitions.iter().map(PartitionLog::info).collect(),
        }
    }
}

pub(crate) fn refuse_all(count: usize, error: &Error) -> Answers {
    (0..count).map(|_| Err(error.clone())).collect()
}

fn new_incarnation() -> BusIncarnation {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let text = format!("memory-{}-{}", Timestamp::now().as_micros(), MADE.fetch_add(1, Ordering::Relaxed));
    BusIncarnation::new(&text).expect("letters, digits and dashes are printable ASCII")
}
