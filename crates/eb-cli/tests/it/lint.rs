//! `eb lint` over a repository of somebody's own.

use serde_json::{Value, json};

use crate::Place;

const PAST: &str = "use eb_contract::EventBusPublisher;\n\nfn sell(bus: &dyn EventBusPublisher) {\n    let _ = bus.publish(topic(), record());\n}\n";

#[test]
fn what_publishes_past_the_gate_is_named_with_file_line_and_column() {
    let place = Place::new();
    place.write("Cargo.toml", "[package]\nname = \"shop\"\n");
    place.write("src/lib.rs", PAST);
    let ran = place.eb(&["lint"]).ended(1);
    let found: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(
        (&found["file"], &found["line"], &found["column"], &found["rule"]),
        (&json!("src/lib.rs"), &json!(4), &json!(17), &json!("publish-past-gate"))
    );
    assert_eq!(
        ran.stderr,
        "eb: 1 violation of the charter; each line says what to do; an exception goes into charter.toml with its reason\n"
    );
    // Wherever one stands, and for one file, too.
    assert_eq!(place.eb(&["lint", "src/lib.rs"]).ended(1).lines().len(), 1);
}

#[test]
fn an_exception_needs_a_place_and_a_reason() {
    let place = Place::new();
    place.write("src/copy.rs", PAST);
    place.write(
        "charter.toml",
        "[[allow]]\nrule = \"publish-past-gate\"\npath = \"src/copy.rs\"\nreason = \"Copies.\"\n",
    );
    assert_eq!(place.eb(&["lint"]).ended(0).stderr, "eb: 1 file keeps the charter\n");
    place.write("charter.toml", "[[allow]]\nrule = \"publish-past-gate\"\npath = \"src/copy.rs\"\n");
    let ran = place.eb(&["lint"]).ended(1);
    assert_eq!(ran.stderr, "eb: charter.toml:1:1: missing field `reason`\n");
    place.write("empty/README.md", "");
    assert_eq!(
        place.eb(&["lint", "empty", "--config", "empty/README.md"]).ended(0).stderr,
        "eb: nothing to check in empty\n"
    );
    let ran = place.eb(&["lint", "nowhere"]).ended(1);
    assert!(ran.stderr.starts_with("eb: nowhere: cannot be read: "), "{ran:?}");
}
