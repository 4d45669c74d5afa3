//! Batches: split by partition, queued in one go each, answered by position.

use std::collections::HashSet;
use std::future::Future;

use eb_contract::{EbRef, Effect, Error, ErrorKind, PublishRecord, Result, Topic, partition_for};

use crate::publisher::{OP, Session, eb_ref};
use crate::queue::Run;
use crate::writer::{PartitionWriter, Unattended};
use std::sync::Arc;

/// The part of a batch that goes to one partition.
struct Part {
    writer: Arc<PartitionWriter>,
    runs: Vec<Run>,
    unattended: Unattended,
    /// For each record of the runs, in order, its place in the batch; `None` when the part is the whole batch.
    positions: Option<Vec<usize>>,
}

impl Session {
    /// Queues a batch, in this call; what comes back only waits.
    pub(crate) fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> impl Future<Output = Vec<Result<EbRef>>> + Send + 'static {
        let mut batch = Batch { topic: topic.clone(), records, refused: Vec::new(), parts: Vec::new() };
        let partitions =
            self.partitions(OP, topic).and_then(|n| self.check_count(batch.records.len()).map(|()| n));
        match partitions {
            Ok(partitions) => self.enqueue_batch(partitions, &mut batch),
            Err(error) => batch.refuse(0..batch.records.len(), &error),
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

    fn enqueue_batch(&self, partitions: u32, batch: &mut Batch) {
        if batch.records.is_empty() {
            return;
        }
        let limit = self.capabilities.max_envelope_bytes;
        if partitions == 1 && batch.records.iter().all(|r| r.envelope.len() <= limit) {
            let queued = self.writer(OP, &batch.topic, 0).and_then(|writer| {
                let (runs, unattended) = writer.enqueue_all(batch.records.iter())?;
                Ok(Part { writer, runs, unattended, positions: None })
            });
            match queued {
                Ok(part) => batch.parts.push(part),
                Err(error) => batch.refuse(0..batch.records.len(), &error),
            }
            return;
        }
        for (partition, positions) in self.split(partitions, batch) {
            let records = &batch.records;
            let queued = self.writer(OP, &batch.topic, partition).and_then(|writer| {
                let (runs, unattended) = writer.enqueue_all(positions.iter().map(|at| &records[*at]))?;
                Ok((writer, runs, unattended))
            });
            match queued {
                Ok((writer, runs, unattended)) => {
                    batch.parts.push(Part { writer, runs, unattended, positions: Some(positions) });
                }
                Err(error) => batch.refuse(positions, &error),
            }
        }
    }

    /// The batch's places by partition, without the records that are refused right away and those of their keys behind them.
    fn split(&self, partitions: u32, batch: &mut Batch) -> Vec<(u32, Vec<usize>)> {
        let mut by_partition: Vec<(u32, Vec<usize>)> = Vec::new();
        let mut refused_keys = HashSet::new();
        for (at, record) in batch.records.iter().enumerate() {
            let key = &record.partition_key;
            if let Err(error) = self.check(record) {
                refused_keys.insert(key);
                let place = format!("{}, record {at} of the batch", batch.topic);
                batch.refused.push((at, error.at(place)));
            } else if !refused_keys.is_empty() && refused_keys.contains(key) {
                batch.refused.push((at, not_attempted(&batch.topic)));
            } else {
                let partition = partition_for(key, partitions).0;
                match by_partition.iter_mut().find(|(p, _)| *p == partition) {
                    Some((_, positions)) => positions.push(at),
                    None => by_partition.push((partition, vec![at])),
                }
            }
        }
        by_partition
    }
}

fn not_attempted(topic: &Topic) -> Error {
    Error::new(ErrorKind::NotAttempted, OP, "an earlier record of the same key in this batch failed")
        .at(topic)
        .advise("publish it again once the earlier one is settled")
}

/// A batch on its way. Dropping it does not withdraw its records.
struct Batch {
    topic: Topic,
    records: Vec<PublishRecord>,
    /// Records that were not queued, and why.
    refused: Vec<(usize, Error)>,
    parts: Vec<Part>,
}

impl Batch {
    fn refuse(&mut self, places: impl IntoIterator<Item = usize>, error: &Error) {
        self.refused.extend(places.into_iter().map(|at| (at, error.clone())));
    }

    async fn wait(mut self) -> Vec<Result<EbRef>> {
        let mut parts = std::mem::take(&mut self.parts);
        for part in &mut parts {
            part.unattended.see_to();
        }
        for run in parts.iter().flat_map(|p| &p.runs) {
            let mut waiting = Waiting { run, slot: None };
            std::future::poll_fn(|cx| waiting.run.group.poll(cx, &mut waiting.slot).map(drop)).await;
        }
        let mut results = self.collect(&parts);
        if results.iter().any(Result::is_err) {
            for part in &parts {
                match &part.positions {
                    None => self.settle_keys(&mut results, 0..self.records.len()),
                    Some(positions) => self.settle_keys(&mut results, positions.iter().copied()),
                }
            }
        }
        results
    }

    fn collect(&self, parts: &[Part]) -> Vec<Result<EbRef>> {
        if let [part @ Part { positions: None, .. }] = parts {
            return part.answers().collect();
        }
        let unanswered =
            || Error::new(ErrorKind::ProtocolViolation, OP, "a record of the batch got no answer");
        let mut results = Vec::new();
        results.resize_with(self.records.len(), || Err(unanswered().with_effect(Effect::Unknown)));
        for (at, error) in &self.refused {
            results[*at] = Err(error.clone());
        }
        for part in parts {
            for (at, answer) in part.positions.iter().flatten().zip(part.answers()) {
                results[*at] = answer;
            }
        }
        results
    }

    /// Where a queued record certainly failed, those of its key behind it that failed with it were not attempted.
    fn settle_keys(&self, results: &mut [Result<EbRef>], places: impl Iterator<Item = usize>) {
        let mut failed = HashSet::new();
        for at in places {
            if let Err(error) = &results[at]
                && error.effect() == Effect::None
                && !failed.insert(&self.records[at].partition_key)
            {
                results[at] = Err(not_attempted(&self.topic));
            }
        }
    }
}

impl Part {
    /// What became of its records, in order; all of its runs must be over.
    fn answers(&self) -> impl Iterator<Item = Result<EbRef>> {
        let partition = self.writer.partition();
        self.runs.iter().flat_map(move |run| {
            let outcome = run.group.get();
            (run.first..run.first + run.len).filter_map(move |index| match outcome? {
                Ok(acked) => Some(Ok(eb_ref(partition, acked, index))),
                Err(error) => Some(Err(error.clone())),
            })
        })
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
