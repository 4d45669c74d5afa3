//! PostgreSQL from the system's package, as an unprivileged user, with its data in a folder of its own.
//!
//! Everything that makes commits durable stays on (`fsync`, `synchronous_commit`, `full_page_writes`): what is measured
//! and crashed here is what would be measured and crashed elsewhere. Connections over the loopback interface need no
//! password, but for what [`PostgresOptions::hba`] says.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::daemon::{Daemon, Signal};
use super::folder;
use super::kinesis_local::record;
use super::{
    During, PATIENCE, PgWire, Result, ServiceError, SqlError, free_port, install, poll_until, port_for,
};

/// The superuser that `initdb` makes.
const USER: &str = "postgres";

/// Where the server's programs lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresBinaries {
    initdb: PathBuf,
    postgres: PathBuf,
}

impl PostgresBinaries {
    /// Finds them in `PATH` and where Debian and Homebrew put them, the newest first.
    #[must_use]
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
            let Ok(entries) = fs::read_dir(parent) else { continue };
            let mut versions: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            versions.retain(|v| {
                let name = v.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("postgresql") || name.parse::<u32>().is_ok()
            });
            versions.sort();
            folders.extend(versions.into_iter().rev().map(|v| v.join("bin")));
        }
        folders.into_iter().find_map(|folder| {
            // Helpers are found beside the real program, not beside a link to it.
            let real = |name| fs::canonicalize(folder.join(name)).ok();
            Some(Self { initdb: real("initdb")?, postgres: real("postgres")? })
        })
    }

    /// Finds them, or installs them by apt where this process may.
    ///
    /// # Errors
    /// What to install, where they are neither there nor can be installed from here.
    pub fn find_or_install() -> Result<Self> {
        const PACKAGE: install::Package = install::Package {
            name: "postgresql",
            environment: &[],
            missing: "no initdb and postgres were found",
            advice: "install PostgreSQL 13 or newer (Debian and Ubuntu: apt install postgresql, macOS: brew install postgresql)",
        };
        install::found_or_by_apt(Self::find, &PACKAGE)
    }
}

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Settings for `postgresql.conf`, such as `("max_connections", "50")`.
    pub settings: Vec<(String, String)>,
    /// Lines that come before the others in `pg_hba.conf`.
    pub hba: Vec<String>,
    /// Files for the data folder, such as a certificate and its key; readable by the server's user alone.
    pub files: Vec<(String, Vec<u8>)>,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// In good order: a checkpoint, nothing to recover.
    Fast,
    /// At once (`pg_ctl stop -m immediate`): the next start recovers from the write-ahead log.
    Immediate,
    /// `SIGKILL` of the server process, whose children find themselves orphaned and end.
    Kill,
}

/// A server of this process. Dropping it stops the server and removes its data.
#[derive(Debug)]
pub struct Postgres {
    binaries: PostgresBinaries,
    folder: PathBuf,
    port: u16,
    daemon: Option<Daemon>,
    remove: bool,
}

impl Postgres {
    /// Makes a cluster in a folder of its own and starts it.
    ///
    /// # Errors
    /// When Postgres is not installed and cannot be, or does not start.
    pub fn start(options: &PostgresOptions) -> Result<Self> {
        folder::clean_orphans()?;
        let binaries = PostgresBinaries::find_or_install()?;
        let folder = folder::make_own("postgres")?;
        Self::start_in(binaries, folder, options, None, true)
    }

    /// Makes a cluster in `folder` unless one is there, and starts it.
    pub(crate) fn start_in(
        binaries: PostgresBinaries,
        folder: PathBuf,
        options: &PostgresOptions,
        port: Option<u16>,
        remove: bool,
    ) -> Result<Self> {
        let port = port.map_or(Ok(0), |port| port_for("Postgres", Some(port)))?;
        let mut server = Self { binaries, folder, port, daemon: None, remove };
        if !server.data().join("PG_VERSION").exists() {
            server.make_cluster(options)?;
        }
        server.run()?;
        Ok(server)
    }

    /// The port on the loopback interface; it stays the same through restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of its first database, as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port, "postgres")
    }

    /// The server's process; `None` while it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Stops the server; its data and its port stay.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let Some(daemon) = self.daemon.take() else { return Ok(()) };
        daemon.stop(match how {
            Stop::Fast => Signal::Int,
            Stop::Immediate => Signal::Quit,
            Stop::Kill => Signal::Kill,
        })
    }

    /// Starts the stopped server again, on the same port.
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
        self.daemon.as_mut().map_or(Ok(()), |daemon| daemon.check_alive("Postgres"))
    }

    /// Leaves the server running after this process. Gives back its process group's leader.
    pub(crate) fn leave(mut self) -> Option<u32> {
        self.remove = false;
        self.daemon.take().map(Daemon::leave)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn make_cluster(&self, options: &PostgresOptions) -> Result<()> {
        let data = self.data();
        folder::remove(&data)?;
        fs::create_dir_all(&data).during(|| format!("make {}", data.display()))?;
        let user = unprivileged()?;
        own(&data, user)?;
        let mut initdb = Command::new(&self.binaries.initdb);
        initdb.arg("-D").arg(&data);
        initdb.args(["-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        as_user(&mut initdb, user);
        install::run(initdb.current_dir(&data).stdin(Stdio::null()), "see the output above")?;
        let mut settings = String::from(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 300\n",
        );
        for (name, value) in &options.settings {
            settings.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        append(&data.join("postgresql.conf"), &settings)?;
        if !options.hba.is_empty() {
            let file = data.join("pg_hba.conf");
            let usual = fs::read_to_string(&file).during(|| format!("read {}", file.display()))?;
            let text = format!("{}\n{usual}", options.hba.join("\n"));
            fs::write(&file, text).during(|| format!("write {}", file.display()))?;
        }
        for (name, bytes) in &options.files {
            let file = data.join(name);
            let private = || fs::set_permissions(&file, fs::Permissions::from_mode(0o600));
            fs::write(&file, bytes).and_then(|()| private()).during(|| format!("write {name}"))?;
            own(&file, user)?;
        }
        Ok(())
    }

    /// Tries until it starts, as long as what is in the way goes away by itself.
    fn run(&mut self) -> Result<()> {
        let new_port = self.port == 0;
        let mut tries = 0;
        loop {
            if self.port == 0 {
                self.port = free_port()?;
            }
            let Err(e) = self.try_run() else { return Ok(()) };
            let text = e.to_string();
            let port_taken = text.contains("could not bind");
            // The children of a killed server take a moment to notice and end.
            let settling = text.contains("shared memory block") || text.contains("lock file");
            tries += 1;
            if tries == 100 || !(port_taken || settling) {
                return Err(e);
            }
            if port_taken && new_port {
                // Another process took it between our finding and using it.
                self.port = 0;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn try_run(&mut self) -> Result<()> {
        let user = unprivileged()?;
        let log = self.folder.join("log");
        let mut command = Command::new(&self.binaries.postgres);
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        as_user(&mut command, user);
        command.current_dir(self.data());
        fs::write(&log, "").during(|| format!("write {}", log.display()))?;
        let stop_by = if self.remove { Signal::Quit } else { Signal::Int };
        let mut daemon = Daemon::start(&mut command, &self.folder, stop_by, self.remove)?;
        record("postgres", &mut daemon, &self.folder, &self.url())?;
        poll_until("Postgres", PATIENCE, || {
            daemon.check_alive("Postgres")?;
            let answer = PgWire::connect(self.port, USER, "postgres").and_then(|mut c| c.query("SELECT 1"));
            Ok(answer.ok().filter(|rows| rows == &["1"]))
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // What cannot be stopped or removed now is found by the next start.
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.stop(if self.remove { Signal::Quit } else { Signal::Int });
        }
        if self.remove {
            let _ = folder::remove(&self.folder);
        }
    }
}

/// The address of a database on this machine.
pub(crate) fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{database}")
}

/// Runs statements as the superuser.
pub(crate) fn run_sql(port: u16, sql: &str) -> std::result::Result<Vec<String>, SqlError> {
    PgWire::connect(port, USER, "postgres")?.query(sql)
}

/// Who runs the server when we are root: Postgres refuses to.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    if !folder::is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").during(|| "read /etc/passwd".to_owned())?;
    let ids = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ["postgres", "nobody"].into_iter().find_map(ids);
    found.map(Some).ok_or_else(|| {
        ServiceError::new("Postgres does not run as root, and there is no user postgres or nobody")
    })
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        // The standard library drops the supplementary groups along with root.
        command.uid(uid).gid(gid);
        command.env("HOME", "/nonexistent");
    }
}

fn own(path: &Path, user: Option<(u32, u32)>) -> Result<()> {
    match user {
        Some((uid, gid)) => {
            chown(path, Some(uid), Some(gid)).during(|| format!("give {} to the server", path.display()))
        }
        None => Ok(()),
    }
}

fn append(file: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let open = fs::OpenOptions::new().append(true).open(file);
    open.and_then(|mut f| f.write_all(text.as_bytes())).during(|| format!("write {}", file.display()))
}
