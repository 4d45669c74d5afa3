//! A topic as its readers see it: the partitions of all its segments, each with those it goes on from.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use eb_contract::{
    BusIncarnation, Cut, Error, ErrorKind, Offset, PartitionId, PartitionInfo, Result, Timestamp, Topic,
    TopicPartitions,
};

use crate::error::{no_topic, wrong_incarnation};
use crate::shared::Shared;
use crate::state::{EndState, MOST, Segment, Side, State};

/// The logical number of a segment's partition.
pub(crate) fn logical(segment: usize, physical: u32) -> Result<PartitionId> {
    let segment = u32::try_from(segment).unwrap_or(u32::MAX);
    if segment >= MOST || physical >= MOST {
        let what = format!("partition {physical} of epoch segment {segment}: both must be below {MOST}");
        return Err(Error::new(ErrorKind::Unsupported, "number partition", what));
    }
    Ok(PartitionId(segment * MOST + physical))
}

/// Segment and number on its bus.
pub(crate) fn physical(id: PartitionId) -> (usize, u32) {
    ((id.0 / MOST) as usize, id.0 % MOST)
}

/// What a reader must know of one segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) side: Side,
    pub(crate) start: Cut,
    pub(crate) opened_at: Timestamp,
    pub(crate) end: EndState,
    /// Where it ended, where that is settled.
    pub(crate) end_cut: Option<Cut>,
    /// The last record before that.
    pub(crate) last: Option<Offset>,
}

impl Bounds {
    /// Whether nothing of the segment lies after `position`, where the segment has ended.
    pub(crate) fn is_done(&self, position: &Cut) -> bool {
        let at_end = |end: Cut| position.compare(&end).is_some_and(Ordering::is_ge);
        self.end_cut.is_some_and(at_end)
    }

    /// The same for one who has found nothing more there: also where no record lies between `position` and the end.
    pub(crate) fn is_done_at_head(&self, position: &Cut) -> bool {
        let past = |last: Offset| position.is_before(&last) == Some(false);
        self.is_done(position) || (self.end_cut.is_some() && self.last.is_none_or(past))
    }
}

/// The bounds of one partition of a segment; `None` where it is no part of the chain. The partition of a segment that is
/// still open need not exist: its bus knows.
pub(crate) fn bounds(state: &State, topic: &Topic, segment: usize, id: u32) -> Option<Bounds> {
    let Some(chain) = state.topics.get(topic) else {
        let whole = Bounds {
            side: Side::Old,
            start: Cut::Begin,
            opened_at: Timestamp::EPOCH,
            end: EndState::Open,
            end_cut: None,
            last: None,
        };
        return (state.is_implicit() && segment == 0).then_some(whole);
    };
    let of = chain.get(segment)?;
    let part = of.part(id);
    if of.excluded.contains(&id) || (part.is_none() && of.end == EndState::Settled) {
        return None;
    }
    Some(Bounds {
        side: of.side,
        // A partition that came later is the epoch's from its beginning.
        start: part.map_or(Cut::Begin, |p| p.start),
        opened_at: of.opened_at,
        end: of.end,
        end_cut: part.and_then(|p| p.end).filter(|_| of.end == EndState::Settled),
        last: part.and_then(|p| p.last).map(|l| l.0),
    })
}

/// The logical partitions that go on from one that has ended, given those that its bus says go on from it.
pub(crate) fn children(
    state: &State,
    topic: &Topic,
    segment: usize,
    id: u32,
    of_bus: &[PartitionId],
) -> Result<Vec<PartitionId>> {
    let chain = state.topics.get(topic).map_or(&[][..], Vec::as_slice);
    let here = chain.get(segment);
    let settled = here.filter(|s| s.end == EndState::Settled);
    let within: Vec<u32> = match settled {
        Some(s) => s.partitions.iter().filter(|p| p.parents.contains(&id)).map(|p| p.id).collect(),
        None => of_bus.iter().map(|p| p.0).collect(),
    };
    if !within.is_empty() || settled.is_none() {
        return within.into_iter().map(|p| logical(segment, p)).collect();
    }
    match chain.get(segment + 1) {
        Some(next) => next.roots().map(|p| logical(segment + 1, p)).collect(),
        None => Ok(Vec::new()),
    }
}

/// The partitions of a topic, by what the register said just now and what the bus of the open segment lists.
pub(crate) async fn partitions(shared: &Shared, state: &State, topic: &Topic) -> Result<TopicPartitions> {
    const OP: &str = "partitions";
    let Some(chain) = state.topics.get(topic) else {
        if state.is_implicit() {
            return shared.side(Side::Old).reader.partitions(topic).await;
        }
        return Err(no_topic(OP, topic));
    };
    let mut all = Vec::new();
    let mut leaves: Vec<PartitionId> = Vec::new();
    for (at, segment) in chain.iter().enumerate() {
        let listed = match segment.end {
            EndState::Open => live(shared, OP, topic, segment).await?,
            EndState::Pending | EndState::Settled => {
                let parts = segment.partitions.iter();
                parts.map(|p| (p.id, p.parents.clone(), true)).collect()
            }
        };
        let inner: BTreeSet<u32> = listed.iter().flat_map(|(_, parents, _)| parents.clone()).collect();
        let mut next_leaves = Vec::new();
        for (id, parents, closed) in listed {
            let here = logical(at, id)?;
            let parents = if parents.is_empty() {
                leaves.clone()
            } else {
                parents.into_iter().map(|p| logical(at, p)).collect::<Result<_>>()?
            };
            if !inner.contains(&id) {
                next_leaves.push(here);
            }
            let native_id = Some(format!("{}/{id}", segment.side)).filter(|_| at > 0);
            all.push(PartitionInfo { id: here, native_id, parents, closed });
        }
        leaves = next_leaves;
    }
    all.sort_by_key(|p| p.id);
    let incarnation = chain.first().map(|s| s.incarnation.clone()).ok_or_else(|| no_topic(OP, topic))?;
    Ok(TopicPartitions { incarnation, partitions: all })
}

/// The partitions of an open segment as its bus lists them: number, parents within the segment, closed.
async fn live(
    shared: &Shared,
    op: &'static str,
    topic: &Topic,
    segment: &Segment,
) -> Result<Vec<(u32, Vec<u32>, bool)>> {
    let listed = shared.side(segment.side).reader.partitions(topic).await?;
    check_incarnation(op, topic, &segment.incarnation, &listed.incarnation)?;
    Ok(members(&listed, &segment.excluded))
}

pub(crate) fn members(listed: &TopicPartitions, excluded: &[u32]) -> Vec<(u32, Vec<u32>, bool)> {
    let own: Vec<&PartitionInfo> = listed.partitions.iter().filter(|p| !excluded.contains(&p.id.0)).collect();
    let is_own = |id: &PartitionId| own.iter().any(|p| p.id == *id);
    own.iter()
        .map(|p| {
            let parents = p.parents.iter().filter(|id| is_own(id)).map(|id| id.0).collect();
            (p.id.0, parents, p.closed)
        })
        .collect()
}

pub(crate) fn check_incarnation(
    op: &'static str,
    topic: &Topic,
    known: &BusIncarnation,
    now: &BusIncarnation,
) -> Result<()> {
    if known == now { Ok(()) } else { Err(wrong_incarnation(op, topic)) }
}
