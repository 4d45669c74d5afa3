//! The steps of the smoke run. Each fails with one line that says what was expected and what was found.

use std::collections::{BTreeMap, HashMap};

use eb_contract::digest::{Digest, KeySequenceDigest, PartitionDigest};
use eb_contract::stores::{Checkpoint, Lease, ResetRequest};
use eb_contract::{
    ConsumerName, Cut, EbRef, ErrorKind, EventBusReaderExt as _, Offset, PartitionId, Record, StartAt, Topic,
};
use eb_profile::Platform;
use eb_testkit::events::{Event, Expected};
use futures_util::StreamExt as _;
use ig_gate::{Decision, Receipt};

use super::Failure;
use super::report::Report;

/// How many admissions are in flight at once.
const CONCURRENCY: usize = 16;

/// What is known to be in the log: the admitted events' places, in the order of admission within each partition.
pub(super) struct Facts {
    /// For each generated event its receipt.
    receipts: Vec<Receipt>,
    /// For each partition its admitted events: place in the sequence and `EbRef`, by rising offset.
    partitions: BTreeMap<(Topic, PartitionId), Vec<(usize, EbRef)>>,
}

impl Facts {
    fn admitted(&self) -> usize {
        self.partitions.values().map(Vec::len).sum()
    }
}

/// The digest over the per-key sequences of first occurrences of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicDigest {
    pub(super) topic: Topic,
    pub(super) records: u64,
    pub(super) keys: u64,
    pub(super) digest: Digest,
}

/// Sends every event through the gate and holds each answer against its label.
pub(super) async fn admit_all(
    platform: &Platform,
    events: &[Event],
    report: &mut Report,
) -> Result<Facts, Failure> {
    let receipts = admit(platform, events, report).await?;
    let mut partitions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (place, (event, receipt)) in events.iter().zip(&receipts).enumerate() {
        check_answer(place, event, receipt, &receipts)?;
        if receipt.decision == Decision::Admit {
            let eb_ref = placed(place, receipt)?.clone();
            partitions.entry((eb_ref.topic.clone(), eb_ref.partition_id)).or_default().push((place, eb_ref));
        }
    }
    for acked in partitions.values_mut() {
        acked.sort_by(|a, b| compare(&a.1.offset, &b.1.offset));
        if let Some(twice) = acked.windows(2).find(|w| w[0].1.offset == w[1].1.offset) {
            return Err(format!("{} was given to two events", twice[0].1).into());
        }
    }
    let facts = Facts { receipts, partitions };
    report.passed("every answer is the one expected", &count_decisions(&facts.receipts));
    Ok(facts)
}

/// Sends the same events again: each must be known, and the log must not grow.
pub(super) async fn admit_nothing_twice(
    platform: &Platform,
    events: &[Event],
    facts: &Facts,
    report: &mut Report,
) -> Result<(), Failure> {
    let before = heads(platform, facts).await?;
    let again = admit(platform, events, report).await?;
    for (place, (first, second)) in facts.receipts.iter().zip(&again).enumerate() {
        let known = match first.decision {
            Decision::Admit | Decision::Duplicate => {
                second.decision == Decision::Duplicate && second.eb_ref == first.eb_ref
            }
            Decision::Quarantine => {
                second.decision == Decision::Quarantine && second.receipt_id == first.receipt_id
            }
        };
        if !known {
            let (was, is) = (first.decision, second.decision);
            return Err(format!("event {place}: {was} at first, {is} when sent again").into());
        }
    }
    if heads(platform, facts).await? != before {
        return Err("the log grew although every event was known".into());
    }
    report.passed("the same events again: nothing admitted twice", &count_decisions(&again));
    Ok(())
}

async fn admit(platform: &Platform, events: &[Event], report: &mut Report) -> Result<Vec<Receipt>, Failure> {
    let gate = platform.gate().await?;
    let inputs = futures_util::stream::iter(events.to_vec()).map(|event| event.bytes.into());
    let mut answers = std::pin::pin!(gate.admit_stream(inputs, CONCURRENCY));
    let mut receipts = Vec::with_capacity(events.len());
    while let Some(answer) = answers.next().await {
        let place = receipts.len();
        receipts.push(answer.map_err(|e| format!("event {place}: {e}"))?);
        report.progress("admitted", receipts.len(), events.len());
    }
    Ok(receipts)
}

fn check_answer(place: usize, event: &Event, receipt: &Receipt, all: &[Receipt]) -> Result<(), Failure> {
    let wrong = |expected: String| -> Failure {
        let (found, reasons) = (receipt.decision, &receipt.reason_codes);
        format!("event {place}: expected {expected}, the gate answered {found} {reasons:?}").into()
    };
    match event.expected {
        Expected::Admit if receipt.decision == Decision::Admit => {
            let key = placed_key(receipt);
            if key == Some(event.partition_key.as_str()) {
                Ok(())
            } else {
                Err(format!("event {place}: partition key {key:?}, expected {:?}", event.partition_key)
                    .into())
            }
        }
        Expected::DuplicateOf(first)
            if receipt.decision == Decision::Duplicate && receipt.eb_ref == all[first].eb_ref =>
        {
            Ok(())
        }
        Expected::Quarantine(code)
            if receipt.decision == Decision::Quarantine
                && receipt.reason_codes.iter().any(|reason| reason.as_str() == code) =>
        {
            Ok(())
        }
        Expected::Admit => Err(wrong("ADMIT".to_owned())),
        Expected::DuplicateOf(first) => Err(wrong(format!("DUPLICATE of event {first}"))),
        Expected::Quarantine(code) => Err(wrong(format!("QUARANTINE for {code}"))),
    }
}

fn placed_key(receipt: &Receipt) -> Option<&str> {
    receipt.partition_key.as_ref().map(eb_contract::PartitionKey::as_str)
}

fn placed(place: usize, receipt: &Receipt) -> Result<&EbRef, Failure> {
    receipt.eb_ref.as_ref().ok_or_else(|| format!("event {place}: admitted without an EbRef").into())
}

fn compare(a: &Offset, b: &Offset) -> std::cmp::Ordering {
    a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal)
}

fn count_decisions(receipts: &[Receipt]) -> String {
    let count = |decision| receipts.iter().filter(|r| r.decision == decision).count();
    format!(
        "{} ADMIT, {} DUPLICATE, {} QUARANTINE",
        count(Decision::Admit),
        count(Decision::Duplicate),
        count(Decision::Quarantine)
    )
}

/// Reads every admitted event at its `EbRef`.
pub(super) async fn read_back(
    platform: &Platform,
    facts: &Facts,
    report: &mut Report,
) -> Result<(), Failure> {
    for ((topic, partition), acked) in &facts.partitions {
        let records = read_all(platform, topic, *partition, StartAt::Earliest).await?;
        let by_offset: HashMap<Offset, &Record> = records.iter().map(|r| (r.eb_ref.offset, r)).collect();
        for (place, eb_ref) in acked {
            let record = by_offset.get(&eb_ref.offset).ok_or_else(|| format!("nothing is at {eb_ref}"))?;
            let receipt = &facts.receipts[*place];
            let id = serde_json::from_slice::<EventId>(record.envelope.as_bytes())?.event_id;
            if receipt.event_id.as_deref() != Some(&id)
                || receipt.partition_key.as_ref() != Some(&record.partition_key)
            {
                return Err(format!("{eb_ref} holds another event than its receipt says").into());
            }
        }
    }
    report.passed("every ACK is at its EbRef", &format!("{} records read back", facts.admitted()));
    Ok(())
}

#[derive(serde::Deserialize)]
struct EventId {
    event_id: String,
}

/// Reads the last twenty records of each topic's partition.
pub(super) async fn tail(platform: &Platform, facts: &Facts, report: &mut Report) -> Result<(), Failure> {
    const LAST: usize = 20;
    let mut shown = 0;
    for ((topic, partition), acked) in &facts.partitions {
        let last = &acked[acked.len().saturating_sub(LAST)..];
        let Some((_, from)) = last.first() else { continue };
        let records = read_all(platform, topic, *partition, Cut::Next(from.offset).into()).await?;
        if !records.iter().map(|r| &r.eb_ref).eq(last.iter().map(|(_, eb_ref)| eb_ref)) {
            return Err(format!(
                "the last {} records of {topic}/{partition} are others than ACKed",
                last.len()
            )
            .into());
        }
        shown += records.len();
    }
    report.passed("tail of the last 20 of each topic", &format!("{shown} records"));
    Ok(())
}

/// Replays each partition from a known offset twice and compares the digests.
pub(super) async fn replay_twice(
    platform: &Platform,
    facts: &Facts,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut replayed = 0;
    for ((topic, partition), acked) in &facts.partitions {
        let (_, from) = &acked[acked.len() / 2];
        let mut digests = Vec::new();
        for _ in 0..2 {
            let mut digest = PartitionDigest::default();
            let records = read_all(platform, topic, *partition, Cut::Next(from.offset).into()).await?;
            records.iter().for_each(|record| digest.add(record));
            digests.push((digest.records(), digest.finish()));
        }
        if digests[0] != digests[1] {
            return Err(format!("two replays of {topic}/{partition} from {} differ", from.offset).into());
        }
        replayed += digests[0].0;
    }
    report.passed("replay from a known offset, twice", &format!("{replayed} records, equal digests"));
    Ok(())
}

/// Processes each partition in two halves with a checkpoint between them, and shows that going back takes a reset.
pub(super) async fn checkpoints(
    platform: &Platform,
    facts: &Facts,
    report: &mut Report,
) -> Result<(), Failure> {
    let store = platform.checkpoints();
    let consumer = ConsumerName::new("smoke")?;
    for ((topic, partition), acked) in &facts.partitions {
        let incarnation = platform.reader().partitions(topic).await?.incarnation;
        let half = acked.len().div_ceil(2);
        let stored = store.load(&consumer, topic, *partition).await?;
        let lease = Lease { owner: "smoke".to_owned(), epoch: 1 };
        if stored.is_some() {
            let request = ResetRequest {
                consumer: consumer.clone(),
                topic: topic.clone(),
                partition_id: *partition,
                cut: Cut::Begin,
                bus_incarnation: incarnation.clone(),
                reason: "the smoke run starts over".to_owned(),
            };
            store.reset(&request).await?;
        }
        let version = store.load(&consumer, topic, *partition).await?.map_or(0, |c| c.version);
        let mut checkpoint = Checkpoint {
            consumer: consumer.clone(),
            topic: topic.clone(),
            partition_id: *partition,
            cut: Cut::past(acked[half - 1].1.offset),
            caught_up_at: None,
            version,
            bus_incarnation: incarnation,
            lease: None,
            committed_at: None,
        };
        only(store.commit(std::slice::from_ref(&checkpoint), &lease).await)?;
        let loaded = store.load(&consumer, topic, *partition).await?.ok_or("the checkpoint is gone")?;
        let rest = read_all(platform, topic, *partition, loaded.cut.into()).await?;
        if !rest.iter().map(|r| &r.eb_ref).eq(acked[half..].iter().map(|(_, eb_ref)| eb_ref)) {
            return Err(format!("resuming {topic}/{partition} at {} skips or repeats", loaded.cut).into());
        }
        checkpoint.cut = Cut::Begin;
        checkpoint.version = loaded.version;
        match only(store.commit(&[checkpoint], &lease).await) {
            Err(e) if matches!(e.kind(), ErrorKind::BackwardCommit { .. }) => {}
            Err(e) => return Err(e.into()),
            Ok(_) => {
                return Err(format!("a checkpoint of {topic}/{partition} went back without a reset").into());
            }
        }
    }
    let what = format!("{} partitions resumed at the exact cut", facts.partitions.len());
    report.passed("checkpoints: commit, load, resume, no way back", &what);
    Ok(())
}

fn only<T>(answers: Vec<eb_contract::Result<T>>) -> eb_contract::Result<T> {
    let none =
        || Err(eb_contract::Error::new(ErrorKind::ProtocolViolation, "commit", "the store gave no answer"));
    answers.into_iter().next().unwrap_or_else(none)
}

/// The digests of all topics that hold something.
pub(super) async fn digests(platform: &Platform, facts: &Facts) -> Result<Vec<TopicDigest>, Failure> {
    let mut all = BTreeMap::<Topic, KeySequenceDigest>::new();
    for (topic, partition) in facts.partitions.keys() {
        let digest = all.entry(topic.clone()).or_default();
        read_all(platform, topic, *partition, StartAt::Earliest).await?.iter().for_each(|r| digest.add(r));
    }
    let topics = all.into_iter().map(|(topic, d)| TopicDigest {
        topic,
        records: d.records(),
        keys: d.keys(),
        digest: d.finish(),
    });
    Ok(topics.collect())
}

/// Whether two buses hold the same facts in the same order of each key.
pub(super) fn equal(one: &[TopicDigest], other: &[TopicDigest]) -> Result<(), Failure> {
    let facts = |digests: &[TopicDigest]| -> Vec<_> {
        digests.iter().map(|d| (d.topic.clone(), d.keys, d.digest)).collect()
    };
    if facts(one) == facts(other) {
        Ok(())
    } else {
        Err("the two buses hold other facts, or in another order of a key".into())
    }
}

async fn heads(platform: &Platform, facts: &Facts) -> Result<Vec<Cut>, Failure> {
    let mut heads = Vec::new();
    for (topic, partition) in facts.partitions.keys() {
        heads.push(platform.reader().head(topic, *partition).await?.cut);
    }
    Ok(heads)
}

async fn read_all(
    platform: &Platform,
    topic: &Topic,
    partition: PartitionId,
    from: StartAt,
) -> Result<Vec<Record>, Failure> {
    Ok(platform.reader().read_to_head(topic, partition, from).await?)
}
