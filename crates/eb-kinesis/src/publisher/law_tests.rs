//! The scheduler against a model of the service, under random faults: order of first occurrences, exactly one answer per
//! record, every ACK in the log, nothing in the log whose answer says that it is not.

mod model;

use std::collections::HashSet;
use std::time::Duration;

use eb_contract::{
    Effect, Error, ErrorKind, Offset, OffsetKind, PartitionId, PartitionKey, PublishRecord, Timestamp,
    key_hash, partition_for,
};
use proptest::prelude::*;

use self::model::{Called, Fate, Fault, GIVE_UP, Step, World, even_shards, layout};
use super::call::{Answer, Outcome};
use crate::config::Rate;

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Store),
        3 => Just(Fate::Throttle),
        1 => any::<bool>().prop_map(|stored| Fate::FailInside { stored }),
        1 => Just(Fate::Deny),
    ];
    prop::collection::vec(fate, 1..5)
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => (fates(), any::<bool>()).prop_map(|(fates, reversed)| Fault::Entries { fates, reversed }),
        2 => (prop::collection::vec(any::<bool>(), 1..5), any::<bool>())
            .prop_map(|(stores, lands_late)| Fault::Lost { stores, lands_late }),
        1 => Just(Fault::Unreachable),
        1 => Just(Fault::ThrottledWhole),
        1 => Just(Fault::DeniedWhole),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u8..5;
    let step = prop_oneof![
        6 => key.clone().prop_map(|key| Step::Publish { key }),
        2 => prop::collection::vec(key.clone(), 1..7).prop_map(|keys| Step::Batch { keys }),
        8 => (0usize..3, prop::option::weighted(0.6, faults()), prop::collection::vec(key, 0..2))
            .prop_map(|(nth, fault, meanwhile)| Step::End { nth, fault, meanwhile }),
        4 => prop_oneof![1u64..200, 1u64..3_000].prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Land),
        1 => (0usize..4, any::<bool>()).prop_map(|(nth, told)| Step::Split { nth, told }),
    ];
    prop::collection::vec(step, 1..80)
}

fn run(strict: bool, shards: u32, rate: Option<Rate>, steps: &[Step]) {
    let mut world = World::new(strict, shards, rate);
    steps.iter().for_each(|step| world.step(step));
    world.finish();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strict_order_holds_under_any_faults(steps in steps(), shards in 1u32..4, paced: bool) {
        let rate = paced.then_some(Rate { calls_or_records: 20.0, bytes: 2_000.0 });
        run(true, shards, rate, &steps);
    }

    #[test]
    fn batched_records_are_answered_once_and_truly_under_any_faults(steps in steps(), shards in 1u32..4) {
        run(false, shards, None, &steps);
    }
}

#[test]
fn a_key_maps_to_the_lane_that_the_contract_names() {
    let key = PartitionKey::new("key-1").unwrap();
    let hash = key_hash(&key);
    let shards = even_shards(4);
    let owner = shards.iter().find(|s| (s.hashes.0..=s.hashes.1).contains(&hash)).unwrap();
    assert_eq!(owner.partition, partition_for(&key, 4));
}

#[test]
fn in_a_shard_that_takes_nothing_a_long_queue_is_given_up_together() {
    let mut world = World::new(true, 1, None);
    (0..200).for_each(|_| world.publish(1));
    let start = world.now;
    while !world.scheduler.is_idle() {
        world.start_calls();
        if world.in_flight.is_empty() {
            world.now = world.scheduler.wake_at(world.now).unwrap().max(world.now + Duration::from_nanos(1));
        } else {
            world.end(0, Some(&Fault::ThrottledWhole));
            world.give_answers();
        }
    }
    let took = world.now - start;
    assert!(took >= GIVE_UP && took < GIVE_UP * 2, "{took:?} for a queue of 200");
    for record in &world.records {
        let error = record.answered.as_ref().unwrap().1.as_ref().unwrap_err();
        assert_eq!((error.kind().code(), error.effect()), ("throttled", Effect::None));
    }
}

#[test]
fn a_shard_keeps_its_pace_when_another_one_is_split() {
    let mut world = World::new(true, 2, None);
    let of_first =
        |k: &u8| partition_for(&PartitionKey::new(format!("key-{k}")).unwrap(), 2) == PartitionId(0);
    (0u8..40).filter(of_first).take(8).for_each(|key| world.publish(key));
    let in_flight = |world: &World| world.in_flight.iter().map(|(_, records)| records.len()).sum::<usize>();
    let split_the_other = Step::Split { nth: 1, told: true };
    world.start_calls();
    assert_eq!(in_flight(&world), 8);
    (0..2).for_each(|_| world.end(0, Some(&Fault::ThrottledWhole)));
    world.step(&split_the_other);
    assert_eq!(in_flight(&world), 0, "it rests");
    world.now = world.scheduler.wake_at(world.now).unwrap();
    world.start_calls();
    let window = in_flight(&world);
    assert!((1..8).contains(&window), "{window} of 8 after two refusals");
    world.step(&split_the_other);
    assert_eq!(in_flight(&world), window, "what is in flight counts");
    world.finish();
    world.check();
}

#[test]
fn a_record_that_is_refused_while_others_go_is_given_up_in_its_time() {
    let mut world = World::new(true, 1, None);
    world.publish(1);
    let start = world.now;
    while world.records[0].answered.is_none() {
        world.publish(2);
        world.start_calls();
        while !world.in_flight.is_empty() {
            let refused = |r: &PublishRecord| r.partition_key.as_str() == "key-1";
            let fates =
                world.in_flight[0].1.iter().map(|r| if refused(r) { Fate::Throttle } else { Fate::Store });
            let fates = fates.collect();
            world.end(0, Some(&Fault::Entries { fates, reversed: false }));
        }
        world.give_answers();
        world.now += GIVE_UP / 50;
        assert!(world.now < start + GIVE_UP * 3, "it is refused for ever");
    }
    assert!(world.now >= start + GIVE_UP);
    let error = world.records[0].answered.as_ref().unwrap().1.as_ref().unwrap_err();
    assert_eq!((error.kind().code(), error.effect()), ("throttled", Effect::None));
    world.finish();
    world.check();
    assert_eq!(world.log.len(), world.records.len() - 1, "all others are stored");
}

#[test]
fn in_a_stream_that_was_made_anew_numbers_begin_anew() {
    let mut world = World::new(true, 1, None);
    let mut publish = |number: &str, remade: Option<bool>| {
        if let Some(remade) = remade {
            world.scheduler.shape(&layout(&even_shards(1)), remade, world.now);
        }
        world.publish(1);
        world.start_calls();
        let (call, _) = world.in_flight.pop().unwrap();
        let offset = Offset::parse(OffsetKind::KinesisSequence, number).unwrap();
        let stored = Outcome::Stored(PartitionId(0), offset);
        world.scheduler.answered(call, Answer::Each(Timestamp::EPOCH, vec![stored]), world.now);
        world.give_answers();
        world.records.last().unwrap().answered.as_ref().unwrap().1.is_ok()
    };
    assert!(publish("100", None));
    assert!(!publish("99", Some(false)), "another look at the same stream");
    assert!(publish("1", Some(true)));
    assert!(!publish("1", None));
}

#[test]
fn a_slow_shard_holds_up_nothing_but_its_own_keys() {
    let mut world = World::new(true, 2, None);
    let of_shard = |n| {
        let key =
            |k: &u8| partition_for(&PartitionKey::new(format!("key-{k}")).unwrap(), 2) == PartitionId(n);
        (0u8..40).filter(key).take(10).collect::<Vec<u8>>()
    };
    let (slow, quick) = (of_shard(0), of_shard(1));
    let quick_keys: HashSet<_> =
        quick.iter().map(|k| PartitionKey::new(format!("key-{k}")).unwrap()).collect();
    slow.iter().chain(&quick).for_each(|key| world.publish(*key));
    // Time stands still: what must wait for the slow shard does not come.
    for _ in 0..100 {
        world.start_calls();
        let Some((call, records)) = world.in_flight.pop() else { break };
        let outcome = |r: &PublishRecord| {
            if quick_keys.contains(&r.partition_key) {
                None
            } else {
                Some(Outcome::Refused(Error::new(ErrorKind::Throttled { after: None }, "publish", "slow")))
            }
        };
        let outcomes: Vec<_> = records.iter().map(|r| (r.clone(), outcome(r))).collect();
        let outcomes = outcomes.into_iter().map(|(record, refused)| {
            refused.unwrap_or_else(|| {
                let (partition, offset) = world.store(&record);
                Outcome::Stored(partition, offset)
            })
        });
        let outcomes = outcomes.collect();
        world.scheduler.answered(call, Answer::Each(Timestamp::EPOCH, outcomes), world.now);
        world.give_answers();
    }
    let answered = world.records.iter().filter(|r| r.answered.is_some()).count();
    assert_eq!(answered, quick.len());
    assert_eq!(world.log.len(), quick.len());
}

#[test]
fn while_the_service_cannot_be_reached_one_call_at_a_time_finds_out_whether_it_can() {
    let mut world = World::new(true, 1, None);
    (0..20).for_each(|key| world.publish(key));
    world.start_calls();
    let all = world.in_flight.len();
    assert!(all > 1, "{all} calls while nothing is known to be wrong");
    (0..all).for_each(|_| world.end(0, Some(&Fault::Unreachable)));
    for last in [false, false, true] {
        world.start_calls();
        assert!(world.in_flight.is_empty(), "it rests");
        world.now = world.scheduler.wake_at(world.now).unwrap();
        world.start_calls();
        assert_eq!(world.in_flight.len(), 1);
        assert_eq!(world.scheduler.wake_at(world.now), None, "only its answer lets another one go");
        world.end(0, (!last).then_some(&Fault::Unreachable));
    }
    world.start_calls();
    assert_eq!(world.in_flight.len(), all, "it is back");
    world.finish();
    world.check();
}

#[test]
fn a_descending_number_is_a_violation_and_stops_what_is_behind() {
    let mut world = World::new(true, 1, None);
    (0..3).for_each(|_| world.publish(1));
    let answer = |world: &mut World, number: &str| {
        world.start_calls();
        let (call, _) = world.in_flight.pop().unwrap();
        let offset = Offset::parse(OffsetKind::KinesisSequence, number).unwrap();
        let stored = Outcome::Stored(PartitionId(0), offset);
        world.scheduler.answered(call, Answer::Each(Timestamp::EPOCH, vec![stored]), world.now);
        world.give_answers();
    };
    answer(&mut world, "100");
    answer(&mut world, "99");
    let kind = |world: &World, n: usize| {
        world.records[n]
            .answered
            .as_ref()
            .unwrap()
            .1
            .as_ref()
            .map_err(|e| (e.kind().code(), e.effect()))
            .err()
    };
    assert_eq!(kind(&world, 0), None);
    assert_eq!(kind(&world, 1), Some(("protocol_violation", Effect::Unknown)));
    assert_eq!(kind(&world, 2), Some(("not_attempted", Effect::None)));
    assert!(world.scheduler.is_idle() && world.scheduler.take_surprise());
    // The next one is held against the highest number, not the newest.
    world.publish(1);
    answer(&mut world, "100");
    assert_eq!(kind(&world, 3), Some(("protocol_violation", Effect::Unknown)));
    world.publish(1);
    answer(&mut world, "101");
    assert_eq!(kind(&world, 4), None);
}

#[test]
fn a_lost_record_of_a_batch_stops_its_key_until_the_batch_is_answered() {
    let mut world = World::new(true, 1, None);
    // The call takes four records: the fifth key's is in the second call.
    world.publish_batch(&[0, 1, 2, 3, 4]);
    world.start_calls();
    world.end(0, Some(&Fault::Lost { stores: vec![true], lands_late: true }));
    world.give_answers();
    assert!(world.records.iter().all(|r| r.answered.is_none()), "the batch is not answered yet");
    world.publish(0);
    world.give_answers();
    let kind = |r: &Called| r.answered.as_ref().unwrap().1.as_ref().err().map(|e| e.kind().code());
    assert_eq!(kind(&world.records[5]), Some("not_attempted"), "nobody knows of the loss yet");
    world.end(0, None);
    world.give_answers();
    assert_eq!(world.records[..5].iter().map(kind).collect::<Vec<_>>()[3..], [Some("timeout"), None]);
    world.publish(0);
    world.finish();
    assert_eq!(kind(&world.records[6]), None, "whoever knows of it may go on");
    world.check();
}

#[test]
fn what_a_torn_down_runtime_leaves_is_answered_by_what_is_known() {
    let mut world = World::new(true, 1, None);
    (0..3).for_each(|_| world.publish(1));
    world.publish(2);
    world.start_calls();
    drop(std::mem::replace(&mut world.scheduler, World::new(true, 1, None).scheduler));
    world.give_answers();
    let effects: Vec<_> =
        world.records.iter().map(|r| r.answered.as_ref().unwrap().1.as_ref().unwrap_err().effect()).collect();
    assert_eq!(effects, [Effect::Unknown, Effect::None, Effect::None, Effect::Unknown]);
}
