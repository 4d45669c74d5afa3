//! Storing entries: confirmed ones and ones found in the log, by one statement that also settles their reservations.
//!
//! Of several entries of a key the one that lies first in the same partition wins, and else the one that was there.
//! One statement takes one entry of a key; where a batch has several, they go in rounds that come to the same as one
//! after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use eb_contract::stores::{AdmissionEntry, AdmissionKey};
use eb_contract::{BoxFuture, Result};

use super::batch::Work;
use super::row::{entries, key_bytes};
use super::{OP_CONFIRM, Shared, repeat};
use crate::error::Step;
use crate::position::digits;
use crate::time::to_system;

/// Stores batches; each answer is the entry that then stands for the key.
pub(super) struct Storing(pub(super) Arc<Shared>);

impl Work for Storing {
    type Item = AdmissionEntry;
    type Answer = AdmissionEntry;

    fn run(self: Arc<Self>, items: Vec<AdmissionEntry>) -> BoxFuture<'static, Result<Vec<AdmissionEntry>>> {
        Box::pin(async move { self.0.store(items).await })
    }

    fn unclaimed(&self, _: Vec<AdmissionEntry>) {}
}

impl Shared {
    async fn store(&self, wanted: Vec<AdmissionEntry>) -> Result<Vec<AdmissionEntry>> {
        let mut all_new = true;
        for round in rounds(&wanted) {
            let new = repeat(|| self.store_round(&round)).await?;
            self.len.fetch_add(new, Ordering::Relaxed);
            all_new &= new == round.len() as u64 && round.len() == wanted.len();
        }
        if all_new { Ok(wanted) } else { repeat(|| self.standing(&wanted)).await }
    }

    /// Stores entries of different keys. Gives back how many keys were new.
    async fn store_round(&self, round: &[&AdmissionEntry]) -> Result<u64> {
        let keys: Vec<_> = round.iter().map(|e| key_bytes(&e.key)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(<[u8; 40]>::as_slice).collect();
        let hashes: Vec<&[u8]> = round.iter().map(|e| e.payload_hash.as_slice()).collect();
        let topics: Vec<&str> = round.iter().map(|e| e.eb_ref.topic.as_str()).collect();
        let partitions: Vec<i64> = round.iter().map(|e| i64::from(e.eb_ref.partition_id.0)).collect();
        let kinds: Vec<&str> = round.iter().map(|e| e.eb_ref.offset.kind().as_str()).collect();
        let offsets: Vec<String> = round.iter().map(|e| digits(&e.eb_ref.offset)).collect();
        let times: Vec<_> = round.iter().map(|e| to_system(e.eb_ref.published_at_utc)).collect();
        let mut connection = self.db.connection(OP_CONFIRM).await?;
        let rows = connection
            .rows(
                Step::Commit,
                &self.sql.store,
                &[&keys, &hashes, &topics, &partitions, &kinds, &offsets, &times],
            )
            .await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    /// What stands for the keys of these entries.
    async fn standing(&self, wanted: &[AdmissionEntry]) -> Result<Vec<AdmissionEntry>> {
        let keys: Vec<_> = wanted.iter().map(|e| key_bytes(&e.key)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(<[u8; 40]>::as_slice).collect();
        let mut connection = self.db.connection(OP_CONFIRM).await?;
        let rows = connection.rows(Step::Harmless, &self.sql.get_all, &[&keys]).await?;
        let standing = entries(OP_CONFIRM, self.db.place(), &rows)?;
        let standing: HashMap<AdmissionKey, AdmissionEntry> =
            standing.into_iter().map(|e| (e.key, e)).collect();
        // An entry is never deleted; should someone do so by hand, what was stored is the best answer.
        Ok(wanted.iter().map(|e| standing.get(&e.key).unwrap_or(e).clone()).collect())
    }
}

/// Splits entries into rounds with one entry of each key at most, so that storing round after round comes to the same
/// as storing entry after entry: of a key's entries in one partition the first in the log alone counts, and those in
/// several partitions follow each other in the order in which their partitions came up.
fn rounds(wanted: &[AdmissionEntry]) -> Vec<Vec<&AdmissionEntry>> {
    let place = |e: &AdmissionEntry| (e.eb_ref.partition_id, e.eb_ref.offset.kind());
    let same =
        |a: &AdmissionEntry, b: &AdmissionEntry| place(a) == place(b) && a.eb_ref.topic == b.eb_ref.topic;
    let mut order: Vec<AdmissionKey> = Vec::with_capacity(wanted.len());
    let mut by_key: HashMap<AdmissionKey, Vec<&AdmissionEntry>> = HashMap::with_capacity(wanted.len());
    for e in wanted {
        let of_key = by_key.entry(e.key).or_insert_with(|| {
            order.push(e.key);
            Vec::with_capacity(1)
        });
        match of_key.iter_mut().find(|known| same(known, e)) {
            Some(known) if e.eb_ref.offset < known.eb_ref.offset => *known = e,
            Some(_) => {}
            None => of_key.push(e),
        }
    }
    let mut rounds: Vec<Vec<&AdmissionEntry>> = Vec::new();
    for key in order {
        for (n, e) in by_key.remove(&key).into_iter().flatten().enumerate() {
            match rounds.get_mut(n) {
                Some(round) => round.push(e),
                None => rounds.push(vec![e]),
            }
        }
    }
    rounds
}
