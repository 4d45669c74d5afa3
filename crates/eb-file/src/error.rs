//! From operating system errors and damage to the contract's classified errors.

use std::io;
use std::path::Path;

use eb_contract::{Error, ErrorKind};

/// An operating system error at a path, with what was being done (`cannot …`).
pub(crate) fn io_error(op: &'static str, path: &Path, what: &str, error: io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::StorageFull, "free space on this device, then try again")
        }
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "check the path"),
        io::ErrorKind::PermissionDenied => (ErrorKind::Io, "check who owns it and may write there"),
        io::ErrorKind::ReadOnlyFilesystem => (ErrorKind::Io, "mount it writable"),
        _ => (ErrorKind::Io, "check the device and the system's log"),
    };
    Error::new(kind, op, what).at(path.display()).with_source(error).advise(advice)
}

/// Damage in a file, with the place where it is known.
pub(crate) fn corrupt(
    op: &'static str,
    path: &Path,
    line: Option<u64>,
    byte: Option<u64>,
    what: impl Into<String>,
) -> Error {
    let file = path.display().to_string();
    let place = match (line, byte) {
        (Some(line), Some(byte)) => format!("{file} line {line} byte {byte}"),
        (None, Some(byte)) => format!("{file} byte {byte}"),
        _ => file.clone(),
    };
    Error::new(ErrorKind::Corrupt { file, line, byte }, op, what).at(place)
}
