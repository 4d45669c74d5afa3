//! What goes in and what comes out.

use std::time::Duration;

use crate::{Cut, EbRef, EnvelopeRef, PartitionId, PartitionKey};

/// One record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRecord {
    /// The key that decides its partition and order.
    pub partition_key: PartitionKey,
    /// The envelope.
    pub envelope: EnvelopeRef,
}

impl PublishRecord {
    /// A record to publish.
    #[must_use]
    pub fn new(partition_key: PartitionKey, envelope: EnvelopeRef) -> Self {
        Self { partition_key, envelope }
    }
}

/// One record as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub eb_ref: EbRef,
    /// The key it was published under.
    pub partition_key: PartitionKey,
    /// The envelope, byte for byte. It may share a block of memory with its neighbours: copy it to keep it long.
    pub envelope: EnvelopeRef,
}

/// How much one read may bring, and how long it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// The most records; 0 counts as 1.
    pub max_records: usize,
    /// About how many bytes of envelopes; one record is always brought, however large.
    pub max_bytes: usize,
    /// How long to wait for a first record at the head. Zero answers at once.
    pub wait: Duration,
}

impl ReadLimit {
    /// At most this many records, without waiting.
    #[must_use]
    pub fn records(max_records: usize) -> Self {
        Self { max_records, ..Self::default() }
    }

    /// Waiting this long for a first record.
    #[must_use]
    pub fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}

impl Default for ReadLimit {
    /// 1,000 records, 1 MiB, no waiting.
    fn default() -> Self {
        Self { max_records: 1000, max_bytes: 1 << 20, wait: Duration::ZERO }
    }
}

/// What a read brought.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadBatch {
    /// The records, in order. Possibly none, also while [`ReadState::More`] (sparse streams have empty stretches).
    pub records: Vec<Record>,
    /// The cut after the last of them: where to go on, and what to checkpoint once they are processed.
    pub next: Cut,
    /// Whether there is more.
    pub state: ReadState,
}

/// Whether there is more to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadState {
    /// The head was reached at the time of the read.
    CaughtUp,
    /// There is more, or there may be.
    More,
    /// The partition was resharded and is read to its end. Its children start at [`Cut::Begin`] once all of their
    /// parents are at [`Cut::End`].
    Closed {
        /// The partitions that go on where this one ended.
        children: Vec<PartitionId>,
    },
}
