//! `eb publish` and `eb receipt`

use serde_json::{Value, json};

use crate::{AUDIT, Place, Ran, WORLD};

fn publish(place: &Place, more: &[&str]) -> Ran {
    let base =
        ["publish", "audit.access.granted", "--manifest-fingerprint", WORLD, "--schema-version", "1.0.0"];
    place.eb(&[&base, more].concat())
}

#[test]
fn an_event_is_admitted_once_and_its_receipt_is_found_again() {
    let place = Place::new();
    let first = publish(&place, &[r#"{"who":"me"}"#, "--event-id", "e1"]).one();
    assert_eq!((&first["decision"], &first["event_id"]), (&json!("ADMIT"), &json!("e1")));
    assert_eq!(first["eb_ref"]["topic"], AUDIT);
    let again = publish(&place, &[r#"{ "who" : "me" }"#, "--event-id", "e1"]).one();
    assert_eq!((&again["decision"], &again["eb_ref"]), (&json!("DUPLICATE"), &first["eb_ref"]));

    let other = publish(&place, &[r#"{"who":"you"}"#, "--event-id", "e1"]).ended(3).lines();
    assert_eq!(other[0]["decision"], "QUARANTINE");
    assert_eq!(other[0]["reason_codes"], json!(["PAYLOAD_HASH_MISMATCH"]));

    let found = place.eb(&["receipt", "--event-id", "e1"]).one();
    assert_eq!(found, first);
    for receipt in [&first, &other[0]] {
        let id = receipt["receipt_id"].as_str().unwrap();
        assert_eq!(place.eb(&["receipt", "--receipt-id", id]).one(), *receipt);
    }
    let none = place.eb(&["receipt", "--event-id", "e2"]).ended(1);
    assert!(none.stderr.starts_with("eb: there is no such receipt; "), "{none:?}");
}

#[test]
fn every_option_goes_into_the_envelope() {
    let place = Place::new();
    let (hex64, hex32) = ("b".repeat(64), "c".repeat(32));
    let options = [
        "--event-id",
        "e1",
        "--ts-utc",
        "2026-01-29T11:00:00+01:00",
        "--emitted-at-utc",
        "2026-01-29T10:00:01Z",
        "--producer",
        "p",
        "--source-module",
        "m",
        "--parent-event-id",
        "e0",
        "--trace-id",
        "t",
        "--span-id",
        "s",
        "--parameter-hash",
        &hex64,
        "--seed",
        "18446744073709551615",
        "--scenario-id",
        "sc",
        "--run-id",
        &hex32,
        "--platform-run-id",
        "platform_20260129T100000Z",
        "--scenario-run-id",
        &hex32,
    ];
    publish(&place, &[&[r#"{"n":1.0}"#], &options[..]].concat()).one();
    let record = place.eb(&["tail", "--topic", AUDIT]).one();
    assert_eq!(
        record["envelope"],
        json!({
            "event_id": "e1", "event_type": "audit.access.granted", "ts_utc": "2026-01-29T10:00:00.000000Z",
            "manifest_fingerprint": WORLD, "parameter_hash": hex64, "seed": u64::MAX, "scenario_id": "sc", "run_id": hex32,
            "platform_run_id": "platform_20260129T100000Z", "scenario_run_id": hex32,
            "emitted_at_utc": "2026-01-29T10:00:01.000000Z", "schema_version": "1.0.0", "trace_id": "t", "span_id": "s",
            "parent_event_id": "e0", "producer": "p", "source_module": "m", "payload": {"n": 1.0},
        })
    );
}

#[test]
fn the_payload_may_come_from_a_file_or_standard_input() {
    let place = Place::new();
    place.write("payload.json", "{\n  \"from\": \"file\"\n}\n");
    publish(&place, &["@payload.json"]).one();
    let args = [
        "publish",
        "audit.access.granted",
        "-",
        "--manifest-fingerprint",
        WORLD,
        "--schema-version",
        "1.0.0",
    ];
    place.eb_with(&args, br#"{"from":"stdin"}"#).one();
    let records = place.eb(&["tail", "--topic", AUDIT]).lines();
    let from: Vec<_> = records.iter().map(|r| r["envelope"]["payload"]["from"].as_str().unwrap()).collect();
    assert_eq!(from, ["file", "stdin"]);
    assert_ne!(records[0]["envelope"]["event_id"], records[1]["envelope"]["event_id"], "ids are made fresh");
    let gone = publish(&place, &["@nowhere.json"]).ended(1);
    assert!(gone.stderr.starts_with("eb: cannot read nowhere.json: "), "{gone:?}");
}

#[test]
fn what_makes_no_envelope_is_a_usage_error_and_leaves_nothing() {
    let place = Place::new();
    for (more, expected) in [
        (&["{\"a\":1"][..], "the payload is not JSON"),
        (&["{}", "--run-id", "xyz"], "run_id"),
        (&["[1]"], "payload"),
    ] {
        let ran = publish(&place, more).ended(2);
        assert!(ran.stderr.contains(expected), "{ran:?}");
    }
    assert!(!crate::exists(&place.path("runs")));
}

#[test]
fn an_event_that_the_policy_does_not_know_is_quarantined_with_evidence() {
    let place = Place::new();
    let ran = place.eb(&["publish", "never.heard.of", "{}", "--manifest-fingerprint", WORLD]).ended(3);
    let receipt: &Value = &ran.lines()[0];
    assert_eq!(receipt["reason_codes"], json!(["PINS_MISSING"]));
    assert_eq!(receipt["evidence_refs"][0]["kind"], "quarantine_record");
}
