//! What was ACKed: how far the log has come, and how far the index's checkpoint is behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use eb_contract::stores::{IndexCheckpoint, IndexCut};
use eb_contract::{
    BusIncarnation, Cut, EbRef, EnvelopeRef, Offset, PartitionId, PartitionKey, Timestamp, Topic,
};
use parking_lot::Mutex;

use crate::scan::Start;

/// The version of how the index's checkpoint sees dedupe keys.
pub(crate) const KEY_VERSION: u32 = canonical_envelope::DedupeKey::VERSION;

/// How far each partition has come, and the checkpoint that is stored.
pub(crate) struct Progress {
    topics: HashMap<Topic, TopicProgress>,
    acked: AtomicU64,
    checkpointed: AtomicU64,
    committed: Mutex<IndexCheckpoint>,
}

struct TopicProgress {
    incarnation: BusIncarnation,
    partitions: Mutex<BTreeMap<PartitionId, PartitionProgress>>,
}

/// Where a partition stands.
#[derive(Debug, Clone)]
pub(crate) enum PartitionProgress {
    /// As it was found, or as it was stored.
    Cut { cut: Cut, last_crc32c: Option<u32>, caught_up_at: Option<Timestamp> },
    /// The furthest record that was ACKed.
    Last { offset: Offset, key: PartitionKey, envelope: EnvelopeRef },
}

impl PartitionProgress {
    fn cut(&self) -> Cut {
        match self {
            Self::Cut { cut, .. } => *cut,
            Self::Last { offset, .. } => Cut::past(*offset),
        }
    }

    fn crc32c(&self) -> Option<u32> {
        match self {
            Self::Cut { last_crc32c, .. } => *last_crc32c,
            Self::Last { key, envelope, .. } => Some(record_crc32c(key, envelope)),
        }
    }

    /// Behind an ACKed record others' may lie already.
    fn caught_up_at(&self) -> Option<Timestamp> {
        match self {
            Self::Cut { caught_up_at, .. } => *caught_up_at,
            Self::Last { .. } => None,
        }
    }

    fn is_behind(&self, offset: &Offset) -> bool {
        // `None` is another offset kind, which a bus never changes to within one life.
        self.cut().is_before(offset).unwrap_or(true)
    }
}

/// CRC-32C over a record's key and envelope, one after the other.
pub(crate) fn record_crc32c(key: &PartitionKey, envelope: &EnvelopeRef) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(key.as_str().as_bytes());
    digest.update(envelope.as_bytes());
    // The algorithm's result has 32 bits.
    digest.finalize() as u32
}

impl Progress {
    /// As an open gate starts: everything in `checkpoint` is in the index.
    pub(crate) fn new(checkpoint: IndexCheckpoint) -> Self {
        let mut topics: HashMap<Topic, TopicProgress> = HashMap::new();
        for cut in &checkpoint.cuts {
            let topic = topics.entry(cut.topic.clone()).or_insert_with(|| TopicProgress {
                incarnation: cut.bus_incarnation.clone(),
                partitions: Mutex::default(),
            });
            let standing = PartitionProgress::Cut {
                cut: cut.cut,
                last_crc32c: cut.last_crc32c,
                caught_up_at: cut.caught_up_at,
            };
            topic.partitions.get_mut().insert(cut.partition_id, standing);
        }
        Self {
            topics,
            acked: AtomicU64::new(0),
            checkpointed: AtomicU64::new(0),
            committed: Mutex::new(checkpoint),
        }
    }

    /// Takes note of an ACK. Gives back how many records the checkpoint is behind.
    pub(crate) fn acked(&self, eb_ref: &EbRef, key: &PartitionKey, envelope: &EnvelopeRef) -> u64 {
        if let Some(topic) = self.topics.get(&eb_ref.topic) {
            let mut partitions = topic.partitions.lock();
            let begin = PartitionProgress::Cut { cut: Cut::Begin, last_crc32c: None, caught_up_at: None };
            let standing = partitions.entry(eb_ref.partition_id).or_insert(begin);
            if standing.is_behind(&eb_ref.offset) {
                *standing = PartitionProgress::Last {
                    offset: eb_ref.offset,
                    key: key.clone(),
                    envelope: envelope.clone(),
                };
            }
        }
        let acked = self.acked.fetch_add(1, Ordering::Relaxed) + 1;
        acked.saturating_sub(self.checkpointed.load(Ordering::Relaxed))
    }

    /// How many records the checkpoint is behind.
    pub(crate) fn lag(&self) -> u64 {
        self.acked.load(Ordering::Relaxed).saturating_sub(self.checkpointed.load(Ordering::Relaxed))
    }

    /// The cuts behind what was ACKed until now, and how many ACKs that were.
    pub(crate) fn candidate(&self) -> (IndexCheckpoint, u64) {
        // Counted first: an ACK in between is in the cuts but not in the count, which errs on the safe side.
        let acked = self.acked.load(Ordering::Acquire);
        let mut cuts = Vec::new();
        for (topic, progress) in &self.topics {
            let standing: Vec<_> =
                progress.partitions.lock().iter().map(|(id, standing)| (*id, standing.clone())).collect();
            cuts.extend(standing.into_iter().map(|(partition_id, standing)| IndexCut {
                topic: topic.clone(),
                partition_id,
                bus_incarnation: progress.incarnation.clone(),
                cut: standing.cut(),
                last_crc32c: standing.crc32c(),
                caught_up_at: standing.caught_up_at(),
            }));
        }
        sort_cuts(&mut cuts);
        (IndexCheckpoint { key_version: KEY_VERSION, cuts }, acked)
    }

    pub(crate) fn committed(&self, checkpoint: IndexCheckpoint, acked: u64) {
        *self.committed.lock() = checkpoint;
        self.checkpointed.fetch_max(acked, Ordering::Relaxed);
    }

    /// The stored cuts of a topic: every record that is not in the index, and not in flight, lies after them.
    pub(crate) fn committed_cuts(&self, topic: &Topic) -> Vec<(PartitionId, Start)> {
        let committed = self.committed.lock();
        let of_topic = committed.cuts.iter().filter(|c| c.topic == *topic);
        of_topic.map(|c| (c.partition_id, Start { cut: c.cut, since: c.caught_up_at })).collect()
    }

    /// The furthest records that were ACKed by this gate.
    pub(crate) fn heads(&self) -> Vec<(Topic, PartitionId, Offset)> {
        let mut heads = Vec::new();
        for (topic, progress) in &self.topics {
            for (partition, standing) in progress.partitions.lock().iter() {
                if let PartitionProgress::Last { offset, .. } = standing {
                    heads.push((topic.clone(), *partition, *offset));
                }
            }
        }
        heads
    }

    /// Behind what was ACKed until now, for each known partition of a topic.
    pub(crate) fn acked_cuts(&self, topic: &Topic) -> Vec<(PartitionId, Cut)> {
        let Some(progress) = self.topics.get(topic) else { return Vec::new() };
        progress.partitions.lock().iter().map(|(id, standing)| (*id, standing.cut())).collect()
    }
}

pub(crate) fn sort_cuts(cuts: &mut [IndexCut]) {
    cuts.sort_by(|a, b| (&a.topic, a.partition_id).cmp(&(&b.topic, b.partition_id)));
}
