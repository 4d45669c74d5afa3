//! LocalStack in host mode, from a pinned lock file, with its Kinesis engine installed beforehand.
//!
//! The lock file (`xtask/services/localstack-4.9.2.lock.txt`) pins every package: unpinned installations break, and later
//! releases fail in every Kinesis call or want a token. The engine is a child process of LocalStack in a process group of
//! its own; what ends LocalStack sees to it that the engine ends too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Daemon, Paused, Signal};
use super::http::call_kinesis;
use super::kinesis_local::{SHARD_LIMIT, record};
use super::{During, PATIENCE, Result, ServiceError, folder, http, install, poll_until, port_for};

const VERSION: &str = "4.9.2";
/// The version of the engine that this LocalStack asks for.
const ENGINE: &str = "0.4.13";
const LOCK_FILE: &str = include_str!("../../../../xtask/services/localstack-4.9.2.lock.txt");

/// A LocalStack of this process, with Kinesis alone. Dropping it stops it and its engine and removes its folder.
#[derive(Debug)]
pub struct LocalStack {
    installed: PathBuf,
    folder: PathBuf,
    port: u16,
    daemon: Option<Daemon>,
    remove: bool,
}

impl LocalStack {
    /// Installs LocalStack if need be (about half a minute), and starts it.
    ///
    /// # Errors
    /// When Python or Node are missing, a package cannot be installed, or it does not start.
    pub fn start() -> Result<Self> {
        folder::clean_orphans()?;
        let installed = Self::install()?;
        Self::start_in(installed, folder::make_own("localstack")?, None, true)
    }

    pub(crate) fn install() -> Result<PathBuf> {
        install::need_node()?;
        install::once(&format!("localstack-{VERSION}"), |target| {
            let advice = "Python 3.10 to 3.12 with venv is needed, and the PyPI registry";
            let venv = target.join("venv");
            install::run(Command::new("python3").args(["-m", "venv"]).arg(&venv), advice)?;
            let lock = target.join("lock.txt");
            fs::write(&lock, LOCK_FILE).during(|| format!("write {}", lock.display()))?;
            let mut pip = Command::new(venv.join("bin/pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]).arg(&lock);
            install::download(&mut pip, advice)?;
            install::npm(&target.join("lib/kinesis-local").join(ENGINE), "kinesis-local", ENGINE).map(drop)
        })
    }

    pub(crate) fn start_in(
        installed: PathBuf,
        folder: PathBuf,
        port: Option<u16>,
        remove: bool,
    ) -> Result<Self> {
        let port = port_for("LocalStack", port)?;
        let mut localstack = Self { installed, folder, port, daemon: None, remove };
        localstack.run()?;
        Ok(localstack)
    }

    /// Its endpoint, the same through restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on this share of PutRecord and PutRecords calls fails with `ProvisionedThroughputExceededException`;
    /// 0 switches it off.
    ///
    /// # Errors
    /// When LocalStack does not take it.
    pub fn fail_writes(&self, probability: f64) -> Result<()> {
        let body = format!(r#"{{"variable":"KINESIS_ERROR_PROBABILITY","value":{probability}}}"#);
        match http(self.port, "POST", "/_localstack/config", Some(&body)) {
            Some(answer) if answer.status == 200 => Ok(()),
            answer => {
                Err(ServiceError::new(format!("LocalStack did not take an error probability: {answer:?}")))
            }
        }
    }

    /// Halts it and its engine until the answer is dropped; its streams stay.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<Paused> {
        let running = self.daemon.as_ref();
        running.ok_or_else(|| ServiceError::new("LocalStack is not running"))?.pause()
    }

    /// Stops it and its engine, in good order or by `SIGKILL`. Its streams are gone then.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |daemon| daemon.stop(signal))
    }

    /// Starts it again on the same port, empty.
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
        self.daemon.as_mut().map_or(Ok(()), |daemon| daemon.check_alive("LocalStack"))
    }

    pub(crate) fn leave(mut self) -> Option<u32> {
        self.remove = false;
        self.daemon.take().map(Daemon::leave)
    }

    fn run(&mut self) -> Result<()> {
        let root = self.folder.join("root");
        link_engine(&self.installed, &root)?;
        let mut command = Command::new(self.installed.join("venv/bin/python"));
        command.args(["-m", "localstack.runtime.main"]).current_dir(&self.folder);
        command.env("FILESYSTEM_ROOT", &root).env("GATEWAY_LISTEN", format!("127.0.0.1:{}", self.port));
        command.envs([
            ("OVERRIDE_IN_DOCKER", "0"),
            ("SERVICES", "kinesis"),
            ("DNS_ADDRESS", "0"),
            ("DISABLE_EVENTS", "1"),
            ("SKIP_SSL_CERT_DOWNLOAD", "1"),
            ("KINESIS_LATENCY", "0"),
            ("KINESIS_SHARD_LIMIT", SHARD_LIMIT),
            // It would be written every few seconds, not with every ACK: what is left after a crash would lack facts.
            ("KINESIS_PERSISTENCE", "0"),
            ("ENABLE_CONFIG_UPDATES", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ]);
        let mut daemon = Daemon::start(&mut command, &self.folder, Signal::Term, self.remove)?;
        record("localstack", &mut daemon, &self.folder, &self.url())?;
        poll_until("LocalStack", PATIENCE, || {
            daemon.check_alive("LocalStack")?;
            Ok(http(self.port, "GET", "/_localstack/health", None).filter(|a| a.status == 200))
        })?;
        // The first call starts the engine: one that cannot be started is to be named here. On a busy machine LocalStack may
        // itself have waited for it in vain, and tries again with the next call.
        let mut said = "no answer".to_owned();
        for _ in 0..3 {
            daemon.check_alive("LocalStack")?;
            match call_kinesis(self.port, "ListStreams", PATIENCE) {
                Some(answer) if answer.status == 200 => {
                    self.daemon = Some(daemon);
                    return Ok(());
                }
                Some(answer) => said = answer.body,
                None => {}
            }
        }
        let log = daemon.log_end();
        Err(ServiceError::new(format!("LocalStack cannot start its Kinesis engine: {said}: {log}")))
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        drop(self.daemon.take());
        if self.remove {
            // What is left is found by the next start.
            let _ = folder::remove(&self.folder);
        }
    }
}

/// Shows the shared engine to a LocalStack where it looks for it.
fn link_engine(installed: &Path, root: &Path) -> Result<()> {
    let parent = root.join("var/lib/localstack/lib");
    fs::create_dir_all(&parent).during(|| format!("make {}", parent.display()))?;
    let link = parent.join("kinesis-local");
    if !link.exists() {
        std::os::unix::fs::symlink(installed.join("lib/kinesis-local"), &link)
            .during(|| format!("make {}", link.display()))?;
    }
    Ok(())
}
