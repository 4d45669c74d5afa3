//! What a memory bus is made with.

use eb_contract::{Capabilities, Durability, EnvelopeLimits, OffsetKind};

/// How offsets are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offsets {
    /// 0, 1, 2, …: the index of the record in its partition, as in a file log.
    #[default]
    Dense,
    /// Rising integers with gaps, wider than 64 bits from the 200th record on, as in a managed stream.
    Sparse,
}

/// Limits and traits of a memory bus. The default is a dense log that never loses records and never reshards.
#[derive(Debug, Clone)]
pub struct MemoryConfig {
    /// How offsets are numbered.
    pub offsets: Offsets,
    /// The most bytes of one envelope.
    pub max_envelope_bytes: usize,
    /// The most records of one batch.
    pub max_batch_records: usize,
    /// The most bytes of keys and envelopes that the whole bus holds; beyond it publishes answer `StorageFull`.
    pub max_bytes: usize,
    /// The most records that wait while publishes are held; beyond it publishes answer `Throttled`.
    pub max_held_records: usize,
    /// The most partitions of a topic.
    pub max_partitions: u32,
    /// Records may be trimmed ([`Faults::trim`](crate::Faults::trim)).
    pub retention: bool,
    /// Partitions may be split and merged ([`Faults::split`](crate::Faults::split)).
    pub resharding: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            offsets: Offsets::Dense,
            max_envelope_bytes: EnvelopeLimits::DEFAULT_BYTES,
            max_batch_records: 10_000,
            max_bytes: 1 << 30,
            max_held_records: 100_000,
            max_partitions: 10_000,
            retention: false,
            resharding: false,
        }
    }
}

impl MemoryConfig {
    /// A bus that looks like a managed stream: sparse offsets, trimming, resharding.
    #[must_use]
    pub fn stream_like() -> Self {
        Self { offsets: Offsets::Sparse, retention: true, resharding: true, ..Self::default() }
    }

    pub(crate) fn offset_kind(&self) -> OffsetKind {
        match self.offsets {
            Offsets::Dense => OffsetKind::MemoryIndex,
            Offsets::Sparse => OffsetKind::External,
        }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let mut caps = Capabilities::new("memory", self.offset_kind());
        caps.durability = Durability::Process;
        caps.max_envelope_bytes = self.max_envelope_bytes;
        caps.max_batch_records = self.max_batch_records;
        caps.retention = self.retention;
        caps.resharding = self.resharding;
        caps.notes = vec!["Nothing is written anywhere: what it holds ends with the process.".to_owned()];
        caps
    }
}
