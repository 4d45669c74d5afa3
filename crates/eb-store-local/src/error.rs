//! How failures of the store are classified.

use std::io;
use std::path::Path;

use eb_contract::{Error, ErrorKind, Retry};

/// What to do about an index that cannot be used as it is.
pub(crate) fn rebuild_advice(dir: &Path) -> String {
    format!(
        "stop the gate and remove the folder {}: the next start rebuilds the index from the log (of a stream that \
         expires, from what is left of it: older events would be admitted again)",
        dir.display()
    )
}

pub(crate) fn corrupt(op: &'static str, dir: &Path, file: &Path, what: impl Into<String>) -> Error {
    let kind = ErrorKind::Corrupt { file: file.display().to_string(), line: None, byte: None };
    Error::new(kind, op, what).at(file.display()).advise(rebuild_advice(dir))
}

pub(crate) fn wrong_version(op: &'static str, dir: &Path, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::WrongVersion, op, what).at(dir.display()).advise(rebuild_advice(dir))
}

pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "the admission index was closed").advise("open it anew")
}

/// An operation of the operating system that failed, on a file of the index.
pub(crate) fn io(op: &'static str, place: &Path, source: io::Error) -> Error {
    let (kind, advice) = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::StorageFull, "free space; the index goes on by itself then")
        }
        _ => (ErrorKind::Io, "see to the disk and its permissions; the log still holds every admitted event"),
    };
    Error::new(kind, op, "the admission index cannot use its files")
        .at(place.display())
        .with_retry(Retry::Later)
        .advise(advice)
        .with_source(source)
}

/// A failure of the storage engine below `dir`.
pub(crate) fn engine(op: &'static str, dir: &Path, source: lsm_tree::Error) -> Error {
    match source {
        lsm_tree::Error::Io(e)
            if !matches!(
                e.kind(),
                // A file of the index that is missing, cut short or not what it should be: damage, not an outage.
                io::ErrorKind::NotFound
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            io(op, dir, e)
        }
        lsm_tree::Error::InvalidVersion(v) => {
            wrong_version(op, dir, format!("the tables are of format {v}, which this program does not know"))
        }
        damage => corrupt(op, dir, dir, "the admission index is damaged").with_source(damage),
    }
}

/// A panic of the storage engine, which it answers some kinds of damage with.
pub(crate) fn engine_panic(op: &'static str, dir: &Path) -> Error {
    corrupt(op, dir, dir, "the storage engine gave up on the admission index (the panic above says why)")
}
