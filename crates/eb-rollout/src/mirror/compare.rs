//! Comparing both logs over the whole stretch that is said to agree.
//!
//! Both are read from where mirroring began to the stored cuts. What must be kept of a record is 24 bytes; where a topic has
//! more of them than [`MOST`] on either side, it is read in several passes, each of which looks at a slice of the keys by their hash.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use eb_contract::{Cut, EventBusReader, PartitionId, ReadLimit, ReadState, Result, StartAt, Topic};
use serde::Serialize;

use crate::mirror::doc::{MirrorState, TopicMirror};
use crate::mirror::follow::Id;
use crate::shared::Shared;
use crate::state::EndState;

/// Records of one side that are kept at a time.
const MOST: usize = 1 << 20;

/// What both logs hold of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The topic.
    pub topic: String,
    /// Records of the primary's log.
    pub source_records: u64,
    /// Records of the mirror's log, late copies included.
    pub mirror_records: u64,
    /// Keys of the primary's log.
    pub keys: u64,
    /// Records of the primary's log that the mirror's lacks.
    pub missing: u64,
    /// Records of the mirror's log that the primary's lacks.
    pub differing: u64,
    /// Late copies in the mirror's log.
    pub duplicates: u64,
    /// Keys whose records come in another order in the mirror: after a repair.
    pub out_of_order: u64,
    /// Over the records of each key in order, keys in any order, as hexadecimal digits: of the primary's log and of the mirror's without late
    /// copies.
    pub digests: [String; 2],
}

impl Comparison {
    /// Whether both logs hold the same events.
    #[must_use]
    pub const fn is_equal(&self) -> bool {
        self.missing == 0 && self.differing == 0
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} records in the primary's log, {} in the mirror's, {} missing there, {} differing",
            self.topic, self.source_records, self.mirror_records, self.missing, self.differing
        )
    }
}

/// Compares every topic of the mirror.
pub(crate) async fn compare(shared: &Shared, mirror: &MirrorState) -> Result<Vec<Comparison>> {
    let mut all = Vec::new();
    for (topic, of) in &mirror.topics {
        let mut passes = 1;
        let compared = loop {
            match compare_in(shared, mirror, topic, of, passes).await? {
                Some(compared) => break compared,
                None => passes *= 4,
            }
        };
        all.push(compared);
    }
    Ok(all)
}

type Sequences = HashMap<u64, Vec<[u8; 16]>>;

/// In this many passes; `None` where that are too few.
async fn compare_in(
    shared: &Shared,
    mirror: &MirrorState,
    topic: &Topic,
    of: &TopicMirror,
    passes: u64,
) -> Result<Option<Comparison>> {
    let mut compared = Comparison { topic: topic.to_string(), ..Comparison::default() };
    let mut digests = [[0u8; 16]; 2];
    let source = &shared.side(mirror.from).reader;
    let target = &shared.side(mirror.from.other()).reader;
    for pass in 0..passes {
        // The numbers of the chain are those of the bus within one segment.
        let here = stretch(&of.source_start, &of.source, |id| id % crate::state::MOST);
        let there = stretch(&of.mirror_start, &of.mirror, |id| id);
        let slice = (passes, pass);
        let Some(a) = sequences(source, topic, &bounded(shared, topic, here), slice).await? else {
            return Ok(None);
        };
        let Some(b) = sequences(target, topic, &there, slice).await? else { return Ok(None) };
        compare_slice(&mut compared, &mut digests, &a, &b);
    }
    compared.digests = digests.map(|d| d.iter().map(|b| format!("{b:02x}")).collect());
    Ok(Some(compared))
}

type Stretch = BTreeMap<u32, (Cut, Cut)>;

fn stretch(start: &BTreeMap<u32, Cut>, end: &BTreeMap<u32, Cut>, number: impl Fn(u32) -> u32) -> Stretch {
    let of = |(id, end): (&u32, &Cut)| (number(*id), (start.get(id).copied().unwrap_or(Cut::Begin), *end));
    end.iter().map(of).collect()
}

/// A stretch of the primary's log begins within its segment.
fn bounded(shared: &Shared, topic: &Topic, mut stretch: Stretch) -> Stretch {
    let lease = shared.lease();
    let open = lease.state.topics.get(topic).and_then(|c| c.last()).filter(|s| s.end == EndState::Open);
    if let Some(segment) = open {
        for (id, (from, _)) in &mut stretch {
            if let Some(part) = segment.part(*id) {
                *from = crate::reader::later(*from, part.start);
            }
        }
    }
    stretch
}

/// The records of a slice of the keys, each key's in order.
async fn sequences(
    reader: &Arc<dyn EventBusReader>,
    topic: &Topic,
    stretch: &Stretch,
    (passes, pass): (u64, u64),
) -> Result<Option<Sequences>> {
    let mut all = Sequences::new();
    let mut kept = 0;
    // Parents have lower numbers than those that go on from them.
    for (id, (from, to)) in stretch {
        if from.compare(to).is_some_and(std::cmp::Ordering::is_ge) {
            continue;
        }
        let mut cursor = reader.cursor(topic, PartitionId(*id), StartAt::Cut(*from)).await?;
        loop {
            let batch = cursor.next(ReadLimit::default()).await?;
            for record in batch.records.iter().filter(|r| to.is_before(&r.eb_ref.offset) == Some(false)) {
                let id = Id::of(record);
                if id.key % passes == pass {
                    all.entry(id.key).or_default().push(id.whole);
                    kept += 1;
                }
            }
            if kept > MOST {
                return Ok(None);
            }
            let done = batch.next.compare(to).is_some_and(std::cmp::Ordering::is_ge);
            if done || batch.state != ReadState::More {
                break;
            }
        }
    }
    Ok(Some(all))
}

fn compare_slice(compared: &mut Comparison, digests: &mut [[u8; 16]; 2], a: &Sequences, b: &Sequences) {
    compared.source_records += a.values().map(|s| s.len() as u64).sum::<u64>();
    compared.mirror_records += b.values().map(|s| s.len() as u64).sum::<u64>();
    compared.keys += a.len() as u64;
    let none = Vec::new();
    for (key, source) in a {
        let mirror = b.get(key).unwrap_or(&none);
        // The same record twice is two records of the primary's log.
        let mut due: HashMap<[u8; 16], u64> = HashMap::new();
        source.iter().for_each(|whole| *due.entry(*whole).or_default() += 1);
        let mut first = Vec::with_capacity(source.len());
        for whole in mirror {
            match due.get_mut(whole) {
                None => compared.differing += 1,
                Some(0) => compared.duplicates += 1,
                Some(left) => {
                    *left -= 1;
                    first.push(*whole);
                }
            }
        }
        compared.missing += due.values().sum::<u64>();
        compared.out_of_order += u64::from(first.len() == source.len() && first != *source);
        mix(&mut digests[0], *key, source);
        mix(&mut digests[1], *key, &first);
    }
    compared.differing +=
        b.iter().filter(|(key, _)| !a.contains_key(key)).map(|(_, s)| s.len() as u64).sum::<u64>();
}

/// Chained within a key, in any order among keys.
fn mix(digest: &mut [u8; 16], key: u64, sequence: &[[u8; 16]]) {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    hash.update(key.to_be_bytes());
    sequence.iter().for_each(|whole| hash.update(whole));
    let of_key: [u8; 32] = hash.finalize().into();
    digest.iter_mut().zip(of_key).for_each(|(d, k)| *d ^= k);
}
