//! Following all partitions of a topic from stored cuts on, parents before children.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    Cursor, Cut, EventBusReader, PartitionId, ReadLimit, ReadState, Record, Result, StartAt, Topic,
};
use sha2::{Digest as _, Sha256};

use crate::bus::Running;
use crate::chain::physical;
use crate::reader::RolloutReader;
use crate::shared::Shared;
use crate::state::{Side, State};

/// What a record is told by: its key, and key and envelope together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) key: u64,
    pub(super) whole: [u8; 16],
}

impl Id {
    pub(super) fn of(record: &Record) -> Self {
        let key = record.partition_key.as_str();
        let mut hash = Sha256::new();
        hash.update((key.len() as u64).to_be_bytes());
        hash.update(key);
        let of_key: [u8; 32] = hash.clone().finalize().into();
        hash.update(record.envelope.as_bytes());
        let of_all: [u8; 32] = hash.finalize().into();
        let mut whole = [0; 16];
        whole.copy_from_slice(&of_all[..16]);
        let mut key = [0; 8];
        key.copy_from_slice(&of_key[..8]);
        Self { key: u64::from_be_bytes(key), whole }
    }
}

/// The partitions of a topic that are followed: those of one segment, or all of a bus.
pub(super) struct Follower {
    reader: Arc<dyn EventBusReader>,
    topic: Topic,
    /// Only partitions of this segment, for a reader of the chain.
    segment: Option<usize>,
    /// Where each partition stands.
    pub(super) cuts: BTreeMap<u32, Cut>,
    cursors: BTreeMap<u32, Box<dyn Cursor>>,
}

impl Follower {
    pub(super) async fn open(
        reader: Arc<dyn EventBusReader>,
        topic: &Topic,
        segment: Option<usize>,
        cuts: BTreeMap<u32, Cut>,
    ) -> Result<Self> {
        let mut follower = Self { reader, topic: topic.clone(), segment, cuts, cursors: BTreeMap::new() };
        let open: Vec<(u32, Cut)> =
            follower.cuts.iter().filter(|(_, c)| !matches!(c, Cut::End)).map(|(id, c)| (*id, *c)).collect();
        for (id, cut) in open {
            follower.start(id, cut).await?;
        }
        follower.start_children().await?;
        Ok(follower)
    }

    async fn start(&mut self, id: u32, cut: Cut) -> Result<()> {
        let cursor = self.reader.cursor(&self.topic, PartitionId(id), StartAt::Cut(cut)).await?;
        self.cuts.insert(id, cut);
        self.cursors.insert(id, cursor);
        Ok(())
    }

    /// Begins partitions all of whose parents among the followed ones are at their end.
    pub(super) async fn start_children(&mut self) -> Result<()> {
        let listed = self.reader.partitions(&self.topic).await?.partitions;
        for info in listed {
            let of_segment = self.segment.is_none_or(|s| physical(info.id).0 == s);
            if !of_segment || self.cuts.contains_key(&info.id.0) {
                continue;
            }
            let parents: Vec<_> = info.parents.iter().filter_map(|p| self.cuts.get(&p.0)).collect();
            if !parents.is_empty() && parents.iter().all(|cut| matches!(cut, Cut::End)) {
                self.start(info.id.0, Cut::Begin).await?;
            }
        }
        Ok(())
    }

    /// Up to `max` records that are there, each partition's in order. Fewer means that all heads were reached.
    pub(super) async fn read(&mut self, max: usize) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        loop {
            let mut ended = false;
            let ids: Vec<u32> = self.cursors.keys().copied().collect();
            for id in ids {
                loop {
                    let room = max - all.len();
                    if room == 0 {
                        return Ok(all);
                    }
                    let (records, state) = self.step(id, room, Duration::ZERO).await?;
                    all.extend(records);
                    match state {
                        Step::Head => break,
                        Step::More => {}
                        Step::Ended => {
                            ended = true;
                            break;
                        }
                    }
                }
            }
            if !ended {
                return Ok(all);
            }
            self.start_children().await?;
        }
    }

    /// Whether the partition is followed, or was to its end.
    pub(super) fn follows(&self, id: u32) -> bool {
        self.cuts.contains_key(&id)
    }

    /// The followed partitions, not read to their end yet, that this one goes on from, at any remove.
    pub(super) async fn open_ancestors(&mut self, id: u32) -> Result<Vec<u32>> {
        let listed = self.reader.partitions(&self.topic).await?.partitions;
        let mut found = Vec::new();
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let info = listed.iter().find(|p| p.id.0 == id);
            for parent in info.iter().flat_map(|p| &p.parents).map(|p| p.0) {
                if self.cursors.contains_key(&parent) {
                    found.push(parent);
                } else if !self.cuts.contains_key(&parent) {
                    todo.push(parent);
                }
            }
        }
        Ok(found)
    }

    /// One read of one partition.
    pub(super) async fn step(&mut self, id: u32, max: usize, wait: Duration) -> Result<(Vec<Record>, Step)> {
        let Some(cursor) = self.cursors.get_mut(&id) else { return Ok((Vec::new(), Step::Ended)) };
        let batch = cursor.next(ReadLimit::records(max).waiting(wait)).await?;
        self.cuts.insert(id, batch.next);
        let step = match batch.state {
            ReadState::CaughtUp => Step::Head,
            ReadState::More => Step::More,
            ReadState::Closed { .. } => {
                self.cuts.insert(id, Cut::End);
                self.cursors.remove(&id);
                Step::Ended
            }
        };
        Ok((batch.records, step))
    }

    /// Whether the partition was read past this record.
    pub(super) fn is_past(&self, id: u32, offset: &eb_contract::Offset) -> bool {
        self.cuts.get(&id).is_some_and(|cut| cut.is_before(offset) == Some(false))
    }
}

/// What one read has come to.
pub(super) enum Step {
    /// The head, as it was.
    Head,
    /// More is there.
    More,
    /// The partition's end.
    Ended,
}

/// A reader of the chain for the process's own tasks.
pub(super) fn chain_reader(shared: &Arc<Shared>) -> Arc<dyn EventBusReader> {
    Arc::new(RolloutReader::new(shared.clone(), Running::detached()))
}

/// Topics of the active epoch.
pub(super) async fn topics(shared: &Shared, state: &State) -> Result<Vec<Topic>> {
    if state.is_implicit() {
        return shared.side(Side::Old).reader.topics().await;
    }
    let is_active = |topic: &&Topic| state.active_segment(topic).is_some();
    Ok(state.topics.keys().filter(is_active).cloned().collect())
}

/// Where a topic stands in its chain.
pub(super) fn segment_of(state: &State, topic: &Topic) -> Option<usize> {
    if state.is_implicit() { Some(0) } else { state.active_segment(topic) }
}

/// Where the active epoch ends now: topic, logical partition, cut.
pub(crate) async fn source_heads(shared: &Shared, state: &State) -> Result<Vec<(Topic, u32, Cut)>> {
    let mut heads = Vec::new();
    for topic in topics(shared, state).await? {
        let Some(segment) = segment_of(state, &topic) else { continue };
        for (id, cut) in open_heads(shared, state, &topic).await? {
            heads.push((topic.clone(), crate::chain::logical(segment, id)?.0, cut));
        }
    }
    Ok(heads)
}

/// The heads of the open partitions of a topic's primary.
pub(super) async fn open_heads(shared: &Shared, state: &State, topic: &Topic) -> Result<BTreeMap<u32, Cut>> {
    heads_on(shared, state.primary(), topic).await
}

/// The heads of a topic's open partitions on a bus.
pub(super) async fn heads_on(shared: &Shared, side: Side, topic: &Topic) -> Result<BTreeMap<u32, Cut>> {
    let reader = &shared.side(side).reader;
    let mut heads = BTreeMap::new();
    for info in reader.partitions(topic).await?.partitions.iter().filter(|p| !p.closed) {
        heads.insert(info.id.0, reader.head(topic, info.id).await?.cut);
    }
    Ok(heads)
}
