//! How failures of files are classified.

use std::io;
use std::path::Path;

use eb_contract::{Error, ErrorKind, Retry};

pub(crate) fn io_error(op: &'static str, path: &Path, what: &str, error: io::Error) -> Error {
    let (kind, retry, advice) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::StorageFull, Retry::Later, "free space on this device")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Io, Retry::Never, "check who owns it and may write there")
        }
        io::ErrorKind::ReadOnlyFilesystem => (ErrorKind::Io, Retry::Never, "mount it writable"),
        _ => (ErrorKind::Io, Retry::Later, "check the device and the system's log"),
    };
    Error::new(kind, op, what).at(path.display()).with_retry(retry).with_source(error).advise(advice)
}

pub(crate) fn corrupt(op: &'static str, path: &Path, byte: u64, what: impl Into<String>) -> Error {
    let file = path.display().to_string();
    let place = format!("{file} byte {byte}");
    Error::new(ErrorKind::Corrupt { file, line: None, byte: Some(byte) }, op, what).at(place)
}
