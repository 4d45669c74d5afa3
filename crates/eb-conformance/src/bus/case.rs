//! One fresh bus, and what scenarios commonly do with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use eb_contract::{
    Capabilities, Cut, EbRef, EventBusAdmin, EventBusPublisher, EventBusReader, Offset, PartitionId,
    PartitionKey, PublishRecord, ReadLimit, Record, StartAt, Topic,
};
use tokio::time::Instant;

use crate::bus::harness::TestBus;
use crate::bus::reading::Reading;
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome, Pace};

/// A record that was published, and its ACK.
#[derive(Debug, Clone)]
pub(crate) struct Acked {
    pub(crate) at: EbRef,
    pub(crate) record: PublishRecord,
}

impl Acked {
    pub(crate) fn offset(&self) -> Offset {
        self.at.offset
    }
}

/// A fresh bus as a scenario sees it.
pub struct BusCase {
    pub(crate) bus: Box<dyn TestBus>,
    pub(crate) caps: Capabilities,
    pub(crate) pace: Pace,
    pub(crate) partitions: u32,
    pub(crate) seed: u64,
}

impl BusCase {
    pub(crate) fn publisher(&self) -> Arc<dyn EventBusPublisher> {
        self.bus.publisher()
    }

    pub(crate) fn reader(&self) -> Arc<dyn EventBusReader> {
        self.bus.reader()
    }

    pub(crate) fn admin(&self) -> Arc<dyn EventBusAdmin> {
        self.bus.admin()
    }

    /// A topic with the factory's number of partitions.
    pub(crate) async fn topic(&self, name: &str) -> Outcome<Topic> {
        self.bus.create_topic(name, self.partitions).await
    }

    /// Publishes one record and checks its ACK.
    pub(crate) async fn publish(&self, topic: &Topic, record: PublishRecord) -> Outcome<Acked> {
        let at = self.publisher().publish(topic, record.clone()).await?;
        self.check_ack(topic, &at)?;
        Ok(Acked { at, record })
    }

    /// Publishes `count` records of one key, numbered from `first`, each awaited.
    pub(crate) async fn publish_run(
        &self,
        topic: &Topic,
        key: &str,
        first: usize,
        count: usize,
    ) -> Outcome<Vec<Acked>> {
        let mut all = Vec::with_capacity(count);
        for n in first..first + count {
            all.push(self.publish(topic, crate::events::record(key, n)).await?);
        }
        Ok(all)
    }

    /// Publishes a batch all of whose records must be ACKed.
    pub(crate) async fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> Outcome<Vec<Acked>> {
        let answers = self.publisher().publish_batch(topic, records.clone()).await;
        ensure_eq!(answers.len(), records.len(), "answers of a batch");
        let mut all = Vec::with_capacity(records.len());
        for (answer, record) in answers.into_iter().zip(records) {
            let at = answer?;
            self.check_ack(topic, &at)?;
            all.push(Acked { at, record });
        }
        Ok(all)
    }

    pub(crate) fn check_ack(&self, topic: &Topic, at: &EbRef) -> Outcome {
        ensure_eq!(&at.topic, topic, "the topic of an ACK");
        ensure_eq!(at.offset.kind(), self.caps.offset_kind, "the offset kind of an ACK");
        Ok(())
    }

    /// All partitions that exist.
    pub(crate) async fn partition_ids(&self, topic: &Topic) -> Outcome<Vec<PartitionId>> {
        Ok(self.reader().partitions(topic).await?.partitions.iter().map(|p| p.id).collect())
    }

    /// Reads every partition from the earliest record until the head is reached and everything in `acked` was seen.
    pub(crate) async fn read_topic(
        &self,
        topic: &Topic,
        acked: &[Acked],
    ) -> Outcome<BTreeMap<PartitionId, Vec<Record>>> {
        let mut all = BTreeMap::new();
        for partition in self.partition_ids(topic).await? {
            let last = acked.iter().filter(|a| a.at.partition_id == partition).map(Acked::offset);
            let last = last.reduce(|a, b| if b > a { b } else { a });
            let mut reading = Reading::open(self, topic, partition, StartAt::Earliest).await?;
            let mut records = reading.rest().await?;
            let sees = |records: &[Record]| {
                last.is_none_or(|last| records.last().is_some_and(|r| r.eb_ref.offset >= last))
            };
            if !self.pace.immediate {
                let deadline = Instant::now() + self.pace.visible_within;
                while !sees(&records) && Instant::now() < deadline {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    records.extend(reading.step(ReadLimit::default().waiting(wait)).await?.records);
                }
                records.extend(reading.rest().await?);
            }
            all.insert(partition, records);
        }
        Ok(all)
    }

    /// The topic holds exactly these records, each at its EbRef with its bytes.
    pub(crate) async fn expect_topic(&self, topic: &Topic, acked: &[Acked]) -> Outcome {
        let read = self.read_topic(topic, acked).await?;
        let mut expected: BTreeMap<PartitionId, Vec<&Acked>> = BTreeMap::new();
        for a in acked {
            expected.entry(a.at.partition_id).or_default().push(a);
        }
        for (partition, list) in &mut expected {
            list.sort_by(|a, b| a.offset().partial_cmp(&b.offset()).unwrap_or(std::cmp::Ordering::Equal));
            if let Some(twice) = list.windows(2).find(|w| w[0].offset() == w[1].offset()) {
                return Err(Failure::new(format!("two ACKs name {}", twice[0].at)));
            }
            ensure!(read.contains_key(partition), "an ACK names partition {partition}, which is not listed");
        }
        for (partition, records) in &read {
            let expected = expected.get(partition).map_or(&[][..], Vec::as_slice);
            for (r, a) in records.iter().zip(expected) {
                same(r, a)?;
            }
            ensure_eq!(records.len(), expected.len(), "{topic}/{partition}: how many records there are");
        }
        Ok(())
    }

    /// The one record that a read at this cut must bring first.
    pub(crate) async fn expect_first(&self, topic: &Topic, cut: Cut, expected: &Acked) -> Outcome {
        let mut reading = Reading::open(self, topic, expected.at.partition_id, cut).await?;
        let got = reading.take(1).await?;
        same(&got[0], expected).map_err(|e| Failure::new(format!("reading at `{cut}`: {e}")))
    }

    /// Where the records of `key` land.
    pub(crate) async fn partition_of(&self, topic: &Topic, key: &str) -> Outcome<PartitionId> {
        let count = self.reader().partitions(topic).await?.partitions.len();
        Ok(eb_contract::partition_for(&crate::events::key(key), u32::try_from(count)?))
    }

    /// Keys that break what takes keys for plain words; those that the backend says that it takes.
    pub(crate) fn odd_keys(&self) -> Vec<PartitionKey> {
        let mut keys = crate::events::odd_keys();
        keys.retain(|k| self.takes(k));
        keys
    }

    /// Whether the key is within what the backend declares.
    pub(crate) fn takes(&self, key: &PartitionKey) -> bool {
        self.caps.max_key_utf16.is_none_or(|most| key.as_str().encode_utf16().count() <= most)
    }

    /// Closes the bus and opens it again.
    pub(crate) async fn reopen(&mut self) -> Outcome {
        self.bus.reopen().await
    }
}

/// A record is what was ACKed: place, key and bytes.
pub(crate) fn same(read: &Record, acked: &Acked) -> Outcome {
    ensure_eq!(read.eb_ref, acked.at, "the place of a record");
    ensure_eq!(read.partition_key, acked.record.partition_key, "the key of the record at {}", acked.at);
    if read.envelope != acked.record.envelope {
        let (got, expected) = (read.envelope.as_bytes(), acked.record.envelope.as_bytes());
        let differs =
            got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
        return Err(Failure::new(format!(
            "the envelope at {} has {} bytes, {} were published, and they differ from byte {differs} on",
            acked.at,
            got.len(),
            expected.len()
        )));
    }
    Ok(())
}
