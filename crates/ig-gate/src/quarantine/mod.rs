//! Evidence: what was not admitted is kept, durably, before the receipt that says so.

mod log;

use bytes::Bytes;
use eb_contract::{BoxFuture, Cut, PartitionId, Result, Timestamp};
use serde::{Deserialize, Serialize};

pub use log::LogQuarantine;

use crate::reason::Detail;
use crate::receipt::{EvidenceRef, Receipt, ReceiptId};

/// One input to keep.
#[derive(Debug, Clone)]
pub struct QuarantineRecord {
    /// When the gate received it.
    pub received_at: Timestamp,
    /// Its bytes, as they came.
    pub input: Bytes,
    /// SHA-256 over all of them.
    pub input_sha256: [u8; 32],
    /// What is wrong with it.
    pub details: Vec<Detail>,
    /// The receipt that will be answered, without the reference to this very record.
    pub receipt: Receipt,
}

/// One input as it was kept. JSON, closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredQuarantine {
    /// `ig.quarantine.v1`.
    pub format: String,
    /// When the gate received the input.
    pub received_at_utc: Timestamp,
    /// What is wrong with it.
    pub details: Vec<Detail>,
    /// Its bytes.
    pub input: StoredInput,
    /// The receipt that was answered. In the log it lacks the reference to its own record; when read it has it.
    pub receipt: Receipt,
}

/// The bytes of a quarantined input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredInput {
    /// SHA-256 hex over the whole input.
    pub sha256: String,
    /// How many bytes the whole input has.
    pub bytes: u64,
    /// Whether `content` is only a prefix of it: the whole was larger than what may be kept.
    pub truncated: bool,
    /// How `content` is written.
    pub encoding: InputEncoding,
    /// The input, or its first bytes.
    pub content: String,
}

/// How the bytes of an input are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputEncoding {
    /// As they are: they are UTF-8.
    Utf8,
    /// In standard base64 with padding.
    Base64,
}

impl StoredInput {
    /// The kept bytes.
    ///
    /// # Errors
    /// When `content` is not what `encoding` says.
    pub fn decode(&self) -> std::result::Result<Vec<u8>, base64::DecodeError> {
        use base64::Engine as _;
        match self.encoding {
            InputEncoding::Utf8 => Ok(self.content.clone().into_bytes()),
            InputEncoding::Base64 => base64::engine::general_purpose::STANDARD.decode(&self.content),
        }
    }
}

/// A place in the list of quarantined inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuarantinePosition {
    /// The partition of the store's log.
    pub partition: PartitionId,
    /// Where in it.
    pub cut: Cut,
}

/// A page of the list of quarantined inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct QuarantinePage {
    /// The inputs, in the order in which they were stored, partition by partition.
    pub records: Vec<StoredQuarantine>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<QuarantinePosition>,
}

/// Where evidence is kept.
pub trait QuarantineStore: Send + Sync + 'static {
    /// Keeps a record and gives the reference that the receipt cites. The record is durable before the future is
    /// ready. Dropping the future leaves the record kept or not.
    ///
    /// # Errors
    /// When it is not known to be durable.
    fn put(&self, record: QuarantineRecord) -> BoxFuture<'static, Result<EvidenceRef>>;

    /// The newest record of a receipt.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, receipt_id: ReceiptId) -> BoxFuture<'_, Result<Option<StoredQuarantine>>>;

    /// Up to `max` records from `from`, or from the oldest.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(&self, from: Option<QuarantinePosition>, max: usize) -> BoxFuture<'_, Result<QuarantinePage>>;

    /// Checks that evidence could be kept now; for health.
    ///
    /// # Errors
    /// Why not.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;
}
