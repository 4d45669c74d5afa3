//! Where a file bus lives, and its limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::line::MAX_ENVELOPE_BYTES;
use eb_contract::{EnvelopeLimits, Error, ErrorKind, Result};

/// How to open a file bus.
#[derive(Debug, Clone)]
pub struct FileBusConfig {
    /// The folder that holds `bus.json` and a folder per topic.
    pub root: PathBuf,
    /// Make the folder and `bus.json` when they are not there. Readers that must not create anything turn it off. Default: on.
    pub create: bool,
    /// The most bytes of one envelope, at most [`MAX_ENVELOPE_BYTES`]. Default: 1 MiB.
    pub max_envelope_bytes: usize,
    /// The most records of one `publish_batch` call. Default: 10,000.
    pub max_batch_records: usize,
    /// About how many bytes one group (one write and one sync) may have, per partition. Two groups of encoded lines are in memory at
    /// most, one being filled and one being written. Default: 4 MiB.
    pub max_group_bytes: usize,
    /// How many bytes of records may wait, per partition, beyond the group being filled; their futures stay pending, which is the
    /// back-pressure. A call beyond that answers `Throttled` and has no effect. Default: 64 MiB.
    pub max_waiting_bytes: usize,
    /// The longest that a writer with nothing to do but a small group waits for as many callers as it had before to come back. It waits
    /// only while a group is smaller than the calls that were just answered suggest. Default: 100 µs; zero turns it off.
    pub group_wait: Duration,
}

impl FileBusConfig {
    /// A bus in this folder, with the defaults.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            create: true,
            max_envelope_bytes: EnvelopeLimits::DEFAULT_BYTES,
            max_batch_records: 10_000,
            max_group_bytes: 4 << 20,
            max_waiting_bytes: 64 << 20,
            group_wait: Duration::from_micros(100),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::new(ErrorKind::InvalidInput, "open", what));
        if self.max_envelope_bytes < 2 || self.max_envelope_bytes > MAX_ENVELOPE_BYTES {
            return bad(format!("max_envelope_bytes must be from 2 to {MAX_ENVELOPE_BYTES}"));
        }
        if self.max_batch_records == 0 || self.max_group_bytes == 0 || self.max_waiting_bytes == 0 {
            return bad("max_batch_records, max_group_bytes and max_waiting_bytes must not be 0".to_owned());
        }
        if self.group_wait > Duration::from_millis(100) {
            return bad("group_wait must not exceed 100 ms".to_owned());
        }
        Ok(())
    }
}
