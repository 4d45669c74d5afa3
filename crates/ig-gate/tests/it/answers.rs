//! Every decision and every reason.

use bytes::Bytes;
use canonical_envelope::Limits;
use eb_contract::PartitionKey;
use ig_gate::{Decision, EvidenceKind, Gate, ReasonCode, Receipt};

use crate::support::{AUDIT, CONTROL, Event, HEX32, HEX64, TRAFFIC, World, event, shipped_policy};

async fn refused(gate: &Gate, input: impl Into<Bytes>, reason: ReasonCode) -> Receipt {
    let receipt = gate.admit(input).await.unwrap();
    assert_eq!(receipt.decision, Decision::Quarantine, "{receipt:?}");
    assert_eq!(receipt.reason_codes, [reason]);
    assert_eq!(receipt.evidence_refs[0].kind, EvidenceKind::QuarantineRecord);
    assert!(receipt.eb_ref.is_none() && receipt.dedupe_key.is_none() && receipt.admitted_at_utc.is_none());
    receipt
}

#[tokio::test]
async fn a_good_event_is_admitted_with_its_place_in_the_log() {
    let world = World::new().await;
    let gate = world.open().await;
    let input = event("e-1").bytes();
    let receipt = gate.admit(input.clone()).await.unwrap();
    assert_eq!(receipt.decision, Decision::Admit);
    assert!(receipt.reason_codes.is_empty() && receipt.evidence_refs.is_empty());
    let log = world.log(TRAFFIC).await;
    assert_eq!(log.len(), 1);
    assert_eq!(receipt.eb_ref.as_ref(), Some(&log[0].eb_ref));
    assert_eq!(receipt.admitted_at_utc, Some(log[0].eb_ref.published_at_utc));
    assert_eq!(log[0].partition_key.as_str(), "m-1");
    assert_eq!(log[0].envelope.as_bytes(), &input[..]);
    assert_eq!(receipt.event_id.as_deref(), Some("e-1"));
    assert_eq!(receipt.partitioning_profile_id.as_deref(), Some("ig.partitioning.v0.traffic"));
    assert_eq!(receipt.class.as_deref(), Some("traffic"));
    assert!(receipt.pins.unwrap().as_json().contains("\"seed\":18446744073709551615"));
}

#[tokio::test]
async fn what_is_published_is_the_canonical_form_made_once() {
    let world = World::new().await;
    let gate = world.open().await;
    let canonical = event("e-1").payload(r#"{"merchant_id":"m-1","b":1.0,"a":1e5}"#).bytes();
    let spaced = String::from_utf8(canonical.to_vec()).unwrap().replace(",\"", " ,\n\t\"");
    let receipt = gate.admit(format!("  {spaced} \n")).await.unwrap();
    assert_eq!(receipt.decision, Decision::Admit);
    assert_eq!(world.log(TRAFFIC).await[0].envelope.as_bytes(), &canonical[..]);
    assert_eq!(gate.admit(canonical).await.unwrap().decision, Decision::Duplicate);
}

#[tokio::test]
async fn the_same_event_again_is_a_duplicate_of_the_first() {
    let world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1")).await.unwrap();
    let again = gate.admit(event("e-1")).await.unwrap();
    assert_eq!(again.decision, Decision::Duplicate);
    assert_eq!(again.reason_codes, [ReasonCode::Duplicate]);
    assert_eq!(again.eb_ref, first.eb_ref);
    assert_eq!(again.dedupe_key, first.dedupe_key);
    assert_ne!(again.receipt_id, first.receipt_id);
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test]
async fn the_same_identity_with_another_payload_is_quarantined() {
    let world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1")).await.unwrap();
    let other = event("e-1").payload(r#"{"merchant_id":"m-1","n":2}"#);
    let receipt = refused(&gate, other, ReasonCode::PayloadHashMismatch).await;
    assert_eq!(receipt.evidence_refs[1].kind, EvidenceKind::ReceiptRef);
    assert_eq!(receipt.evidence_refs[1].reference, first.receipt_id.to_string());
    assert_eq!(receipt.evidence_refs[1].digest, first.payload_hash.unwrap().hex.to_string());
    assert_eq!(world.log(TRAFFIC).await.len(), 1);
}

#[tokio::test]
async fn the_same_id_of_another_type_or_run_is_another_event() {
    let world = World::new().await;
    let gate = world.open().await;
    let variants = [
        event("e-1"),
        event("e-1").of_type("order.cancelled"),
        event("e-1").extra(r#","platform_run_id":"platform_20260129T100000Z""#),
    ];
    for variant in variants {
        assert_eq!(gate.admit(variant).await.unwrap().decision, Decision::Admit);
    }
}

#[tokio::test]
async fn what_is_no_envelope_is_quarantined_with_what_could_be_saved() {
    let world = World::new().await;
    let gate = world.open().await;
    let receipt = refused(&gate, "not json", ReasonCode::EnvelopeInvalid).await;
    assert_eq!(receipt.event_id, None);
    let text = String::from_utf8(event("e-1").bytes().to_vec()).unwrap();
    let bad = text.replace("2026-01-29T10:00:00.000001Z", "yesterday");
    let receipt = refused(&gate, bad, ReasonCode::EnvelopeInvalid).await;
    assert_eq!((receipt.event_id.as_deref(), receipt.ts_utc.as_deref()), (Some("e-1"), None));
    refused(&gate, &b"\xff\xfe"[..], ReasonCode::EnvelopeInvalid).await;
    refused(&gate, "", ReasonCode::EnvelopeInvalid).await;
    refused(&gate, event("e-2").extra(r#","unknown":1"#), ReasonCode::EnvelopeInvalid).await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    refused(&gate, event("e-3").payload(&deep), ReasonCode::EnvelopeInvalid).await;
    assert!(world.log(TRAFFIC).await.is_empty());
}

#[tokio::test]
async fn missing_pins_are_named_by_class() {
    let world = World::new().await;
    let gate = world.open().await;
    let text = String::from_utf8(event("e-1").bytes().to_vec()).unwrap();
    let unpinned = text.replace(r#""seed":18446744073709551615,"#, "");
    let receipt = refused(&gate, unpinned.clone(), ReasonCode::PinsMissing).await;
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert_eq!(kept.details.len(), 1);
    assert_eq!(kept.details[0].path, "seed");
    let control = unpinned.replace("order.placed", "platform.run.started");
    let receipt =
        gate.admit(control.replace("\"payload\"", "\"schema_version\":\"1.0.0\",\"payload\"")).await.unwrap();
    assert_eq!((receipt.decision, receipt.class.as_deref()), (Decision::Admit, Some("control")));
    assert_eq!(world.log(CONTROL).await[0].partition_key.as_str(), HEX32);
}

#[tokio::test]
async fn the_schema_policy_decides_on_type_version_and_payload() {
    let mut world = World::new().await;
    world.policy = shipped_policy();
    let gate = world.open().await;
    refused(&gate, event("e-1"), ReasonCode::SchemaPolicyMissing).await;
    let card = event("e-2").of_type("card.transaction.settled");
    refused(&gate, card.clone(), ReasonCode::SchemaVersionRequired).await;
    refused(&gate, card.clone().extra(r#","schema_version":"9.9""#), ReasonCode::SchemaVersionNotAllowed)
        .await;
    let versioned = card.extra(r#","schema_version":"1.0.0""#);
    let receipt = refused(&gate, versioned.clone(), ReasonCode::SchemaFail).await;
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert!(kept.details.iter().all(|d| d.path.starts_with("payload")), "{:?}", kept.details);
    let good = r#"{"transaction_id":"t-1","merchant_id":"m-1","amount":12.50,"currency":"EUR"}"#;
    assert_eq!(gate.admit(versioned.payload(good)).await.unwrap().decision, Decision::Admit);
}

#[tokio::test]
async fn an_event_without_any_key_is_quarantined() {
    let mut world = World::new().await;
    let partitioning = r"
version: v0
profiles:
  ig.partitioning.v0.traffic:
    stream: fp.bus.traffic.v1
    key_precedence: [payload.merchant_id, payload.account]
    hash_algo: sha256
";
    let class_map = "version: v0\nclasses: {traffic: {required_pins: []}}\nevent_types: {}\n";
    let schema = "version: v0\ndefault_action: admit\npolicies: []\n";
    world.policy =
        crate::support::load_policy("keys", partitioning.as_bytes(), class_map.as_bytes(), schema.as_bytes())
            .unwrap();
    let gate = world.open().await;
    for payload in [r#"{"merchant_id":""}"#, r#"{"merchant_id":null,"account":[1]}"#, "{}"] {
        refused(&gate, event("e-1").payload(payload), ReasonCode::PartitionKeyMissing).await;
    }
}

#[tokio::test]
async fn keys_are_the_first_scalar_as_written_and_long_ones_are_hashed() {
    let world = World::new().await;
    let gate = world.open().await;
    let long = "ä".repeat(257);
    let cases = [
        (r#"{"merchant_id":"m-9"}"#.to_owned(), "m-9".to_owned()),
        (r#"{"merchant_id":12.50}"#.to_owned(), "12.50".to_owned()),
        (r#"{"merchant_id":true}"#.to_owned(), "true".to_owned()),
        (r#"{"merchant_id":""}"#.to_owned(), "e-3".to_owned()),
        ("{}".to_owned(), "e-4".to_owned()),
        (format!(r#"{{"merchant_id":"{}"}}"#, "ä".repeat(256)), "ä".repeat(256)),
        (format!(r#"{{"merchant_id":"{long}"}}"#), String::new()),
    ];
    for (n, (payload, expected)) in cases.into_iter().enumerate() {
        let receipt = gate.admit(event(&format!("e-{n}")).payload(&payload)).await.unwrap();
        let key = receipt.partition_key.unwrap();
        if n == 6 {
            use sha2::Digest as _;
            let digest = sha2::Sha256::digest(long.as_bytes());
            let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(key.as_str(), hex);
        } else {
            assert_eq!(key, PartitionKey::new(expected).unwrap());
        }
    }
}

#[tokio::test]
async fn too_large_an_input_is_quarantined_with_a_prefix_and_the_digest_of_the_whole() {
    let mut world = World::new().await;
    world.config.limits = Limits::new(1000, 100);
    let gate = world.open().await;
    let fits = |n: usize| {
        let base = event("e-1").payload(r#"{"merchant_id":"m-1","x":""}"#).bytes().len();
        event("e-1").payload(&format!(r#"{{"merchant_id":"m-1","x":"{}"}}"#, "x".repeat(n - base)))
    };
    assert_eq!(gate.admit(fits(1000)).await.unwrap().decision, Decision::Admit);
    let large = fits(1001).bytes();
    let receipt = refused(&gate, large.clone(), ReasonCode::PayloadTooLarge).await;
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert_eq!((kept.input.bytes, kept.input.truncated), (1001, false));
    assert_eq!(kept.input.decode().unwrap(), large);
    let huge = Bytes::from(vec![b'x'; 3 << 20]);
    let receipt = refused(&gate, huge, ReasonCode::PayloadTooLarge).await;
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert_eq!((kept.input.bytes, kept.input.truncated), (3 << 20, true));
    assert_eq!(kept.input.content.len(), 64 << 10);
}

#[tokio::test]
async fn an_envelope_larger_than_the_bus_takes_is_quarantined() {
    let small = eb_memory::MemoryConfig { max_envelope_bytes: 500, ..Default::default() };
    let world = World::with(small, 1, eb_memory::MemoryAdmissionIndex::new()).await;
    let gate = world.open().await;
    let large = event("e-1").payload(&format!(r#"{{"x":"{}"}}"#, "x".repeat(200)));
    refused(&gate, large, ReasonCode::PayloadTooLarge).await;
}

#[tokio::test]
async fn audit_events_need_only_their_world() {
    let world = World::new().await;
    let gate = world.open().await;
    let bare = format!(
        r#"{{"event_id":"a-1","event_type":"audit.access.granted","ts_utc":"2026-01-29T10:00:00.000001Z","manifest_fingerprint":"{HEX64}","schema_version":"1.0.0","payload":{{}}}}"#
    );
    assert_eq!(gate.admit(bare).await.unwrap().decision, Decision::Admit);
    assert_eq!(world.log(AUDIT).await[0].partition_key.as_str(), "a-1");
}

#[tokio::test]
async fn a_batch_answers_each_event_in_its_place() {
    let world = World::new().await;
    let gate = world.open().await;
    let inputs: Vec<Bytes> = [event("e-1"), event("e-2"), event("e-1")].iter().map(Event::bytes).collect();
    let answers = gate.admit_batch(inputs).await;
    let decisions: Vec<_> = answers.into_iter().map(|a| a.unwrap().decision).collect();
    assert_eq!(decisions, [Decision::Admit, Decision::Admit, Decision::Duplicate]);
    assert!(gate.admit_batch(Vec::new()).await.is_empty());
}
