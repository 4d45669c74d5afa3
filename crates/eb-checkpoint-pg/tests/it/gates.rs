//! Several gates on one index.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use eb_checkpoint_pg::{PgAdmissionIndex, PgConfig, PgIndexConfig};
use eb_contract::stores::{AdmissionIndex, Reserved};
use eb_contract::{Cut, PartitionId};
use eb_testkit::process::Spoken;
use eb_testkit::{Rng, is_long, seed};

use crate::support::{Schema, confirmation, entry, fresh_id, key, next, request};

async fn gate(schema: &Schema, name: &str, lease: Duration) -> PgAdmissionIndex {
    let config = PgIndexConfig { lease, ..PgIndexConfig::new(name) };
    PgAdmissionIndex::open(&schema.config(), &config).await.expect("the index opens")
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);

async fn reserve(index: &PgAdmissionIndex, n: u64) -> Reserved {
    index.reserve(&[request(n)]).await.expect("the index answers").remove(0)
}

/// Asks until the lease of the key's reservation has ended.
async fn until_lease_ends(index: &PgAdmissionIndex, n: u64) {
    loop {
        match reserve(index, n).await {
            Reserved::InFlight { lease_left, .. } if lease_left.is_zero() => return,
            Reserved::InFlight { .. } => tokio::task::yield_now().await,
            other => panic!("a key in flight at another gate was answered {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gates_that_want_the_same_events_one_admits_each() {
    let events: u64 = if is_long() { 10_000 } else { 600 };
    let schema = Schema::new();
    println!("seed: {}", seed());
    let mut tasks = Vec::new();
    for g in 0..2u64 {
        let index = Arc::new(gate(&schema, "gate", LONG).await);
        // Each gate has several callers, and every caller wants all events, in an order of its own.
        for caller in 0..2u64 {
            let index = index.clone();
            let mut rng = Rng::new(seed() ^ (g << 8 | caller));
            tasks.push(tokio::spawn(async move {
                let mut wanted: Vec<u64> = (0..events).filter(|n| n % 2 == caller).collect();
                let mut admitted = Vec::new();
                while !wanted.is_empty() {
                    let count = (1 + rng.index(40)).min(wanted.len());
                    let batch: Vec<u64> =
                        (0..count).map(|_| wanted.swap_remove(rng.index(wanted.len()))).collect();
                    let requests: Vec<_> = batch.iter().map(|n| request(*n)).collect();
                    let mut confirmed = Vec::new();
                    for (n, answer) in batch.iter().zip(index.reserve(&requests).await?) {
                        match answer {
                            // Some fail to publish and are given back.
                            Reserved::Fresh(id) if rng.chance(20) => {
                                index.release(vec![id]).await?;
                                wanted.push(*n);
                            }
                            Reserved::Fresh(id) => {
                                let at = (g as u32, *n);
                                confirmed.push(confirmation(id, entry(*n, at.0, at.1)));
                                admitted.push(*n);
                            }
                            Reserved::InFlight { .. } => wanted.push(*n),
                            Reserved::Admitted(_) => {}
                        }
                    }
                    index.confirm(confirmed).await?;
                }
                Ok::<_, eb_contract::Error>(admitted)
            }));
        }
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap().unwrap());
    }
    let once: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(all.len(), once.len(), "an event was admitted twice");
    assert_eq!(once.len() as u64, events, "an event was never admitted");
    assert_eq!(schema.sql("SELECT count(*) FROM admitted"), [events.to_string()]);
    assert_eq!(schema.sql("SELECT count(*) FROM reservations"), ["0"]);
}

#[tokio::test]
async fn the_reservations_of_a_killed_process_are_seen_at_once_and_settled_after_their_lease() {
    let schema = Schema::new();
    let mut crashing = Spoken::spawn(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gates::a_gate_that_waits_to_be_killed", "--ignored", "--nocapture"])
            .env("EB_PG_TEST_URL", &schema.config().url)
            .env("EB_PG_TEST_SCHEMA", schema.name()),
    )
    .unwrap();
    while crashing.line().expect("the gate says when it has reserved") != "reserved" {}
    let index = gate(&schema, "other", LONG).await;
    crashing.kill().unwrap();

    let open = index.open_reservations().await.unwrap();
    let keys: BTreeSet<_> = open.iter().map(|o| o.request.key).collect();
    assert_eq!(keys, (0..20).map(key).collect());
    let one = open.iter().find(|o| o.request.key == key(7)).unwrap();
    assert_eq!(one.request, request(7));
    assert_eq!(one.request.start, [(PartitionId(0), next(7)), (PartitionId(1), Cut::Begin)]);
    assert!(one.owner.starts_with("crashing#"), "{}", one.owner);

    until_lease_ends(&index, 7).await;
    // The log holds the events below 10; the others were never published.
    index.apply((0..10).map(|n| entry(n, 0, n)).collect()).await.unwrap();
    let absent = open.iter().filter(|o| (10..20).any(|n| o.request.key == key(n)));
    index.give_up(absent.map(|o| o.reservation).collect()).await.unwrap();
    assert!(index.open_reservations().await.unwrap().is_empty());
    for n in 0..20 {
        match reserve(&index, n).await {
            Reserved::Admitted(got) if n < 10 => assert_eq!(got, entry(n, 0, n)),
            Reserved::Fresh(_) if n >= 10 => {}
            other => panic!("event {n} was answered {other:?}"),
        }
    }
}

/// Not a test of its own: the process that the test above kills.
#[tokio::test]
#[ignore = "run by the_reservations_of_a_killed_process_are_seen_at_once_and_settled_after_their_lease"]
async fn a_gate_that_waits_to_be_killed() {
    let (Ok(url), Ok(schema)) = (std::env::var("EB_PG_TEST_URL"), std::env::var("EB_PG_TEST_SCHEMA")) else {
        return;
    };
    let config = PgConfig { schema, ..PgConfig::new(url) };
    let gate = PgIndexConfig { lease: Duration::from_secs(2), ..PgIndexConfig::new("crashing") };
    let index = PgAdmissionIndex::open(&config, &gate).await.unwrap();
    let requests: Vec<_> = (0..20).map(request).collect();
    assert!(index.reserve(&requests).await.unwrap().iter().all(|a| matches!(a, Reserved::Fresh(_))));
    println!("\nreserved");
    let mut end = String::new();
    std::io::stdin().read_line(&mut end).unwrap();
}

#[tokio::test]
async fn another_gates_reservation_is_left_alone_until_its_lease_ends() {
    let schema = Schema::new();
    let (owner, other) = (gate(&schema, "owner", LONG).await, gate(&schema, "other", LONG).await);
    let id = fresh_id(&reserve(&owner, 1).await);
    other.give_up(vec![id]).await.unwrap();
    other.release(vec![id]).await.unwrap();
    assert!(matches!(reserve(&other, 1).await, Reserved::InFlight { .. }));
    assert_eq!(other.open_reservations().await.unwrap().len(), 1);

    let hasty = gate(&schema, "hasty", SHORT).await;
    let id = fresh_id(&reserve(&hasty, 2).await);
    until_lease_ends(&other, 2).await;
    for _ in 0..3 {
        assert!(
            matches!(reserve(&other, 2).await, Reserved::InFlight { lease_left: Duration::ZERO, .. }),
            "an ended lease alone makes no key free: the log must be read first"
        );
    }
    other.release(vec![id]).await.unwrap();
    assert!(
        matches!(reserve(&other, 2).await, Reserved::InFlight { .. }),
        "it is not this gate's to release"
    );
    hasty.give_up(vec![id]).await.unwrap();
    assert!(
        matches!(reserve(&other, 2).await, Reserved::InFlight { .. }),
        "its owner is publishing under it"
    );
    other.give_up(vec![id]).await.unwrap();
    assert!(matches!(reserve(&other, 2).await, Reserved::Fresh(_)));
}

#[tokio::test]
async fn a_reservation_that_was_made_anew_outlives_a_look_at_the_old_one() {
    let schema = Schema::new();
    let (owner, other) = (gate(&schema, "owner", SHORT).await, gate(&schema, "other", LONG).await);
    let requests = [request(1)];
    let mut call = owner.reserve(&requests);
    let _ = futures_now(&mut call);
    drop(call);
    // The queue has taken the call, so it is done all the same.
    while other.open_reservations().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    until_lease_ends(&other, 1).await;
    let old = other.open_reservations().await.unwrap().remove(0).reservation;
    // The answer was lost, so the same gate is given the key again, for longer than it takes to look.
    schema.sql("UPDATE reservations SET lease_until = clock_timestamp() + interval '1 hour'");
    assert_eq!(fresh_id(&reserve(&owner, 1).await), old);
    schema.sql("UPDATE reservations SET lease_until = clock_timestamp() + interval '1 hour'");
    other.give_up(vec![old]).await.unwrap();
    assert!(matches!(reserve(&other, 1).await, Reserved::InFlight { .. }));
}

#[tokio::test]
async fn a_slow_gate_is_told_that_another_has_admitted_its_event_meanwhile() {
    let schema = Schema::new();
    let (slow, other) = (gate(&schema, "slow", SHORT).await, gate(&schema, "other", LONG).await);
    let late = fresh_id(&reserve(&slow, 1).await);
    until_lease_ends(&other, 1).await;
    other.give_up(vec![late]).await.unwrap();
    let taken = fresh_id(&reserve(&other, 1).await);
    let first = entry(1, 0, 5);
    let told = other.confirm(vec![confirmation(taken, first.clone())]).await.unwrap();
    assert_eq!(told, []);
    // The slow publish has landed after all, as a copy; before the other one or behind it is all the same.
    for place in [9, 3] {
        let both = vec![confirmation(late, entry(1, 0, place)), confirmation(late, entry(3, 0, 10))];
        assert_eq!(slow.confirm(both).await.unwrap(), std::slice::from_ref(&first));
        assert_eq!(other.get(key(1)).await.unwrap(), Some(first.clone()));
    }
}

#[tokio::test]
async fn a_reservation_whose_answer_nobody_took_is_given_out_again() {
    let schema = Schema::new();
    let index = gate(&schema, "gate", LONG).await;
    let other = gate(&schema, "other", LONG).await;
    for n in 0..20 {
        let requests = [request(n)];
        let mut call = index.reserve(&requests);
        // Taken by the queue, then dropped.
        let _ = futures_now(&mut call);
        drop(call);
        // Until the dropped call is done with, the key is in flight at this very gate.
        while let Reserved::InFlight { owner, .. } = reserve(&index, n).await {
            assert!(owner.starts_with("gate#"), "{owner}");
        }
        assert!(matches!(reserve(&other, n).await, Reserved::InFlight { .. }));
    }
    assert_eq!(index.open_reservations().await.unwrap().len(), 20);
}

fn futures_now<T>(call: &mut eb_contract::BoxFuture<'_, T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut context) {
        std::task::Poll::Ready(answer) => Some(answer),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_key_that_this_gate_is_publishing_is_not_given_out_again() {
    let schema = Schema::new();
    let index = gate(&schema, "gate", LONG).await;
    let twice = index.reserve(&[request(1), request(1)]).await.unwrap();
    let id = fresh_id(&twice[0]);
    assert!(matches!(&twice[1], Reserved::InFlight { owner, .. } if owner.starts_with("gate#")), "{twice:?}");
    assert!(matches!(reserve(&index, 1).await, Reserved::InFlight { .. }));
    index.release(vec![id]).await.unwrap();
    assert_ne!(fresh_id(&reserve(&index, 1).await), id, "a number was used again");
}

#[tokio::test]
async fn ages_of_reservations_are_told_in_the_clock_of_whoever_asks() {
    let schema = Schema::new();
    let index = gate(&schema, "gate", LONG).await;
    fresh_id(&reserve(&index, 1).await);
    // As if the database's clock were an hour ahead of ours: the row is an hour younger than its own time says.
    schema.sql("UPDATE reservations SET reserved_at = reserved_at - interval '1 hour'");
    let open = index.open_reservations().await.unwrap().remove(0);
    let age = eb_contract::Timestamp::now().saturating_since(open.reserved_at);
    assert!((3600..3660).contains(&age.as_secs()), "{age:?}");
}
