//! Registers in files: [`FileRegisterStore`].
//!
//! # Layout
//! ```text
//! <root>/registers/<name>.register   one line of JSON (the header), then the value's bytes
//! <root>/registers/<name>.lock       locked during each swap; never read, never removed
//! <root>/registers/<name>.new        a value that is being written
//! ```
//! The header holds `format` (1), `name`, `version`, `len` and `xxh3` of the value, and `history`: the newest changes,
//! oldest first, the last of which made this version.
//!
//! # Protocol
//! - **swap**, under the exclusive lock: read, compare, write `.new`, fsync it, rename it over `.register`, fsync the folder.
//! - **load**, without a lock, so that a process that is stopped while it looks holds nobody up: read. A rename shows the former
//!   file or the new one, whole. A version that this handle sees for the first time may have been renamed by a process that has not
//!   synced the folder yet, or never will, so the folder is synced before it is shown.
//!
//! So a value is shown only when it is durable, and calls take effect one after the other. The lock is the system's (`flock`):
//! it ends with its process. All processes must be on one machine, or on a file system whose locks reach as far.
//!
//! # Failure cases
//! | what | outcome |
//! |---|---|
//! | a crash before the rename | the former value; the rest of `.new` is overwritten by the next swap |
//! | a crash after the rename | the new value |
//! | disk full, or a failed write or sync of `.new` | an error without effect, the former value stays |
//! | the rename succeeded and the sync of the folder failed | `Effect::Unknown`; the next load syncs before it shows |
//! | header or value do not agree | `Corrupt`, naming the file; nothing is ever taken for "none" |
//! | another format | `WrongVersion` |
//! | another process holds the lock for longer than [`PATIENCE`] (it was stopped within a call) | `Timeout`, retry later, no effect |

mod stored;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use eb_contract::stores::{RegisterChange, RegisterStore, Versioned, check_swap, version_conflict};
use eb_contract::{BoxFuture, Effect, Error, ErrorKind, RegisterName, Result, Retry, Timestamp};
use parking_lot::Mutex;

use stored::Stored;

/// How long a call waits for another process's.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The longest pause between two tries to get the lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

const LOAD: &str = "load register";
const SWAP: &str = "swap register";
const HISTORY: &str = "read register history";

/// Registers in a folder. Cloning shares it; other processes of this machine open the same folder.
///
/// Calls block on threads of the runtime made for that (`spawn_blocking`), so they need a tokio runtime. A call whose future was dropped is
/// done all the same, or not.
#[derive(Clone, Debug)]
pub struct FileRegisterStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Versions that are known to be durable.
    synced: Mutex<HashMap<RegisterName, u64>>,
}

impl FileRegisterStore {
    /// Registers below `<root>/registers`. Makes nothing until something is written.
    #[must_use]
    pub fn open(root: impl AsRef<Path>) -> Self {
        let folder = root.as_ref().join("registers");
        Self { shared: Arc::new(Shared { folder, synced: Mutex::default() }) }
    }

    async fn offload<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|e| {
            let error = Error::new(ErrorKind::Closed, op, "the runtime is ending").with_source(e);
            Err(error.with_effect(Effect::Unknown))
        })
    }
}

impl Shared {
    fn file(&self, name: &RegisterName, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}.{extension}"))
    }

    /// The register as stored, by a caller who holds its lock.
    fn read(&self, op: &'static str, name: &RegisterName) -> Result<Option<Stored>> {
        let path = self.file(name, "register");
        match fs::read(&path) {
            Ok(bytes) => Stored::decode(op, &path, name, &bytes.into()).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(op, &path, e)),
        }
    }

    fn load(&self, op: &'static str, name: &RegisterName) -> Result<Option<Stored>> {
        let Some(stored) = self.read(op, name)? else { return Ok(None) };
        let version = stored.value.version;
        if self.synced.lock().get(name) != Some(&version) {
            sync_folder(&self.folder).map_err(|e| failed(op, &self.folder, e))?;
            self.synced.lock().insert(name.clone(), version);
        }
        Ok(Some(stored))
    }

    fn swap(&self, name: &RegisterName, expected: u64, value: Bytes, reason: &str) -> Result<Versioned> {
        check_swap(name, &value, reason)?;
        self.make_folder()?;
        let _lock = self.lock(SWAP, name)?;
        let stored = self.read(SWAP, name)?;
        let current = stored.as_ref().map_or(0, |s| s.value.version);
        if current != expected {
            return Err(version_conflict(name, expected, current));
        }
        let next = Stored::after(stored, value, Timestamp::now(), reason);
        let (new, path) = (self.file(name, "new"), self.file(name, "register"));
        write_synced(&new, &next.encode(name)).map_err(|e| failed(SWAP, &new, e))?;
        fs::rename(&new, &path).map_err(|e| failed(SWAP, &path, e))?;
        if let Err(e) = sync_folder(&self.folder) {
            return Err(failed(SWAP, &self.folder, e).with_effect(Effect::Unknown));
        }
        self.synced.lock().insert(name.clone(), next.value.version);
        Ok(next.value)
    }

    /// Durably, parents included, for what is in them must not go with them.
    fn make_folder(&self) -> Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let failed = |e| failed(SWAP, &self.folder, e);
        let mut made = Vec::new();
        let mut at = self.folder.as_path();
        while !at.as_os_str().is_empty() && !at.exists() {
            made.push(at);
            let Some(parent) = at.parent() else { break };
            at = parent;
        }
        fs::create_dir_all(&self.folder).map_err(failed)?;
        for folder in made {
            let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_folder(parent).map_err(failed)?;
        }
        Ok(())
    }

    fn lock(&self, op: &'static str, name: &RegisterName) -> Result<File> {
        let path = self.file(name, "lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(|e| failed(op, &path, e))?;
        let started = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(failed(op, &path, e)),
                Err(TryLockError::WouldBlock) if started.elapsed() >= PATIENCE => {
                    let what = format!("another process has held the register's lock for {PATIENCE:?}");
                    return Err(Error::new(ErrorKind::Timeout, op, what).at(path.display()).advise(
                        "see which process has the file open; one that is stopped must go on or end",
                    ));
                }
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn probe(&self) -> Result<()> {
        const OP: &str = "probe registers";
        // The nearest folder that is there must take files.
        let there = self.folder.ancestors().find(|f| f.is_dir()).unwrap_or(Path::new("."));
        let metadata = fs::metadata(there).map_err(|e| failed(OP, there, e))?;
        if metadata.permissions().readonly() {
            return Err(Error::new(ErrorKind::Io, OP, "the folder is read only").at(there.display()));
        }
        Ok(())
    }
}

impl RegisterStore for FileRegisterStore {
    fn load<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Versioned>>> {
        let name = name.clone();
        Box::pin(self.offload(LOAD, move |shared| Ok(shared.load(LOAD, &name)?.map(|s| s.value))))
    }

    fn swap<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: u64,
        value: Bytes,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Versioned>> {
        let (name, reason) = (name.clone(), reason.to_owned());
        Box::pin(self.offload(SWAP, move |shared| shared.swap(&name, expected, value, &reason)))
    }

    fn history<'a>(
        &'a self,
        name: &'a RegisterName,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<RegisterChange>>> {
        let name = name.clone();
        Box::pin(self.offload(HISTORY, move |shared| {
            let stored = shared.load(HISTORY, &name)?;
            Ok(stored.map(|s| s.history.into_iter().rev().take(max).collect()).unwrap_or_default())
        }))
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.offload("probe registers", Shared::probe))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open folders; there the guarantee is best effort.
    if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }
}

fn failed(op: &'static str, place: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Io,
    };
    Error::new(kind, op, "a register cannot use its files")
        .at(place.display())
        .with_retry(Retry::Later)
        .advise("see to the disk and its permissions")
        .with_source(source)
}
