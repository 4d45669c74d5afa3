//! What a test (or a drill) may do to a bus: fail it, hold it, trim it, reshard it.

use std::sync::Arc;

use eb_contract::{Cut, Error, PartitionId, Result, Topic};

use crate::error;
use crate::log::{HashRange, PartitionLog};
use crate::state::Shared;

/// What happens to one record that is published. Records that are refused before the append (too large, no such
/// topic, not attempted) use up no fate.
#[derive(Debug, Clone)]
pub enum Fate {
    /// It is appended and ACKed.
    Ack,
    /// It is not appended, and answers this error as it is. With
    /// [`Effect::Unknown`](eb_contract::Effect::Unknown) set it is the publish whose outcome nobody knows and which
    /// did not happen.
    Fail(Error),
    /// It is appended, and answers this error with [`Effect::Unknown`](eb_contract::Effect::Unknown): the publish
    /// whose outcome nobody knows and which did happen.
    LoseAck(Error),
}

/// Faults on demand, for tests of what uses a bus and for drills. They act on the data, so on every handle of every
/// opening, and take effect at once.
///
/// A bus behaves by its capabilities except for what is asked for here.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

impl Faults {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Decides the fates of the next records, in order, after those decided already. Later ones are ACKed.
    pub fn next_records(&self, fates: impl IntoIterator<Item = Fate>) {
        self.shared.lock().faults.fates.extend(fates);
    }

    /// The next `count` records are not appended and answer `error`.
    pub fn fail_next(&self, count: usize, error: &Error) {
        self.next_records((0..count).map(|_| Fate::Fail(error.clone())));
    }

    /// How many fates are decided and have not come true yet.
    #[must_use]
    pub fn fates_left(&self) -> usize {
        self.shared.lock().faults.fates.len()
    }

    /// Makes the next read of any cursor fail with `error`; calls add up. The cursor stays where it was.
    pub fn fail_next_read(&self, error: Error) {
        self.shared.lock().faults.read_errors.push_back(error);
    }

    /// From now on every publish, read, look-up and probe answers `error`, until [`Faults::recover`]. Cursors that
    /// wait at the head hear of it at once.
    pub fn outage(&self, error: Error) {
        self.shared.lock().faults.outage = Some(error);
        self.shared.notify();
    }

    /// Forgets every fault that has not happened yet, ends an outage and releases what is held.
    pub fn recover(&self) {
        let mut state = self.shared.lock();
        state.faults.fates.clear();
        state.faults.read_errors.clear();
        state.faults.outage = None;
        drop(state);
        self.release();
    }

    /// From now on publishes wait, in the order of their calls, until [`Faults::release`].
    pub fn hold(&self) {
        self.shared.lock().faults.holding = true;
    }

    /// Appends and answers what was held, and holds no more.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.faults.holding = false;
        state.release_held(&self.shared.config);
        drop(state);
        self.shared.notify();
    }

    /// How many records are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.lock().held_records()
    }

    /// Drops the records of a partition that lie before the cut, as a retention horizon does.
    ///
    /// # Errors
    /// `Unsupported` on a bus without [`MemoryConfig::retention`](crate::MemoryConfig::retention), `NotFound`,
    /// `InvalidInput` for a cut of another kind.
    pub fn trim(&self, topic: &Topic, partition: PartitionId, before: &Cut) -> Result<()> {
        if !self.shared.config.retention {
            return Err(error::unsupported(
                "trim",
                "this bus keeps everything; set `retention` in its config",
            ));
        }
        if before.offset_kind().is_some_and(|kind| kind != self.shared.config.offset_kind()) {
            return Err(error::invalid(
                "trim",
                format!("{topic}/{partition}"),
                "a cut of another offset kind",
            ));
        }
        let mut state = self.shared.lock();
        state.partition("trim", topic, partition)?;
        let freed = state.topic_mut("trim", topic)?.partitions[partition.0 as usize].trim(before);
        state.give_back(freed);
        drop(state);
        self.shared.notify();
        Ok(())
    }

    /// Closes a partition and lets two children go on with the halves of its hash range.
    ///
    /// # Errors
    /// `Unsupported` on a bus without [`MemoryConfig::resharding`](crate::MemoryConfig::resharding), `NotFound`,
    /// `InvalidInput` for a partition that is closed or too narrow.
    pub fn split(&self, topic: &Topic, partition: PartitionId) -> Result<[PartitionId; 2]> {
        let range = self.open_range("split", topic, partition)?;
        if range.from == range.to {
            return Err(error::invalid(
                "split",
                topic,
                format!("partition {partition} cannot get any narrower"),
            ));
        }
        let middle = range.from + (range.to - range.from) / 2;
        let halves =
            [HashRange { from: range.from, to: middle }, HashRange { from: middle + 1, to: range.to }];
        let ids = self.reshard("split", topic, &[partition], &halves)?;
        Ok([ids[0], ids[1]])
    }

    /// Closes two partitions with neighbouring hash ranges and lets one child go on with both.
    ///
    /// # Errors
    /// As [`Faults::split`]; `InvalidInput` for partitions that are not neighbours.
    pub fn merge(&self, topic: &Topic, a: PartitionId, b: PartitionId) -> Result<PartitionId> {
        let (x, y) = (self.open_range("merge", topic, a)?, self.open_range("merge", topic, b)?);
        let (low, high) = if x.from < y.from { (x, y) } else { (y, x) };
        if low.to.checked_add(1) != Some(high.from) {
            return Err(error::invalid("merge", topic, format!("partitions {a} and {b} are no neighbours")));
        }
        let whole = HashRange { from: low.from, to: high.to };
        Ok(self.reshard("merge", topic, &[a, b], &[whole])?[0])
    }

    fn open_range(&self, op: &'static str, topic: &Topic, partition: PartitionId) -> Result<HashRange> {
        if !self.shared.config.resharding {
            return Err(error::unsupported(op, "this bus never reshards; set `resharding` in its config"));
        }
        let state = self.shared.lock();
        let log = state.partition(op, topic, partition)?;
        if log.children.is_some() {
            return Err(error::invalid(op, log.place(), "the partition is closed"));
        }
        Ok(log.range)
    }

    /// Replaces the open `parents` by one child for each of `ranges`.
    fn reshard(
        &self,
        op: &'static str,
        topic: &Topic,
        parents: &[PartitionId],
        ranges: &[HashRange],
    ) -> Result<Vec<PartitionId>> {
        let mut state = self.shared.lock();
        let log = state.topic_mut(op, topic)?;
        // Another call may have come between looking and locking.
        if parents.iter().any(|p| log.partitions[p.0 as usize].children.is_some()) {
            return Err(error::invalid(op, topic, "the partition is closed"));
        }
        let first = u32::try_from(log.partitions.len()).unwrap_or(u32::MAX);
        let limit = self.shared.config.max_partitions;
        if first.saturating_add(2) > limit {
            return Err(error::invalid(op, topic, format!("a topic has at most {limit} partitions")));
        }
        let children: Vec<_> = (first..).take(ranges.len()).map(PartitionId).collect();
        for (range, id) in ranges.iter().zip(&children) {
            let child =
                PartitionLog::new(topic.clone(), *id, parents.to_vec(), *range, self.shared.config.offsets);
            log.partitions.push(child);
        }
        for parent in parents {
            log.partitions[parent.0 as usize].children = Some(children.clone());
        }
        drop(state);
        self.shared.notify();
        Ok(children)
    }
}
