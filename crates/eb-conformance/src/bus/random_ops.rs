//! Random operations against a plain model.

use std::collections::BTreeMap;

use eb_contract::{Cut, PartitionId, PublishRecord, StartAt, Topic};
use futures_util::future::join_all;

use crate::bus::{Acked, BusCase, Reading, same};
use crate::events::{envelope_of, key};
use crate::outcome::{ensure, ensure_eq};
use crate::random::{Random, SEED_VARIABLE};
use crate::{Failure, Outcome};

/// What the log must hold, per partition in order.
#[derive(Default)]
struct Model {
    logs: BTreeMap<PartitionId, Vec<Acked>>,
    published: usize,
}

impl Model {
    fn ack(&mut self, acked: Acked) -> Outcome {
        let log = self.logs.entry(acked.at.partition_id).or_default();
        if let Some(last) = log.last() {
            ensure!(acked.offset() > last.offset(), "{} was ACKed after {}", acked.at, last.at);
        }
        log.push(acked);
        Ok(())
    }

    fn record(&mut self, random: &mut Random) -> PublishRecord {
        self.published += 1;
        let most = if random.below(20) == 0 { 50_000 } else { 400 };
        let size = 30 + random.below(most);
        PublishRecord::new(key(format!("k{}", random.below(6))), envelope_of(size, self.published))
    }
}

pub(crate) async fn random_operations_agree_with_a_plain_model(case: &mut BusCase) -> Outcome {
    let seed = case.seed;
    println!("{SEED_VARIABLE}={seed}");
    let topic = case.topic("random").await?;
    let mut random = Random::new(seed);
    let mut model = Model::default();
    for op in 0..case.pace.operations {
        one_operation(case, &topic, &mut random, &mut model)
            .await
            .map_err(|e| Failure::new(format!("operation {op} of {SEED_VARIABLE}={seed}: {e}")))?;
    }
    let all: Vec<_> = model.logs.into_values().flatten().collect();
    case.expect_topic(&topic, &all)
        .await
        .map_err(|e| Failure::new(format!("at the end of {SEED_VARIABLE}={seed}: {e}")))
}

async fn one_operation(case: &mut BusCase, topic: &Topic, random: &mut Random, model: &mut Model) -> Outcome {
    match random.below(10) {
        0..=2 => {
            let record = model.record(random);
            model.ack(case.publish(topic, record).await?)
        }
        3 | 4 => {
            let batch = (0..random.below(20)).map(|_| model.record(random)).collect();
            let acked = case.publish_batch(topic, batch).await?;
            in_order(model, acked)
        }
        5 => {
            let records: Vec<_> = (0..random.below(8)).map(|_| model.record(random)).collect();
            let publisher = case.publisher();
            let calls: Vec<_> = records.iter().map(|r| publisher.publish(topic, r.clone())).collect();
            let mut acked = Vec::new();
            for (answer, record) in join_all(calls).await.into_iter().zip(records) {
                acked.push(Acked { at: answer?, record });
            }
            in_order(model, acked)
        }
        6 if case.caps.reopen && random.below(3) == 0 => case.reopen().await,
        _ => read_somewhere(case, topic, random, model).await,
    }
}

/// Takes ACKs of calls that were in flight together: per key in the order of the calls, per partition by offset.
fn in_order(model: &mut Model, mut acked: Vec<Acked>) -> Outcome {
    for (i, a) in acked.iter().enumerate() {
        let overtaken = acked[i + 1..]
            .iter()
            .find(|b| b.record.partition_key == a.record.partition_key && b.offset() <= a.offset());
        ensure!(overtaken.is_none(), "{} was overtaken by a later record of its key", a.at);
    }
    acked.sort_by(|a, b| {
        (a.at.partition_id, a.offset())
            .partial_cmp(&(b.at.partition_id, b.offset()))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    acked.into_iter().try_for_each(|a| model.ack(a))
}

async fn read_somewhere(case: &BusCase, topic: &Topic, random: &mut Random, model: &Model) -> Outcome {
    let partitions = case.partition_ids(topic).await?;
    let partition = partitions[random.below(partitions.len())];
    let log = model.logs.get(&partition).map_or(&[][..], Vec::as_slice);
    let at = random.below(log.len() + 1);
    let start = match (random.below(3), log.get(at)) {
        _ if at == 0 => StartAt::Earliest,
        (0, Some(a)) => StartAt::Cut(Cut::Next(a.offset())),
        (1, _) => StartAt::Cut(Cut::After(log[at - 1].offset())),
        _ => StartAt::Cut(Cut::past(log[at - 1].offset())),
    };
    let count = random.below(log.len() - at + 1);
    let mut reading = Reading::open(case, topic, partition, start).await?;
    let got = reading.take(count).await?;
    ensure_eq!(got.len(), count, "records from {start:?}");
    got.iter().zip(&log[at..]).try_for_each(|(r, a)| same(r, a))
}
