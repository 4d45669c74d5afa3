//! One server for many tests: named by a variable, or started once in each test binary.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::postgres::{Postgres, PostgresOptions, run_sql, url};
use super::{KinesisLocal, KinesisLocalOptions, LocalStack, Redis, RedisOptions, Result, ServiceError};

/// Names the Postgres that all test binaries share, as `postgres://USER@127.0.0.1:PORT/postgres` without a password.
pub const PG_URL_VARIABLE: &str = "EB_TEST_PG_URL";

/// Names the Kinesis endpoint that all test binaries share, as `http://127.0.0.1:PORT`.
pub const KINESIS_URL_VARIABLE: &str = "EB_TEST_KINESIS_URL";

/// Names the LocalStack that all test binaries share, as `http://127.0.0.1:PORT`.
pub const LOCALSTACK_URL_VARIABLE: &str = "EB_TEST_LOCALSTACK_URL";

/// Names the Redis that all test binaries share, as `redis://127.0.0.1:PORT`.
pub const REDIS_URL_VARIABLE: &str = "EB_TEST_REDIS_URL";

/// The address of the shared Postgres; the first call starts one where no variable names it. It ends with the process.
///
/// # Errors
/// When there is none and it cannot be started; later calls answer the same.
pub fn postgres_url() -> Result<String> {
    static OWN: OnceLock<Result<Postgres>> = OnceLock::new();
    if let Some(url) = named(PG_URL_VARIABLE) {
        return Ok(url);
    }
    match OWN.get_or_init(|| Postgres::start(&PostgresOptions::default())) {
        Ok(server) => Ok(server.url()),
        Err(e) => Err(e.clone()),
    }
}

/// The endpoint of the shared Kinesis engine; the first call starts one where no variable names it. It ends with the
/// process.
///
/// # Errors
/// When there is none and it cannot be started; later calls answer the same.
pub fn kinesis_url() -> Result<String> {
    static OWN: OnceLock<Result<KinesisLocal>> = OnceLock::new();
    if let Some(url) = named(KINESIS_URL_VARIABLE) {
        return Ok(url);
    }
    match OWN.get_or_init(|| KinesisLocal::start(&hurried())) {
        Ok(server) => Ok(server.url()),
        Err(e) => Err(e.clone()),
    }
}

/// How suites want the engine: they make hundreds of streams, so changes of them settle in 50 ms instead of 500.
#[must_use]
pub fn hurried() -> KinesisLocalOptions {
    let changes = ["CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS"];
    let environment = changes.map(|change| (format!("{change}_DURATION"), "50ms".to_owned()));
    KinesisLocalOptions { environment: environment.into(), ..KinesisLocalOptions::default() }
}

/// The endpoint of the shared LocalStack; the first call starts one where no variable names it. It ends with the process.
///
/// # Errors
/// When there is none and it cannot be started; later calls answer the same.
pub fn localstack_url() -> Result<String> {
    static OWN: OnceLock<Result<LocalStack>> = OnceLock::new();
    if let Some(url) = named(LOCALSTACK_URL_VARIABLE) {
        return Ok(url);
    }
    match OWN.get_or_init(LocalStack::start) {
        Ok(server) => Ok(server.url()),
        Err(e) => Err(e.clone()),
    }
}

/// The address of the shared Redis, for tests that do nothing to it; the first call starts one where no variable names
/// it. It ends with the process. A test takes a prefix that no other process has.
///
/// # Errors
/// When there is none and it cannot be started; later calls answer the same.
pub fn redis_url() -> Result<String> {
    static OWN: OnceLock<Result<Redis>> = OnceLock::new();
    if let Some(url) = named(REDIS_URL_VARIABLE) {
        return Ok(url);
    }
    match OWN.get_or_init(|| Redis::start(&RedisOptions::default())) {
        Ok(server) => Ok(server.url()),
        Err(e) => Err(e.clone()),
    }
}

fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|url| !url.is_empty())
}

/// A database of one test on the shared Postgres. Dropping it drops the database, with whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    port: u16,
    name: String,
}

impl TestDatabase {
    /// Makes an empty database.
    ///
    /// # Errors
    /// When there is no server, or it refuses.
    pub fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let port = port_of(&postgres_url()?)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("eb_test_{}_{number}", std::process::id());
        let sql = |text: String| {
            run_sql(port, &text).map_err(|e| ServiceError::new(format!("make the database {name}: {e}")))
        };
        // One of a dead process that had our id may be there.
        sql(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        sql(format!("CREATE DATABASE {name}"))?;
        Ok(Self { port, name })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port, &self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The server may be gone, and everything with it.
        let _ = run_sql(self.port, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

fn port_of(url: &str) -> Result<u16> {
    let port = url.rsplit_once('@').and_then(|(_, rest)| {
        let (address, _) = rest.split_once('/')?;
        address.strip_prefix("127.0.0.1:")?.parse().ok()
    });
    port.ok_or_else(|| {
        ServiceError::new(format!(
            "{PG_URL_VARIABLE} must have the form postgres://postgres@127.0.0.1:PORT/postgres"
        ))
    })
}
