//! A record as a consumer sees it: read once, shared by every attempt.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;
use canonical_envelope::{Envelope, Limits};
use eb_contract::Record;
use eb_contract::stores::{DeadLetterId, EventIdentity, Mark};

/// What every envelope in a log keeps to, whatever the limits were when it was admitted.
const LIMITS: Limits = Limits::new(Limits::MAX_BYTES, Limits::MAX_DEPTH);

/// A record and what its envelope says.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) record: Record,
    /// What was read of the envelope, or why it could not be read.
    pub(crate) content: Result<Content, String>,
    /// The open letter that somebody before has put of it.
    pub(crate) letter: Option<DeadLetterId>,
}

/// What routing and idempotency need of an envelope.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) event_type: ByteString,
    pub(crate) identity: EventIdentity,
    /// Where the payload stands in the envelope's bytes.
    payload: Option<Range<usize>>,
}

impl Item {
    pub(crate) fn read(record: Record) -> Self {
        let content = Content::read(record.envelope.bytes());
        Self { record, content, letter: None }
    }

    /// The payload as written: one JSON object.
    pub(crate) fn payload(&self) -> Option<&str> {
        let range = self.content.as_ref().ok()?.payload.clone()?;
        self.record.envelope.as_str().ok()?.get(range)
    }

    /// For events, which are made only of envelopes that were read.
    pub(crate) fn content(&self) -> &Content {
        self.content.as_ref().expect("an event is made only of an envelope that was read")
    }

    /// As [`Item::content`].
    pub(crate) fn envelope(&self) -> Envelope<'_> {
        let again = Envelope::parse_with(self.record.envelope.as_bytes(), LIMITS);
        again.expect("an event is made only of an envelope that was read, and its bytes do not change")
    }

    pub(crate) fn mark(&self) -> Mark {
        let event = self.content.as_ref().ok().map(|c| c.identity.clone());
        Mark { offset: self.record.eb_ref.offset, event }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.record.envelope.len()
    }
}

impl Content {
    fn read(bytes: &Bytes) -> Result<Self, String> {
        let envelope = Envelope::parse_with(bytes, LIMITS).map_err(|e| e.to_string())?;
        let payload = envelope.payload().map(|text| {
            let start = text.as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + text.len()
        });
        Ok(Self {
            event_type: shared(bytes, envelope.event_type()),
            identity: EventIdentity {
                dedupe: *envelope.dedupe_key().as_bytes(),
                event_id: shared(bytes, envelope.event_id()),
            },
            payload,
        })
    }
}

/// `text` as a slice of `bytes` where it stands in them; a copy where it had escapes.
fn shared(bytes: &Bytes, text: &str) -> ByteString {
    let within = bytes.as_ptr_range();
    let here = text.as_bytes().as_ptr_range();
    if within.start <= here.start && here.end <= within.end {
        let slice = bytes.slice_ref(text.as_bytes());
        return ByteString::try_from(slice).unwrap_or_else(|_| ByteString::from(text));
    }
    ByteString::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn what_was_escaped_is_read_as_it_is_meant_and_the_payload_as_it_was_written() {
        let item = Item::read(record(
            3,
            "k",
            r#"{"event_id":"a\u002fb","event_type":"x.y.z","ts_utc":"2026-01-29T09:30:00.000001Z","manifest_fingerprint":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","payload":{"n":1.0}}"#,
        ));
        let content = item.content.as_ref().unwrap();
        assert_eq!((content.identity.event_id.as_ref(), content.event_type.as_ref()), ("a/b", "x.y.z"));
        assert_eq!(item.payload(), Some(r#"{"n":1.0}"#));
        let gate = *item.envelope().dedupe_key().as_bytes();
        assert_eq!(content.identity.dedupe, gate, "the second guard tells events apart as the gate does");
    }

    #[test]
    fn an_envelope_that_is_none_says_why_and_has_a_mark_without_an_event() {
        let item = Item::read(record(0, "k", r#"{"event_id":"a"}"#));
        assert!(item.content.as_ref().unwrap_err().contains("event_type"), "{:?}", item.content);
        assert_eq!(item.mark().event, None);
    }
}
