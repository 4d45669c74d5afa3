//! A transaction that a handler shares.

use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::stores::{
    Checkpoint, DeadLetter, DeadLetterId, Lease, Mark, MarkScope, NewDeadLetter, Progress, Resolution,
};
use eb_contract::{Error, ErrorKind, Result};

use super::processed::{OP_RECORD, PgProcessed};
use crate::db::{Connection, Db, bounded_transaction};
use crate::error::{Step, classify};

const OP_BEGIN: &str = "begin transaction";
const OP_BURY: &str = "put dead letter";
const OP_RETRY: &str = "retry dead letter";

/// An open transaction on a connection of its own. A handler writes by [`PgTransaction::client`]; marks and checkpoint join it when it
/// is committed.
///
/// Dropping it closes the connection, upon which the server rolls back. The isolation is READ COMMITTED.
pub struct PgTransaction {
    connection: Connection,
    place: String,
    /// The server's number of the transaction, by which an end that a handler gave it is noticed.
    number: String,
    saved: bool,
    ended: bool,
}

impl std::fmt::Debug for PgTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgTransaction").field("number", &self.number).finish_non_exhaustive()
    }
}

impl PgTransaction {
    pub(super) async fn begin(db: &Db) -> Result<Self> {
        let place = db.place().to_owned();
        let connection = db.connection(OP_BEGIN).await?;
        // From here on dropping ends the connection, whatever was begun.
        let mut begun = Self { connection, place, number: String::new(), saved: false, ended: false };
        begun.batch(OP_BEGIN, "BEGIN").await?;
        begun.number = begun.current(OP_BEGIN).await?;
        Ok(begun)
    }

    /// The connection, within the transaction. What is done by it is committed with the marks and the checkpoint, or rolled back.
    ///
    /// It must not `COMMIT` or `ROLLBACK`: that is noticed at the end, and the step is refused, but what was committed so
    /// stays. A statement that fails spoils the transaction until [`undo`](eb_contract::stores::TransactionalStore::undo).
    ///
    /// # Errors
    /// When the transaction is broken; drop it.
    pub fn client(&mut self) -> Result<&tokio_postgres::Client> {
        self.connection.client("use transaction")
    }

    async fn batch(&mut self, op: &'static str, sql: &str) -> Result<()> {
        let patience = self.connection.patience();
        let place = self.place.clone();
        let quiet = AtomicBool::new(false);
        let work = async {
            let client = self.connection.client(op)?;
            client.batch_execute(sql).await.map_err(|e| classify(op, &place, Step::Harmless, e))
        };
        let answer = bounded_transaction(op, &place, patience, &quiet, work).await;
        self.connection.judge(answer)
    }

    async fn current(&mut self, op: &'static str) -> Result<String> {
        let rows = self.connection.rows(Step::Harmless, "SELECT pg_current_xact_id()::text", &[]).await?;
        let place = &self.place;
        let none = || Error::new(ErrorKind::ProtocolViolation, op, "the transaction has no number").at(place);
        rows.first().map(|row| row.get(0)).ok_or_else(none)
    }

    pub(super) async fn save(&mut self) -> Result<()> {
        const OP: &str = "save transaction";
        let sql = if self.saved {
            "RELEASE SAVEPOINT eb_record; SAVEPOINT eb_record"
        } else {
            "SAVEPOINT eb_record"
        };
        self.batch(OP, sql).await?;
        self.saved = true;
        Ok(())
    }

    pub(super) async fn undo(&mut self) -> Result<()> {
        const OP: &str = "undo in transaction";
        if !self.saved {
            let what = "there is no place to go back to";
            return Err(Error::new(ErrorKind::InvalidInput, OP, what).at(&self.place));
        }
        self.batch(OP, "ROLLBACK TO SAVEPOINT eb_record").await
    }

    pub(super) async fn bury(&mut self, store: &PgProcessed, letters: &[NewDeadLetter]) -> Result<()> {
        letters.iter().try_for_each(NewDeadLetter::check)?;
        let letters: Vec<&NewDeadLetter> = letters.iter().collect();
        let patience = self.connection.patience();
        let place = self.place.clone();
        let quiet = AtomicBool::new(false);
        let work = async {
            let client = self.connection.client(OP_BURY)?;
            store.letters.put_within(client, &letters).await?;
            Ok(())
        };
        let answer = bounded_transaction(OP_BURY, &place, patience, &quiet, work).await;
        self.connection.judge(answer)
    }

    pub(super) async fn resolve(
        mut self,
        store: &PgProcessed,
        id: DeadLetterId,
        (scope, mark): (&MarkScope, &Mark),
        reason: &str,
    ) -> Result<DeadLetter> {
        self.still_ours(OP_RETRY).await?;
        let patience = self.connection.patience();
        let place = self.place.clone();
        let committing = AtomicBool::new(false);
        let work = async {
            let client = self.connection.client(OP_RETRY)?;
            let resolved = store.letters.resolve_within(client, id, Resolution::Handled, reason).await?;
            let Some(resolved) = resolved else { return Ok(None) };
            store.mark_within(client, scope, mark).await?;
            committing.store(true, Ordering::Relaxed);
            client.batch_execute("COMMIT").await.map_err(|e| classify(OP_RETRY, &place, Step::Commit, e))?;
            Ok(Some(resolved))
        };
        let answer = bounded_transaction(OP_RETRY, &place, patience, &committing, work).await;
        self.ended = matches!(answer, Ok(Some(_)));
        match self.connection.judge(answer)? {
            Some(resolved) => Ok(resolved),
            None => {
                // What the handler wrote is rolled back before anybody is told why.
                drop(self);
                Err(store.letters.not_open(id).await)
            }
        }
    }

    /// Refuses to go on where a handler has ended the transaction.
    async fn still_ours(&mut self, op: &'static str) -> Result<()> {
        let now = self.current(op).await?;
        if now == self.number {
            return Ok(());
        }
        let what = "the transaction that was lent to the handler has been ended by it";
        Err(Error::new(ErrorKind::ProtocolViolation, op, what)
            .at(&self.place)
            .advise("let no handler commit or roll back; what it committed stays, and is not marked"))
    }

    pub(super) async fn commit(
        mut self,
        store: &PgProcessed,
        step: &Progress,
        lease: &Lease,
    ) -> Result<Checkpoint> {
        self.still_ours(OP_RECORD).await?;
        let patience = self.connection.patience();
        let place = self.place.clone();
        let committing = AtomicBool::new(false);
        let work = async {
            let client = self.connection.client(OP_RECORD)?;
            let stored = store.write(client, step, lease).await?;
            committing.store(true, Ordering::Relaxed);
            client.batch_execute("COMMIT").await.map_err(|e| classify(OP_RECORD, &place, Step::Commit, e))?;
            Ok(stored)
        };
        let answer = bounded_transaction(OP_RECORD, &place, patience, &committing, work).await;
        self.ended = answer.is_ok();
        self.connection.judge(answer)
    }
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.give_up();
        }
    }
}
