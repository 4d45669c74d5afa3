//! Evidence: what is kept, and how it is found.

use bytes::Bytes;
use ig_gate::policy::{PolicyFile, PolicyFiles};
use ig_gate::quarantine::InputEncoding;
use ig_gate::{Decision, Policy, ReasonCode, ReceiptId};
use sha2::{Digest as _, Sha256};

use crate::support::{World, config_file, event};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[tokio::test]
async fn evidence_holds_the_original_bytes_and_is_cited_by_place_and_digest() {
    let world = World::new().await;
    let gate = world.open().await;
    for (input, encoding) in
        [(&b"not \"json\"\n\x00"[..], InputEncoding::Utf8), (&b"\xff\x00\xfe"[..], InputEncoding::Base64)]
    {
        let receipt = gate.admit(input).await.unwrap();
        let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
        assert_eq!(kept.receipt, receipt, "what is kept is what was answered");
        assert_eq!(kept.format, "ig.quarantine.v1");
        assert_eq!(kept.input.encoding, encoding);
        assert_eq!(kept.input.decode().unwrap(), input);
        assert_eq!((kept.input.sha256.clone(), kept.input.bytes), (sha256(input), input.len() as u64));
        assert!(!kept.details.is_empty());
    }
    let log = {
        use eb_contract::EventBusReaderExt as _;
        let topic = crate::support::topic("ig.quarantine.v1");
        let reader = world.evidence.reader();
        reader
            .read_to_head(&topic, crate::support::first_partition(), eb_contract::StartAt::Earliest)
            .await
            .unwrap()
    };
    let receipt = gate.admit(&b"not \"json\"\n\x00"[..]).await.unwrap();
    let first = gate.admit(&b"\xff\x00\xfe"[..]).await.unwrap();
    assert_ne!(receipt.receipt_id, first.receipt_id, "different inputs never share a receipt");
    assert_eq!(log[0].partition_key.as_str(), receipt.receipt_id.to_string());
    let cited = gate.quarantine().list(None, 1).await.unwrap().records[0].receipt.evidence_refs[0].clone();
    assert_eq!(cited.reference, log[0].eb_ref.to_string());
    assert_eq!(cited.digest, sha256(log[0].envelope.as_bytes()));
}

#[tokio::test]
async fn the_list_goes_on_where_it_stopped() {
    let world = World::new().await;
    let gate = world.open().await;
    for n in 0..25 {
        gate.admit(format!("bad {n}")).await.unwrap();
    }
    let (mut from, mut seen) = (None, Vec::new());
    loop {
        let page = gate.quarantine().list(from, 10).await.unwrap();
        assert!(page.records.len() <= 10);
        seen.extend(page.records.into_iter().map(|r| r.input.content));
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("bad {n}")).collect::<Vec<_>>());
    assert!(gate.quarantine().get("0".repeat(32).parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_prefix_that_ends_inside_a_character_stays_text() {
    let world = World::new().await;
    let gate = world.open().await;
    let input = Bytes::from(format!("x{}", "ä".repeat(1 << 20)));
    let receipt = gate.admit(input.clone()).await.unwrap();
    assert_eq!(receipt.reason_codes, [ReasonCode::PayloadTooLarge]);
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert!(kept.input.truncated);
    assert_eq!(kept.input.encoding, InputEncoding::Utf8);
    assert!(input.starts_with(kept.input.content.as_bytes()));
    assert_eq!(kept.input.sha256, sha256(&input));
}

#[tokio::test]
async fn a_quarantine_dropped_by_its_caller_is_kept_all_the_same() {
    let world = World::new().await;
    let gate = world.open().await;
    drop(gate.admit("bad"));
    gate.close().await.unwrap();
    assert_eq!(gate.quarantine().list(None, 10).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn the_same_bad_input_gets_the_same_receipt_id() {
    let world = World::new().await;
    let gate = world.open().await;
    let a = gate.admit("bad").await.unwrap();
    let b = gate.admit("bad").await.unwrap();
    assert_eq!(a.receipt_id, b.receipt_id);
    let id = ReceiptId::of_input(&Sha256::digest(b"bad").into(), &[ReasonCode::EnvelopeInvalid]);
    assert_eq!(a.receipt_id, id);
    assert_eq!(a.decision, Decision::Quarantine);
    assert_eq!(gate.receipt_by_receipt_id(id).await.unwrap().unwrap().receipt_id, id);
    assert!(gate.receipt_by_event_id("nobody").await.unwrap().is_empty());
    gate.admit(event("e-1")).await.unwrap();
}

#[tokio::test]
async fn a_pin_as_long_as_the_input_does_not_keep_it_out_of_the_quarantine() {
    let world = World::new().await;
    let gate = world.open().await;
    let digits = "7".repeat(1_047_800);
    let input = String::from_utf8(event("e-1").bytes().to_vec()).unwrap();
    let input = input
        .replace(r#""scenario_id":7"#, &format!(r#""scenario_id":{digits}"#))
        .replace(r#""run_id""#, r#""scenario_run_id""#);
    let receipt = gate.admit(input).await.unwrap();
    assert_eq!(receipt.reason_codes, [ReasonCode::PinsMissing]);
    let pins = receipt.pins.clone().unwrap();
    assert!(pins.as_json().contains("\"seed\":18446744073709551615"), "{pins:?}");
    assert!(!pins.as_json().contains("scenario_id"), "longer than what a receipt of evidence repeats");
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert_eq!(kept.receipt, receipt);
}

#[tokio::test]
async fn faults_under_a_name_as_long_as_the_payload_are_cut_in_the_evidence() {
    let schema = br#"{"additionalProperties": {"type": "array", "items": {"type": "string"}}}"#;
    let policy = format!(
        "version: v0\ndefault_action: admit\npolicies:\n  - event_type: order.placed\n    payload_schema_ref: order.json\npayload_schema_digests:\n  order.json: {}\n",
        sha256(schema)
    );
    let [partitioning, classes] =
        ["partitioning_profiles_v0.yaml", "class_map_v0.yaml"].map(|name| config_file(&format!("ig/{name}")));
    let file = |name, bytes| PolicyFile { name, bytes };
    let files = PolicyFiles {
        policy_id: "p",
        revision: "1",
        partitioning: file("partitioning.yaml", &partitioning),
        class_map: file("class_map.yaml", &classes),
        schema_policy: file("schema_policy.yaml", policy.as_bytes()),
    };
    let mut world = World::new().await;
    world.policy = Policy::load(files, &|_| Ok(schema.to_vec())).unwrap();
    let gate = world.open().await;
    let name = r"\u0001".repeat(170_000);
    let payload = format!(r#"{{"merchant_id":["m"],"{name}":[{}0]}}"#, "0,".repeat(31));
    let receipt = gate.admit(event("e-1").payload(&payload)).await.unwrap();
    assert_eq!(receipt.reason_codes, [ReasonCode::SchemaFail]);
    let kept = gate.quarantine().get(receipt.receipt_id).await.unwrap().unwrap();
    assert_eq!(kept.details.len(), 16);
    assert!(kept.details.iter().all(|d| d.path.starts_with("payload/") && d.path.ends_with('…')));
}
