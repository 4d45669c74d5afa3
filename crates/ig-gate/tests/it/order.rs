//! Order per partition key, fixed at the call.

use std::collections::HashMap;
use std::time::Duration;

use eb_memory::{MemoryAdmissionIndex, MemoryConfig};
use futures_util::future::join_all;

use crate::support::{TRAFFIC, World, event, is_pending};

/// Of a paused clock: for ever.
const HOUR: Duration = Duration::from_secs(3600);

fn keyed(key: u32, n: u32) -> crate::support::Event {
    event(&format!("{key}-{n}")).payload(&format!(r#"{{"merchant_id":"m-{key}","n":{n}}}"#))
}

/// The log's sequence of `n` for each key.
async fn sequences(world: &World) -> HashMap<String, Vec<u64>> {
    let mut by_key: HashMap<String, Vec<u64>> = HashMap::new();
    for record in world.log(TRAFFIC).await {
        let value: serde_json::Value = serde_json::from_slice(record.envelope.as_bytes()).unwrap();
        by_key
            .entry(record.partition_key.as_str().to_owned())
            .or_default()
            .push(value["payload"]["n"].as_u64().unwrap());
    }
    by_key
}

#[tokio::test]
async fn the_order_is_that_of_the_calls_whichever_future_is_polled() {
    let world = World::new().await;
    let gate = world.open().await;
    let mut calls: Vec<_> = (0..100).map(|n| gate.admit(keyed(1, n))).collect();
    calls.reverse();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(sequences(&world).await["m-1"], (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_look_up_holds_up_the_later_events_of_its_key() {
    let world = World::new().await;
    let gate = world.open().await;
    world.index.slow(true);
    let mut first = gate.admit(keyed(1, 0));
    is_pending(&mut first).await;
    world.index.slow(false);
    // Its look-up would be ready at once, but its turn has not come.
    let second = gate.admit(keyed(1, 1));
    let other_key = gate.admit(keyed(2, 0));
    for call in [second, other_key, first] {
        call.await.unwrap();
    }
    assert_eq!(sequences(&world).await["m-1"], [0, 1]);
}

#[tokio::test]
async fn events_past_the_bound_wait_in_order() {
    let mut world = World::new().await;
    world.config.max_in_flight = 3;
    let gate = world.open().await;
    let calls: Vec<_> = (0..60).map(|n| gate.admit(keyed(n % 2, n / 2))).collect();
    for answer in join_all(calls).await {
        answer.unwrap();
    }
    let sequences = sequences(&world).await;
    for key in ["m-0", "m-1"] {
        assert_eq!(sequences[key], (0..30).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_keep_their_own_keys_in_order() {
    let mut world = World::with(MemoryConfig::default(), 4, MemoryAdmissionIndex::new()).await;
    world.config.max_in_flight = 7;
    let gate = world.open().await;
    let callers: Vec<_> = (0..8)
        .map(|key| {
            let gate = gate.clone();
            tokio::spawn(async move {
                for chunk in 0..10 {
                    let calls: Vec<_> = (0..10).map(|n| gate.admit(keyed(key, chunk * 10 + n))).collect();
                    for answer in join_all(calls).await {
                        answer.unwrap();
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let sequences = sequences(&world).await;
    assert_eq!(sequences.len(), 8);
    for sequence in sequences.values() {
        assert_eq!(*sequence, (0..100).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_stream_of_events_is_admitted_and_answered_in_order() {
    use futures_util::StreamExt as _;
    let world = World::new().await;
    let gate = world.open().await;
    let inputs = futures_util::stream::iter((0..200).map(|n| keyed(1, n).bytes()));
    let receipts: Vec<_> = gate.admit_stream(inputs, 16).collect().await;
    let ids: Vec<_> = receipts.into_iter().map(|r| r.unwrap().event_id.unwrap()).collect();
    assert_eq!(ids, (0..200).map(|n| format!("1-{n}")).collect::<Vec<_>>());
    assert_eq!(sequences(&world).await["m-1"], (0..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_event_past_the_bound_does_not_wait_for_other_callers_to_poll() {
    let mut world = World::new().await;
    world.config.max_in_flight = 2;
    let gate = world.open().await;
    let mut calls: Vec<_> = (0..3).map(|n| gate.admit(keyed(n, n))).collect();
    let last = calls.pop().unwrap();
    let answer = tokio::time::timeout(HOUR, last).await;
    answer.expect("it waits for callers who do not poll").unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_callers_to_poll() {
    // The order in which closing sees the events is chance.
    for round in 0..8 {
        let mut world = World::new().await;
        world.config.max_in_flight = 1;
        let gate = world.open().await;
        let calls: Vec<_> = (0..8).map(|n| gate.admit(keyed(n, 10 * round + n))).collect();
        let closed = tokio::time::timeout(HOUR, gate.close()).await;
        closed.expect("it waits for callers who do not poll").unwrap();
        for answer in join_all(calls).await {
            answer.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_its_look_up_takes_no_room_from_those_before_it() {
    let mut world = World::new().await;
    world.config.max_in_flight = 1;
    let gate = world.open().await;
    world.bus.faults().hold();
    let first = gate.admit(keyed(1, 0));
    let second = gate.admit(keyed(2, 0));
    world.index.slow(true);
    world.bus.faults().release();
    // Ends while nothing else runs: there is room, and the second event is still in the queue.
    first.await.unwrap();
    let third = gate.admit(keyed(3, 0));
    world.index.slow(false);
    for call in [second, third] {
        tokio::time::timeout(HOUR, call).await.expect("it waits for room that it holds itself").unwrap();
    }
}
