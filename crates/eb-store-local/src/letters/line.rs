//! The lines of the file of letters.

use bytes::Bytes;
use eb_contract::stores::{
    DeadLetter, DeadLetterId, DeadReason, FailedAttempt, NewDeadLetter, Resolution, Resolved,
};
use eb_contract::{BusIncarnation, ConsumerName, EbRef, EnvelopeRef, PartitionKey, Record, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::files::line;

pub(super) const VERSION: u32 = 1;
const HEAD: &str = "dead_letters";
const LETTER: &str = "letter";
const RESOLVED: &str = "resolved";

/// A line as it is read.
pub(super) enum Line {
    Head { version: u32 },
    Letter(Box<DeadLetter>),
    Resolved { id: DeadLetterId, resolved: Resolved },
}

#[derive(Deserialize)]
struct HeadIn {
    version: u32,
}

#[derive(Deserialize)]
struct LetterIn<'a> {
    id: DeadLetterId,
    put_at: Timestamp,
    consumer: ConsumerName,
    bus_incarnation: BusIncarnation,
    eb_ref: EbRef,
    partition_key: PartitionKey,
    event_id: Option<String>,
    event_type: Option<String>,
    reason: DeadReason,
    attempts: u32,
    failures: Vec<FailedAttempt>,
    parks_key: bool,
    #[serde(borrow)]
    envelope: &'a RawValue,
}

#[derive(Deserialize)]
struct ResolvedIn {
    id: DeadLetterId,
    how: Resolution,
    at: Timestamp,
    reason: String,
}

pub(super) fn head() -> Vec<u8> {
    let mut out = Vec::new();
    let start = line::begin(&mut out, HEAD);
    line::member(&mut out, "durable", &0);
    line::member(&mut out, "version", &VERSION);
    line::end(&mut out, start);
    out
}

pub(super) fn letter(durable: u64, letter: &DeadLetter) -> Vec<u8> {
    let new = &letter.letter;
    let mut out = Vec::with_capacity(1024 + new.record.envelope.len());
    let start = line::begin(&mut out, LETTER);
    line::member(&mut out, "durable", &durable);
    line::member(&mut out, "id", &letter.id);
    line::member(&mut out, "put_at", &letter.put_at);
    line::member(&mut out, "consumer", &new.consumer);
    line::member(&mut out, "bus_incarnation", &new.bus_incarnation);
    line::member(&mut out, "eb_ref", &new.record.eb_ref);
    line::member(&mut out, "partition_key", &new.record.partition_key);
    line::member(&mut out, "event_id", &new.event_id);
    line::member(&mut out, "event_type", &new.event_type);
    line::member(&mut out, "reason", &new.reason);
    line::member(&mut out, "attempts", &new.attempts);
    line::member(&mut out, "failures", &new.failures);
    line::member(&mut out, "parks_key", &new.parks_key);
    // One JSON object without a raw newline, by the contract: it stands in the line as it is.
    line::name_of(&mut out, "envelope");
    out.extend_from_slice(new.record.envelope.as_bytes());
    line::end(&mut out, start);
    out
}

pub(super) fn resolved(durable: u64, id: DeadLetterId, resolved: &Resolved) -> Vec<u8> {
    let mut out = Vec::new();
    let start = line::begin(&mut out, RESOLVED);
    line::member(&mut out, "durable", &durable);
    line::member(&mut out, "id", &id);
    line::member(&mut out, "how", &resolved.how);
    line::member(&mut out, "at", &resolved.at);
    line::member(&mut out, "reason", &resolved.reason);
    line::end(&mut out, start);
    out
}

/// Reads a line whose checksum holds.
pub(super) fn read(text: &[u8]) -> Result<Line, String> {
    fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }
    match line::sort(text) {
        Some(HEAD) => parse::<HeadIn>(text).map(|head| Line::Head { version: head.version }),
        Some(LETTER) => parse::<LetterIn<'_>>(text).map(|l| {
            // The checksum of the line vouches for it.
            let envelope = EnvelopeRef::from_stored(Bytes::copy_from_slice(l.envelope.get().as_bytes()));
            let record = Record { eb_ref: l.eb_ref, partition_key: l.partition_key, envelope };
            let letter = NewDeadLetter {
                consumer: l.consumer,
                bus_incarnation: l.bus_incarnation,
                record,
                event_id: l.event_id,
                event_type: l.event_type,
                reason: l.reason,
                attempts: l.attempts,
                failures: l.failures,
                parks_key: l.parks_key,
            };
            Line::Letter(Box::new(DeadLetter { id: l.id, letter, put_at: l.put_at, resolved: None }))
        }),
        Some(RESOLVED) => parse::<ResolvedIn>(text).map(|r| Line::Resolved {
            id: r.id,
            resolved: Resolved { how: r.how, at: r.at, reason: r.reason },
        }),
        Some(other) => Err(format!("a line of sort `{other}`, which this program does not know")),
        None => Err("its checksum does not hold".to_owned()),
    }
}
