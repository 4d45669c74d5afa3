//! Several gates on one Redis, in processes of their own: with one index among them, or refused.

use std::process::Command;
use std::time::Duration;

use eb_profile::Purpose;
use eb_system_tests::facts::Fact;
use eb_system_tests::{GATE_WINDOW, gate_events};
use eb_testkit::process::Spoken;
use eb_testkit::{Budget, Rng};

use super::{Index, Place, Receipts};

/// A gate that sends the first events of a seed's stream.
fn gate(place: &Place, name: &str, index: &Index, seed: u64, count: usize) -> Spoken {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-gate"));
    command.arg(place.profile(name, index)).arg(place.runs(name));
    command.args([seed.to_string(), count.to_string(), GATE_WINDOW.to_string()]);
    Spoken::spawn(&mut command).expect("the child starts")
}

fn hear_to_its_end(receipts: &mut Receipts, child: Spoken) {
    let words = child.wait().unwrap();
    words.lines.iter().for_each(|line| receipts.hear(line));
    assert!(words.status.success(), "{}", words.errors);
}

/// What a gate says that cannot be opened.
fn refusal(child: Spoken) -> String {
    let words = child.wait().unwrap();
    assert!(!words.status.success(), "it was let in: {:?}", words.lines);
    match words.lines.last().map(|line| Fact::hear(line)) {
        Some(Fact::Failed { text, .. }) => text,
        other => panic!("{other:?}, {}", words.errors),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gates_with_one_index_are_sent_the_same_events_and_admit_each_once() {
    let (place, seed, count) = (Place::new(), eb_testkit::seed(), 1_500);
    // The topics first: both would make them.
    place.open("reader", &Index::Shared, Purpose::Writing).await.close().await.unwrap();
    let gates = ["a", "b"].map(|name| gate(&place, name, &Index::Shared, seed, count));
    let mut receipts = Receipts::new(gate_events(seed).take(count).collect());
    tokio::task::block_in_place(|| gates.into_iter().for_each(|g| hear_to_its_end(&mut receipts, g)));
    assert_eq!(receipts.answers, 2 * count);
    assert_eq!(receipts.admitted.len(), receipts.places.len(), "each was admitted, by one of the two");
    let reading = place.open("reader", &Index::Shared, Purpose::Reading).await;
    assert_eq!(receipts.check(&reading).await, 0, "no event was published twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_with_an_index_of_its_own_is_let_in_only_where_there_is_no_other() {
    let (place, seed, count) = (Place::new(), eb_testkit::seed(), 300);
    let held = place.open("held", &Index::Own, Purpose::Writing).await;
    held.gate().await.unwrap();
    for (name, index) in [("own", Index::Own), ("shared", Index::Shared)] {
        let said = tokio::task::block_in_place(|| refusal(gate(&place, name, &index, seed, count)));
        assert!(said.contains("another gate is open on this bus, at 127.0.0.1:"), "{name}: {said}");
    }
    held.close().await.unwrap();

    // Each in its turn has read what the others have admitted, whatever index it has.
    let mut receipts = Receipts::new(gate_events(seed).take(count).collect());
    for (name, index) in [("own", Index::Own), ("shared", Index::Shared), ("held", Index::Own)] {
        tokio::task::block_in_place(|| {
            hear_to_its_end(&mut receipts, gate(&place, name, &index, seed, count));
        });
    }
    let sharing = place.open("first", &Index::Shared, Purpose::Writing).await;
    sharing.gate().await.unwrap();
    let said = tokio::task::block_in_place(|| refusal(gate(&place, "own", &Index::Own, seed, count)));
    assert!(said.contains("another gate is open on this bus"), "{said}");
    assert_eq!(receipts.check(&sharing).await, 0);
    sharing.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gate_is_in_nobodys_way_and_its_events_are_admitted_once() {
    let mut budget = Budget::new(2, Duration::from_secs(10), 40);
    let mut rng = Rng::new(budget.seed);
    let place = Place::new();
    let (seed, count) = (rng.next_u64(), 1_200);
    let mut receipts = Receipts::new(gate_events(seed).take(count).collect());
    let mut kills = 0;
    while budget.again() {
        tokio::task::block_in_place(|| {
            let mut victim = gate(&place, "gate", &Index::Own, seed, count);
            for _ in 0..rng.range(0..count as u64) {
                let Some(line) = victim.line() else { break };
                receipts.hear(&line);
            }
            let words = victim.kill().unwrap();
            words.lines.iter().for_each(|line| receipts.hear(line));
        });
        kills += 1;
    }
    tokio::task::block_in_place(|| {
        hear_to_its_end(&mut receipts, gate(&place, "gate", &Index::Own, seed, count));
    });
    let reading = place.open("gate", &Index::Own, Purpose::Reading).await;
    let copies = receipts.check(&reading).await;
    println!("{kills} gates killed, {copies} copies in the log");
}
