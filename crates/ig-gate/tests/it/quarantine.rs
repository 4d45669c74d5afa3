//! Evidence: what is kept, and how it is found.

use bytes::Bytes;
use ig_gate::quarantine::InputEncoding;
use ig_gate::{Decision, ReasonCode, ReceiptId};
use sha2::{Digest as _, Sha256};

use crate::support::{World, event};

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
