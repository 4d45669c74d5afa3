//! Servers for development: `services up`, `status`, `down`.
//!
//! A native server's folder is `target/services/up/<service>`; its record there says who it is and where it answers. A
//! record whose process is gone (after a reboot) counts as down. Containers are those of `docker-compose.localstack.yml`;
//! the record of their addresses is `target/services/up/containers`.
//!
//! What goes up is empty, and what goes down leaves nothing: streams do not outlive their engine, and a
//! Postgres that remembered what was admitted to streams that are gone would only be refused.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::containers;
use super::folder::{self, Record};
use super::postgres::{Postgres, PostgresBinaries, PostgresOptions, run_sql};
use super::{
    During, KinesisLocal, KinesisLocalOptions, LocalStack, Redis, RedisOptions, Result, ServiceError, daemon,
    port_for,
};

/// User, password and database of a Postgres for development, native or in a container.
const NAME: &str = "event_bus";

/// A service that can be brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// PostgreSQL.
    Postgres,
    /// LocalStack with Kinesis.
    LocalStack,
    /// The Kinesis engine alone.
    KinesisLocal,
    /// Redis.
    Redis,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::LocalStack, Self::KinesisLocal, Self::Redis];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::LocalStack => "localstack",
            Self::KinesisLocal => "kinesis-local",
            Self::Redis => "redis",
        }
    }

    /// The port that profiles take it to have.
    #[must_use]
    pub const fn usual_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::LocalStack => 4566,
            Self::KinesisLocal => 4567,
            Self::Redis => 6379,
        }
    }

    /// Its address on a port of the loopback interface.
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Postgres => format!("postgres://{NAME}:{NAME}@127.0.0.1:{port}/{NAME}"),
            Self::LocalStack | Self::KinesisLocal => format!("http://127.0.0.1:{port}"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
        }
    }

    /// The port that was asked for, else the usual one if it is free, else one that is.
    pub(crate) fn port(self, asked: Option<u16>) -> Result<u16> {
        match asked {
            Some(_) => port_for(self.as_str(), asked),
            None => port_for(self.as_str(), Some(self.usual_port())).or_else(|_| port_for("", None)),
        }
    }

    fn folder(self) -> PathBuf {
        folder::root().join("up").join(self.as_str())
    }

    /// The service of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.as_str() == name)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// As a process group of this machine, by its leader.
    Process(u32),
    /// In a container.
    Container,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Container => f.write_str("container"),
        }
    }
}

/// A running service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub service: Service,
    /// Where it answers.
    pub url: String,
    /// Where it runs.
    pub place: Place,
}

/// The services that are up, native and in containers.
#[must_use]
pub fn status() -> Vec<Running> {
    let native = Service::ALL.into_iter().filter_map(|service| {
        let record = Record::read(&service.folder())?;
        let running = Running { service, url: record.url, place: Place::Process(record.server.pid) };
        record.server.is_alive().then_some(running)
    });
    native.chain(containers::status()).collect()
}

/// A native service of this process. Dropping it stops the service with everything it started, and so does this process's
/// end, however it ends.
#[derive(Debug)]
pub struct Held {
    running: Running,
    server: Server,
}

#[derive(Debug)]
enum Server {
    Postgres(Postgres),
    LocalStack(LocalStack),
    KinesisLocal(KinesisLocal),
    Redis(Redis),
}

impl Held {
    /// Starts a service on the port that was asked for, else on the usual one if it is free, else on a free one.
    ///
    /// # Errors
    /// When it is up already, cannot be installed, or does not start.
    pub fn start(service: Service, port: Option<u16>) -> Result<Self> {
        folder::clean_orphans()?;
        if let Some(running) = status().into_iter().find(|r| r.service == service) {
            return Err(ServiceError::new(format!(
                "{service} is up already at {}, {}; `services down` stops it",
                running.url, running.place
            )));
        }
        let port = service.port(port)?;
        let folder = service.folder();
        let server = match service {
            Service::Postgres => {
                let binaries = PostgresBinaries::find_or_install()?;
                fresh(service)?;
                let options = PostgresOptions::default();
                let server = Postgres::start_in(binaries, folder.clone(), &options, Some(port), true)?;
                make_database(port)?;
                Server::Postgres(server)
            }
            Service::LocalStack => {
                let installed = LocalStack::install()?;
                fresh(service)?;
                Server::LocalStack(LocalStack::start_in(installed, folder.clone(), Some(port), true)?)
            }
            Service::KinesisLocal => {
                let installed = KinesisLocal::install()?;
                fresh(service)?;
                let options = KinesisLocalOptions { port: Some(port), ..KinesisLocalOptions::default() };
                Server::KinesisLocal(KinesisLocal::start_in(installed, folder.clone(), &options, true)?)
            }
            Service::Redis => {
                let binary = Redis::install()?;
                fresh(service)?;
                let options = RedisOptions { port: Some(port), ..RedisOptions::default() };
                Server::Redis(Redis::start_in(binary, folder.clone(), &options, true)?)
            }
        };
        let record = Record::read(&folder)
            .ok_or_else(|| ServiceError::new(format!("the record of {service} is gone; try again")))?;
        let record = Record { url: service.url(port), ..record };
        record.write(&folder)?;
        let running = Running { service, url: record.url, place: Place::Process(record.server.pid) };
        Ok(Self { running, server })
    }

    /// Which it is and where it answers.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// An error with the end of its log when it has ended by itself, or was stopped by `services down`.
    ///
    /// # Errors
    /// That it has ended.
    pub fn check(&mut self) -> Result<()> {
        match &mut self.server {
            Server::Postgres(server) => server.check(),
            Server::LocalStack(server) => server.check(),
            Server::KinesisLocal(server) => server.check(),
            Server::Redis(server) => server.check(),
        }
    }

    /// Leaves it running after this process, until `services down`.
    ///
    /// # Errors
    /// When that cannot be written down; it is stopped then.
    pub fn leave(self) -> Result<Running> {
        let Self { running, server } = self;
        let folder = running.service.folder();
        let record = Record::read(&folder)
            .ok_or_else(|| ServiceError::new(format!("the record of {} is gone", running.service)))?;
        Record { owner: None, ..record }.write(&folder)?;
        match server {
            Server::Postgres(server) => server.leave(),
            Server::LocalStack(server) => server.leave(),
            Server::KinesisLocal(server) => server.leave(),
            Server::Redis(server) => server.leave(),
        };
        Ok(running)
    }
}

/// An empty folder for a service that is down.
fn fresh(service: Service) -> Result<()> {
    let folder = service.folder();
    // Its leader is gone; what it had started may not be.
    daemon::kill_strays(&folder);
    folder::remove(&folder)?;
    fs::create_dir_all(&folder).during(|| format!("make {}", folder.display()))
}

/// The user and the database that the container has too, so that one address fits both.
fn make_database(port: u16) -> Result<()> {
    let statements = [
        format!("CREATE ROLE {NAME} LOGIN CREATEDB PASSWORD '{NAME}'"),
        format!("CREATE DATABASE {NAME} OWNER {NAME}"),
    ];
    for sql in &statements {
        run_sql(port, sql).map_err(|e| ServiceError::new(format!("make the database {NAME}: {e}")))?;
    }
    Ok(())
}

/// Stops a native service, with all its processes, whoever holds it. Gives back whether it was up.
///
/// # Errors
/// When its folder cannot be removed.
pub fn down(service: Service) -> Result<bool> {
    let folder = service.folder();
    let Some(record) = Record::read(&folder) else {
        folder::remove(&folder)?;
        return Ok(false);
    };
    let was_up = record.server.is_alive();
    if was_up {
        record.stop(&folder);
    }
    folder::remove(&folder)?;
    Ok(was_up)
}
