//! What the suites of rollouts share with their processes.

/// The topic of the suite's events, by the shipped policy.
pub const TOPIC: &str = "fp.bus.traffic.v1";
/// The consumer's name.
pub const CONSUMER: &str = "audit";
/// How many lanes a publisher has. A lane sends its events one after the other, each until it has a receipt.
pub const LANES: u64 = 6;
/// More events than a lane ever sends: an answer's place is lane · this + event.
pub const PER_LANE: u64 = 1_000_000;

/// A lane's name: its partition key.
#[must_use]
pub fn lane_key(publisher: &str, lane: u64) -> String {
    format!("{publisher}-{lane}")
}

/// Event `n` of a lane, as a producer sends it. Its id is `<key>-<n>`.
#[must_use]
pub fn event(key: &str, n: u64) -> String {
    let (world, parameters) = ("a".repeat(64), "b".repeat(64));
    let run = "c".repeat(32);
    format!(
        r#"{{"event_id":"{key}-{n}","event_type":"merchant.account.onboarded","ts_utc":"2026-01-29T10:00:00.000000Z","manifest_fingerprint":"{world}","parameter_hash":"{parameters}","seed":7,"scenario_id":"s","run_id":"{run}","schema_version":"1.0.0","payload":{{"merchant_id":"{key}","n":{n}}}}}"#
    )
}

/// Key and number of an event, from its id.
#[must_use]
pub fn of_id(event_id: &str) -> Option<(&str, u64)> {
    let (key, n) = event_id.rsplit_once('-')?;
    Some((key, n.parse().ok()?))
}
