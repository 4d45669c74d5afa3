//! The settings of a bus on Kinesis. What they open is tried where the services are, by the smoke run and the system tests.

use std::time::Duration;

use eb_profile::{KinesisCredentials, KinesisSettings, ProfileError};

use crate::{GOOD, parse};

/// A profile of kind `kinesis` with this section, indented as it stands.
fn profile(section: &str) -> String {
    let text = GOOD.replace("event_bus_kind: file", "event_bus_kind: kinesis");
    text.replace("    topics:\n", &format!("{section}    topics:\n"))
}

fn settings(section: &str) -> KinesisSettings {
    parse(&profile(section), &[]).unwrap().wiring.event_bus.kinesis.unwrap()
}

fn error(section: &str) -> ProfileError {
    parse(&profile(section), &[]).unwrap_err()
}

#[test]
fn an_empty_section_is_aws_with_all_its_limits() {
    let settings = settings("    kinesis: {}\n");
    assert_eq!((&settings.region, &settings.endpoint_url), (&None, &None));
    assert_eq!(settings.credentials, KinesisCredentials::Chain);
    assert!(settings.strict);
    assert_eq!(settings.publish.shard_rate, Some((1_000, 1 << 20)));
    assert_eq!(settings.read.shard_rate, Some((5, 2_000_000)));
}

#[test]
fn an_open_line_gets_credentials_that_mean_nothing_and_no_pacing() {
    let settings = settings("    kinesis:\n      endpoint_url: http://127.0.0.1:4566\n");
    assert_eq!(settings.region.as_deref(), Some("us-east-1"));
    assert_eq!(settings.credentials, KinesisCredentials::Test);
    assert_eq!((settings.publish.shard_rate, settings.read.shard_rate), (None, None));

    let private =
        "    kinesis:\n      endpoint_url: https://vpce-1.kinesis.eu-central-1.vpce.amazonaws.com\n";
    assert_eq!(self::settings(private).credentials, KinesisCredentials::Chain);
}

#[test]
fn every_setting_is_read() {
    let settings = settings(
        "    kinesis:\n      region: eu-central-1\n      credentials: test\n      stream_prefix: dev-\n      streams:\n        t.two: second\n      ordering: batched\n      connect_timeout_ms: 1000\n      attempt_timeout_ms: 2000\n      publish:\n        max_records_per_call: 100\n        max_bytes_per_call: 2000000\n        max_record_bytes: 100000\n        calls_in_flight: 3\n        max_buffered_bytes: 5000000\n        shard_records_per_second: 10\n        shard_bytes_per_second: 1000\n        give_up_after_ms: 4000\n      read:\n        max_records_per_call: 500\n        shard_calls_per_second: 0\n        shard_bytes_per_second: 0\n        idle_poll_ms: 10\n        shards_fresh_for_ms: 0\n",
    );
    assert_eq!(settings.stream_prefix, "dev-");
    assert_eq!(settings.streams.values().collect::<Vec<_>>(), ["second"]);
    assert!(!settings.strict);
    assert_eq!(settings.publish.max_buffered_bytes, 5_000_000);
    assert_eq!(settings.publish.shard_rate, Some((10, 1000)));
    assert_eq!(settings.publish.give_up_after, Duration::from_secs(4));
    assert_eq!(settings.read.shard_rate, None);
    assert_eq!(settings.read.shards_fresh_for, Duration::ZERO);
    assert_eq!(settings.attempt_timeout, Duration::from_secs(2));
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let cases = [
        (
            "",
            "p.yaml:9:3: wiring.event_bus.kinesis: missing; write `kinesis: {}` to take region and credentials from the environment",
        ),
        (
            "    kinesis:\n      orderng: strict\n",
            "p.yaml:12:7: wiring.event_bus.kinesis.orderng: unknown key; did you mean `ordering`?",
        ),
        (
            "    kinesis:\n      ordering: strickt\n",
            "p.yaml:12:17: wiring.event_bus.kinesis.ordering: `strickt` is not one of them; did you mean `strict`?",
        ),
        (
            "    kinesis:\n      endpoint_url: localhost:4566\n",
            "p.yaml:12:21: wiring.event_bus.kinesis.endpoint_url: it must begin with http:// or https://",
        ),
        (
            "    kinesis:\n      stream_prefix: a/b\n",
            "p.yaml:12:22: wiring.event_bus.kinesis.stream_prefix: use 1 to 128 of A-Z a-z 0-9 . _ -",
        ),
        (
            "    kinesis:\n      streams:\n        t.one: s\n        t.two: s\n",
            "p.yaml:14:9: wiring.event_bus.kinesis.streams.t.two: t.one has that stream already",
        ),
        (
            "    kinesis:\n      publish:\n        max_records_per_call: 501\n",
            "p.yaml:13:31: wiring.event_bus.kinesis.publish.max_records_per_call: `501` is not a whole number from 1 to 500",
        ),
        (
            "    kinesis:\n      read:\n        shard_calls_per_second: 0\n",
            "p.yaml:12:7: wiring.event_bus.kinesis.read.shard_bytes_per_second: one of the shard's rates is 0 and the other is not; 0 for both is no pacing",
        ),
    ];
    for (section, expected) in cases {
        assert_eq!(error(section).to_string(), expected);
    }
}

#[test]
fn the_section_may_stand_beside_another_kind_and_the_switch_takes_it() {
    let text = profile("    kinesis:\n      endpoint_url: http://127.0.0.1:4566\n")
        .replace("event_bus_kind: kinesis", "event_bus_kind: file");
    assert!(parse(&text, &[]).unwrap().wiring.event_bus.kinesis.is_some());
    let without = parse(GOOD, &[("EVENT_BUS_KIND", "kinesis")]).unwrap_err().to_string();
    assert!(
        without.contains("wiring.event_bus.kinesis: missing (EVENT_BUS_KIND=kinesis needs it)"),
        "{without}"
    );
}
