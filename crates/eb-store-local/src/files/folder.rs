//! A folder of a store, used by one task of one process at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eb_contract::{Error, ErrorKind, Result};
use eb_disk::{Disk, DiskLock, create_dir_all};

use super::io_error;

const LOCK: &str = "lock";
/// How long to wait for another process to finish what it does in the folder.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// A folder, and whether it is known to be there.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    made: bool,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, made: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sees to it that the folder is there durably.
    pub(crate) fn make(&mut self, disk: &dyn Disk, op: &'static str) -> Result<()> {
        if !self.made {
            create_dir_all(disk, &self.path)
                .map_err(|e| io_error(op, &self.path, "the folder cannot be made", e))?;
            self.made = true;
        }
        Ok(())
    }

    /// Takes the folder for this process until what is returned is dropped; `None` where there is no such folder.
    pub(crate) fn lock(&self, disk: &dyn Disk, op: &'static str) -> Result<Option<Box<dyn DiskLock>>> {
        let path = self.path.join(LOCK);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match disk.try_lock(&path) {
                Ok(lock) => return Ok(Some(lock)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let holder = "another process that uses the store".to_owned();
                    let what = format!("it was locked for {} seconds", PATIENCE.as_secs());
                    return Err(Error::new(ErrorKind::Locked { holder }, op, what)
                        .at(path.display())
                        .advise("find the process that hangs with the lock, then try again"));
                }
                Err(e) => return Err(io_error(op, &path, "the folder cannot be locked", e)),
            }
        }
    }

    /// What went missing, as an error.
    pub(crate) fn gone(&self, op: &'static str) -> Error {
        let error = io::Error::from(io::ErrorKind::NotFound);
        io_error(op, &self.path, "the folder was removed while the store was in use", error)
    }
}
