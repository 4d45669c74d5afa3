//! The code and the published JSON Schemas say the same.

use std::collections::BTreeSet;

use canonical_envelope::{Envelope, Fault, Field};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{FULL, full_with};

fn schema(name: &str) -> Value {
    let path = format!("{}/../../config/schemas/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn validator(name: &str) -> jsonschema::Validator {
    let schema = schema(name);
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

const ENVELOPE: &str = "canonical_event_envelope.schema.json";
const RECEIPT: &str = "ingestion_receipt.schema.json";

/// Values that a field may be given, right and wrong. Left out are the documented cases in which the code is stricter
/// than a schema can be: times outside the calendar, and integers written with a fraction or exponent.
fn values(field: Field) -> BoxedStrategy<Value> {
    let right = |pattern: &'static str| pattern.prop_map(Value::from).boxed();
    let right = match field {
        Field::EventId | Field::EventType | Field::ParentEventId => right("\\PC{1,256}"),
        Field::ManifestFingerprint | Field::ParameterHash => right("[0-9a-f]{64}"),
        Field::RunId | Field::ScenarioRunId => right("[0-9a-f]{32}"),
        Field::TsUtc | Field::EmittedAtUtc => right(
            "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{6}Z",
        ),
        Field::PlatformRunId => right("platform_[0-9]{8}T[0-9]{6}Z"),
        Field::Seed => any::<u64>().prop_map(Value::from).boxed(),
        Field::ScenarioId => {
            prop_oneof!["\\PC{1,256}".prop_map(Value::from), any::<u64>().prop_map(Value::from)].boxed()
        }
        Field::SchemaVersion => right("\\PC{1,64}"),
        Field::TraceId | Field::SpanId | Field::Producer | Field::SourceModule => right("\\PC{1,128}"),
        Field::Payload => Just(json!({"a": [1, {"b": null}]})).boxed(),
    };
    let wrong = prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!(true)),
        Just(json!([])),
        Just(json!({})),
        Just(json!(-1)),
        Just(json!(0)),
        Just(json!(1.5)),
        Just(json!(u64::MAX)),
        (60usize..66).prop_map(|n| json!("é".repeat(n))),
        (126usize..131).prop_map(|n| json!("𝕏".repeat(n))),
        (254usize..259).prop_map(|n| json!("a".repeat(n))),
        "[0-9a-fA-F]{31,33}".prop_map(Value::from),
        "[0-9a-g]{63,65}".prop_map(Value::from),
        "platform_[0-9]{7,9}T[0-9]{6}Z\n?".prop_map(Value::from),
        "2026-01-0[1-9][T ]00:00:00\\.[0-9]{5,7}Z\n?".prop_map(Value::from),
    ];
    prop_oneof![6 => right, 1 => wrong].boxed()
}

fn envelopes() -> impl Strategy<Value = Value> {
    let fields: Vec<_> = Field::ALL
        .into_iter()
        .map(|field| {
            let there = if field.is_required() { 0.95 } else { 0.6 };
            proptest::option::weighted(there, values(field))
                .prop_map(move |value| (field.name().to_owned(), value))
        })
        .collect();
    let unknown = proptest::option::weighted(0.1, ("[a-z_]{0,10}", Just(json!(1))));
    (fields, unknown).prop_map(|(fields, unknown)| {
        let mut map: Map<String, Value> = fields.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
        if let Some((key, value)) = unknown {
            map.entry(key).or_insert(value);
        }
        Value::Object(map)
    })
}

/// The fields in which the schema finds fault, `$` standing for missing and unknown ones.
fn by_schema(validator: &jsonschema::Validator, value: &Value) -> BTreeSet<String> {
    let place = |pointer: String| pointer.split('/').nth(1).unwrap_or("$").to_owned();
    validator.iter_errors(value).map(|error| place(error.instance_path().to_string())).collect()
}

fn by_code(text: &str) -> BTreeSet<String> {
    let Err(invalid) = Envelope::parse(text.as_bytes()) else { return BTreeSet::new() };
    assert!(!invalid.violations().is_empty(), "{invalid}");
    let place = |v: &canonical_envelope::Violation| match v.fault() {
        Fault::Missing | Fault::Unknown => "$".to_owned(),
        _ => v.path().to_owned(),
    };
    invalid.violations().iter().map(place).collect()
}

#[test]
fn code_and_schema_find_fault_with_the_same_fields() {
    let validator = validator(ENVELOPE);
    let mut runner = proptest::test_runner::TestRunner::default();
    let valid = std::cell::Cell::new(0);
    runner
        .run(&envelopes(), |value| {
            let text = serde_json::to_string(&value).unwrap();
            let found = by_code(&text);
            valid.set(valid.get() + usize::from(found.is_empty()));
            prop_assert_eq!(found, by_schema(&validator, &value));
            Ok(())
        })
        .unwrap();
    assert!(valid.get() > 0, "the generator made no valid envelope at all");
}

#[test]
fn code_and_schema_know_the_same_fields() {
    let schema = schema(ENVELOPE);
    let names: BTreeSet<&str> =
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, Field::ALL.into_iter().map(Field::name).collect());
    let required: Vec<&str> =
        schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let expected: Vec<&str> = Field::ALL.into_iter().filter(|f| f.is_required()).map(Field::name).collect();
    assert_eq!(required, expected);
}

#[test]
fn the_code_is_stricter_only_where_it_says_so() {
    let validator = validator(ENVELOPE);
    for (field, json) in [
        ("ts_utc", "\"2026-02-30T00:00:00.000000Z\""),
        ("emitted_at_utc", "\"2026-01-01T00:00:60.000000Z\""),
        ("seed", "1.0"),
        ("seed", "1e2"),
        ("scenario_id", "1.0"),
        ("payload", "{\"a\":1,\"a\":1}"),
    ] {
        let text = full_with(field, json);
        assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()), "{field} = {json}");
        assert!(Envelope::parse(text.as_bytes()).is_err(), "{field} = {json}");
    }
    let above = serde_json::from_str(&full_with("seed", "18446744073709551616")).unwrap();
    assert!(!validator.is_valid(&above));
    assert!(validator.is_valid(&serde_json::from_str(FULL).unwrap()));
}

fn admitted() -> Value {
    json!({
        "receipt_id": "0".repeat(32),
        "decision": "ADMIT",
        "event_id": "e-1",
        "event_type": "a.b.c",
        "ts_utc": "2026-01-29T09:30:00.000001Z",
        "manifest_fingerprint": "a".repeat(64),
        "policy_rev": {"policy_id": "ig", "revision": "v0", "content_digest": "b".repeat(64)},
        "eb_ref": {
            "topic": "fp.bus.traffic.v1", "partition_id": 0, "offset": "12", "offset_kind": "file_line",
            "published_at_utc": "2026-01-29T09:30:00.000002Z"
        },
        "partitioning_profile_id": "ig.partitioning.v0.traffic",
        "partition_key": "m-1",
        "dedupe_key": "c".repeat(64),
        "payload_hash": {"algo": "sha256", "hex": "d".repeat(64)},
        "admitted_at_utc": "2026-01-29T09:30:00.000002Z",
        "reason_codes": [],
        "class": "traffic",
        "pins": {"seed": u64::MAX, "scenario_id": 7}
    })
}

fn quarantined() -> Value {
    json!({
        "receipt_id": "0".repeat(32),
        "decision": "QUARANTINE",
        "event_id": null, "event_type": null, "ts_utc": null, "manifest_fingerprint": null,
        "policy_rev": {"policy_id": "ig", "revision": "v0", "content_digest": "b".repeat(64)},
        "reason_codes": ["ENVELOPE_INVALID"],
        "evidence_refs": [{"kind": "quarantine_record", "ref": "x", "digest": "e".repeat(64)}]
    })
}

#[test]
fn receipts_have_what_their_decision_asks_for() {
    let validator = validator(RECEIPT);
    let mut duplicate = admitted();
    duplicate["decision"] = json!("DUPLICATE");
    duplicate["reason_codes"] = json!(["DUPLICATE"]);
    for good in [admitted(), duplicate.clone(), quarantined()] {
        let errors: Vec<String> = validator.iter_errors(&good).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{good}: {errors:?}");
    }
    let changed = |base: &Value, key: &str, value: Value| {
        let mut receipt = base.clone();
        receipt[key] = value;
        receipt
    };
    let without = |base: &Value, key: &str| {
        let mut receipt = base.clone();
        receipt.as_object_mut().unwrap().remove(key);
        receipt
    };
    for bad in [
        without(&admitted(), "eb_ref"),
        without(&admitted(), "dedupe_key"),
        without(&admitted(), "reason_codes"),
        without(&quarantined(), "event_id"),
        without(&quarantined(), "evidence_refs"),
        changed(&admitted(), "reason_codes", json!(["DUPLICATE"])),
        changed(&admitted(), "event_id", Value::Null),
        changed(&admitted(), "extra", json!(1)),
        changed(&admitted(), "decision", json!("REJECT")),
        changed(&duplicate, "reason_codes", json!([])),
        changed(&quarantined(), "reason_codes", json!([])),
        changed(&quarantined(), "reason_codes", json!(["DUPLICATE"])),
        changed(&quarantined(), "reason_codes", json!(["EB_UNAVAILABLE"])),
        changed(&quarantined(), "evidence_refs", json!([])),
        changed(&quarantined(), "eb_ref", admitted()["eb_ref"].clone()),
    ] {
        assert!(!validator.is_valid(&bad), "{bad}");
    }
}
