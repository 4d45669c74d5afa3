//! What was promised, and the logs held to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use canonical_envelope::Envelope;
use eb_contract::{EbRef, EventBusReader, EventBusReaderExt as _, PartitionId, Record, StartAt, Topic};
use eb_profile::Platform;
use eb_rollout::{EndState, Side};
use eb_system_tests::facts::Fact;
use eb_system_tests::rollout::{LANES, PER_LANE, TOPIC, lane_key, of_id};
use ig_gate::{Decision, Receipt};

use super::place::Place;

/// Logical partition = segment · this + partition of the segment's bus.
const PER_SEGMENT: u32 = 1 << 16;

/// What all publishers were told.
#[derive(Default)]
pub(super) struct Promises {
    /// The place of each event, by its id.
    pub(super) places: BTreeMap<String, EbRef>,
    admitted: BTreeSet<String>,
    /// Events of which an attempt had an unknown outcome, or whose publisher was killed: a copy of them may lie in the log.
    pub(super) doubted: BTreeSet<String>,
    /// The latest segment of the chain that an event was admitted to.
    pub(super) newest: u32,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    errors: BTreeMap<String, u64>,
    /// What was said last of one that was none.
    pub(super) last: String,
}

impl Promises {
    /// Takes what a publisher says; gives back lane and number of the event that was answered.
    pub(super) fn hear(&mut self, publisher: &str, line: &str) -> Option<(u64, u64)> {
        match Fact::hear(line) {
            Fact::Answered(place, json) => {
                let (lane, n) = (place as u64 / PER_LANE, place as u64 % PER_LANE);
                let id = format!("{}-{n}", lane_key(publisher, lane));
                let receipt: Receipt = serde_json::from_str(&json).unwrap();
                let at = receipt.eb_ref.unwrap_or_else(|| panic!("{id} has no place: {json}"));
                if receipt.decision == Decision::Admit {
                    assert!(self.admitted.insert(id.clone()), "{id} was admitted twice");
                }
                self.newest = self.newest.max(at.partition_id.0 / PER_SEGMENT);
                let first = self.places.entry(id.clone()).or_insert_with(|| at.clone());
                assert_eq!(*first, at, "{id}: two receipts name two places");
                Some((lane, n))
            }
            Fact::Failed { code, unknown, text, envelope } => {
                self.last = text;
                if unknown {
                    self.doubted.insert(envelope);
                }
                self.refused += 1;
                self.unknown += u64::from(unknown);
                *self.errors.entry(code).or_default() += 1;
                None
            }
            _ => None,
        }
    }

    pub(super) fn errors(&self) -> String {
        let each = self.errors.iter().map(|(code, times)| format!("{code} {times}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn id_of(record: &Record) -> String {
    Envelope::parse(record.envelope.as_bytes()).unwrap().event_id().to_owned()
}

/// The chain as a reader sees it, oldest epoch first.
async fn chain(platform: &Platform, topic: &Topic) -> Vec<Record> {
    let reader = platform.reader();
    let mut partitions = reader.partitions(topic).await.unwrap().partitions;
    partitions.sort_by_key(|p| p.id);
    let mut all = Vec::new();
    for partition in partitions {
        all.extend(reader.read_to_head(topic, partition.id, StartAt::Earliest).await.unwrap());
    }
    all
}

/// Everything that lies on a bus: partition and offset, with the event's id.
async fn lies_on(bus: &dyn EventBusReader, topic: &Topic) -> BTreeMap<(u32, String), String> {
    let mut all = BTreeMap::new();
    for PartitionId(id) in bus.partitions(topic).await.unwrap().partitions.into_iter().map(|p| p.id) {
        for record in bus.read_to_head(topic, PartitionId(id), StartAt::Earliest).await.unwrap() {
            all.insert((id, record.eb_ref.offset.to_string()), id_of(&record));
        }
    }
    all
}

/// What the audit has counted.
pub(super) struct Found {
    pub(super) records: usize,
    pub(super) copies: usize,
    pub(super) epochs: u64,
    pub(super) handled: usize,
}

/// Holds both logs, the chain and what the consumer did to what was promised.
pub(super) async fn audit(place: &Place, platform: &Platform, promised: &Promises, effects: &Path) -> Found {
    let topic = Topic::new(TOPIC).unwrap();
    let status = platform.rollout().unwrap().status().await.unwrap();
    assert!(status.pending.is_empty(), "an end is pending: {:?}", status.pending);
    let segments = &status.state.topics[&topic];

    // On the bus that the receipt names, without the rollout between.
    let (old, new) = (place.bus(Side::Old).await, place.bus(Side::New).await);
    let (old, new) = (lies_on(&*old, &topic).await, lies_on(&*new, &topic).await);
    for (id, at) in &promised.places {
        let PartitionId(logical) = at.partition_id;
        let segment = &segments[(logical / PER_SEGMENT) as usize];
        let log = if segment.side == Side::Old { &old } else { &new };
        let physical = logical % PER_SEGMENT;
        assert_eq!(log.get(&(physical, at.offset.to_string())), Some(id), "{id} was promised at {at}");
        let part = segment.partitions.iter().find(|p| p.id == physical).unwrap();
        assert_eq!(part.start.is_before(&at.offset), Some(true), "{id} lies before its epoch, at {at}");
        if segment.end == EndState::Settled {
            let end = part.end.unwrap();
            assert_eq!(end.is_before(&at.offset), Some(false), "{id} lies behind its epoch, at {at}");
        }
    }

    // In the chain: at its place, once but for copies, and in the order of its lane.
    let records = chain(platform, &topic).await;
    let mut by_place = BTreeMap::new();
    let mut firsts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in &records {
        let id = id_of(record);
        assert!(
            by_place.insert(record.eb_ref.to_string(), id.clone()).is_none(),
            "{} was read twice",
            record.eb_ref
        );
        let (key, n) = of_id(&id).unwrap();
        assert_eq!(record.partition_key.as_str(), key);
        if seen.insert(id.clone()) {
            firsts.entry(key.to_owned()).or_default().push(n);
        } else {
            assert!(promised.doubted.contains(&id), "{id} lies in the log twice, also at {}", record.eb_ref);
        }
    }
    for (id, at) in &promised.places {
        assert_eq!(by_place.get(&at.to_string()), Some(id), "{id} was promised at {at}, by the chain");
    }
    for (key, of_key) in &firsts {
        assert!(of_key.windows(2).all(|w| w[0] < w[1]), "the order of {key}: {of_key:?}");
    }

    // By the consumer: every one, and in the order of its lane.
    let effects = std::fs::read_to_string(effects).unwrap();
    let mut handled: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut done = BTreeSet::new();
    for line in effects.lines() {
        let id = line.rsplit_once(' ').expect("a line of an effect is written whole").1;
        let (key, n) = of_id(id).unwrap();
        if done.insert(id.to_owned()) {
            handled.entry(key.to_owned()).or_default().push(n);
        }
    }
    let skipped: Vec<_> = promised.places.keys().filter(|id| !done.contains(*id)).take(5).collect();
    assert!(skipped.is_empty(), "ACKed and never handled: {skipped:?}");
    for (key, of_key) in &handled {
        assert!(of_key.windows(2).all(|w| w[0] < w[1]), "handled out of order, of {key}: {of_key:?}");
    }
    Found {
        records: records.len(),
        copies: records.len() - seen.len(),
        epochs: status.state.epoch,
        handled: effects.lines().count(),
    }
}

/// Where a publisher's lanes go on.
pub(super) fn beginnings() -> Vec<u64> {
    vec![0; usize::try_from(LANES).unwrap_or_default()]
}
