//! What the index knows beside its entries: its checkpoint, the policies, its size, its health.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use eb_contract::stores::{IndexCheckpoint, PolicyEpoch, PolicyRev};
use eb_contract::{Error, ErrorKind, Result};
use tokio_postgres::types::Type;

use super::{OP_OPEN, OP_PROBE, Shared};
use crate::db::bounded_transaction;
use crate::error::{Step, classify};
use crate::position::corrupt;
use crate::text::{escape, unescape};
use crate::time::{from_system, to_system};

pub(super) const OP_CHECKPOINT: &str = "index checkpoint";
pub(super) const OP_POLICY: &str = "policy history";

/// Up to this many entries are counted one by one; of more, the database's estimate is taken.
const COUNTED: i64 = 100_000;

impl Shared {
    pub(super) async fn checkpoint(&self) -> Result<Option<IndexCheckpoint>> {
        let mut connection = self.db.connection(OP_CHECKPOINT).await?;
        let rows = connection.rows(Step::Harmless, &self.sql.checkpoint, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let read = serde_json::from_str(row.get(0));
        read.map(Some).map_err(|_| corrupt(OP_CHECKPOINT, self.db.place(), "an index checkpoint"))
    }

    pub(super) async fn commit_checkpoint(&self, checkpoint: &IndexCheckpoint) -> Result<()> {
        let text = to_json(OP_CHECKPOINT, checkpoint)?;
        let mut connection = self.db.connection(OP_CHECKPOINT).await?;
        connection.rows(Step::Commit, &self.sql.commit_checkpoint, &[&text]).await.map(drop)
    }

    pub(super) async fn record_policy(&self, epoch: &PolicyEpoch) -> Result<()> {
        let cuts = to_json(OP_POLICY, &epoch.cuts)?;
        let PolicyRev { policy_id, revision, content_digest } = &epoch.policy;
        let place = self.db.place();
        let harmless = |e| classify(OP_POLICY, place, Step::Harmless, e);
        let mut connection = self.db.connection(OP_POLICY).await?;
        let patience = connection.patience();
        let work = async {
            let transaction = connection.transaction().await?;
            // Of two gates that record the same policy at once, the second must see the first's.
            transaction.batch_execute(&self.sql.lock_policies).await.map_err(harmless)?;
            transaction
                .query_typed(
                    &self.sql.record_policy,
                    &[
                        (&escape(policy_id).as_ref(), Type::TEXT),
                        (&escape(revision).as_ref(), Type::TEXT),
                        (&escape(content_digest).as_ref(), Type::TEXT),
                        (&to_system(epoch.since), Type::TIMESTAMPTZ),
                        (&cuts, Type::TEXT),
                    ],
                )
                .await
                .map_err(harmless)?;
            transaction.commit().await.map_err(harmless)
        };
        // Recording it again changes nothing, so a lost answer does no harm.
        let answer = bounded_transaction(OP_POLICY, place, patience, &AtomicBool::new(false), work).await;
        connection.judge(answer)
    }

    pub(super) async fn policies(&self) -> Result<Vec<PolicyEpoch>> {
        let place = self.db.place();
        let mut connection = self.db.connection(OP_POLICY).await?;
        let rows = connection.rows(Step::Harmless, &self.sql.policies, &[]).await?;
        let read = rows.iter().map(|row| {
            let damaged = || corrupt(OP_POLICY, place, "a policy");
            let text = |n: usize| unescape(row.get(n)).ok_or_else(damaged);
            let since: SystemTime = row.get(3);
            Ok(PolicyEpoch {
                policy: PolicyRev { policy_id: text(0)?, revision: text(1)?, content_digest: text(2)? },
                since: from_system(OP_POLICY, place, since)?,
                cuts: serde_json::from_str(row.get(4)).map_err(|_| damaged())?,
            })
        });
        read.collect()
    }

    /// Finds out how many entries there are: exactly where they are few.
    pub(super) async fn count(&self) -> Result<()> {
        let mut connection = self.db.connection(OP_OPEN).await?;
        let rows = connection.rows(Step::Harmless, &self.sql.estimate, &[]).await?;
        // Negative while the database has not counted yet.
        let estimate: i64 = rows.first().map_or(-1, |row| row.get(0));
        let known = if estimate >= COUNTED {
            estimate
        } else {
            let rows = connection.rows(Step::Harmless, &self.sql.count, &[&COUNTED]).await?;
            rows.first().map_or(0, |row| row.get(0))
        };
        self.len.store(known.unsigned_abs(), Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn probe(&self) -> Result<()> {
        let mut connection = self.db.connection(OP_PROBE).await?;
        let rows = connection.rows(Step::Harmless, &self.sql.probe, &[]).await?;
        let refuse = |kind, message: &str, advice: &str| {
            Err(Error::new(kind, OP_PROBE, message).at(self.db.place()).advise(advice))
        };
        match rows.first().map(|row| (row.get::<_, bool>(0), row.get::<_, bool>(1))) {
            Some((false, true)) => {
                drop(connection);
                // Other gates admit too.
                self.count().await
            }
            Some((false, false)) => refuse(
                ErrorKind::InvalidInput,
                "the database user may not write admissions",
                "grant it the rights that SCHEMA.md lists",
            ),
            _ => {
                refuse(ErrorKind::Unavailable, "the database is read only", "use the address of the primary")
            }
        }
    }
}

fn to_json(op: &'static str, value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::new(ErrorKind::InvalidInput, op, "it cannot be written as JSON").with_source(e))
}
