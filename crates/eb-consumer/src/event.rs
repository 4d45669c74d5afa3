//! What a handler is given.

use std::fmt;
use std::sync::Arc;

use canonical_envelope::Envelope;
use eb_contract::{EbRef, PartitionKey, Record};

use crate::hold::Hold;
use crate::item::{Content, Item};

/// An event to be handled: its payload as a `T`, and everything else about it.
#[derive(Clone)]
pub struct Event<T> {
    pub(crate) item: Arc<Item>,
    pub(crate) attempt: u32,
    pub(crate) hold: Option<Arc<Hold>>,
    /// The payload.
    pub payload: T,
}

/// An event whose payload was not decoded; [`Event::payload_json`] has it.
pub type RawEvent = Event<()>;

impl<T> Event<T> {
    fn content(&self) -> &Content {
        self.item.content()
    }

    /// The envelope's `event_id`.
    #[must_use]
    pub fn event_id(&self) -> &str {
        &self.content().identity.event_id
    }

    /// The envelope's `event_type`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.content().event_type
    }

    /// All fields of the envelope. They are read anew by each call, in a microsecond or two: keep it.
    #[must_use]
    pub fn envelope(&self) -> Envelope<'_> {
        self.item.envelope()
    }

    /// The payload as it was written, one JSON object; `None` where the envelope has none.
    #[must_use]
    pub fn payload_json(&self) -> Option<&str> {
        self.item.payload()
    }

    /// The envelope's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.item.record.envelope.as_bytes()
    }

    /// Where it lies. With the bus's incarnation the key of an effect that must not be doubled.
    #[must_use]
    pub fn eb_ref(&self) -> &EbRef {
        &self.item.record.eb_ref
    }

    /// The key within which order holds.
    #[must_use]
    pub fn partition_key(&self) -> &PartitionKey {
        &self.item.record.partition_key
    }

    /// How often the handler has been called for it by this holder of the partition, this time included.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The lease under which it is handled; `None` for a dead letter that is tried again, and where there are no leases
    /// ([`Ordering::Unordered`](crate::Ordering::Unordered)).
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.as_deref()
    }

    /// The record as it lies in the log.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.item.record
    }
}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads may hold what does not belong in a log file.
        write!(
            f,
            "Event({} {} at {}, attempt {})",
            self.event_type(),
            self.event_id(),
            self.eb_ref(),
            self.attempt
        )
    }
}
