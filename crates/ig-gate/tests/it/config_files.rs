//! Policy files: what ships, and what their errors say.

use ig_gate::Policy;
use ig_gate::yaml::ConfigError;

use crate::support::{AUDIT, CONTROL, TRAFFIC, config_file, load_policy, shipped_policy};

fn shipped(name: &str) -> String {
    String::from_utf8(config_file(&format!("ig/{name}_v0.yaml"))).unwrap()
}

/// Loads the shipped policy with one file changed.
fn with(file: &str, change: impl Fn(String) -> String) -> Result<Policy, ConfigError> {
    let text = |name: &str| if name == file { change(shipped(name)) } else { shipped(name) };
    load_policy(
        "v0",
        text("partitioning_profiles").as_bytes(),
        text("class_map").as_bytes(),
        text("schema_policy").as_bytes(),
    )
}

fn error(file: &str, from: &str, to: &str) -> String {
    let changed = with(file, |text| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    changed.unwrap_err().to_string()
}

#[test]
fn the_shipped_policy_is_that_of_the_platform() {
    let policy = shipped_policy();
    let streams: Vec<_> = policy.streams().iter().map(ToString::to_string).collect();
    assert_eq!(streams, [AUDIT, CONTROL, TRAFFIC]);
    let (class, profile) = policy.route("never.heard.of");
    assert_eq!((class.name(), profile.id()), ("traffic", "ig.partitioning.v0.traffic"));
    let paths = |event_type| -> Vec<String> {
        policy.route(event_type).1.key_precedence().iter().map(ToString::to_string).collect()
    };
    assert_eq!(paths("card.transaction.authorised"), ["payload.merchant_id", "event_id"]);
    assert_eq!(paths("platform.run.started"), ["run_id", "manifest_fingerprint", "event_id"]);
    assert_eq!(paths("audit.access.granted"), ["event_id", "manifest_fingerprint"]);
    let pins = |event_type| policy.route(event_type).0.required_pins().len();
    assert_eq!([pins("x"), pins("platform.run.started"), pins("audit.access.granted")], [5, 2, 1]);
}

#[test]
fn the_digest_changes_with_every_byte_of_every_file() {
    let digest = |policy: Policy| policy.rev().content_digest.clone();
    let base = digest(shipped_policy());
    assert_eq!(base.len(), 64);
    assert_eq!(digest(shipped_policy()), base);
    let mut seen = std::collections::HashSet::from([base]);
    for file in ["partitioning_profiles", "class_map", "schema_policy"] {
        assert!(seen.insert(digest(with(file, |text| text + "# a remark\n").unwrap())), "{file}");
    }
    // The same bytes split over the files in another way are another policy.
    let moved = load_policy(
        "v0",
        (shipped("partitioning_profiles") + "# x\n").as_bytes(),
        shipped("class_map").as_bytes(),
        shipped("schema_policy").as_bytes(),
    );
    assert!(seen.insert(digest(moved.unwrap())));
}

#[test]
fn errors_name_file_line_and_key_and_suggest() {
    let cases = [
        (
            "partitioning_profiles",
            "key_precedence: [payload",
            "key_precedense: [payload",
            "partitioning.yaml:8:5: key_precedense: unknown key; did you mean `key_precedence`?",
        ),
        (
            "partitioning_profiles",
            "fp.bus.traffic.v1",
            "fp/bus",
            "partitioning.yaml:7:13: profiles.ig.partitioning.v0.traffic.stream: invalid topic name",
        ),
        ("partitioning_profiles", "payload.merchant_id, ", "payload, ", "payload is an object"),
        (
            "partitioning_profiles",
            "hash_algo: sha256",
            "hash_algo: md5",
            "hash_algo: unknown algorithm `md5`",
        ),
        (
            "partitioning_profiles",
            "version: v0",
            "version: v7",
            "partitioning.yaml:3:10: version: `v7` is not known",
        ),
        ("partitioning_profiles", "v0.audit:", "v0.other:", "class `audit` has no partitioning profile"),
        ("class_map", "event_types:", "event_type:", "event_type: unknown key; did you mean `event_types`?"),
        (
            "class_map",
            "card.refund.issued: traffic",
            "card.refund.issued: trafic",
            "event_types.card.refund.issued: unknown class `trafic`; did you mean `traffic`?",
        ),
        ("class_map", "seed, ", "sed, ", "`sed` is not a pin; did you mean `seed`?"),
        ("class_map", "  traffic:\n", "  business:\n", "class `traffic` is required"),
        (
            "schema_policy",
            "default_action: quarantine",
            "default_action: quarantin",
            "unknown value `quarantin`; did you mean `quarantine`?",
        ),
        (
            "schema_policy",
            "class: traffic",
            "class: audit",
            "policies.card.transaction.authorised.class: `audit`, but the class map says `traffic`",
        ),
        ("schema_policy", "card.transaction.declined\n", "card.transaction.authorised\n", "has two policies"),
        (
            "schema_policy",
            "event_schemas: events",
            "event_schemas: ../events",
            "schema_policy.yaml:6:16: event_schemas: `../events` is not a plain relative path",
        ),
        (
            "schema_policy",
            "event_schemas: events",
            "event_schemas: evnts",
            "event_schemas: cannot read evnts.lock: ",
        ),
        (
            "schema_policy",
            "[\"1.0.0\"]",
            "[\"1.0.0\", \"1.1.0\"]",
            "schema_policy.yaml:11:40: policies.card.transaction.authorised.allowed_schema_versions: events/card.transaction.authorised/1.1.0.json \
             is not released: events.lock has no line for it (released: 1.0.0); `eb schema check` shows everything",
        ),
        ("schema_policy", "[\"1.0.0\"]", "[\"../1\"]", "a version is one to three numbers"),
        ("schema_policy", "[\"1.0.0\"]", "[]", "schemas by version need `schema_version_required: true`"),
        ("schema_policy", "    payload_schema: none", "    payload_schema: non", "unknown value `non`"),
        (
            "schema_policy",
            "    payload_schema: none",
            "    payload_schema: none\n    payload_schema_ref: x.json",
            "stands beside payload_schema_ref",
        ),
    ];
    for (file, from, to, expected) in cases {
        let text = error(file, from, to);
        assert!(text.contains(expected), "{text}\n does not say\n{expected}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
