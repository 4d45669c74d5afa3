//! Two gates in two processes, sent the same events at once; one of them killed.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use canonical_envelope::Envelope;
use eb_contract::EbRef;
use eb_contract::stores::AdmissionIndex as _;
use eb_system_tests::facts::Fact;
use eb_system_tests::shared::Setup;
use eb_testkit::process::Spoken;
use eb_testkit::{Budget, Rng};
use ig_gate::{Decision, Receipt};

use super::{all_records, create_streams, place};

fn gate(setup: &Setup, name: &str) -> Spoken {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-shared"));
    command.arg("gate");
    Setup { name: name.to_owned(), ..setup.clone() }.tell(&mut command);
    Spoken::spawn(&mut command).expect("the child starts")
}

/// What all receipts say.
#[derive(Default)]
struct Truth {
    places: BTreeMap<usize, EbRef>,
    admitted: BTreeMap<usize, u32>,
    answers: usize,
}

impl Truth {
    fn hear(&mut self, line: &str) {
        let (place, json) = match Fact::hear(line) {
            Fact::Answered(place, json) => (place, json),
            Fact::Reached(_) => return,
            other => panic!("a gate failed: {other:?}"),
        };
        let receipt: Receipt = serde_json::from_str(&json).unwrap();
        let eb_ref = receipt.eb_ref.unwrap_or_else(|| panic!("event {place}: {json}"));
        let known = self.places.entry(place).or_insert_with(|| eb_ref.clone());
        assert_eq!(*known, eb_ref, "event {place}: two receipts name two places");
        if receipt.decision == Decision::Admit {
            let times = self.admitted.entry(place).or_insert(0);
            *times += 1;
            assert_eq!(*times, 1, "event {place} was admitted twice");
        }
        self.answers += 1;
    }

    fn hear_to_its_end(&mut self, child: Spoken) {
        let words = child.wait().unwrap();
        words.lines.iter().for_each(|line| self.hear(line));
        assert!(words.status.success(), "{}", words.errors);
    }

    /// Holds the log to the receipts. Gives back how many copies it holds besides.
    async fn check(&self, setup: &Setup) -> usize {
        let records = all_records(setup).await;
        let mut there: BTreeMap<String, _> = BTreeMap::new();
        for record in &records {
            there.insert(record.eb_ref.to_string(), record);
        }
        let events: Vec<_> = setup.events().collect();
        assert_eq!(self.places.len(), events.len(), "an event has no receipt");
        for (place, eb_ref) in &self.places {
            let record = there.get(&eb_ref.to_string()).unwrap_or_else(|| panic!("nothing is at {eb_ref}"));
            let mut canonical = Vec::new();
            Envelope::parse(&events[*place]).unwrap().write_canonical(&mut canonical);
            assert_eq!(record.envelope.as_bytes(), canonical, "event {place} is not at {eb_ref}");
        }
        records.len() - self.places.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gates_that_are_sent_the_same_events_at_once_admit_each_once() {
    let seed = eb_testkit::seed();
    let mut place = place("twogates", seed);
    place.setup.count = 10_000;
    // Nobody dies here: nothing may be taken over, however slow the machine is.
    (place.setup.lease_ms, place.setup.deadline_ms) = (300_000, 600_000);
    let setup = &place.setup;
    create_streams(setup, 4).await;
    let gates = [gate(setup, "a"), gate(setup, "b")];
    let mut truth = Truth::default();
    tokio::task::block_in_place(|| gates.into_iter().for_each(|gate| truth.hear_to_its_end(gate)));
    assert_eq!(truth.answers, 2 * setup.count);
    assert_eq!(truth.admitted.len(), setup.count, "each was admitted, by one of the two");
    assert_eq!(truth.check(setup).await, 0, "no event was published twice");
    assert!(setup.index().await.unwrap().open_reservations().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_killed_gate_are_recovered_and_none_is_admitted_twice() {
    let mut budget = Budget::new(1, Duration::from_secs(10), 40);
    let mut rng = Rng::new(budget.seed);
    let (mut kills, mut copies) = (0, 0);
    while budget.again() {
        let mut place = place("killed", rng.next_u64());
        place.setup.count = 800;
        let setup = &place.setup;
        create_streams(setup, 2).await;
        let mut truth = Truth::default();
        let survivor = gate(setup, "survivor");
        for _ in 0..rng.range(1..4) {
            let mut victim = gate(setup, "victim");
            tokio::task::block_in_place(|| {
                for _ in 0..rng.range(0..setup.count as u64 / 2) {
                    let Some(line) = victim.line() else { break };
                    truth.hear(&line);
                }
                let words = victim.kill().unwrap();
                words.lines.iter().for_each(|line| truth.hear(line));
            });
            kills += 1;
        }
        tokio::task::block_in_place(|| {
            truth.hear_to_its_end(survivor);
            // A successor is told the same of every event.
            truth.hear_to_its_end(gate(setup, "victim"));
        });
        copies += truth.check(setup).await;
        reservations_end(setup).await;
    }
    println!("{kills} gates killed, {copies} copies in the logs");
}

/// What dead gates have left is settled by whoever is open, also where nobody sends those events again.
async fn reservations_end(setup: &Setup) {
    let index = setup.index().await.unwrap();
    let gate = setup.gate().await.unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while !index.open_reservations().await.unwrap().is_empty() {
        assert!(Instant::now() < patience, "reservations of dead gates stay open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.close().await.unwrap();
}
