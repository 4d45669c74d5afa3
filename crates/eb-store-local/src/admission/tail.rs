//! What is admitted and not yet in the table: in memory, bounded, and asked before the table.
//!
//! An entry is first in `active`, then in `flushing` while it is being written, then in the table. It is in the
//! table before it leaves `flushing`, and [`Tail::done`] counts these moves: who has looked into the table first and
//! finds the count unchanged afterwards under the tail's lock has missed nothing.

use std::collections::HashMap;
use std::sync::Arc;

use eb_contract::Error;
use eb_contract::stores::{AdmissionEntry, AdmissionKey, IndexCheckpoint, PolicyEpoch, ReservationId};

/// What is written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Of keys that neither the table nor an earlier batch has.
    pub(crate) entries: HashMap<AdmissionKey, AdmissionEntry>,
    pub(crate) checkpoint: Option<IndexCheckpoint>,
    pub(crate) policies: Vec<PolicyEpoch>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.checkpoint.is_none() && self.policies.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tail {
    active: Batch,
    flushing: Option<Arc<Batch>>,
    /// Somebody waits for what is in `active`.
    wanted: bool,
    /// Batches written.
    pub(crate) done: u64,
    /// Entries in the table.
    pub(crate) count: u64,
    /// As in the table.
    pub(crate) checkpoint: Option<IndexCheckpoint>,
    /// As in the table.
    pub(crate) policies: Vec<PolicyEpoch>,
    /// Reservations given out, and how many of them when last something was applied past them.
    reservations: u64,
    last_apply: u64,
    pub(crate) closed: bool,
    /// Why the index is of no use until it is opened anew.
    pub(crate) fatal: Option<Error>,
    /// Why the last attempt to write failed; another one will follow.
    pub(crate) write_error: Option<Error>,
    /// Why merging failed last.
    pub(crate) compact_error: Option<Error>,
}

impl Tail {
    pub(crate) fn new(count: u64, checkpoint: Option<IndexCheckpoint>, policies: Vec<PolicyEpoch>) -> Self {
        Self { count, checkpoint, policies, ..Self::default() }
    }

    /// The entry of a key, if it is here.
    pub(crate) fn get(&self, key: &AdmissionKey) -> Option<&AdmissionEntry> {
        let flushing = || self.flushing.as_ref().and_then(|batch| batch.entries.get(key));
        self.active.entries.get(key).or_else(flushing)
    }

    /// All entries that `wanted` accepts.
    pub(crate) fn entries(
        &self,
        wanted: impl Fn(&AdmissionKey) -> bool,
    ) -> HashMap<AdmissionKey, AdmissionEntry> {
        let older = self.flushing.iter().flat_map(|batch| &batch.entries);
        older
            .chain(&self.active.entries)
            .filter(|(key, _)| wanted(key))
            .map(|(key, entry)| (*key, entry.clone()))
            .collect()
    }

    /// Takes an entry for a key of which the table holds `stored`. What stands stays, and is given back where it is
    /// another one.
    pub(crate) fn take(
        &mut self,
        entry: AdmissionEntry,
        stored: Option<&AdmissionEntry>,
    ) -> Option<AdmissionEntry> {
        match self.get(&entry.key).or(stored) {
            Some(standing) => (*standing != entry).then(|| standing.clone()),
            None => {
                self.active.entries.insert(entry.key, entry);
                None
            }
        }
    }

    /// What was found in the log comes: reservations made before no longer vouch for their keys.
    pub(crate) fn distrust_reservations(&mut self) {
        self.last_apply = self.reservations;
    }

    pub(crate) fn reserve(&mut self) -> ReservationId {
        self.reservations += 1;
        ReservationId(self.reservations)
    }

    /// Whether the table needs no look for the key of this reservation: it had no entry when the reservation was
    /// made, and nothing but confirmations of other keys has come since. (The gate never has two calls for one key at
    /// once, and confirms a reservation once, not after it has reserved the key anew.)
    pub(crate) fn vouches(&self, reservation: ReservationId) -> bool {
        reservation.0 > self.last_apply && reservation.0 <= self.reservations
    }

    /// Entries in memory.
    pub(crate) fn len(&self) -> usize {
        self.active.entries.len() + self.flushing.as_ref().map_or(0, |batch| batch.entries.len())
    }

    /// Asks for all that is here, with `checkpoint`; the answer is the number that [`Tail::done`] will have reached
    /// when it is stored.
    pub(crate) fn request(&mut self, checkpoint: Option<IndexCheckpoint>) -> u64 {
        if let Some(checkpoint) = checkpoint {
            let newest = self.newest_checkpoint();
            if newest != Some(&checkpoint) {
                self.active.checkpoint = Some(checkpoint);
            }
        }
        let under_way = u64::from(self.flushing.is_some());
        if self.active.is_empty() {
            return self.done + under_way;
        }
        self.wanted = true;
        self.done + under_way + 1
    }

    fn newest_checkpoint(&self) -> Option<&IndexCheckpoint> {
        let flushing = self.flushing.as_ref().and_then(|batch| batch.checkpoint.as_ref());
        self.active.checkpoint.as_ref().or(flushing).or(self.checkpoint.as_ref())
    }

    /// The policy epochs, with those that are not stored yet.
    pub(crate) fn all_policies(&self) -> impl DoubleEndedIterator<Item = &PolicyEpoch> {
        let flushing = self.flushing.iter().flat_map(|batch| &batch.policies);
        self.policies.iter().chain(flushing).chain(&self.active.policies)
    }

    pub(crate) fn add_policy(&mut self, epoch: PolicyEpoch) {
        self.active.policies.push(epoch);
    }

    /// The batch to write: the one that failed, or what is in `active` once it is wanted or has grown to `at_least`.
    pub(crate) fn next_batch(&mut self, at_least: usize) -> Option<Arc<Batch>> {
        if self.flushing.is_none()
            && !self.active.is_empty()
            && (self.wanted || self.active.entries.len() >= at_least)
        {
            self.wanted = false;
            self.flushing = Some(Arc::new(std::mem::take(&mut self.active)));
        }
        self.flushing.clone()
    }

    /// Whether the writer, if it waits, has something to begin with.
    pub(crate) fn is_due(&self, at_least: usize) -> bool {
        let wanted = self.wanted && !self.active.is_empty();
        self.flushing.is_none() && (wanted || self.active.entries.len() >= at_least)
    }

    /// The batch under way is in the table.
    pub(crate) fn stored(&mut self) {
        if let Some(batch) = self.flushing.take() {
            self.count += batch.entries.len() as u64;
            self.policies.extend_from_slice(&batch.policies);
            if let Some(checkpoint) = &batch.checkpoint {
                self.checkpoint = Some(checkpoint.clone());
            }
        }
        self.done += 1;
        self.write_error = None;
    }
}
