//! The pool of connections: their settings, their limits, and what becomes of one that failed.
//!
//! Every session commits synchronously, works at READ COMMITTED (what the statements here are written for) and has the
//! server's timeouts of the configuration. The client waits a little longer than the server may work (by as long again,
//! at most [`GRACE`]), then gives the connection up: it is closed, never handed to the next caller with an answer of the former one under way.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use eb_contract::{Error, ErrorKind, Result};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::config::{PgConfig, Target};
use crate::error::{Step, classify, no_answer, no_connection};
use crate::tls::MakeTls;

/// How much longer than the server the client waits at most.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Connections to one database.
#[derive(Clone)]
pub(crate) struct Db {
    pool: Pool,
    place: String,
    schema: String,
    patience: Duration,
}

impl Db {
    /// Makes the pool, and tries it. `session` are further settings of every session.
    pub(crate) async fn open(config: &PgConfig, session: &str) -> Result<Self> {
        const OP: &str = "open database";
        let Target { config: address, place, tls } = Target::of(config)?;
        let tls = match tls {
            None => MakeTls::unused()?,
            Some(ca_file) => {
                let reading = tokio::task::spawn_blocking(move || MakeTls::new(ca_file.as_deref()));
                let read = reading.await.map_err(|e| {
                    Error::new(ErrorKind::Closed, OP, "the runtime is ending").at(&place).with_source(e)
                })?;
                read.map_err(|e| e.at(&place))?
            }
        };
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let settings = settings(config, session);
        let pool = Pool::builder(Manager::from_config(address, tls, manager))
            .max_size(config.max_connections.max(1))
            .wait_timeout(Some(config.pool_wait))
            .create_timeout(Some(config.connect_timeout))
            .recycle_timeout(Some(config.connect_timeout))
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(move |client, _| {
                let settings = settings.clone();
                Box::pin(async move { client.batch_execute(&settings).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|e| Error::new(ErrorKind::InvalidInput, OP, e.to_string()).at(&place))?;
        let patience = patience(config);
        let db = Self { pool, place, schema: config.schema.clone(), patience };
        let mut connection = db.connection(OP).await?;
        if !config.allow_unsafe_server {
            connection.check_durable().await?;
        }
        Ok(db)
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A connection of the pool, for one operation.
    pub(crate) async fn connection(&self, op: &'static str) -> Result<Connection> {
        let object = self.pool.get().await.map_err(|e| no_connection(op, &self.place, e))?;
        let place = self.place.clone();
        Ok(Connection { object: Some(object), op, place, patience: self.patience, usable: true })
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }
}

fn patience(config: &PgConfig) -> Duration {
    config.statement_timeout + config.statement_timeout.min(GRACE)
}

fn settings(config: &PgConfig, session: &str) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET default_transaction_isolation = 'read committed'; SET client_min_messages = warning; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
         {session}",
        config.statement_timeout.as_millis().max(1),
        config.lock_timeout.as_millis().max(1),
        patience(config).as_millis().max(1),
    )
}

/// A connection in use. One that failed is closed instead of given back.
pub(crate) struct Connection {
    /// `None` once it was taken out of the pool.
    object: Option<Object>,
    op: &'static str,
    place: String,
    patience: Duration,
    usable: bool,
}

impl Connection {
    fn object(&mut self) -> Result<&mut Object> {
        let gone = || Error::new(ErrorKind::Closed, self.op, "the connection was given up").at(&self.place);
        match &mut self.object {
            Some(object) if self.usable => Ok(object),
            _ => Err(gone()),
        }
    }

    /// Runs a prepared statement.
    ///
    /// Dropping the future leaves the statement to the server: it is done or it is not.
    pub(crate) async fn rows(&mut self, step: Step, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let (op, place, patience) = (self.op, self.place.clone(), self.patience);
        let object = self.object()?;
        let answer = bounded(op, &place, step, patience, async {
            let statement =
                object.prepare_cached(sql).await.map_err(|e| Failed::of(op, &place, Step::Harmless, e))?;
            object.query(&statement, params).await.map_err(|e| Failed::of(op, &place, step, e))
        });
        let answer = answer.await;
        self.judge(answer)
    }

    /// Runs two prepared statements that are sent together; the second sees what the first has committed. `Ok` only
    /// if both succeeded. For statements that can be repeated without harm: their effect counts as none.
    pub(crate) async fn rows_in_turn(
        &mut self,
        first: (&str, Params<'_>),
        second: (&str, Params<'_>),
    ) -> Result<(Vec<Row>, Vec<Row>)> {
        let (op, place, patience) = (self.op, self.place.clone(), self.patience);
        let object = self.object()?;
        let answer = bounded(op, &place, Step::Harmless, patience, async {
            let harmless = |e| Failed::of(op, &place, Step::Harmless, e);
            let one = object.prepare_cached(first.0).await.map_err(harmless)?;
            let two = object.prepare_cached(second.0).await.map_err(harmless)?;
            let (one, two) =
                futures_util::future::join(object.query(&one, first.1), object.query(&two, second.1)).await;
            Ok((one.map_err(harmless)?, two.map_err(harmless)?))
        });
        let answer = answer.await;
        self.judge(answer)
    }

    /// Begins a transaction of several statements. Dropping it rolls it back.
    pub(crate) async fn transaction(&mut self) -> Result<deadpool_postgres::Transaction<'_>> {
        let (op, place, patience) = (self.op, self.place.clone(), self.patience);
        let object = self.object()?;
        bounded(op, &place, Step::Harmless, patience, async {
            object.transaction().await.map_err(|e| Failed::of(op, &place, Step::Harmless, e))
        })
        .await
        .map_err(|failed| failed.error)
    }

    /// Takes the connection out of use where `answer` says that it is beyond use.
    pub(crate) fn judge<T>(&mut self, answer: std::result::Result<T, Failed>) -> Result<T> {
        answer.map_err(|failed| {
            self.usable &= failed.connection_is_usable;
            failed.error
        })
    }

    /// The connection itself.
    pub(crate) fn client(&mut self, op: &'static str) -> Result<&tokio_postgres::Client> {
        self.op = op;
        Ok(self.object()?)
    }

    /// It is closed instead of given back, whatever state it is in.
    pub(crate) fn give_up(&mut self) {
        self.usable = false;
    }

    /// How long the client waits for an answer.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// What a commit answers must survive a power cut.
    async fn check_durable(&mut self) -> Result<()> {
        let sql = "SELECT current_setting('fsync')::bool AND current_setting('full_page_writes')::bool";
        let rows = self.rows(Step::Harmless, sql, &[]).await?;
        if rows.first().is_some_and(|row| row.get(0)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            self.op,
            "the server runs with fsync or full_page_writes off: what it commits would not survive a power cut",
        )
        .at(&self.place)
        .advise("switch both on, or allow an unsafe server where nothing matters"))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take()
            && !self.usable
        {
            drop(Object::take(object));
        }
    }
}

/// A failed step, and whether its connection can be used again.
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) connection_is_usable: bool,
}

impl Failed {
    pub(crate) fn of(op: &'static str, place: &str, step: Step, error: tokio_postgres::Error) -> Self {
        // After a server's refusal the connection is in order, unless it is the last that is heard of it, or its
        // prepared statements are outdated.
        let state = error.code().map(|s| s.code().to_owned()).unwrap_or_default();
        let connection_is_usable =
            !(state.is_empty() || ["08", "57P", "0A", "26"].iter().any(|class| state.starts_with(class)));
        Self { error: classify(op, place, step, error), connection_is_usable }
    }
}

/// Waits as long as a transaction may take, each step of which classifies its own errors. `committing` tells whether the
/// server was told to commit when there is no more answer to wait for.
pub(crate) async fn bounded_transaction<T>(
    op: &'static str,
    place: &str,
    patience: Duration,
    committing: &AtomicBool,
    work: impl Future<Output = Result<T>>,
) -> std::result::Result<T, Failed> {
    match tokio::time::timeout(patience, work).await {
        // A transaction that is dropped rolls back, and a broken connection is not reused anyway.
        Ok(answer) => answer.map_err(|error| Failed { error, connection_is_usable: true }),
        Err(_) => {
            let step = if committing.load(Ordering::Relaxed) { Step::Commit } else { Step::Harmless };
            Err(Failed { error: no_answer(op, place, step, patience), connection_is_usable: false })
        }
    }
}

/// Waits as long as an answer may take.
pub(crate) async fn bounded<T>(
    op: &'static str,
    place: &str,
    step: Step,
    patience: Duration,
    work: impl Future<Output = std::result::Result<T, Failed>>,
) -> std::result::Result<T, Failed> {
    match tokio::time::timeout(patience, work).await {
        Ok(answer) => answer,
        Err(_) => Err(Failed { error: no_answer(op, place, step, patience), connection_is_usable: false }),
    }
}
