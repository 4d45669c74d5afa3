//! Files as the stores of a consumer use them: checked lines, appended to journals; small documents, replaced whole; folders
//! with a lock.

mod failed;
mod folder;
mod journal;
pub(crate) mod line;

pub(crate) use failed::{corrupt, io_error};
pub(crate) use folder::Folder;
pub(crate) use journal::Journal;
