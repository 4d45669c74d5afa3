//! A connection that is made again when it breaks, checked each time, and whose predecessor is ended first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eb_contract::{Error, ErrorKind, Result};
use parking_lot::{Mutex, RwLock};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, Value};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::claim::Claim;
use crate::config::RedisConfig;
use crate::error::{self, Cause, Failure};
use crate::reply;
use crate::scripts::{self, Loaded};
use crate::settings::{ConfigCalls, SETTINGS, Server};
use crate::transport::{Transport, Written};

/// How many calls may wait for one connection's writer.
const CALLS: usize = 1024;

/// The way to one server, over one connection at a time.
pub(crate) struct Link {
    config: Arc<RedisConfig>,
    tls: Option<TlsConnector>,
    current: RwLock<Option<Arc<Session>>>,
    /// Held while a connection is made, so that one call makes it and the others wait for it. Within, why the last attempt
    /// failed.
    connecting: tokio::sync::Mutex<Option<Error>>,
    failed: AtomicU64,
    made: AtomicU64,
    /// Asserted on every connection, once it is made.
    claim: RwLock<Option<Arc<Claim>>>,
}

impl Link {
    pub(crate) fn new(config: Arc<RedisConfig>, tls: Option<TlsConnector>) -> Self {
        Self {
            config,
            tls,
            current: RwLock::new(None),
            connecting: tokio::sync::Mutex::default(),
            failed: AtomicU64::new(0),
            made: AtomicU64::new(0),
            claim: RwLock::new(None),
        }
    }

    /// Makes a claim in place of any former one, on this connection and on all that follow. A failed one is as if it had not been made. Dropping the
    /// future may leave it made.
    ///
    /// # Errors
    /// As for [`Claim::assert`], and for the connection.
    pub(crate) async fn make_claim(&self, op: &'static str, claim: Arc<Claim>) -> Result<()> {
        // From now on no new connection comes without it.
        *self.claim.write() = Some(claim.clone());
        let made = match self.session(op).await {
            Ok(session) => {
                let made = claim.assert(op, &session).await;
                // It bears the name.
                made.inspect_err(|_| session.retire())
            }
            Err(e) => Err(e),
        };
        made.map_err(|e| {
            *self.claim.write() = None;
            e.at_if_none(&self.config.url)
        })
    }

    /// Gives a claim up, if one was made. A server that does not answer is told by the end of the connection.
    pub(crate) async fn drop_claim(&self, op: &'static str) {
        if self.claim.write().take().is_some()
            && let Some(session) = self.live()
            && Claim::let_go(op, &session).await.is_err()
        {
            session.retire();
        }
    }

    fn live(&self) -> Option<Arc<Session>> {
        self.current.read().clone().filter(|session| session.is_live())
    }

    /// The connection, made anew if it has broken. A new one is given out only once its predecessor can do nothing more
    /// on the server. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// Why there is none. `InvalidInput` for a server that does not do what it must; `Unavailable` for one that did when
    /// the bus was opened.
    pub(crate) async fn session(&self, op: &'static str) -> Result<Arc<Session>> {
        if let Some(session) = self.live() {
            return Ok(session);
        }
        let failed = self.failed.load(Ordering::Relaxed);
        let mut why = self.connecting.lock().await;
        if let Some(session) = self.live() {
            return Ok(session);
        }
        if let Some(e) = why.as_ref().filter(|_| self.failed.load(Ordering::Relaxed) != failed) {
            // Somebody has just tried. Each caller's patience with a server that hangs is one attempt, however many wait.
            return Err(told_again(op, e));
        }
        let before = self.current.read().clone();
        let patience = self.config.timeouts.connect;
        let made = match timeout(patience, self.connect(op, before.as_deref())).await {
            Ok(made) => made,
            Err(_) => {
                let message = format!("the server was not connected within {patience:?}");
                Err(Error::new(ErrorKind::Timeout, op, message).advise(error::REACH))
            }
        };
        let made = made.map_err(|e| {
            // What was right once may become right again.
            let changed = before.is_some() && *e.kind() == ErrorKind::InvalidInput;
            if changed { now_unavailable(&e) } else { e }.at_if_none(&self.config.url)
        });
        let session = Arc::new(made.inspect_err(|e| {
            *why = Some(e.clone());
            self.failed.fetch_add(1, Ordering::Relaxed);
        })?);
        if before.is_some() {
            tracing::info!(server = %self.config.url, connection = session.number, "connected again");
        }
        *self.current.write() = Some(session.clone());
        Ok(session)
    }

    /// A connection apart from the others, unchecked, for calls that block.
    pub(crate) async fn apart(&self, op: &'static str) -> Result<Session> {
        let patience = self.config.timeouts.connect;
        match timeout(patience, self.open(op)).await {
            Ok(session) => session.map_err(|e| e.at_if_none(&self.config.url)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, op, "the server was not connected in time")),
        }
    }

    async fn open(&self, op: &'static str) -> Result<Session> {
        let info = self.config.url.info();
        let transport = Transport::connect(info.addr(), self.tls.as_ref())
            .await
            .map_err(|e| error::unreachable(op, e))?;
        let written = transport.written();
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(CALLS);
        let (connection, driver) = MultiplexedConnection::new_with_config(&settings, transport, options)
            .await
            .map_err(|e| error::connecting(op, &e))?;
        Ok(Session {
            connection,
            driver: tokio::spawn(driver),
            broken: AtomicBool::new(false),
            written,
            answer: self.config.timeouts.answer,
            number: self.made.fetch_add(1, Ordering::Relaxed) + 1,
            client: 0,
            server: Server::default(),
            scripts: Loaded::default(),
            unchanged: Mutex::default(),
            proven: AtomicU64::new(0),
        })
    }

    async fn connect(&self, op: &'static str, before: Option<&Session>) -> Result<Session> {
        let mut session = self.open(op).await?;
        session.server = session.ask(op).await?;
        session.server.usable(op)?;
        if !self.config.accept_weaker_ack {
            session.server.demand_durable(op)?;
        }
        let mut pipe = Pipeline::new();
        pipe.cmd("CLIENT").arg("ID");
        // The last call of a predecessor may still lie unread on the server. In another run it does not.
        let stale = before.filter(|b| b.server.run_id() == session.server.run_id()).map(|b| b.client);
        // Nobody has the highest id; asking shows whether the user may.
        pipe.cmd("CLIENT").arg("KILL").arg("ID").arg(stale.unwrap_or(i64::MAX as u64));
        let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
        let [client, killed] = reply::items(op, Value::Array(answers))?;
        session.client = reply::number(op, client)?;
        reply::number(op, killed)?;
        session.scripts = session.load_scripts(op).await?;
        let claim = self.claim.read().clone();
        if let Some(claim) = claim {
            claim.assert(op, &session).await?;
        }
        Ok(session)
    }
}

/// A server that did what it must when the bus was opened, and does not now.
pub(crate) fn now_unavailable(e: &Error) -> Error {
    let now = error::unavailable(e.operation(), e.message());
    match e.advice() {
        Some(advice) => now.advise(advice),
        None => now,
    }
}

/// The same failure, as another operation meets it.
fn told_again(op: &'static str, e: &Error) -> Error {
    let again = Error::new(e.kind().clone(), op, e.message()).with_retry(e.retry()).with_effect(e.effect());
    let again = e.place().into_iter().fold(again, Error::at);
    e.advice().into_iter().fold(again, Error::advise)
}

/// Puts the address to an error that has no place yet.
trait AtIfNone {
    fn at_if_none(self, place: &impl std::fmt::Display) -> Self;
}

impl AtIfNone for Error {
    fn at_if_none(self, place: &impl std::fmt::Display) -> Self {
        if self.place().is_some() { self } else { self.at(place) }
    }
}

/// One connection. Dropping it closes it.
pub(crate) struct Session {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    broken: AtomicBool,
    written: Written,
    answer: Duration,
    /// Counts the connections of a link, from 1.
    pub(crate) number: u64,
    client: u64,
    pub(crate) server: Server,
    pub(crate) scripts: Loaded,
    /// How often settings had been changed when the append-only file was last seen to be on, without a rewrite; or when the
    /// connection was made.
    unchanged: Mutex<ConfigCalls>,
    /// The last rewrite that is known to have begun with the file on, and one: none is 0.
    proven: AtomicU64,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Its number on the server.
    pub(crate) fn client(&self) -> u64 {
        self.client
    }

    fn is_live(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.driver.is_finished()
    }

    /// Gives the connection up: the next call of its link makes another, and checks the server.
    pub(crate) fn retire(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.driver.abort();
    }

    /// What the server says of itself now.
    ///
    /// # Errors
    /// When it does not answer, or the user may not ask for `INFO`.
    pub(crate) async fn ask(&self, op: &'static str) -> Result<Server> {
        let mut pipe = Pipeline::new();
        pipe.cmd("INFO").arg("default").arg("commandstats");
        pipe.cmd("CONFIG").arg("GET").arg(&SETTINGS[..]);
        let answers = self.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
        let [info, settings] = reply::items(op, Value::Array(answers))?;
        let info = reply::text(op, info)?;
        let settings = match settings {
            // Without the right to ask, or on a server that hides the command, nothing is known, which the judgement says.
            Value::ServerError(e) if error::is_withheld(&e) => None,
            other => Some(reply::texts(op, other)?),
        };
        let server = Server::new(&info, settings);
        if server.rewrite().is_none() {
            *self.unchanged.lock() = server.config_calls();
        }
        Ok(server)
    }

    /// Whether the append-only file was on before this rewrite of it began: nobody has changed a setting since it was seen to be
    /// on, without any rewrite.
    ///
    /// # Errors
    /// `Unavailable` where that cannot be said; and as [`Session::ask`].
    pub(crate) async fn was_on_before(&self, op: &'static str, rewrite: u64) -> Result<()> {
        if self.proven.load(Ordering::Relaxed) == rewrite + 1 {
            return Ok(());
        }
        let mut cmd = Cmd::new();
        cmd.arg("INFO").arg("commandstats");
        let stats = self.command(&cmd).await.map_err(|f| f.reading(op))?;
        let now = Server::new(&reply::text(op, stats)?, None).config_calls();
        if now != *self.unchanged.lock() {
            let message = "the append-only file is being rewritten, and settings of the server were changed: perhaps it was off before";
            return Err(error::unavailable(op, message).advise("wait until its rewrite is done"));
        }
        self.proven.store(rewrite + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Hands the server the scripts; their names are always the same.
    pub(crate) async fn load_scripts(&self, op: &'static str) -> Result<Loaded> {
        let mut pipe = Pipeline::new();
        for script in scripts::ALL {
            pipe.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let answers = self.pipeline(&pipe).await.map_err(|f| f.reading(op))?;
        let names = answers.into_iter().map(|name| reply::text(op, name)).collect::<Result<Vec<_>>>()?;
        let [append, create, trim, next, pending, claim, keep] = names
            .try_into()
            .map_err(|_| crate::error::violation(op, "not every script was answered with its name"))?;
        Ok(Loaded { append, create, trim, next, pending, claim, keep })
    }

    /// Runs a script, which the server may have forgotten. As [`Session::command`].
    pub(crate) async fn script(&self, op: &'static str, cmd: &Cmd) -> Result<Value> {
        let answer = self.command(cmd).await.map_err(|f| f.writing(op))?;
        if !is_forgotten(&answer) {
            return Ok(answer);
        }
        self.load_scripts(op).await?;
        self.command(cmd).await.map_err(|f| f.writing(op))
    }

    /// Sends one command. Dropping the future leaves open whether it is run.
    pub(crate) async fn command(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let mut connection = self.connection.clone();
        self.call(self.answer, async move { connection.send_packed_command(cmd).await }).await
    }

    /// Sends one command that may block for so long. As [`Session::command`].
    pub(crate) async fn blocking(&self, cmd: &Cmd, at_most: Duration) -> Result<Value, Failure> {
        let mut connection = self.connection.clone();
        let patience = self.answer.saturating_add(at_most);
        self.call(patience, async move { connection.send_packed_command(cmd).await }).await
    }

    /// Sends commands together and brings an answer to each, which may be an error that the server states. Dropping the
    /// future leaves open whether they are run.
    pub(crate) async fn pipeline(&self, pipe: &Pipeline) -> Result<Vec<Value>, Failure> {
        let mut connection = self.connection.clone();
        let count = pipe.len();
        self.call(self.answer, async move { connection.send_packed_commands(pipe, 0, count).await }).await
    }

    async fn call<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, Failure> {
        let written = self.written.get();
        let failure = match timeout(patience, call).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => {
                // The task that writes has ended with the connection, so nothing is written any more.
                Failure { cause: Cause::Broken(e), sent: self.written.get() != written }
            }
            Err(_) => Failure { cause: Cause::Timeout, sent: true },
        };
        // An answer that comes late would be taken for the next call's.
        self.retire();
        Err(failure)
    }
}

/// Whether the server has forgotten a script, as `SCRIPT FLUSH` makes it do, and has run nothing.
pub(crate) fn is_forgotten(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(e) if e.code() == "NOSCRIPT")
}
