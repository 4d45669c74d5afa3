//! Evidence as records of an event bus of its own.
//!
//! # Format
//! One record is one [`StoredQuarantine`] as compact JSON, published under the receipt id as its partition key to
//! a topic of its own (such as `ig.quarantine.v1`), on a bus apart from the one that facts go to: a reader of facts
//! never meets an input that is none.
//!
//! - An input that is UTF-8 is kept as a string, any other as base64.
//! - An input whose record would exceed the bus's limit on envelopes is cut to its first bytes
//!   ([`LogQuarantine::DEFAULT_PREFIX_BYTES`] of them, or as the store was told), and `truncated` says so; `sha256` and
//!   `bytes` always speak of the whole. Give this bus a higher limit than the gate's inputs have, and only inputs past the
//!   gate's limit are cut.
//! - The record's own place is known only once it is written, so the receipt in it lacks that reference; reading
//!   puts it in.
//!
//! # Failure
//! A publish that fails, or whose outcome is unknown, is an error: there is no receipt then, and the record may be
//! there without one. The same input sent again is kept again, under the same receipt id.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use eb_contract::{
    BoxFuture, Cursor, Cut, EnvelopeLimits, EnvelopeRef, Error, ErrorKind, EventBusPublisher, EventBusReader,
    PartitionKey, PublishRecord, ReadLimit, ReadState, Record, Result, StartAt, Topic,
};
use sha2::{Digest as _, Sha256};

use super::{
    InputEncoding, QuarantinePage, QuarantinePosition, QuarantineRecord, QuarantineStore, StoredInput,
    StoredQuarantine,
};
use crate::policy::hex;
use crate::receipt::{EvidenceKind, EvidenceRef, ReceiptId};

const FORMAT: &str = "ig.quarantine.v1";

/// A [`QuarantineStore`] over an event bus.
pub struct LogQuarantine {
    publisher: Arc<dyn EventBusPublisher>,
    reader: Arc<dyn EventBusReader>,
    topic: Topic,
    prefix_bytes: usize,
}

impl LogQuarantine {
    /// How much of an input is kept where it cannot be kept whole, if there is no reason for another measure: 64 KiB.
    pub const DEFAULT_PREFIX_BYTES: usize = 64 << 10;

    /// Keeps evidence in `topic`, which must exist. Of an input that cannot be kept whole the first `prefix_bytes`
    /// are kept.
    #[must_use]
    pub fn new(
        publisher: Arc<dyn EventBusPublisher>,
        reader: Arc<dyn EventBusReader>,
        topic: Topic,
        prefix_bytes: usize,
    ) -> Self {
        Self { publisher, reader, topic, prefix_bytes }
    }

    fn encode(&self, record: &QuarantineRecord) -> Result<EnvelopeRef> {
        let max_bytes = self.publisher.capabilities().max_envelope_bytes;
        let limits = EnvelopeLimits { max_bytes, ..EnvelopeLimits::default() };
        // Characters of a string take up to six bytes in JSON, and the record has a frame around it.
        let mut keep = record.input.len().min(max_bytes);
        loop {
            let bytes = encode_with(record, keep)?;
            if bytes.len() <= max_bytes || keep == 0 {
                return EnvelopeRef::with_limits(bytes, limits).map_err(|e| {
                    Error::new(ErrorKind::InvalidInput, "quarantine", "the evidence cannot be written")
                        .with_source(e)
                });
            }
            keep = if keep > self.prefix_bytes { self.prefix_bytes } else { keep / 2 };
        }
    }

    fn decode(&self, record: &Record) -> Result<StoredQuarantine> {
        let bytes = record.envelope.as_bytes();
        let mut stored: StoredQuarantine = serde_json::from_slice(bytes).map_err(|e| {
            let kind = ErrorKind::Corrupt { file: record.eb_ref.topic.to_string(), line: None, byte: None };
            Error::new(kind, "read quarantine", "not a quarantine record")
                .at(&record.eb_ref)
                .with_source(e)
                .advise("keep the quarantine's topic for the gate alone")
        })?;
        stored.receipt.evidence_refs.insert(0, evidence(&record.eb_ref.to_string(), bytes));
        Ok(stored)
    }

    async fn cursor(&self, at: QuarantinePosition) -> Result<Box<dyn Cursor>> {
        self.reader.cursor(&self.topic, at.partition, StartAt::Cut(at.cut)).await
    }

    /// Where the partition after this one starts, or the first.
    async fn partition_after(
        &self,
        before: Option<QuarantinePosition>,
    ) -> Result<Option<QuarantinePosition>> {
        let listed = self.reader.partitions(&self.topic).await?.partitions;
        let next = listed.iter().map(|p| p.id).filter(|id| before.is_none_or(|b| *id > b.partition)).min();
        Ok(next.map(|partition| QuarantinePosition { partition, cut: Cut::Begin }))
    }
}

fn encode_with(record: &QuarantineRecord, keep: usize) -> Result<Bytes> {
    let kept = &record.input[..keep];
    let truncated = keep < record.input.len();
    let utf8 = match std::str::from_utf8(kept) {
        Ok(text) => Some(text),
        // A prefix may end inside a character; what was cut is told apart from what never was UTF-8.
        Err(e) if truncated && e.error_len().is_none() => std::str::from_utf8(&kept[..e.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let (encoding, content) = match utf8 {
        Some(text) => (InputEncoding::Utf8, text.to_owned()),
        None => (InputEncoding::Base64, base64::engine::general_purpose::STANDARD.encode(kept)),
    };
    let stored = StoredQuarantine {
        format: FORMAT.to_owned(),
        received_at_utc: record.received_at,
        details: record.details.clone(),
        input: StoredInput {
            sha256: hex(&record.input_sha256),
            bytes: record.input.len() as u64,
            truncated,
            encoding,
            content,
        },
        receipt: record.receipt.clone(),
    };
    serde_json::to_vec(&stored).map(Bytes::from).map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "quarantine", "the evidence cannot be written").with_source(e)
    })
}

fn evidence(place: &str, bytes: &[u8]) -> EvidenceRef {
    EvidenceRef {
        kind: EvidenceKind::QuarantineRecord,
        reference: place.to_owned(),
        digest: hex(&Sha256::digest(bytes)),
    }
}

impl QuarantineStore for LogQuarantine {
    fn put(&self, record: QuarantineRecord) -> BoxFuture<'static, Result<EvidenceRef>> {
        let prepared = self.encode(&record).and_then(|envelope| {
            let key = PartitionKey::new(record.receipt.receipt_id.to_string()).map_err(|e| {
                Error::new(ErrorKind::InvalidInput, "quarantine", "the receipt id is no key").with_source(e)
            })?;
            Ok((key, envelope))
        });
        let (key, envelope) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => return Box::pin(std::future::ready(Err(e))),
        };
        let bytes = envelope.bytes().clone();
        let publish = self.publisher.publish(&self.topic, PublishRecord::new(key, envelope));
        Box::pin(async move { Ok(evidence(&publish.await?.to_string(), &bytes)) })
    }

    fn get(&self, receipt_id: ReceiptId) -> BoxFuture<'_, Result<Option<StoredQuarantine>>> {
        let wanted = receipt_id.to_string();
        Box::pin(async move {
            let mut found = None;
            let mut at = self.partition_after(None).await?;
            while let Some(position) = at {
                let mut cursor = self.cursor(position).await?;
                loop {
                    let batch = cursor.next(ReadLimit::default()).await?;
                    if let Some(record) = batch.records.iter().rfind(|r| r.partition_key.as_str() == wanted) {
                        found = Some(self.decode(record)?);
                    }
                    if batch.state != ReadState::More {
                        break;
                    }
                }
                at = self.partition_after(Some(position)).await?;
            }
            Ok(found)
        })
    }

    fn list(&self, from: Option<QuarantinePosition>, max: usize) -> BoxFuture<'_, Result<QuarantinePage>> {
        Box::pin(async move {
            let mut at = match from {
                Some(position) => Some(position),
                None => self.partition_after(None).await?,
            };
            let mut records = Vec::new();
            while let Some(position) = at {
                if records.len() >= max.max(1) {
                    break;
                }
                let mut cursor = self.cursor(position).await?;
                let batch = cursor.next(ReadLimit::records(max.max(1) - records.len())).await?;
                for record in &batch.records {
                    records.push(self.decode(record)?);
                }
                at = match batch.state {
                    ReadState::More => Some(QuarantinePosition { cut: batch.next, ..position }),
                    ReadState::CaughtUp | ReadState::Closed { .. } => {
                        self.partition_after(Some(position)).await?
                    }
                };
            }
            Ok(QuarantinePage { records, next: at })
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        self.publisher.probe(&self.topic)
    }
}
