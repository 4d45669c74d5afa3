//! The Kinesis engine `kinesis-local` alone: what LocalStack uses, without LocalStack's front; starts in half a second.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Daemon, Paused, Signal};
use super::folder::{self, ProcessName, Record};
use super::{PATIENCE, Result, ServiceError, free_port, http, install, poll_until, port_for};

/// The version that everything here was tried with.
const VERSION: &str = "0.6.2";
/// The engine's own limit is an account's; suites have more streams than that.
pub(super) const SHARD_LIMIT: &str = "100000";

/// How an engine is set up.
#[derive(Debug, Clone, Default)]
pub struct KinesisLocalOptions {
    /// Keeps streams and records in its folder, so that they outlive a restart (written once a second).
    pub persist: bool,
    /// The port to listen on; a free one without.
    pub port: Option<u16>,
    /// Further variables of its environment, such as `("CREATE_STREAM_DURATION", "1s")`.
    pub environment: Vec<(String, String)>,
}

/// An engine of this process. Dropping it stops the engine and removes its folder.
#[derive(Debug)]
pub struct KinesisLocal {
    package: PathBuf,
    folder: PathBuf,
    port: u16,
    tls_port: u16,
    options: KinesisLocalOptions,
    daemon: Option<Daemon>,
    remove: bool,
}

impl KinesisLocal {
    /// Installs the engine if need be, and starts it.
    ///
    /// # Errors
    /// When Node is missing, the package cannot be installed, or the engine does not start.
    pub fn start(options: &KinesisLocalOptions) -> Result<Self> {
        folder::clean_orphans()?;
        let package = Self::install()?;
        Self::start_in(package, folder::make_own("kinesis-local")?, options, true)
    }

    pub(crate) fn install() -> Result<PathBuf> {
        install::need_node()?;
        let installed = install::once(&format!("kinesis-local-{VERSION}"), |target| {
            install::npm(target, "kinesis-local", VERSION).map(drop)
        })?;
        Ok(installed.join("node_modules/kinesis-local"))
    }

    pub(crate) fn start_in(
        package: PathBuf,
        folder: PathBuf,
        options: &KinesisLocalOptions,
        remove: bool,
    ) -> Result<Self> {
        let (port, tls_port) = (port_for("kinesis-local", options.port)?, free_port()?);
        let options = options.clone();
        let mut engine = Self { package, folder, port, tls_port, options, daemon: None, remove };
        engine.run()?;
        Ok(engine)
    }

    /// The port on the loopback interface; it stays the same through restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its endpoint, the same through restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it, in good order or by `SIGKILL`. Without [`KinesisLocalOptions::persist`] its streams are gone then.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |daemon| daemon.stop(signal))
    }

    /// Halts it until the answer is dropped: it takes connections in, and answers nobody. Its streams stay.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<Paused> {
        let running = self.daemon.as_ref();
        running.ok_or_else(|| ServiceError::new("kinesis-local is not running"))?.pause()
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When it does not start, with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        match self.daemon {
            Some(_) => Ok(()),
            None => self.run(),
        }
    }

    /// An error with the end of its log when it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), |daemon| daemon.check_alive("kinesis-local"))
    }

    pub(crate) fn leave(mut self) -> Option<u32> {
        self.remove = false;
        self.daemon.take().map(Daemon::leave)
    }

    fn run(&mut self) -> Result<()> {
        let mut command = Command::new("node");
        command.arg(self.package.join("main.js")).current_dir(&self.folder);
        command.env("KINESIS_MOCK_CERT_PATH", self.package.join("server.json"));
        command.env("KINESIS_MOCK_PLAIN_PORT", self.port.to_string());
        command.env("KINESIS_MOCK_TLS_PORT", self.tls_port.to_string());
        command.env("SHARD_LIMIT", SHARD_LIMIT);
        if self.options.persist {
            command.envs([
                ("SHOULD_PERSIST_DATA", "true"),
                ("PERSIST_FILE_NAME", "k.json"),
                ("PERSIST_INTERVAL", "1s"),
            ]);
            command.env("PERSIST_PATH", &self.folder);
        }
        command.envs(self.options.environment.iter().map(|(k, v)| (k, v)));
        let mut daemon = Daemon::start(&mut command, &self.folder, Signal::Term, self.remove)?;
        record("kinesis-local", &mut daemon, &self.folder, &self.url())?;
        poll_until("kinesis-local", PATIENCE, || {
            daemon.check_alive("kinesis-local")?;
            Ok(http(self.port, "GET", "/healthcheck", None).filter(|a| a.status == 200))
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }
}

impl Drop for KinesisLocal {
    fn drop(&mut self) {
        drop(self.daemon.take());
        if self.remove {
            // What is left is found by the next start.
            let _ = folder::remove(&self.folder);
        }
    }
}

/// Writes down a server that this process owns.
pub(crate) fn record(service: &str, daemon: &mut Daemon, folder: &Path, url: &str) -> Result<()> {
    let server = poll_until(service, PATIENCE, || {
        daemon.check_alive(service)?;
        Ok(ProcessName::of(daemon.pid()))
    })?;
    let owner = ProcessName::of(std::process::id());
    Record { service: service.to_owned(), server, owner, url: url.to_owned() }.write(folder)
}
