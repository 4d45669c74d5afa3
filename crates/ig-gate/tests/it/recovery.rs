//! Opening over a log: nothing admitted twice, nothing forgotten, nothing guessed.

use std::sync::Arc;

use eb_contract::stores::{AdmissionIndex as _, IndexCheckpoint};
use eb_contract::{
    BusIncarnation, Cut, EnvelopeRef, ErrorKind, EventBusAdmin as _, EventBusPublisher as _, Offset,
    PartitionKey, PublishRecord,
};
use eb_memory::{MemoryAdmissionIndex, MemoryBus, MemoryConfig};
use ig_gate::{Decision, Gate};

use crate::support::{AUDIT, CONTROL, Index, TRAFFIC, World, decision, event, topic};

async fn checkpoint(world: &World) -> IndexCheckpoint {
    world.index.checkpoint().await.unwrap().unwrap()
}

async fn refused(world: &World) -> eb_contract::Error {
    match Gate::open(world.parts()).await {
        Ok(_) => panic!("the gate must refuse to open"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_crash_between_append_and_index_write_admits_nothing_twice_and_forgets_nothing() {
    for config in [MemoryConfig::default(), MemoryConfig::stream_like()] {
        let mut world = World::with(config, 3, MemoryAdmissionIndex::new()).await;
        let gate = world.open().await;
        for n in 0..20 {
            gate.admit(event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":{n}}}"#))).await.unwrap();
        }
        gate.checkpoint().await.unwrap();
        for n in 20..40 {
            gate.admit(event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":{n}}}"#))).await.unwrap();
        }
        drop(gate);
        world.crash();
        assert_eq!(world.index.approximate_len(), 20, "the crash took what no checkpoint held");
        let gate = world.open().await;
        let log = world.log(TRAFFIC).await;
        for n in 0..40 {
            let again = event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":{n}}}"#));
            let receipt = gate.admit(again).await.unwrap();
            assert_eq!(receipt.decision, Decision::Duplicate);
            assert!(log.iter().any(|r| Some(&r.eb_ref) == receipt.eb_ref.as_ref()));
        }
        assert_eq!(world.log(TRAFFIC).await.len(), 40);
    }
}

#[tokio::test]
async fn a_lost_index_is_rebuilt_from_the_log() {
    let mut world = World::new().await;
    let gate = world.open().await;
    let first = gate.admit(event("e-1")).await.unwrap();
    gate.admit(event("c-1").of_type("platform.run.started").extra(r#","schema_version":"1.0.0""#))
        .await
        .unwrap();
    gate.close().await.unwrap();
    world.index = Index::new(MemoryAdmissionIndex::new());
    let gate = world.open().await;
    assert_eq!(world.index.approximate_len(), 2);
    assert_eq!(gate.admit(event("e-1")).await.unwrap().eb_ref, first.eb_ref);
}

#[tokio::test]
async fn of_two_copies_in_the_log_the_first_is_the_one() {
    let world = World::new().await;
    let publisher = world.bus.publisher();
    let record = || {
        PublishRecord::new(PartitionKey::new("m-1").unwrap(), EnvelopeRef::new(event("e-1").bytes()).unwrap())
    };
    let first = publisher.publish(&topic(TRAFFIC), record()).await.unwrap();
    publisher.publish(&topic(TRAFFIC), record()).await.unwrap();
    let gate = world.open().await;
    assert_eq!(gate.admit(event("e-1")).await.unwrap().eb_ref, Some(first));
}

#[tokio::test]
async fn opening_reads_only_what_the_checkpoint_does_not_cover() {
    let world = World::new().await;
    let gate = world.open().await;
    for n in 0..10 {
        gate.admit(event(&format!("e-{n}"))).await.unwrap();
    }
    gate.close().await.unwrap();
    let cuts = checkpoint(&world).await.cuts;
    let traffic = cuts.iter().find(|c| c.topic == topic(TRAFFIC)).unwrap();
    assert_eq!(traffic.cut.offset().and_then(Offset::as_u64), Some(10));
    assert!(traffic.last_crc32c.is_some());
    // Reading the last record alone fails the second time; the open needs one read per topic with a cut for the check,
    // and one for what came after.
    let gate = world.open().await;
    assert_eq!(checkpoint(&world).await.cuts, cuts);
    assert_eq!(decision(gate.admit(event("e-3")).await), Decision::Duplicate);
}

#[tokio::test]
async fn an_index_ahead_of_its_log_refuses_and_names_what_is_missing() {
    let world = World::new().await;
    let gate = world.open().await;
    for n in 0..5 {
        gate.admit(event(&format!("e-{n}"))).await.unwrap();
    }
    gate.close().await.unwrap();
    let mut ahead = checkpoint(&world).await;
    let cut = ahead.cuts.iter_mut().find(|c| c.topic == topic(TRAFFIC)).unwrap();
    cut.cut = Cut::Next(Offset::from_u64(cut.cut.offset().unwrap().kind(), 9));
    world.index.inner.commit_checkpoint(ahead).await.unwrap();
    let error = refused(&world).await;
    assert_eq!(*error.kind(), ErrorKind::FactsMissing);
    let text = error.to_string();
    assert!(
        text.contains("fp.bus.traffic.v1/0") && text.contains("next 9") && text.contains("next 5"),
        "{text}"
    );
}

#[tokio::test]
async fn an_index_of_another_log_refuses() {
    let world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-1")).await.unwrap();
    gate.close().await.unwrap();
    let stored = checkpoint(&world).await;
    let mut other = stored.clone();
    other.cuts.iter_mut().for_each(|c| c.last_crc32c = c.last_crc32c.map(|crc| !crc));
    world.index.inner.commit_checkpoint(other).await.unwrap();
    let error = refused(&world).await;
    assert_eq!(*error.kind(), ErrorKind::FactsMissing, "{error}");
    assert!(error.to_string().contains("CRC32C"), "{error}");

    let mut reborn = stored.clone();
    reborn.cuts.iter_mut().for_each(|c| c.bus_incarnation = BusIncarnation::new("another-life").unwrap());
    world.index.inner.commit_checkpoint(reborn).await.unwrap();
    assert_eq!(*refused(&world).await.kind(), ErrorKind::WrongIncarnation);

    let newer = IndexCheckpoint { key_version: stored.key_version + 1, ..stored };
    world.index.inner.commit_checkpoint(newer).await.unwrap();
    assert_eq!(*refused(&world).await.kind(), ErrorKind::WrongVersion);
}

#[tokio::test]
async fn a_log_made_anew_under_an_old_index_refuses() {
    let mut world = World::new().await;
    let gate = world.open().await;
    gate.admit(event("e-1")).await.unwrap();
    gate.close().await.unwrap();
    let index = Arc::clone(&world.index);
    world = World::new().await;
    world.index = index;
    assert_eq!(*refused(&world).await.kind(), ErrorKind::WrongIncarnation);
    world.bus = MemoryBus::new();
    for name in [CONTROL, AUDIT] {
        world.bus.admin().create_topic(&topic(name), 1).await.unwrap();
    }
    let error = refused(&world).await;
    assert!(matches!(error.kind(), ErrorKind::FactsMissing | ErrorKind::WrongIncarnation), "{error}");
}

#[tokio::test]
async fn a_missing_stream_refuses_and_says_what_to_do() {
    let mut world = World::new().await;
    world.bus = MemoryBus::new();
    let error = refused(&world).await;
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("create the topic"), "{error}");
}

#[tokio::test]
async fn a_record_that_no_gate_has_admitted_refuses_and_names_its_place() {
    let world = World::new().await;
    let foreign = PublishRecord::new(PartitionKey::new("k").unwrap(), EnvelopeRef::new("{\"a\":1}").unwrap());
    world.bus.publisher().publish(&topic(AUDIT), foreign).await.unwrap();
    let error = refused(&world).await;
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("fp.bus.audit.v1/0@0"), "{error}");
}

#[tokio::test]
async fn an_unreadable_log_refuses() {
    let world = World::new().await;
    world.open().await.admit(event("e-1")).await.unwrap();
    world.bus.faults().fail_next_read(eb_contract::Error::new(ErrorKind::Io, "read", "the disk is gone"));
    assert_eq!(*refused(&world).await.kind(), ErrorKind::Io);
}

#[tokio::test]
async fn split_and_merged_partitions_are_read_parents_first() {
    let mut world = World::with(MemoryConfig::stream_like(), 2, MemoryAdmissionIndex::new()).await;
    let gate = world.open().await;
    let admit = async |gate: &Gate, range: std::ops::Range<u32>| {
        for n in range {
            gate.admit(event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":{n}}}"#))).await.unwrap();
        }
    };
    admit(&gate, 0..20).await;
    gate.checkpoint().await.unwrap();
    let faults = world.bus.faults();
    let [a, b] = faults.split(&topic(TRAFFIC), eb_contract::PartitionId(0)).unwrap();
    admit(&gate, 20..40).await;
    faults.merge(&topic(TRAFFIC), a, b).unwrap();
    admit(&gate, 40..60).await;
    drop(gate);
    world.crash();
    let gate = world.open().await;
    for n in 0..60 {
        let again = event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":{n}}}"#));
        assert_eq!(decision(gate.admit(again).await), Decision::Duplicate, "e-{n}");
    }
    gate.close().await.unwrap();
    world.open().await;
}

#[tokio::test]
async fn what_a_stream_has_forgotten_is_still_known_to_the_index() {
    let world = World::with(MemoryConfig::stream_like(), 1, MemoryAdmissionIndex::new()).await;
    let gate = world.open().await;
    for n in 0..6 {
        gate.admit(event(&format!("e-{n}"))).await.unwrap();
    }
    gate.close().await.unwrap();
    let stream = topic(TRAFFIC);
    let head = world.log(TRAFFIC).await[5].eb_ref.offset;
    world.bus.faults().trim(&stream, crate::support::first_partition(), &Cut::past(head)).unwrap();
    let gate = world.open().await;
    assert_eq!(decision(gate.admit(event("e-2")).await), Decision::Duplicate);
}
