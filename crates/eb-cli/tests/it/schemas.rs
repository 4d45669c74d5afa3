//! `eb schema`: from the first schema to the version that breaks.

use serde_json::{Value, json};

use crate::{Place, exists};

const TYPE: &str = "order.line.added";

fn schema(version: &str, required: &[&str]) -> String {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:shop:{TYPE}:{version}"),
        "title": "A line was added to an order",
        "type": "object",
        "required": required,
        "properties": { "sku": { "type": "string" } },
    })
    .to_string()
}

fn put(place: &Place, version: &str, required: &[&str]) {
    place.write(&format!("config/schemas/events/{TYPE}/{version}.json"), &schema(version, required));
}

#[test]
fn the_built_in_schemas_are_listed_checked_and_compared_in_an_empty_folder() {
    let place = Place::new();
    let listed = place.eb(&["schema", "list"]).ended(0).lines();
    assert_eq!(listed.len(), 6);
    assert!(listed.iter().all(|v| v["released"] == json!(true) && v["compatibility"] == json!(null)));
    let ran = place.eb(&["schema", "check"]).ended(0);
    assert_eq!(ran.stderr, "eb: <built-in schemas>/events: 6 versions of 6 event types are fine\n");
    let same = place.eb(&["schema", "diff", "card.refund.issued", "1.0.0", "1.0.0"]).one();
    assert_eq!((&same["compatibility"], &same["changes"]), (&json!("full"), &json!([])));
    let ran = place.eb(&["schema", "lock"]).ended(1);
    assert!(
        ran.stderr.starts_with("eb: there is no config/schemas/events here or in a folder above; "),
        "{ran:?}"
    );
    assert!(!exists(&place.path("config")), "looking makes nothing");
}

#[test]
fn a_version_is_checked_released_compared_and_from_then_on_left_alone() {
    let place = Place::new();
    put(&place, "1.0.0", &["sku"]);
    let ran = place.eb(&["schema", "check"]).ended(1);
    let fault: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(
        (&fault["file"], &fault["rule"]),
        (&json!(format!("config/schemas/events/{TYPE}/1.0.0.json")), &json!("unlocked"))
    );
    assert_eq!(ran.stderr, "eb: config/schemas/events: 1 fault; each line says what to do\n");

    let locked = place.eb(&["schema", "lock"]).one();
    assert_eq!((&locked["event_type"], &locked["version"]), (&json!(TYPE), &json!("1.0.0")));
    place.eb(&["schema", "check"]).ended(0);
    assert_eq!(place.eb(&["schema", "lock"]).ended(0).stderr, "eb: everything is released already\n");
    let before = std::fs::read_to_string(place.path("config/schemas/events.lock")).unwrap();
    place.write("before.lock", &before);

    // A new version that breaks old events is not released, and the place is named.
    put(&place, "1.1.0", &["sku", "amount"]);
    let ran = place.eb(&["schema", "lock"]).ended(1);
    let fault: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!((&fault["rule"], &fault["pointer"]), (&json!("incompatible"), &json!("/required")));
    assert!(ran.stderr.contains("nothing was released"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(place.path("config/schemas/events.lock")).unwrap(), before);

    let diff = place.eb(&["schema", "diff", TYPE, "1.0.0", "1.1.0"]).one();
    assert_eq!(
        (&diff["compatibility"], &diff["backward"], &diff["forward"]),
        (&json!("forward"), &json!("no"), &json!("yes"))
    );
    let change = &diff["changes"].as_array().unwrap().iter().find(|c| c["pointer"] == "/required").unwrap();
    assert_eq!(change["breaks_backward"][0]["message"], "events without \"amount\" were taken");

    // It may be released where forward is what counts.
    place.eb(&["schema", "lock", "--require", "forward"]).ended(0);
    place.eb(&["schema", "check", "--require", "forward", "--since", "before.lock"]).ended(0);
    place.eb(&["schema", "check"]).ended(1);

    // Changing file and lock together is seen against the earlier lock.
    put(&place, "1.0.0", &[]);
    std::fs::remove_file(place.path("config/schemas/events.lock")).unwrap();
    place.eb(&["schema", "lock", "--require", "none"]).ended(0);
    place.eb(&["schema", "check", "--require", "none"]).ended(0);
    let ran = place.eb(&["schema", "check", "--require", "none", "--since", "before.lock"]).ended(1);
    assert!(ran.stdout.contains("\"rule\":\"changed\""), "{ran:?}");
}

#[test]
fn a_gate_does_not_open_over_a_schema_that_changed() {
    let place = Place::new();
    place.with_policies();
    place.write(
        "config/platform/profiles/local.yaml",
        include_str!("../../../../config/platform/profiles/local.yaml"),
    );
    place.eb(&["profile", "check"]).ended(0);
    let file = place.path("config/schemas/events/card.refund.issued/1.0.0.json");
    let text = std::fs::read_to_string(&file).unwrap().replace("\"minimum\": 0", "\"minimum\": 1");
    std::fs::write(&file, text).unwrap();
    let ran = place.eb(&["profile", "check"]).ended(1);
    for part in [
        "policies.card.refund.issued.allowed_schema_versions: events/card.refund.issued/1.0.0.json has sha256 ",
        "events.lock:4 says ",
        "`eb schema check` shows everything",
    ] {
        assert!(ran.stderr.contains(part), "{part} in {ran:?}");
    }
    let ran = place.eb(&["schema", "check"]).ended(1);
    assert!(ran.stdout.contains("a released schema changed"), "{ran:?}");
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let place = Place::new();
    let ran = place.eb(&["schema", "diff", "card.refund.issued", "1.0.0", "9"]).ended(1);
    assert!(ran.stderr.ends_with("card.refund.issued has no version 9; there are 1.0.0\n"), "{ran:?}");
    let ran = place.eb(&["schema", "check", "nowhere"]).ended(1);
    assert_eq!(ran.stderr, "eb: nowhere is no folder; schemas usually lie in config/schemas/events\n");
    let ran = place.eb(&["schema", "check", "--require", "sideways"]).ended(2);
    assert!(ran.stderr.contains("one of none, backward, forward, full"), "{ran:?}");
}
