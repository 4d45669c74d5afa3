//! Copying the records of a window: published in order, read back, compared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{EbRef, Effect, EventBusPublisher, PublishRecord, Result, Topic};
use tokio::time::Instant;

use super::{ATTEMPTS, OP, TopicWork, Worker};
use crate::error::unavailable;
use crate::latency::{MIRROR_CALL, Whose};
use crate::mirror::doc::TopicMirror;
use crate::mirror::follow::{Id, Step};

/// How long a mirror's log may say that more is there, beyond the time in which what was ACKed must be seen.
const LONGEST_LATE: Duration = Duration::from_secs(60);

impl Worker {
    /// Publishes what is due, reads it back and compares. Gives back what was ACKed and is not there.
    pub(super) async fn copy(
        &mut self,
        publisher: &Arc<dyn EventBusPublisher>,
        topic: &Topic,
        work: &mut TopicWork,
        of: &TopicMirror,
        due: Vec<(Id, PublishRecord)>,
    ) -> Result<Vec<(Id, PublishRecord, EbRef)>> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let acked = self.publish(publisher, topic, due).await?;
        let mut expected: BTreeMap<u32, VecDeque<(Id, PublishRecord, EbRef)>> = BTreeMap::new();
        for one in acked {
            expected.entry(one.2.partition_id.0).or_default().push_back(one);
        }
        let mut missing = Vec::new();
        // One time for all partitions: all of it was ACKed before it began.
        let deadline = Instant::now() + self.shared.config.mirror.visible_within;
        for (partition, mut expected) in expected {
            // Records of different keys may have been ACKed in another order than they lie.
            expected
                .make_contiguous()
                .sort_by(|a, b| a.2.offset.partial_cmp(&b.2.offset).unwrap_or(std::cmp::Ordering::Equal));
            missing.extend(self.read_back(topic, work, of, (partition, expected), deadline).await?);
        }
        Ok(missing)
    }

    /// Publishes once more what was missing. Gives back what still is.
    pub(super) async fn copy_missing(
        &mut self,
        publisher: &Arc<dyn EventBusPublisher>,
        topic: &Topic,
        work: &mut TopicWork,
        of: &TopicMirror,
        missing: Vec<(Id, PublishRecord, EbRef)>,
    ) -> Result<Vec<(Id, u32, String)>> {
        let due = missing.into_iter().map(|(id, record, _)| (id, record)).collect();
        let still = self.copy(publisher, topic, work, of, due).await?;
        Ok(still.into_iter().map(|(id, _, at)| (id, at.partition_id.0, at.offset.to_string())).collect())
    }

    /// Publishes records in order until each is ACKed.
    async fn publish(
        &mut self,
        publisher: &Arc<dyn EventBusPublisher>,
        topic: &Topic,
        due: Vec<(Id, PublishRecord)>,
    ) -> Result<Vec<(Id, PublishRecord, EbRef)>> {
        let most = publisher.capabilities().max_batch_records.clamp(1, 500);
        let mut acked = Vec::with_capacity(due.len());
        let mut left: VecDeque<_> = due.into();
        let mut attempts = 0;
        while !left.is_empty() {
            if !self.may_write().await? {
                return Err(unavailable(OP, "the epoch has ended").at(topic));
            }
            let batch: Vec<_> = left.drain(..most.min(left.len())).collect();
            let records = batch.iter().map(|(_, record)| record.clone()).collect();
            let (started, count) = (Instant::now(), batch.len());
            let answers = publisher.publish_batch(topic, records).await;
            if count <= MIRROR_CALL {
                self.shared.latencies.record(self.target(), Whose::Mirror, started.elapsed());
            }
            let (mut again, mut failure) = (Vec::new(), None);
            for ((id, record), answer) in batch.into_iter().zip(answers) {
                match answer {
                    Ok(at) => acked.push((id, record, at)),
                    Err(error) => {
                        // Whether it is there is found out by reading.
                        if error.effect() == Effect::Unknown || !error.is_retryable() {
                            return Err(error);
                        }
                        again.push((id, record));
                        failure.get_or_insert(error);
                    }
                }
            }
            again.into_iter().rev().for_each(|one| left.push_front(one));
            if let Some(error) = failure {
                attempts += 1;
                if attempts >= ATTEMPTS {
                    return Err(error);
                }
                tokio::time::sleep(self.shared.config.mirror.idle).await;
            }
        }
        Ok(acked)
    }

    /// Reads a partition of the mirror past what was ACKed there and compares. Gives back what is not there.
    async fn read_back(
        &mut self,
        topic: &Topic,
        work: &mut TopicWork,
        of: &TopicMirror,
        (partition, mut expected): (u32, VecDeque<(Id, PublishRecord, EbRef)>),
        deadline: Instant,
    ) -> Result<Vec<(Id, PublishRecord, EbRef)>> {
        let mut missing = Vec::new();
        // A partition that came after a split or merge begins when what it goes on from is read.
        while !work.target.follows(partition) && Instant::now() < deadline {
            for ancestor in work.target.open_ancestors(partition).await? {
                let (records, _) = work.target.step(ancestor, 1000, self.shared.config.mirror.idle).await?;
                work.odd.extend(records.iter().map(|r| (Id::of(r), ancestor, r.eb_ref.offset)));
            }
            work.target.start_children().await?;
        }
        while !expected.is_empty() {
            let wait = self.shared.config.mirror.idle.min(deadline.saturating_duration_since(Instant::now()));
            // At least one is asked for, and not more than are due: what comes later is the next window's.
            let (records, step) = work.target.step(partition, expected.len(), wait).await?;
            for record in &records {
                let offset = record.eb_ref.offset;
                while let Some(front) = expected.front() {
                    if front.2.offset < offset
                        && let Some(front) = expected.pop_front()
                    {
                        missing.push(front);
                    } else {
                        break;
                    }
                }
                let is_due = expected.front().is_some_and(|front| front.2.offset == offset);
                let id = Id::of(record);
                let due = if is_due { expected.pop_front() } else { None };
                if due.as_ref().is_some_and(|(due, ..)| *due == id) {
                    continue;
                }
                // Something else than what was ACKed there, or nothing was.
                missing.extend(due);
                work.odd.push((id, partition, offset));
            }
            if work.odd.len() >= self.shared.config.mirror.window {
                self.explain(topic, of, work).await?;
            }
            let now = Instant::now();
            let over = match step {
                Step::Head => now >= deadline,
                Step::Ended => true,
                // It may lie in what is not read yet.
                Step::More if now >= deadline + LONGEST_LATE => {
                    return Err(unavailable(OP, "the mirror's log is not read to its head in time").at(topic));
                }
                Step::More => false,
            };
            let passed = expected.back().is_some_and(|last| work.target.is_past(partition, &last.2.offset));
            if over || passed {
                missing.extend(expected.drain(..));
            }
        }
        Ok(missing)
    }
}
