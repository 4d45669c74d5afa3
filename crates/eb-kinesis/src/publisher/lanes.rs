//! The records that may be sent, by shard.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use eb_contract::{Error, PartitionId};
use tokio::time::Instant;

use super::intake::Pending;
use super::pace::Pace;
use crate::shards::Layout;

/// The records of one shard that may be sent, and how many of them at a time.
#[derive(Debug)]
pub(super) struct Lane {
    /// `None` while the stream's shards are not known.
    pub(super) shard: Option<PartitionId>,
    ready: VecDeque<Pending>,
    pub(super) pace: Pace,
    /// How the newest failure in this lane read, until something is taken again.
    pub(super) trouble: Option<Error>,
}

impl Lane {
    fn new(shard: Option<PartitionId>, pace: Pace) -> Self {
        Self { shard, ready: VecDeque::new(), pace, trouble: None }
    }

    /// The record whose turn it is.
    pub(super) fn front(&self) -> Option<&Pending> {
        self.ready.front()
    }
}

/// All lanes of a stream; at least one.
#[derive(Debug)]
pub(super) struct Lanes {
    /// By the first hash of each lane's shard.
    by_hash: Vec<(u128, Lane)>,
    ready: usize,
    turn: usize,
}

impl Lanes {
    /// One lane for a stream of unknown shards.
    pub(super) fn one(pace: Pace) -> Self {
        Self { by_hash: vec![(0, Lane::new(None, pace))], ready: 0, turn: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// How many records are ready in all lanes.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// The lane of a key. Between two shapes of a stream it may be another than the service would take.
    pub(super) fn of(&self, key: u128) -> usize {
        self.by_hash.partition_point(|(first, _)| *first <= key).saturating_sub(1)
    }

    pub(super) fn push_back(&mut self, pending: Pending) {
        let lane = self.of(pending.key);
        self[lane].ready.push_back(pending);
        self.ready += 1;
    }

    pub(super) fn push_front(&mut self, pending: Pending) {
        let lane = self.of(pending.key);
        self[lane].ready.push_front(pending);
        self.ready += 1;
    }

    pub(super) fn pop(&mut self, lane: usize) -> Option<Pending> {
        let pending = self[lane].ready.pop_front()?;
        self.ready -= 1;
        Some(pending)
    }

    /// The lanes in the order in which they are served this time; next time another one is the first.
    pub(super) fn turns(&mut self) -> impl Iterator<Item = usize> + use<> {
        let (count, turn) = (self.len(), self.turn);
        self.turn = (turn + 1) % count;
        (0..count).map(move |step| (turn + step) % count)
    }

    /// When time alone lets one of the waiting records go.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let waiting = self.by_hash.iter().filter(|(_, lane)| !lane.ready.is_empty());
        waiting.filter_map(|(_, lane)| lane.pace.opens_at(now)).min()
    }

    /// Takes all ready records out, in the order of the calls.
    pub(super) fn drain(&mut self) -> Vec<Pending> {
        let mut all: Vec<_> = self.by_hash.iter_mut().flat_map(|(_, lane)| lane.ready.drain(..)).collect();
        self.ready = 0;
        all.sort_by_key(|p| p.number);
        all
    }

    /// Gives every open shard its lane. A shard that had one keeps its pace; `pace` is for the others, and for the whole
    /// stream if it says nothing of its shards.
    pub(super) fn reshape(
        &mut self,
        layout: &Layout,
        pace: impl Fn(Option<PartitionId>) -> Pace,
        in_flight: impl Iterator<Item = u128>,
    ) {
        let ready = self.drain();
        let mut old: Vec<Lane> = std::mem::take(&mut self.by_hash).into_iter().map(|(_, l)| l).collect();
        for shard in layout.shards.iter().filter(|s| !s.closed) {
            let known = old.iter().position(|lane| lane.shard == Some(shard.partition));
            let new = || Lane::new(Some(shard.partition), pace(Some(shard.partition)));
            self.by_hash.push((shard.hashes.0, known.map_or_else(new, |known| old.swap_remove(known))));
        }
        if self.by_hash.is_empty() {
            self.by_hash.push((0, Lane::new(None, pace(None))));
        }
        self.by_hash.sort_by_key(|(first, lane)| (*first, lane.shard));
        self.turn = 0;
        let mut counts = vec![0; self.len()];
        in_flight.for_each(|key| counts[self.of(key)] += 1);
        for ((_, lane), count) in self.by_hash.iter_mut().zip(counts) {
            lane.pace = lane.pace.with_in_flight(count);
        }
        ready.into_iter().for_each(|pending| self.push_back(pending));
    }
}

impl Index<usize> for Lanes {
    type Output = Lane;

    fn index(&self, lane: usize) -> &Lane {
        &self.by_hash[lane].1
    }
}

impl IndexMut<usize> for Lanes {
    fn index_mut(&mut self, lane: usize) -> &mut Lane {
        &mut self.by_hash[lane].1
    }
}
