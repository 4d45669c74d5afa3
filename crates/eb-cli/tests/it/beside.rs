//! Receipts and health beside a gate that another process has open.

use serde_json::json;

use crate::{AUDIT, Place, Running, event};

/// A gate at work, which has admitted e1 and e2 and quarantined one line; and the receipts that it gave.
fn at_work(place: &Place) -> (Running, Vec<serde_json::Value>) {
    let mut gate = place.start(&["ingest"]);
    gate.say(&format!("{}{}not json\n", event(1), event(2)));
    let receipts = (0..3).map(|_| gate.hear()).collect();
    (gate, receipts)
}

#[test]
fn receipts_are_found_beside_a_gate_that_is_at_work() {
    let place = Place::new();
    let (mut gate, given) = at_work(&place);
    for (n, receipt) in given.iter().enumerate().take(2) {
        let id = receipt["receipt_id"].as_str().unwrap();
        for args in [["--event-id", &format!("e{}", n + 1)], ["--receipt-id", id]] {
            let ran = place.eb(&[&["receipt"], &args[..]].concat()).ended(0);
            assert!(
                ran.stderr.contains(" in use by pid ") && ran.stderr.contains("what the log tells"),
                "{ran:?}"
            );
            let seen = ran.one();
            assert_eq!(seen["policy_rev"], json!(null), "never guessed");
            for (field, value) in seen.as_object().unwrap().iter().filter(|(field, _)| *field != "policy_rev")
            {
                assert_eq!(value, receipt.get(field).unwrap_or(&json!(null)), "{field}");
            }
            assert_eq!(seen["eb_ref"], receipt["eb_ref"]);
        }
    }
    // What was quarantined is there whole.
    let id = given[2]["receipt_id"].as_str().unwrap();
    let ran = place.eb(&["receipt", "--receipt-id", id]);
    assert_eq!((ran.one(), ran.stderr.as_str()), (given[2].clone(), ""));
    let stdout = ran.stdout;

    // What came a second ago is found as well, and what never came is not.
    gate.say(&event(3));
    gate.hear();
    assert_eq!(place.eb(&["receipt", "--event-id", "e3"]).one()["eb_ref"]["offset"], "2");
    let none = place.eb(&["receipt", "--event-id", "e4"]).ended(1);
    assert!(none.stderr.contains("there is no such receipt"), "{none:?}");
    place.eb(&["receipt", "--receipt-id", &"0".repeat(32)]).ended(1);

    // The gate has not noticed anything, and what it says afterwards is the same and more.
    drop(gate.stdin.take());
    gate.finish().ended(3);
    assert_eq!(place.eb(&["receipt", "--event-id", "e1"]).one(), given[0]);
    assert_eq!(place.eb(&["receipt", "--receipt-id", id]).stdout, stdout, "byte for byte");
}

#[test]
fn a_duplicates_receipt_names_the_first_place_beside_the_gate_too() {
    let place = Place::new();
    let (mut gate, given) = at_work(&place);
    gate.say(&event(1));
    let duplicate = gate.hear();
    let seen = place.eb(&["receipt", "--receipt-id", duplicate["receipt_id"].as_str().unwrap()]).one();
    assert_eq!((&seen["decision"], &seen["eb_ref"]), (&json!("DUPLICATE"), &given[0]["eb_ref"]));
    assert_eq!(seen["reason_codes"], duplicate["reason_codes"]);
}

#[test]
fn health_beside_a_gate_says_who_has_it_and_what_can_be_read() {
    let place = Place::new();
    let (mut gate, _) = at_work(&place);
    let health = place.eb(&["health"]).one();
    assert_eq!(health["status"], "degraded", "{health}");
    let checks = health["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{health}"));
    let detail = of("gate")["detail"].as_str().unwrap();
    assert!(detail.contains(&format!(" in use by pid {} ", gate.id())), "{detail}");
    for name in [&format!("bus {AUDIT}"), "quarantine"] {
        assert_eq!(of(name)["status"], "ready", "{health}");
    }
    drop(gate.stdin.take());
    gate.finish().ended(3);
    assert_eq!(place.eb(&["health"]).one()["status"], "ready");
}
