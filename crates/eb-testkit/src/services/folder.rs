//! The folders of servers, and the records that let a later process find what an earlier one has left.
//!
//! A folder's `record` has one `key=value` line for each fact: the service, its process (id and start time, so that a
//! reused id is not taken for it), its owner (likewise; none for a server that was left running on purpose), its port.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{During, Result, ServiceError, Signal, daemon};

/// The folder of all services: `services` in the target folder of the workspace.
///
/// Where the target folder is closed to other users and the servers must run as one (Postgres refuses to run as root),
/// it is a folder of the system's temporary one instead.
#[must_use]
pub fn root() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || {
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            here.parent().and_then(Path::parent).unwrap_or(here).join("target")
        },
        PathBuf::from,
    );
    let target = std::path::absolute(&target).unwrap_or(target);
    if is_root() && !open_to_all(&target) {
        return std::env::temp_dir().join("event-bus-services");
    }
    target.join("services")
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether any user may pass through every folder on the way.
fn open_to_all(path: &Path) -> bool {
    path.ancestors()
        .all(|a| fs::metadata(a).map_or_else(|_| !a.exists(), |m| m.permissions().mode() & 0o001 != 0))
}

/// A process by its id and start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessName {
    pub(crate) pid: u32,
    started: String,
}

impl ProcessName {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        start_time(pid).map(|started| Self { pid, started })
    }

    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.to_owned() })
    }

    fn to_text(&self) -> String {
        format!("{} {}", self.pid, self.started)
    }
}

/// When a live process was started, in the words of `ps`.
fn start_time(pid: u32) -> Option<String> {
    let output = Command::new("ps")
        .env("LC_ALL", "C")
        .args(["-o", "stat=,lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (stat, started) = text.split_once(char::is_whitespace)?;
    // A zombie is dead but not yet reaped.
    (!stat.starts_with('Z')).then(|| started.trim().to_owned())
}

/// What is written down of a running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) service: String,
    /// The leader of its process group.
    pub(crate) server: ProcessName,
    /// Who stops it; `None` for one that was left running on purpose.
    pub(crate) owner: Option<ProcessName>,
    pub(crate) url: String,
}

impl Record {
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let owner = self.owner.as_ref().map_or_else(|| "none".to_owned(), ProcessName::to_text);
        let text = format!(
            "service={}\nserver={}\nowner={owner}\nurl={}\n",
            self.service,
            self.server.to_text(),
            self.url
        );
        let (temporary, file) = (folder.join("record.new"), folder.join("record"));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &file))
            .during(|| format!("write {}", file.display()))
    }

    /// Stops the server, which belongs to nobody, or to somebody else.
    pub(crate) fn stop(&self, folder: &Path) {
        // Postgres waits for its clients to leave when it is told to end politely; nobody needs its data any more.
        let stop_by = if self.service == "postgres" { Signal::Quit } else { Signal::Term };
        daemon::stop_other(self.server.pid, folder, stop_by);
    }

    /// The record of a folder; `None` where there is none, or none that is whole.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("record")).ok()?;
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
        };
        let owner = value("owner")?;
        Some(Self {
            service: value("service")?,
            server: ProcessName::parse(&value("server")?)?,
            owner: if owner == "none" { None } else { Some(ProcessName::parse(&owner)?) },
            url: value("url")?,
        })
    }
}

/// Makes the folder for a server that this process owns.
pub(crate) fn make_own(service: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = root().join("run");
    fs::create_dir_all(&run).during(|| format!("make {}", run.display()))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = run.join(format!("{service}-{}-{number}", std::process::id()));
    match fs::create_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            // Of a dead process that had our id.
            remove(&folder)?;
            fs::create_dir(&folder).during(|| format!("make {}", folder.display()))?;
        }
        made => made.during(|| format!("make {}", folder.display()))?,
    }
    Ok(folder)
}

/// Removes a folder and all in it; one that is not there is fine.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(ServiceError::new(format!("remove {}: {e}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Stops servers whose owner is gone and removes their folders. Gives back what was stopped or removed. While another
/// process does so, this does nothing; what cannot be removed is said, and left to the next time.
///
/// # Errors
/// When the folder cannot be read.
pub fn clean_orphans() -> Result<Vec<String>> {
    let run = root().join("run");
    let entries = match fs::read_dir(&run) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(ServiceError::new(format!("read {}: {e}", run.display()))),
    };
    // Two that remove one folder are in each other's way.
    let lock = root().join("run.lock");
    let lock = File::create(&lock).during(|| format!("open {}", lock.display()))?;
    if lock.try_lock().is_err() {
        return Ok(Vec::new());
    }
    let mut cleaned = Vec::new();
    for folder in entries.filter_map(|e| e.ok().map(|e| e.path())) {
        let orphaned = match Record::read(&folder) {
            None => maker_is_gone(&folder),
            Some(record) => {
                let orphaned = record.owner.as_ref().is_some_and(|owner| !owner.is_alive());
                if orphaned && record.server.is_alive() {
                    record.stop(&folder);
                }
                orphaned
            }
        };
        if !orphaned {
            continue;
        }
        match remove(&folder) {
            Ok(()) => cleaned.push(folder.display().to_string()),
            // The guardian may be at it, too.
            Err(e) => eprintln!("services: {e}"),
        }
    }
    Ok(cleaned)
}

/// Whether a folder without a record belongs to nobody: its name tells who made it.
fn maker_is_gone(folder: &Path) -> bool {
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let pid = name.rsplit('-').nth(1).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| ProcessName::of(pid).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_tells_a_reused_process_id() {
        let folder = tempfile::tempdir().unwrap();
        let me = ProcessName::of(std::process::id()).unwrap();
        let record = Record {
            service: "postgres".to_owned(),
            server: me.clone(),
            owner: None,
            url: "postgres://postgres@127.0.0.1:1/postgres".to_owned(),
        };
        record.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), record);
        assert!(me.is_alive());
        let other = ProcessName { started: "Thu Jan  1 00:00:00 1970".to_owned(), ..me };
        assert!(!other.is_alive(), "another process of the same id");
    }

    #[test]
    fn a_half_written_record_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()), None);
        fs::write(folder.path().join("record"), "service=postgres\nserver=12").unwrap();
        assert_eq!(Record::read(folder.path()), None);
    }
}
