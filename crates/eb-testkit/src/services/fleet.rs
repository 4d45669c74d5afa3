//! Servers that are left running for development: `services up`, `status`, `down`.
//!
//! Their folders are `target/services/up/<service>`. Postgres keeps its data there through `down` and `up`; the Kinesis
//! engines start empty. A record whose process is gone (after a reboot) counts as down.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::folder::{self, Record};
use super::postgres::{Postgres, PostgresBinaries, PostgresOptions};
use super::{During, KinesisLocal, KinesisLocalOptions, LocalStack, Result, daemon};

/// A service that can be left running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// PostgreSQL.
    Postgres,
    /// LocalStack with Kinesis.
    LocalStack,
    /// The Kinesis engine alone.
    KinesisLocal,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::LocalStack, Self::KinesisLocal];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::LocalStack => "localstack",
            Self::KinesisLocal => "kinesis-local",
        }
    }

    fn folder(self) -> PathBuf {
        folder::root().join("up").join(self.as_str())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A running service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub service: Service,
    /// Where it answers.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

/// The services that are up.
#[must_use]
pub fn status() -> Vec<Running> {
    let running = Service::ALL.into_iter().filter_map(|service| {
        let record = Record::read(&service.folder())?;
        let running = Running { service, url: record.url, pid: record.server.pid };
        record.server.is_alive().then_some(running)
    });
    running.collect()
}

/// Starts a service and leaves it running, unless it is up. Until it answers it belongs to this process: Ctrl-C ends it.
///
/// # Errors
/// When it cannot be installed or started.
pub fn up(service: Service) -> Result<Running> {
    if let Some(running) = status().into_iter().find(|r| r.service == service) {
        return Ok(running);
    }
    let folder = service.folder();
    if service != Service::Postgres {
        folder::remove(&folder)?;
    }
    fs::create_dir_all(&folder).during(|| format!("make {}", folder.display()))?;
    let left = match service {
        Service::Postgres => {
            let binaries = PostgresBinaries::find_or_install()?;
            let options = PostgresOptions::default();
            Postgres::start_in(binaries, folder.clone(), &options, false)?.leave()
        }
        Service::LocalStack => LocalStack::start_in(LocalStack::install()?, folder.clone(), false)?.leave(),
        Service::KinesisLocal => {
            let options = KinesisLocalOptions::default();
            KinesisLocal::start_in(KinesisLocal::install()?, folder.clone(), &options, false)?.leave()
        }
    };
    let record = Record::read(&folder).filter(|r| Some(r.server.pid) == left);
    let Some(record) = record else {
        return Err(super::ServiceError::new(format!("the record of {service} is gone")));
    };
    let running = Running { service, url: record.url.clone(), pid: record.server.pid };
    Record { owner: None, ..record }.write(&folder)?;
    Ok(running)
}

/// Stops a service that was left running, with all its processes. Gives back whether it was up.
///
/// # Errors
/// When its record cannot be removed.
pub fn down(service: Service) -> Result<bool> {
    let folder = service.folder();
    let record = Record::read(&folder);
    let was_up = record.as_ref().is_some_and(|r| r.server.is_alive());
    if let Some(record) = record.filter(|_| was_up) {
        daemon::stop_group(record.server.pid);
    }
    if service == Service::Postgres {
        let record = folder.join("record");
        if record.exists() {
            fs::remove_file(&record).during(|| format!("remove {}", record.display()))?;
        }
    } else {
        folder::remove(&folder)?;
    }
    Ok(was_up)
}
