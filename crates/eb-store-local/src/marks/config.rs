//! What a store of marks is opened with.

use std::path::PathBuf;

/// Where marks lie, and how much of them is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MarksConfig {
    /// The folder of the consumers' stores; made when it does not exist.
    pub dir: PathBuf,
    /// How many of the newest marks of a partition the second guard knows, at least; up to twice as many. 500,000 unless
    /// set; about 60 bytes of memory each (150 where offsets are larger than 64 bits), and none until the guard is first asked.
    /// A copy of an event lies behind it by the time in which a publisher retries.
    pub max_events: usize,
    /// From which size on a segment is followed by a new one, in bytes; 4 MiB unless set.
    pub segment_bytes: u64,
    /// How much a partition's segments may hold beside the newest, in bytes: the oldest are removed then, however young. 1 GiB
    /// unless set, which is some 8 million marks.
    pub max_bytes: u64,
}

impl MarksConfig {
    /// Marks in `dir` with the usual limits.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max_events: 500_000, segment_bytes: 4 << 20, max_bytes: 1 << 30 }
    }

    /// With another [`MarksConfig::max_events`].
    #[must_use]
    pub fn with_max_events(mut self, events: usize) -> Self {
        self.max_events = events.max(1);
        self
    }

    /// With another [`MarksConfig::segment_bytes`].
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.max(1);
        self
    }

    /// With another [`MarksConfig::max_bytes`].
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }
}
