//! What a backend promises beyond the laws, and what it cannot do.

use serde::Serialize;

use crate::OffsetKind;

/// What a backend declares of itself. The conformance suite picks its scenarios by it, and names what it leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// The backend's name as in a profile: `file`, `memory`, `kinesis`, `redis`.
    pub backend: &'static str,
    /// The kind of its offsets.
    pub offset_kind: OffsetKind,
    /// What an ACK survives.
    pub durability: Durability,
    /// What it promises about the order of a key's records.
    pub key_order: KeyOrder,
    /// The most bytes of one envelope (its partition key not counted).
    pub max_envelope_bytes: usize,
    /// The most UTF-16 units of a partition key, where the backend counts in those: characters beyond the basic plane
    /// count twice, and a longer key is refused as [`InvalidInput`](crate::ErrorKind::InvalidInput). `None` where the
    /// 256 characters of a [`PartitionKey`](crate::PartitionKey) are the only limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_key_utf16: Option<usize>,
    /// The most records of one `publish_batch` call.
    pub max_batch_records: usize,
    /// Several processes may publish to one partition.
    pub multi_writer: bool,
    /// What was published is there after the bus is closed and opened again.
    pub reopen: bool,
    /// Old records may vanish (retention, trimming), and reads below the horizon are out of range.
    pub retention: bool,
    /// Partitions may end and have children.
    pub resharding: bool,
    /// A publish may end with an unknown outcome, so that a retried record may lie in the log twice.
    pub unknown_outcomes: bool,
    /// A publish with an unknown outcome has landed or never will, once a later `probe` of the same publisher has
    /// succeeded. Without it, it may still land late, and only time tells.
    pub probe_settles: bool,
    /// Reading may start at a time.
    pub seek_by_time: bool,
    /// What else a user must know, a sentence each: printed by `eb profile check`.
    pub notes: Vec<String>,
}

impl Capabilities {
    /// The strictest promises of a durable single-writer log; a backend changes what differs.
    #[must_use]
    pub fn new(backend: &'static str, offset_kind: OffsetKind) -> Self {
        Self {
            backend,
            offset_kind,
            durability: Durability::PowerCut,
            key_order: KeyOrder::Strict,
            max_envelope_bytes: crate::EnvelopeLimits::DEFAULT_BYTES,
            max_key_utf16: None,
            max_batch_records: 10_000,
            multi_writer: false,
            reopen: true,
            retention: false,
            resharding: false,
            unknown_outcomes: false,
            probe_settles: false,
            seek_by_time: true,
            notes: Vec::new(),
        }
    }
}

/// What an ACKed record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing: it lives as long as the process.
    Process,
    /// The process's death and a clean reboot, but a power cut may take the newest ACKs.
    Weaker,
    /// A power cut.
    PowerCut,
}

/// What is promised about the order of one key's records among one publisher's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOrder {
    /// First occurrences lie in the order of the calls.
    Strict,
    /// Usually so; the service promises nothing for records in flight together.
    BestEffort,
}
