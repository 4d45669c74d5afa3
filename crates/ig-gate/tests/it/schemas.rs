//! Payload schemas by version: what the gate takes, and what it refuses to open with.

use std::collections::HashMap;

use ig_gate::policy::{PolicyFile, PolicyFiles};
use ig_gate::yaml::ConfigError;
use ig_gate::{Decision, Policy, ReasonCode};

use crate::support::{World, config_file, event};

/// Files below `schemas/`.
struct Files(HashMap<String, String>);

fn schema(version: &str, amount: &str) -> String {
    format!(
        r#"{{"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:test:order.line.added:{version}",
            "type": "object", "required": ["amount"], "properties": {{"amount": {{"type": "{amount}"}}}}}}"#
    )
}

impl Files {
    fn released(versions: &[(&str, &str)]) -> Self {
        let mut files = HashMap::new();
        let mut lock = String::new();
        for (version, amount) in versions {
            let text = schema(version, amount);
            lock += &format!("{}  order.line.added/{version}.json\n", eb_schema::sha256(text.as_bytes()));
            files.insert(format!("events/order.line.added/{version}.json"), text);
        }
        files.insert("events.lock".to_owned(), lock);
        Self(files)
    }

    fn put(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), text.to_owned());
    }

    fn load(&self, policy: &str) -> Result<Policy, ConfigError> {
        let [partitioning, classes] = ["partitioning_profiles_v0.yaml", "class_map_v0.yaml"]
            .map(|name| config_file(&format!("ig/{name}")));
        let file = |name, bytes| PolicyFile { name, bytes };
        let files = PolicyFiles {
            policy_id: "p",
            revision: "1",
            partitioning: file("partitioning.yaml", &partitioning),
            class_map: file("class_map.yaml", &classes),
            schema_policy: file("schema_policy.yaml", policy.as_bytes()),
        };
        Policy::load(files, &|path| {
            self.0.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| "not there".to_owned())
        })
    }
}

fn policy(versions: &str) -> String {
    format!(
        "version: v0\ndefault_action: quarantine\nevent_schemas: events\npolicies:\n  - event_type: order.line.added\n    \
         schema_version_required: true\n    allowed_schema_versions: {versions}\n"
    )
}

#[tokio::test]
async fn each_version_is_checked_by_its_own_schema() {
    let files = Files::released(&[("1.0.0", "integer"), ("2.0.0", "string")]);
    let mut world = World::new().await;
    world.policy = files.load(&policy(r#"["1.0.0", "2.0.0"]"#)).unwrap();
    let gate = world.open().await;
    let line = |id: &str, version: &str, payload: &str| {
        event(id)
            .of_type("order.line.added")
            .extra(&format!(r#","schema_version":"{version}""#))
            .payload(payload)
    };
    for (id, version, payload, reason) in [
        ("e-1", "1.0.0", r#"{"merchant_id":"m","amount":1}"#, None),
        ("e-2", "1.0.0", r#"{"merchant_id":"m","amount":"1"}"#, Some(ReasonCode::SchemaFail)),
        ("e-3", "2.0.0", r#"{"merchant_id":"m","amount":"1"}"#, None),
        ("e-4", "2.0.0", r#"{"merchant_id":"m","amount":1}"#, Some(ReasonCode::SchemaFail)),
        ("e-5", "3.0.0", r#"{"merchant_id":"m","amount":1}"#, Some(ReasonCode::SchemaVersionNotAllowed)),
    ] {
        let receipt = gate.admit(line(id, version, payload)).await.unwrap();
        match reason {
            None => assert_eq!(receipt.decision, Decision::Admit, "{id}"),
            Some(reason) => assert_eq!(receipt.reason_codes, [reason], "{id}"),
        }
    }
}

#[test]
fn a_schema_that_is_not_as_released_refuses_to_open() {
    let released = || Files::released(&[("1.0.0", "integer")]);
    let one = policy(r#"["1.0.0"]"#);
    assert!(released().load(&one).is_ok());

    let mut changed = released();
    changed.put("events/order.line.added/1.0.0.json", &schema("1.0.0", "number"));
    let error = changed.load(&one).unwrap_err().to_string();
    let expected = format!(
        "schema_policy.yaml:7:31: policies.order.line.added.allowed_schema_versions: events/order.line.added/1.0.0.json has sha256 {}, events.lock:1 says {}; `eb schema check` shows everything",
        eb_schema::sha256(schema("1.0.0", "number").as_bytes()),
        eb_schema::sha256(schema("1.0.0", "integer").as_bytes()),
    );
    assert!(error.starts_with(&expected), "{error}");

    let mut unlocked = released();
    unlocked.put("events/order.line.added/1.1.0.json", &schema("1.1.0", "integer"));
    let error = unlocked.load(&policy(r#"["1.0.0", "1.1.0"]"#)).unwrap_err().to_string();
    assert!(error.contains("events/order.line.added/1.1.0.json is not released: events.lock has no line for it (released: 1.0.0)"), "{error}");
    assert!(error.contains("`eb schema lock` releases it"), "{error}");

    let mut gone = released();
    gone.0.remove("events/order.line.added/1.0.0.json");
    assert!(
        gone.load(&one).unwrap_err().to_string().contains("cannot read events/order.line.added/1.0.0.json")
    );

    let mut merged = released();
    merged.put("events.lock", "<<<<<<< ours\n");
    assert!(merged.load(&one).unwrap_err().to_string().contains("events.lock:1: not `<sha256>  <path>`"));

    let unversioned = one.replace("    schema_version_required: true\n", "");
    let error = released().load(&unversioned).unwrap_err().to_string();
    assert!(error.contains("need `schema_version_required: true`"), "{error}");
    let nowhere = one.replace("event_schemas: events\n", "") + "    payload_schema: released\n";
    let error = released().load(&nowhere).unwrap_err().to_string();
    assert!(error.contains("payload_schema: needs `event_schemas` at the top of the file"), "{error}");
}

#[test]
fn the_lock_is_a_part_of_the_policy() {
    let one = policy(r#"["1.0.0"]"#);
    let digest = |files: Files| files.load(&one).unwrap().rev().content_digest.clone();
    let before = digest(Files::released(&[("1.0.0", "integer")]));
    let more = digest(Files::released(&[("1.0.0", "integer"), ("1.1.0", "integer")]));
    let other = digest(Files::released(&[("1.0.0", "number")]));
    assert!(before != more && before != other && more != other);
}

#[test]
fn schemas_may_lie_elsewhere_and_are_pinned_in_the_policy() {
    let mut files = Files::released(&[]);
    files.put("mine.1.json", r#"{"type": "object"}"#);
    let pin = eb_schema::sha256(br#"{"type": "object"}"#);
    let referred = |reference: &str, pin: &str| {
        policy(r#"["1"]"#)
            + &format!("    payload_schema_ref: {reference}\npayload_schema_digests:\n  mine.1.json: {pin}\n")
    };
    assert!(files.load(&referred("mine.{schema_version}.json", &pin)).is_ok());
    for (reference, pin, expected) in [
        (
            "../mine.json",
            pin.as_str(),
            "policies.order.line.added.payload_schema_ref: `../mine.json` is not a plain relative path",
        ),
        ("none.json", &pin, "cannot read none.json: not there"),
        ("events.lock", &pin, "events.lock is not pinned; add `events.lock: "),
        ("mine.1.json", "0", "payload_schema_digests.mine.1.json: the file has sha256 "),
    ] {
        let error = files.load(&referred(reference, pin)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n does not say\n{expected}");
    }
}
