//! What an embedded admission index is opened with.

use std::path::PathBuf;

/// Where the index lies and how much it may hold in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmissionIndexConfig {
    /// The folder that is the index's own; made when it does not exist. Whatever else lies in it is left alone.
    pub dir: PathBuf,
    /// How many admissions may be in memory only: 1 to 1,000,000, 100,000 unless set. A crash loses them, and the
    /// gate reads them from the log again; about 350 bytes of memory each.
    pub max_lag: usize,
    /// Memory for blocks read from disk, in bytes; 64 MiB unless set. Filters and block indexes come on top, about
    /// 3 bytes for each admitted event.
    pub cache_bytes: u64,
}

impl AdmissionIndexConfig {
    /// The largest [`AdmissionIndexConfig::max_lag`].
    pub const LARGEST_LAG: usize = 1_000_000;

    /// An index in `dir` with the usual limits.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max_lag: 100_000, cache_bytes: 64 << 20 }
    }

    /// With another [`AdmissionIndexConfig::max_lag`], held within its range.
    #[must_use]
    pub fn with_max_lag(mut self, records: usize) -> Self {
        self.max_lag = records.clamp(1, Self::LARGEST_LAG);
        self
    }

    /// With another [`AdmissionIndexConfig::cache_bytes`].
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The number of admissions in memory at which they are written without being asked to. Half of what may be
    /// there, so that admissions go on while the other half is written.
    pub(crate) fn flush_at(&self) -> usize {
        (self.max_lag / 2).max(1)
    }
}
