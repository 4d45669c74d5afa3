//! What the suites of killed consumers share with the processes that they kill.

use canonical_envelope::{EnvelopeBuilder, parse_time};
use eb_contract::{EnvelopeRef, PartitionKey, PublishRecord};

/// The consumer's name.
pub const CONSUMER: &str = "killed";
/// The file of effects, below the root.
pub const EFFECTS: &str = "effects";

/// An event: `call` counts the events of its key.
///
/// # Panics
/// When `key` is not a partition key.
#[must_use]
pub fn call(key: &str, call: u64) -> PublishRecord {
    let envelope = EnvelopeBuilder::new("test.call.made")
        .event_id(format!("{key}-{call}"))
        .ts_utc(parse_time("2026-01-29T09:30:00.000001Z").expect("a time in its form"))
        .manifest_fingerprint("a".repeat(64))
        .payload_json(format!(r#"{{"call":{call}}}"#))
        .build()
        .expect("an envelope with all that it needs");
    PublishRecord::new(
        PartitionKey::new(key.to_owned()).expect("suites use plain keys"),
        EnvelopeRef::new(envelope).expect("one object on one line"),
    )
}
