//! Support code of the whole-system tests: what was said about a log, and holding the log to it.

pub mod consumers;
pub mod facts;
pub mod fuzz;
pub mod ledger;
pub mod rollout;
#[cfg(unix)]
pub mod shared;

use crate::ledger::Found;
use bytes::Bytes;
use eb_contract::{
    EnvelopeRef, EventBusReader, EventBusReaderExt, PartitionId, PartitionKey, PublishRecord, Result,
    StartAt, Topic,
};
use eb_testkit::events::{Generator, Mix};

/// The topic that the suites write to.
///
/// # Panics
/// Never: the name is a valid one.
#[must_use]
pub fn topic() -> Topic {
    Topic::new("fp.bus.traffic.v1").expect("letters and dots")
}

/// A record that can be told from all others: `call` rises with every record of its key, and `padding` makes it as long
/// as is wanted.
///
/// # Panics
/// When `key` is not a partition key.
#[must_use]
pub fn record(key: &str, call: u64, padding: usize) -> PublishRecord {
    let envelope = format!(r#"{{"key":"{key}","call":{call},"padding":"{}"}}"#, "x".repeat(padding));
    PublishRecord::new(
        PartitionKey::new(key).expect("suites use plain keys"),
        EnvelopeRef::new(Bytes::from(envelope)).expect("one object on one line"),
    )
}

/// The number that [`record`] was given.
#[must_use]
pub fn call_of(envelope: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(envelope).ok()?;
    let digits = text.split_once(r#""call":"#)?.1;
    digits.split(',').next()?.parse().ok()
}

/// Runs a future to its end on a runtime of its own.
///
/// # Panics
/// When no runtime can be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a machine with room for a runtime").block_on(future)
}

/// Reads all partitions of a topic from their beginning.
///
/// # Errors
/// As the reader says.
pub async fn read_all(reader: &dyn EventBusReader, topic: &Topic) -> Result<Vec<(PartitionId, Vec<Found>)>> {
    let mut all = Vec::new();
    for partition in reader.partitions(topic).await?.partitions {
        let records = reader.read_to_head(topic, partition.id, StartAt::Earliest).await?;
        all.push((partition.id, records.iter().map(Found::from).collect()));
    }
    Ok(all)
}

/// The stream that the gate suites send: with repeats, rewritings, contradictions and invalid events, far enough apart for
/// [`GATE_WINDOW`] events in flight.
#[must_use]
pub fn gate_events(seed: u64) -> Generator {
    let mix =
        Mix { repeated: 60, rewritten: 40, conflicting: 40, invalid: 40, large: 4, distance: GATE_WINDOW };
    Generator::new(seed, mix)
}

/// The most events of [`gate_events`] that may be in flight at once for its expectations to hold.
pub const GATE_WINDOW: usize = 64;
