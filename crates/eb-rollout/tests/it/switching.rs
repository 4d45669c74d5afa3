//! Switches: what they promise while everything goes well, and while nothing does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use eb_contract::stores::RegisterStore;
use eb_contract::{
    Cut, EbRef, Effect, Error, ErrorKind, EventBusPublisher, EventBusReader, EventBusReaderExt, PartitionId,
    ReadLimit, ReadState, Record, RegisterName, StartAt,
};
use eb_memory::Fate;
use eb_rollout::{EndState, Phase, RolloutBus, RolloutConfig};
use tokio::time::Instant;

use crate::support::{World, advance_to, event, make_topic, publish, quick, read_chain, topic};

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "test", "the bus is gone")
}

pub(crate) fn ids(records: &[Record]) -> Vec<String> {
    let id = |r: &Record| {
        let text = r.envelope.as_str().unwrap();
        let from = text.find("\"event_id\":\"").unwrap() + 12;
        text[from..from + text[from..].find('"').unwrap()].to_owned()
    };
    records.iter().map(id).collect()
}

/// Every ACK names the record that lies there, and the chain holds these records once, in the order of each key.
async fn audit(bus: &RolloutBus, acked: &[(EbRef, String)]) {
    let reader = bus.reader();
    let all = read_chain(&reader, &topic()).await;
    let by_place: BTreeMap<String, String> =
        all.iter().map(|r| r.eb_ref.to_string()).zip(ids(&all)).collect();
    assert_eq!(by_place.len(), all.len(), "a place was read twice");
    for (at, id) in acked {
        assert_eq!(by_place.get(&at.to_string()), Some(id), "the record at {at}");
    }
    let mut of_ids = ids(&all);
    let mut expected: Vec<_> = acked.iter().map(|(_, id)| id.clone()).collect();
    of_ids.sort();
    expected.sort();
    assert_eq!(of_ids, expected, "what the chain holds");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_keeps_its_place_through_all_phases_forward_and_back() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 2).await;
    let (publisher, reader) = (bus.publisher(), bus.reader());
    let of = topic();
    let mut tail_reader = reader.tail_topic(&of, StartAt::Earliest, ReadLimit::default()).await;
    let tail = tail_reader.as_mut().unwrap();
    let mut acked = Vec::new();
    let mut seen = Vec::new();
    let mut n = 0;
    let phases = [Phase::Baseline, Phase::DualWrite, Phase::NewPrimary, Phase::NewOnly];
    for round in 0..2 {
        for phase in phases {
            advance_to(&bus, phase).await;
            for key in ["a", "b", "c", "d"] {
                acked.push((publish(&publisher, key, n).await, format!("{key}-{n}")));
            }
            n += 1;
            // The consumer reads a little, and lags behind by different amounts.
            while seen.len() + 3 * usize::from(round == 0) < acked.len() {
                let (_, batch) = tail.next().await.unwrap().unwrap();
                seen.extend(batch.records);
            }
        }
        for phase in [Phase::NewPrimary, Phase::DualWrite, Phase::Baseline] {
            bus.control().rollback(phase, "back").await.unwrap();
            assert_eq!(bus.control().status().await.unwrap().state.phase, phase);
            acked.push((publish(&publisher, "a", n).await, format!("a-{n}")));
            n += 1;
        }
    }
    while seen.len() < acked.len() {
        let (_, batch) = tail.next().await.unwrap().unwrap();
        seen.extend(batch.records);
    }
    let places: Vec<_> = seen.iter().map(|r| r.eb_ref.clone()).collect();
    for (at, _) in &acked {
        assert_eq!(places.iter().filter(|p| *p == at).count(), 1, "{at} was handed out once");
    }
    let of_a: Vec<_> = ids(&seen).into_iter().filter(|id| id.starts_with("a-")).collect();
    let expected: Vec<_> = (0..n).map(|n| format!("a-{n}")).collect();
    assert_eq!(of_a, expected, "the order of a key");
    drop(tail_reader);
    audit(&bus, &acked).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_out_before_the_rollout_stays_valid() {
    let world = World::plain();
    eb_contract::EventBusAdmin::create_topic(&world.old.admin(), &topic(), 3).await.unwrap();
    let plain = world.old.publisher();
    let mut before = Vec::new();
    for n in 0..9 {
        before.push(plain.publish(&topic(), event("k", n)).await.unwrap());
    }
    let incarnation = world.old.reader().partitions(&topic()).await.unwrap().incarnation;
    let bus = world.open(quick()).await;
    let after = publish(&bus.publisher(), "k", 9).await;
    assert_eq!(after.partition_id, before[0].partition_id);
    advance_to(&bus, Phase::NewPrimary).await;
    let reader = bus.reader();
    let listed = reader.partitions(&topic()).await.unwrap();
    assert_eq!(listed.incarnation, incarnation);
    let own: Vec<_> = listed.partitions.iter().map(|p| (p.id.0, p.closed)).collect();
    assert_eq!(own, [(0, true), (1, true), (2, true), (65536, false), (65537, false), (65538, false)]);
    // A checkpoint from before the rollout.
    let cut = Cut::Next(before[4].offset);
    let mut cursor = reader.cursor(&topic(), before[4].partition_id, StartAt::Cut(cut)).await.unwrap();
    let batch = cursor.next(ReadLimit::default()).await.unwrap();
    let places: Vec<_> = batch.records.iter().map(|r| r.eb_ref.clone()).collect();
    assert_eq!(places, [&before[4..], &[after]].concat());
    let children = vec![PartitionId(65536), PartitionId(65537), PartitionId(65538)];
    assert_eq!((batch.next, batch.state), (Cut::End, ReadState::Closed { children }));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_lands_behind_the_end_of_its_epoch_is_no_part_of_the_log() {
    let world = World::plain();
    let (writer, switcher) = (world.open(quick()).await, world.open(quick()).await);
    make_topic(&writer, 1).await;
    let publisher = writer.publisher();
    let mut acked = vec![(publish(&publisher, "k", 0).await, "k-0".to_owned())];
    advance_to(&switcher, Phase::DualWrite).await;
    // Sent under a valid lease, and applied by the old bus long after the switch.
    world.old.faults().hold();
    let late = publisher.publish(&topic(), event("k", 1));
    advance_to(&switcher, Phase::NewPrimary).await;
    acked.push((publish(&publisher, "other", 2).await, "other-2".to_owned()));
    world.old.faults().release();
    let error = late.await.unwrap_err();
    assert_eq!((error.effect(), error.is_retryable()), (Effect::None, true), "{error}");
    audit(&writer, &acked).await;
    audit(&switcher, &acked).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_lands_in_time_is_acked_however_late_its_answer_is_looked_at() {
    let world = World::plain();
    let (writer, switcher) = (world.open(quick()).await, world.open(quick()).await);
    make_topic(&writer, 1).await;
    let publisher = writer.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&switcher, Phase::DualWrite).await;
    let late = publisher.publish(&topic(), event("k", 1));
    advance_to(&switcher, Phase::NewPrimary).await;
    let at = late.await.unwrap();
    assert_eq!(at.partition_id, PartitionId(0));
    audit(
        &writer,
        &[(at, "k-1".to_owned())]
            .into_iter()
            .chain([(first(&writer).await, "k-0".to_owned())])
            .collect::<Vec<_>>(),
    )
    .await;
}

async fn first(bus: &RolloutBus) -> EbRef {
    let read = bus.reader().read(&topic(), PartitionId(0), StartAt::Earliest, 1).await.unwrap();
    read.records[0].eb_ref.clone()
}

#[tokio::test(start_paused = true)]
async fn publishes_wait_in_the_order_of_their_calls_while_the_register_is_gone() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    world.registers.outage(Some(gone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let calls: Vec<_> = (1..20).map(|n| publisher.publish(&topic(), event("k", n))).collect();
    let batch = publisher.publish_batch(&topic(), vec![event("k", 20), event("k", 21)]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        world.old.reader().head(&topic(), PartitionId(0)).await.unwrap().last.unwrap().as_u64(),
        Some(0)
    );
    world.registers.outage(None);
    for answer in batch.await {
        answer.unwrap();
    }
    for call in calls.into_iter().rev() {
        call.await.unwrap();
    }
    let read = read_chain(&bus.reader(), &topic()).await;
    assert_eq!(ids(&read), (0..22).map(|n| format!("k-{n}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn without_a_register_a_publish_ends_as_unavailable_without_effect() {
    let world = World::plain();
    let config = RolloutConfig { max_wait: Duration::from_secs(1), ..quick() };
    let bus = world.open(config).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    world.registers.outage(Some(gone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = publisher.publish(&topic(), event("k", 1)).await.unwrap_err();
    assert_eq!((error.kind().code(), error.effect()), ("unavailable", Effect::None), "{error}");
    // What cannot be confirmed is not handed out, and is not "nothing new" either.
    assert!(bus.reader().read(&topic(), PartitionId(0), StartAt::Earliest, 1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_from_a_bus_that_is_gone_takes_less_than_a_second_and_readers_wait_for_it() {
    let world = World::plain();
    // The lease that everybody gets.
    let config = RolloutConfig { lease: Duration::from_millis(500), ..quick() };
    let (bus, other) = (world.open(config.clone()).await, world.open(config).await);
    make_topic(&bus, 2).await;
    let publisher = bus.publisher();
    let mut acked = vec![(publish(&publisher, "a", 0).await, "a-0".to_owned())];
    advance_to(&bus, Phase::NewPrimary).await;
    for n in 1..5 {
        acked.push((publish(&publisher, "a", n).await, format!("a-{n}")));
        acked.push((publish(&publisher, "b", n).await, format!("b-{n}")));
    }
    world.new.faults().outage(gone());
    let began = Instant::now();
    let status = other.control().rollback(Phase::Baseline, "the new bus is gone").await.unwrap();
    acked.push((publish(&publisher, "a", 5).await, "a-5".to_owned()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(status.pending, [topic()]);
    // The records of the new bus cannot be read now, and are not passed over.
    let reader = bus.reader();
    let of = topic();
    let mut tail = reader.tail_topic(&of, StartAt::Earliest, ReadLimit::default()).await.unwrap();
    let mut seen = 0;
    let error = loop {
        match tail.next().await.unwrap() {
            Ok((_, batch)) => seen += batch.records.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((seen, error.is_retryable()), (1, true), "{error}");
    world.new.faults().recover();
    audit(&bus, &acked).await;
    let settled = bus.control().status().await.unwrap();
    let ends: Vec<_> = settled.state.topics[&topic()].iter().map(|s| s.end).collect();
    assert_eq!(ends, [EndState::Settled, EndState::Settled, EndState::Open]);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_outcome_is_unknown_waits_until_it_is_decided_and_others_go_on() {
    for landed in [true, false] {
        let world = World::plain();
        let bus = world.open(quick()).await;
        make_topic(&bus, 1).await;
        let publisher = bus.publisher();
        publish(&publisher, "a", 0).await;
        advance_to(&bus, Phase::NewPrimary).await;
        let fate =
            if landed { Fate::LoseAck(gone()) } else { Fate::Fail(gone().with_effect(Effect::Unknown)) };
        // The mirror writes to the old bus, so the next record of the new one is this.
        world.new.faults().next_records([fate]);
        let error = publisher.publish(&topic(), event("a", 1)).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown);
        world.new.faults().outage(gone());
        bus.control().rollback(Phase::Baseline, "gone").await.unwrap();
        publish(&publisher, "b", 0).await;
        let error = publisher.publish(&topic(), event("a", 2)).await.unwrap_err();
        assert_eq!(
            (error.kind().code(), error.effect(), error.is_retryable()),
            ("unavailable", Effect::None, true)
        );
        world.new.faults().recover();
        while !bus.control().status().await.unwrap().pending.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        publish(&publisher, "a", 2).await;
        let of_a = ids(&read_chain(&bus.reader(), &topic()).await);
        let of_a: Vec<_> = of_a.iter().filter(|id| id.starts_with('a')).collect();
        let expected: &[&str] = if landed { &["a-0", "a-1", "a-2"] } else { &["a-0", "a-2"] };
        assert_eq!(of_a, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_planned_switch_from_a_bus_that_does_not_answer_is_called_off_and_writers_go_on() {
    let world = World::plain();
    let bus = world.open(RolloutConfig { drain: Duration::from_millis(200), ..quick() }).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    // Readers of the new bus fail, its topics can be listed: it looks healthy until the heads are asked for.
    world.new.faults().outage(gone());
    let error = bus.control().advance("too early").await.unwrap_err();
    assert_eq!(error.kind().code(), "invalid_input", "{error}");
    publish(&publisher, "k", 1).await;
    let status = bus.control().status().await.unwrap();
    assert_eq!((status.state.phase, status.state.epoch, status.state.switching), (Phase::DualWrite, 0, None));
}

/// As a switcher that dies right after it has begun leaves it.
pub(crate) async fn begin_and_die(world: &World, to: &str, urgent: bool) {
    let name = RegisterName::new("rollout").unwrap();
    let stands = world.registers.load(&name).await.unwrap().unwrap();
    let mut state: serde_json::Value = serde_json::from_slice(&stands.value).unwrap();
    state["switching"] = serde_json::json!({
        "to": to, "since": "2026-01-01T00:00:00.000000Z", "by": "the dead", "reason": "died", "urgent": urgent,
    });
    let value = Bytes::from(serde_json::to_vec(&state).unwrap());
    world.registers.swap(&name, stands.version, value, "begun").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_switch_whose_switcher_has_died_is_finished_by_another() {
    let world = World::plain();
    let (bus, _other) = (world.open(quick()).await, world.open(quick()).await);
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    let mut acked = vec![(publish(&publisher, "k", 0).await, "k-0".to_owned())];
    advance_to(&bus, Phase::DualWrite).await;
    begin_and_die(&world, "new_primary", false).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    for n in 1..4 {
        acked.push((publish(&publisher, "k", n).await, format!("k-{n}")));
    }
    let status = bus.control().status().await.unwrap();
    assert_eq!((status.state.phase, status.state.epoch), (Phase::NewPrimary, 1));
    audit(&bus, &acked).await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_cannot_be_finished_is_called_off_by_another() {
    let world = World::plain();
    let bus = world.open(RolloutConfig { drain: Duration::from_millis(200), ..quick() }).await;
    make_topic(&bus, 1).await;
    let publisher = bus.publisher();
    publish(&publisher, "k", 0).await;
    advance_to(&bus, Phase::DualWrite).await;
    world.new.faults().outage(gone());
    begin_and_die(&world, "new_primary", false).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    publish(&publisher, "k", 1).await;
    let status = bus.control().status().await.unwrap();
    assert_eq!((status.state.phase, status.state.epoch), (Phase::DualWrite, 0));
    assert!(status.history[0].reason.starts_with("called off"), "{:?}", status.history[0]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_on_a_bus_is_another_life_and_said_so() {
    let world = World::plain();
    let bus = world.open(quick()).await;
    make_topic(&bus, 1).await;
    publish(&bus.publisher(), "k", 0).await;
    advance_to(&bus, Phase::NewPrimary).await;
    // The same register over a new bus that was set up again.
    let again = World { new: std::sync::Arc::new(eb_memory::MemoryBus::new()), ..world.clone() };
    eb_contract::EventBusAdmin::create_topic(&again.new.admin(), &topic(), 1).await.unwrap();
    let bus = again.open(RolloutConfig { workers: false, ..quick() }).await;
    let error = bus.reader().partitions(&topic()).await.unwrap_err();
    assert_eq!(error.kind().code(), "wrong_incarnation", "{error}");
    let opened = bus.reader().cursor(&topic(), PartitionId(65536), StartAt::Earliest).await;
    assert_eq!(opened.err().unwrap().kind().code(), "wrong_incarnation");
}

#[tokio::test(start_paused = true)]
async fn a_register_of_other_buses_is_refused() {
    let world = World::plain();
    drop(world.open(quick()).await);
    let mut parts = world.parts();
    parts.new.name = "elsewhere".to_owned();
    let error = RolloutBus::open(parts, quick()).await.err().unwrap();
    assert_eq!(error.kind().code(), "invalid_input", "{error}");
}

#[tokio::test(start_paused = true)]
async fn advancing_says_what_is_missing_and_rolling_back_to_a_later_phase_is_refused() {
    let world = World::plain();
    let bus = world.open(RolloutConfig { drain: Duration::from_millis(100), ..quick() }).await;
    make_topic(&bus, 1).await;
    publish(&bus.publisher(), "k", 0).await;
    let control = bus.control();
    assert_eq!(control.readiness().await.unwrap().missing, Vec::<String>::new());
    assert!(control.rollback(Phase::NewOnly, "forward").await.is_err());
    control.advance("mirror").await.unwrap();
    world.new.faults().outage(gone());
    let missing = control.readiness().await.unwrap().missing;
    assert!(missing[0].contains("not healthy"), "{missing:?}");
    world.new.faults().recover();
    control.advance("new").await.unwrap();
    control.advance("only").await.unwrap();
    assert!(control.advance("beyond").await.is_err());
    assert_eq!(control.readiness().await.unwrap().next, None);
}
