//! Comparing both logs over the whole stretch that is said to agree.
//!
//! Both are read from where mirroring began to the stored cuts. Two questions are answered, each in bounded memory:
//! - *Are the same records there?* Records are counted by what they are (key and envelope, hashed), however many a key has.
//! - *Is the order of each key the same?* The records of a key are hashed into a chain as they come, so that a key costs the same however many
//!   records it has. Late copies in the mirror's log are no part of its chains: where there are any, they are known from the counts, and the
//!   chains are made again without them.
//!
//! What is remembered are a counter for each different record and a chain for each key. Where that is more than
//! [`MirrorConfig::compare_at_once`](crate::MirrorConfig), the logs are read in several passes, each of which looks at a slice of the
//! records, and of the keys, by their hashes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use eb_contract::{
    Cut, Error, ErrorKind, EventBusReader, PartitionId, ReadLimit, ReadState, Result, StartAt, Topic,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::mirror::doc::{MirrorState, TopicMirror};
use crate::mirror::follow::Id;
use crate::shared::Shared;
use crate::state::EndState;

/// The most passes. Hashes share slices evenly, so more would be of no use.
const MOST_PASSES: u64 = 1 << 20;

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
        all.push(compare_topic(shared, mirror, topic, of).await?);
    }
    Ok(all)
}

async fn compare_topic(
    shared: &Shared,
    mirror: &MirrorState,
    topic: &Topic,
    of: &TopicMirror,
) -> Result<Comparison> {
    // The numbers of the chain are those of the bus within one segment.
    let here = stretch(&of.source_start, &of.source, |id| id % crate::state::MOST);
    let logs = Logs {
        topic,
        source: (&shared.side(mirror.from).reader, bounded(shared, topic, here)),
        mirror: (&shared.side(mirror.from.other()).reader, stretch(&of.mirror_start, &of.mirror, |id| id)),
        room: shared.config.mirror.compare_at_once,
    };
    let mut passes = 1;
    while passes <= MOST_PASSES {
        if let Some(compared) = logs.compare_in(passes).await? {
            return Ok(compared);
        }
        passes *= 4;
    }
    let what = "more late copies lie in the mirror's log than a comparison can remember";
    Err(Error::new(ErrorKind::Unsupported, "compare", what)
        .at(topic)
        .advise("mirror anew, from dual_write on"))
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

/// Both logs of a topic, and how much may be remembered of them.
struct Logs<'a> {
    topic: &'a Topic,
    source: (&'a Arc<dyn EventBusReader>, Stretch),
    mirror: (&'a Arc<dyn EventBusReader>, Stretch),
    room: usize,
}

/// How often a record is in each log.
#[derive(Default)]
struct Times {
    source: u64,
    mirror: u64,
}

/// The records of a key, in order.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Chain {
    hash: [u8; 16],
    records: u64,
}

impl Chain {
    fn push(&mut self, key: u64, whole: &[u8; 16]) {
        let mut hash = Sha256::new();
        hash.update(self.hash);
        hash.update(key.to_be_bytes());
        hash.update(whole);
        let chained: [u8; 32] = hash.finalize().into();
        self.hash.copy_from_slice(&chained[..16]);
        self.records += 1;
    }
}

type Chains = HashMap<u64, Chain>;
/// Records that are in the mirror's log more often than in the primary's, and how often they are in that one.
type Extra = HashMap<[u8; 16], u64>;

/// Of which slice of the hashes a hash is.
fn slice_of(whole: &[u8; 16], passes: u64) -> u64 {
    let mut low = [0; 8];
    low.copy_from_slice(&whole[8..]);
    u64::from_be_bytes(low) % passes
}

impl Logs<'_> {
    /// In this many passes; `None` where that are too few.
    async fn compare_in(&self, passes: u64) -> Result<Option<Comparison>> {
        let mut compared = Comparison { topic: self.topic.to_string(), ..Comparison::default() };
        let mut digests = Digests::default();
        let mut extra = Extra::new();
        for pass in 0..passes {
            let mut times: HashMap<[u8; 16], Times> = HashMap::new();
            let (mut a, mut b) = (Chains::new(), Chains::new());
            let counted = self.read(&self.source, |id| {
                if slice_of(&id.whole, passes) == pass {
                    times.entry(id.whole).or_default().source += 1;
                    compared.source_records += 1;
                }
                if id.key % passes == pass {
                    a.entry(id.key).or_default().push(id.key, &id.whole);
                }
                times.len() + a.len() <= self.room
            });
            if !counted.await? {
                return Ok(None);
            }
            let counted = self.read(&self.mirror, |id| {
                if slice_of(&id.whole, passes) == pass {
                    times.entry(id.whole).or_default().mirror += 1;
                    compared.mirror_records += 1;
                }
                if id.key % passes == pass {
                    b.entry(id.key).or_default().push(id.key, &id.whole);
                }
                times.len() + a.len() + b.len() <= self.room * 2
            });
            if !counted.await? {
                return Ok(None);
            }
            for (whole, Times { source, mirror }) in times {
                compared.missing += source.saturating_sub(mirror);
                if mirror > source {
                    let more = mirror - source;
                    *(if source == 0 { &mut compared.differing } else { &mut compared.duplicates }) += more;
                    extra.insert(whole, source);
                }
            }
            if extra.len() > self.room {
                return Ok(None);
            }
            compared.keys += a.len() as u64;
            digests.add(&a, &b);
        }
        if !extra.is_empty() {
            let Some(again) = self.without(&extra, passes).await? else { return Ok(None) };
            digests = again;
        }
        compared.out_of_order = digests.out_of_order;
        compared.digests = digests.of.map(|d| d.iter().map(|b| format!("{b:02x}")).collect());
        Ok(Some(compared))
    }

    /// The chains of all keys, the mirror's without what it has too often.
    async fn without(&self, extra: &Extra, passes: u64) -> Result<Option<Digests>> {
        let mut digests = Digests::default();
        for pass in 0..passes {
            let (mut a, mut b, mut left) = (Chains::new(), Chains::new(), extra.clone());
            let chained = self.read(&self.source, |id| {
                if id.key % passes == pass {
                    a.entry(id.key).or_default().push(id.key, &id.whole);
                }
                a.len() <= self.room
            });
            if !chained.await? {
                return Ok(None);
            }
            let chained = self.read(&self.mirror, |id| {
                if id.key % passes == pass {
                    match left.get_mut(&id.whole) {
                        // One that came before, or one that is nobody's.
                        Some(0) => return true,
                        Some(left) => *left -= 1,
                        None => {}
                    }
                    b.entry(id.key).or_default().push(id.key, &id.whole);
                }
                b.len() <= self.room
            });
            if !chained.await? {
                return Ok(None);
            }
            digests.add(&a, &b);
        }
        Ok(Some(digests))
    }

    /// Shows every record of a log; gives back whether `see` has taken all.
    async fn read(
        &self,
        (reader, stretch): &(&Arc<dyn EventBusReader>, Stretch),
        mut see: impl FnMut(Id) -> bool,
    ) -> Result<bool> {
        // Parents have lower numbers than those that go on from them.
        for (id, (from, to)) in stretch {
            if from.compare(to).is_some_and(std::cmp::Ordering::is_ge) {
                continue;
            }
            let mut cursor = reader.cursor(self.topic, PartitionId(*id), StartAt::Cut(*from)).await?;
            loop {
                let batch = cursor.next(ReadLimit::default()).await?;
                for record in batch.records.iter().filter(|r| to.is_before(&r.eb_ref.offset) == Some(false)) {
                    if !see(Id::of(record)) {
                        return Ok(false);
                    }
                }
                let done = batch.next.compare(to).is_some_and(std::cmp::Ordering::is_ge);
                if done || batch.state != ReadState::More {
                    break;
                }
            }
        }
        Ok(true)
    }
}

/// What the chains of all keys come to.
#[derive(Default)]
struct Digests {
    of: [[u8; 16]; 2],
    out_of_order: u64,
}

impl Digests {
    /// Keys in any order.
    fn add(&mut self, source: &Chains, mirror: &Chains) {
        for (digest, chains) in self.of.iter_mut().zip([source, mirror]) {
            for (key, chain) in chains {
                let mut hash = Sha256::new();
                hash.update(key.to_be_bytes());
                hash.update(chain.hash);
                let of_key: [u8; 32] = hash.finalize().into();
                digest.iter_mut().zip(of_key).for_each(|(d, k)| *d ^= k);
            }
        }
        let same_records = |(key, a): &(&u64, &Chain)| {
            mirror.get(*key).is_some_and(|b| b.records == a.records && b.hash != a.hash)
        };
        self.out_of_order += source.iter().filter(same_records).count() as u64;
    }
}
