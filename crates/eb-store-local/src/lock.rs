//! One process per folder: an advisory lock, with its holder's name for whoever comes second.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use eb_contract::{Error, ErrorKind, Result, Timestamp};

use crate::error;

/// The lock on a folder, held until dropped (or until the process ends, however it ends).
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock at `path`, creating its file.
    pub(crate) fn acquire(op: &'static str, path: &Path) -> Result<Self> {
        let failed = |e| error::io(op, path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&mut file);
                let what = format!("the admission index is in use by {holder}");
                return Err(Error::new(ErrorKind::Locked { holder }, op, what)
                    .at(path.display())
                    .advise("stop that process, or give this one an index of its own"));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        file.write_all(describe_this_process().as_bytes()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn describe_this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .map(|name| name.trim().chars().filter(|c| !c.is_control()).take(64).collect::<String>())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "this machine".to_owned());
    format!("pid {} on {host} since {}", std::process::id(), Timestamp::now())
}

/// What the holder wrote about itself. It may be just writing it, or a system may refuse to let others read.
fn read_holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(200).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().chars().filter(|c| !c.is_control()).collect(),
        _ => "another process".to_owned(),
    }
}
