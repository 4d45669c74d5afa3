//! Storing entries: confirmed ones and ones found in the log, by one statement that also settles their reservations.
//!
//! What stands stays, in the table (`ON CONFLICT DO NOTHING`) as within a batch (the first of a key's entries counts).
//! Where not every entry was new, a second statement reads what stands instead: after the first has committed, so it
//! sees what that one ran into.

use std::collections::{HashMap, HashSet};
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

/// Stores batches; each answer is the entry that then stands for the key, where it lies elsewhere.
pub(super) struct Storing(pub(super) Arc<Shared>);

impl Work for Storing {
    type Item = AdmissionEntry;
    type Answer = Option<AdmissionEntry>;

    fn run(
        self: Arc<Self>,
        items: Vec<AdmissionEntry>,
    ) -> BoxFuture<'static, Result<Vec<Option<AdmissionEntry>>>> {
        Box::pin(async move { self.0.store(&items).await })
    }

    fn unclaimed(&self, _: Vec<Option<AdmissionEntry>>) {}
}

impl Shared {
    async fn store(&self, wanted: &[AdmissionEntry]) -> Result<Vec<Option<AdmissionEntry>>> {
        let mut known = HashSet::with_capacity(wanted.len());
        let firsts: Vec<&AdmissionEntry> = wanted.iter().filter(|e| known.insert(e.key)).collect();
        let new = repeat(|| self.insert(&firsts)).await?;
        self.len.fetch_add(new, Ordering::Relaxed);
        if new == wanted.len() as u64 {
            return Ok(vec![None; wanted.len()]);
        }
        repeat(|| self.standing(wanted)).await
    }

    /// Stores entries of different keys. Gives back how many keys were new.
    async fn insert(&self, round: &[&AdmissionEntry]) -> Result<u64> {
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

    /// What stands for the keys of these entries, where it lies elsewhere.
    async fn standing(&self, wanted: &[AdmissionEntry]) -> Result<Vec<Option<AdmissionEntry>>> {
        let keys: Vec<_> = wanted.iter().map(|e| key_bytes(&e.key)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(<[u8; 40]>::as_slice).collect();
        let mut connection = self.db.connection(OP_CONFIRM).await?;
        let rows = connection.rows(Step::Harmless, &self.sql.get_all, &[&keys]).await?;
        let standing = entries(OP_CONFIRM, self.db.place(), &rows)?;
        let standing: HashMap<AdmissionKey, AdmissionEntry> =
            standing.into_iter().map(|e| (e.key, e)).collect();
        // An entry is deleted only past the dedupe horizon; one just stored stands, then.
        Ok(wanted.iter().map(|e| standing.get(&e.key).filter(|stands| *stands != e).cloned()).collect())
    }
}
