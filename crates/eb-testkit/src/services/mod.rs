//! Real services without containers, for tests, benchmarks and development.
//!
//! # What runs, and where
//! A server's files lie in a folder of its own under `target/services/` ([`folder`]); its port is one that nobody else is
//! given meanwhile ([`free_port`]).
//! What must be installed for it (a Python environment, an npm package) lies beside, is installed once and shared.
//!
//! ```text
//! target/services/
//!   installed/localstack-4.9.2/       a Python environment from a pinned lock file
//!   installed/kinesis-local-0.6.2/    an npm package
//!   run/postgres-4711-0/              one server: its data, its log, its record
//!   up/postgres/                      a server of `services up`
//! ```
//!
//! # No server outlives its owner
//! | the owner | what stops the server |
//! |---|---|
//! | drops the handle | `Drop`: the server and every process of its group |
//! | exits, panics, gets Ctrl-C or is killed with `SIGKILL` | the *guardian*: a small `sh` that holds the reading end of a pipe of the owner's, sees it close, stops the server's process group and removes the folder |
//! | and the guardian are killed together | the next start of any service, or [`fleet::down`]: both look for records whose owner is gone |
//!
//! Servers are leaders of a process group of their own, so that Ctrl-C does not reach them before their owner is done,
//! and so that children of theirs can be stopped with them. A child in another group (LocalStack's engine) is known by its
//! server's folder, which its command line names.
//!
//! # Sharing
//! Test binaries share one server where [`PG_URL_VARIABLE`], [`KINESIS_URL_VARIABLE`], [`LOCALSTACK_URL_VARIABLE`] or
//! [`REDIS_URL_VARIABLE`] names it; each test then makes a database (or streams, or a prefix) of its own. Without them a test binary starts its own server.

pub mod containers;
mod daemon;
pub mod fleet;
pub mod folder;
mod http;
mod install;
mod kinesis_local;
mod localstack;
mod pg_wire;
mod ports;
mod postgres;
mod redis;
mod shared;

use std::fmt;
use std::time::{Duration, Instant};

pub use daemon::{Paused, Signal};
pub use http::{HttpAnswer, http};
pub use kinesis_local::{KinesisLocal, KinesisLocalOptions};
pub use localstack::LocalStack;
pub use pg_wire::{PgWire, SqlError};
pub use ports::free_port;
use ports::port_for;
pub use postgres::{Postgres, PostgresBinaries, PostgresOptions, Stop};
pub use redis::{Redis, RedisOptions, RedisReply, RedisWire};
pub use shared::{
    KINESIS_URL_VARIABLE, LOCALSTACK_URL_VARIABLE, PG_URL_VARIABLE, REDIS_URL_VARIABLE, TestDatabase,
    hurried, kinesis_url, localstack_url, postgres_url, redis_url,
};

/// How long a server may take until it answers, on a machine that is busy with everything else. One that ends is not waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// A service that could not be installed, started or stopped: one line that says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError(String);

impl ServiceError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServiceError {}

/// The result of a service call.
pub type Result<T, E = ServiceError> = std::result::Result<T, E>;

/// Adds what was being done to an error of the system.
trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| ServiceError::new(format!("{}: {e}", what())))
    }
}

/// Asks until the answer is there or there is no more hope of it.
fn poll_until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > patience {
            return Err(ServiceError::new(format!("{what} did not answer within {patience:?}")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
