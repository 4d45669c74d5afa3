//! Receipts: their schema, their ids, and making them again.

use ig_gate::{Decision, Receipt};

use crate::support::{AUDIT, TRAFFIC, World, config_file, event, load_policy, open_policy};

fn schema() -> jsonschema::Validator {
    let schema = serde_json::from_slice(&config_file("schemas/ingestion_receipt.schema.json")).unwrap();
    jsonschema::options().offline().build(&schema).unwrap()
}

fn check(validator: &jsonschema::Validator, receipt: &Receipt) {
    let text = serde_json::to_string(receipt).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let faults: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
    assert!(faults.is_empty(), "{text}: {faults:?}");
    let back: Receipt = serde_json::from_str(&text).unwrap();
    assert_eq!(&back, receipt, "a receipt survives its own JSON");
    assert!(
        serde_json::from_str::<Receipt>(&text.replacen('{', "{\"more\":1,", 1)).is_err(),
        "receipts are closed"
    );
}

#[tokio::test]
async fn every_kind_of_receipt_fits_its_schema() {
    let world = World::new().await;
    let gate = world.open().await;
    let validator = schema();
    let inputs = [
        event("e-1").bytes(),
        event("e-1").bytes(),
        event("e-1").payload(r#"{"merchant_id":"m-1","n":2}"#).bytes(),
        event("e-2")
            .extra(r#","schema_version":"1.0.0","platform_run_id":"platform_20260129T100000Z""#)
            .bytes(),
        event("e-3").extra(r#","x":1"#).bytes(),
        "junk".into(),
    ];
    let expected = [
        Decision::Admit,
        Decision::Duplicate,
        Decision::Quarantine,
        Decision::Admit,
        Decision::Quarantine,
        Decision::Quarantine,
    ];
    for (input, decision) in inputs.into_iter().zip(expected) {
        let receipt = gate.admit(input).await.unwrap();
        assert_eq!(receipt.decision, decision);
        check(&validator, &receipt);
    }
}

#[tokio::test]
async fn a_lost_receipt_is_made_again() {
    let mut world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1")).await.unwrap();
    let again = gate.admit(event("e-1")).await.unwrap();
    drop(gate);
    world.crash();
    let gate = world.open().await;
    assert_eq!(gate.receipt_by_event_id("e-1").await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(gate.receipt_by_receipt_id(first.receipt_id).await.unwrap(), Some(first));
    assert_eq!(gate.receipt_by_receipt_id(again.receipt_id).await.unwrap(), Some(again));
    assert_eq!(gate.receipt_by_receipt_id("ab".repeat(16).parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn an_id_of_several_events_gives_all_their_receipts() {
    let world = World::new().await;
    let gate = world.open().await;
    let a = gate.admit(event("e-1")).await.unwrap();
    let b = gate.admit(event("e-1").of_type("order.cancelled")).await.unwrap();
    gate.admit(event("e-2")).await.unwrap();
    let mut found = gate.receipt_by_event_id("e-1").await.unwrap();
    found.sort_by_key(|r| r.eb_ref.as_ref().map(|e| e.offset.as_u64()));
    assert_eq!(found, [a, b]);
}

#[tokio::test]
async fn receipts_name_the_policy_that_was_in_force() {
    let mut world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1")).await.unwrap();
    gate.close().await.unwrap();
    let files =
        ["partitioning_profiles_v0.yaml", "class_map_v0.yaml"].map(|f| config_file(&format!("ig/{f}")));
    let schema = b"version: v0\ndefault_action: admit\npolicies: []\n";
    world.policy = load_policy("v1", &files[0], &files[1], schema).unwrap();
    let gate = world.open().await;
    let second = gate.admit(event("e-2")).await.unwrap();
    assert_ne!(first.policy_rev.content_digest, second.policy_rev.content_digest);
    let old = &gate.receipt_by_event_id("e-1").await.unwrap()[0];
    assert_eq!(old.policy_rev, first.policy_rev);
    assert_eq!((&old.class, &old.eb_ref, old.receipt_id), (&None, &first.eb_ref, first.receipt_id));
    assert_eq!(gate.receipt_by_event_id("e-2").await.unwrap(), [second]);
    assert_eq!(
        gate.admit(event("e-1")).await.unwrap().decision,
        Decision::Duplicate,
        "another policy admits nothing again"
    );
    gate.close().await.unwrap();
    world.policy = open_policy();
    let gate = world.open().await;
    assert_eq!(gate.receipt_by_event_id("e-1").await.unwrap(), [first]);
}

#[tokio::test]
async fn a_duplicate_of_an_event_that_another_class_had_names_that_ones_key() {
    let mut world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1")).await.unwrap();
    gate.close().await.unwrap();
    let files =
        ["partitioning_profiles_v0.yaml", "schema_policy_v0.yaml"].map(|f| config_file(&format!("ig/{f}")));
    let classes = String::from_utf8(config_file("ig/class_map_v0.yaml")).unwrap();
    let classes = classes.replace("event_types:", "event_types:\n  order.placed: audit");
    let open = String::from_utf8(files[1].clone()).unwrap();
    let open = open.replace("default_action: quarantine", "default_action: admit");
    world.policy = load_policy("v1", &files[0], classes.as_bytes(), open.as_bytes()).unwrap();
    let gate = world.open().await;
    let again = gate.admit(event("e-1")).await.unwrap();
    assert_eq!((again.decision, &again.eb_ref), (Decision::Duplicate, &first.eb_ref));
    assert_eq!(
        again.partition_key.as_ref().unwrap().as_str(),
        "m-1",
        "the audit stream's key would be the event id"
    );
    assert_eq!(again.partitioning_profile_id, first.partitioning_profile_id);
    assert_eq!(again.class.as_deref(), Some("audit"), "what it is today");
    let new = gate.admit(event("e-2")).await.unwrap();
    assert_eq!(new.eb_ref.unwrap().topic.as_str(), AUDIT);

    // A policy that no longer publishes to the first one's stream has no profile to name.
    gate.close().await.unwrap();
    let renamed = String::from_utf8(files[0].clone()).unwrap().replace(TRAFFIC, AUDIT);
    world.policy = load_policy("v2", renamed.as_bytes(), classes.as_bytes(), open.as_bytes()).unwrap();
    let gate = world.open().await;
    let again = gate.admit(event("e-1")).await.unwrap();
    assert_eq!((again.decision, &again.eb_ref), (Decision::Duplicate, &first.eb_ref));
    assert_eq!((again.partition_key, again.partitioning_profile_id), (first.partition_key, None));

    // Where the log cannot tell, there is no answer rather than a wrong one.
    world.bus.faults().fail_next_read(eb_contract::Error::new(
        eb_contract::ErrorKind::Unavailable,
        "read",
        "down",
    ));
    let error = gate.admit(event("e-1")).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (ig_gate::GateErrorCode::EbUnavailable, true));
}
