//! The stores of a consumer on a disk that fails at every operation in turn, in every way: what was answered is there, what was
//! denied is not, and afterwards the store goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{
    Checkpoint, Claim, DeadLetterFilter, DeadLetterId, DeadLetterStore, DeadReason, EventIdentity, Lease,
    LeaseKey, LeaseStore, Mark, MarkScope, NewDeadLetter, ProcessedStore, Progress, Resolution, Seen,
};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, EbRef, Effect, EnvelopeRef, Error, Offset, OffsetKind, PartitionId,
    PartitionKey, Record, Timestamp, Topic,
};
use eb_store_local::{EmbeddedDeadLetters, EmbeddedLeases, EmbeddedProcessed, Host, MarksConfig};
use eb_testkit::Rng;
use eb_testkit::fault_disk::{Fault, FaultDisk, Plan, Survival};

use crate::consumers::Shifted;

const ROOT: &str = "/stores";
const HOUR: Duration = Duration::from_secs(3600);

fn host(disk: &FaultDisk, clock: &Shifted) -> Host {
    Host { disk: Arc::new(disk.clone()), clock: Arc::new(clock.clone()) }
}

pub(crate) fn scope() -> MarkScope {
    MarkScope {
        subscriber: ConsumerName::new("scorer").unwrap(),
        bus_incarnation: BusIncarnation::new("life-1").unwrap(),
        topic: Topic::new("fp.bus.traffic.v1").unwrap(),
        partition_id: PartitionId(0),
    }
}

pub(crate) fn line(n: u64) -> Offset {
    Offset::from_u64(OffsetKind::FileLine, n)
}

pub(crate) fn mark(n: u64) -> Mark {
    let mut dedupe = [3; 32];
    dedupe[..8].copy_from_slice(&n.to_be_bytes());
    let event = EventIdentity { dedupe, event_id: format!("event-{n}").into() };
    Mark { offset: line(n), event: Some(event) }
}

pub(crate) fn step(scope: &MarkScope, marks: Vec<Mark>, committed: Cut, cut: Cut) -> Progress {
    let checkpoint = Checkpoint {
        consumer: scope.subscriber.clone(),
        topic: scope.topic.clone(),
        partition_id: scope.partition_id,
        cut,
        caught_up_at: None,
        version: 0,
        bus_incarnation: scope.bus_incarnation.clone(),
        lease: None,
        committed_at: None,
    };
    Progress { marks, checkpoint, committed }
}

pub(crate) fn letter(n: u64) -> NewDeadLetter {
    let eb_ref = EbRef {
        topic: scope().topic,
        partition_id: PartitionId(0),
        offset: line(n),
        published_at_utc: Timestamp::EPOCH,
    };
    // Longer than a sector, so that it can tear.
    let envelope = EnvelopeRef::new(format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(700))).unwrap();
    NewDeadLetter {
        consumer: scope().subscriber,
        bus_incarnation: scope().bus_incarnation,
        record: Record { eb_ref, partition_key: PartitionKey::new("key").unwrap(), envelope },
        event_id: None,
        event_type: None,
        reason: DeadReason::Permanent,
        attempts: 1,
        failures: Vec::new(),
        parks_key: false,
    }
}

fn lease() -> Lease {
    Lease { owner: "worker".to_owned(), epoch: 1 }
}

/// What was answered, and what may or may not be there.
#[derive(Default)]
struct Known {
    answered: BTreeSet<u64>,
    denied: BTreeSet<u64>,
}

impl Known {
    fn note(&mut self, n: u64, answer: Result<(), Error>) {
        match answer {
            Ok(()) => _ = self.answered.insert(n),
            Err(e) if e.effect() == Effect::None => _ = self.denied.insert(n),
            Err(_) => {}
        }
    }
}

/// Runs `script` once for every operation and fault, then `judge` on what survives; says how many faults struck.
async fn sweep<K>(
    script: impl AsyncFn(&FaultDisk, &Shifted) -> K,
    judge: impl AsyncFn(&FaultDisk, &Shifted, K, &str),
) -> u64 {
    let mut struck = 0;
    for fault in Fault::ALL {
        for nth in 0.. {
            let mut rng = Rng::new(nth * 31 + fault as u64);
            let (disk, clock) = (FaultDisk::new(rng.next_u64()), Shifted::default());
            disk.plan(Plan::any(nth, fault));
            let known = script(&disk, &clock).await;
            if disk.struck().is_empty() {
                break;
            }
            struck += 1;
            let what = format!("{fault:?} at operation {nth}: {:?}", disk.struck());
            disk.calm();
            // Whatever was answered must outlive a power cut too, except where the page cache lives on and is asked first.
            let after = if fault == Fault::Kill && nth % 2 == 0 {
                disk.restart()
            } else {
                disk.power_on(Survival::draw(&mut rng))
            };
            judge(&after, &clock, known, &what).await;
        }
    }
    struck
}

fn marks_on(disk: &FaultDisk, clock: &Shifted) -> EmbeddedProcessed {
    // Segments so small that many begin.
    let config = MarksConfig::new(ROOT).with_segment_bytes(900);
    EmbeddedProcessed::open_on(&config, host(disk, clock))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_on_a_disk_that_fails_anywhere_are_there_when_answered_and_absent_when_denied() {
    let script = async |disk: &FaultDisk, clock: &Shifted| {
        let mut known = Known::default();
        let store = marks_on(disk, clock);
        for n in 0..6 {
            let marks = vec![mark(10 * n), mark(10 * n + 1)];
            let progress = step(&scope(), marks, Cut::Begin, Cut::Begin);
            known.note(n, store.record(&progress, &lease()).await.map(drop));
        }
        known
    };
    let judge = async |disk: &FaultDisk, clock: &Shifted, known: Known, what: &str| {
        for round in 0..2 {
            let store = marks_on(disk, clock);
            for n in 0..6 {
                let asked = [mark(10 * n), mark(10 * n + 1)];
                let seen =
                    store.seen(&scope(), &asked, false).await.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(seen[0], seen[1], "{what}: step {n} is there by half");
                if known.answered.contains(&n) {
                    assert_eq!(seen[0], Seen::Here, "{what}: step {n} was answered");
                }
                if known.denied.contains(&n) {
                    assert_eq!(seen[0], Seen::No, "{what}: step {n} was denied");
                }
            }
            let more = step(&scope(), vec![mark(1000 + round)], Cut::Begin, Cut::Begin);
            store.record(&more, &lease()).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            let seen = marks_on(disk, clock).seen(&scope(), &[mark(1000 + round)], true).await.unwrap();
            assert_eq!(seen, [Seen::Here], "{what}: the step after");
        }
    };
    assert!(sweep(script, judge).await > 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_on_a_disk_that_fails_anywhere_never_loses_what_is_past_the_checkpoint() {
    let script = async |disk: &FaultDisk, clock: &Shifted| {
        let mut known = Known::default();
        let store = marks_on(disk, clock);
        for n in 0..3 {
            // The first of each step lies before the stored cut by the next one, the second far behind.
            let progress =
                step(&scope(), vec![mark(n), mark(500 + n)], Cut::Next(line(n)), Cut::Next(line(n + 1)));
            known.note(500 + n, store.record(&progress, &lease()).await.map(drop));
        }
        clock.pass(HOUR);
        let before = Timestamp::now();
        for _ in 0..3 {
            let _ = store.forget_before(&scope().subscriber, before, 2).await;
        }
        known
    };
    let judge = async |disk: &FaultDisk, clock: &Shifted, known: Known, what: &str| {
        let store = marks_on(disk, clock);
        for n in &known.answered {
            let seen =
                store.seen(&scope(), &[mark(*n)], true).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(seen, [Seen::Here], "{what}: {n} was answered");
        }
        let left = store.forget_before(&scope().subscriber, Timestamp::MAX, 100).await;
        left.unwrap_or_else(|e| panic!("{what}: {e}"));
        for n in &known.answered {
            let seen = marks_on(disk, clock).seen(&scope(), &[mark(*n)], true).await.unwrap();
            assert_eq!(seen, [Seen::Here], "{what}: {n} lies past the checkpoint");
        }
    };
    assert!(sweep(script, judge).await > 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_on_a_disk_that_fails_anywhere_are_there_when_answered_and_absent_when_denied() {
    let all = DeadLetterFilter { resolved_too: true, ..DeadLetterFilter::default() };
    let script = async |disk: &FaultDisk, clock: &Shifted| {
        let (mut known, mut resolved) = (Known::default(), Known::default());
        let store = EmbeddedDeadLetters::open_on(ROOT, host(disk, clock));
        let mut ids: Vec<(u64, DeadLetterId)> = Vec::new();
        for n in 0..5 {
            // Two in one call.
            let answers = store.put(&[letter(2 * n), letter(2 * n + 1)]).await;
            for (n, answer) in (2 * n..).zip(answers) {
                if let Ok(id) = &answer {
                    ids.push((n, *id));
                }
                known.note(n, answer.map(drop));
            }
        }
        if let Some((n, id)) = ids.first() {
            resolved.note(*n, store.resolve(*id, Resolution::Dropped, "known").await.map(drop));
        }
        (known, resolved, ids)
    };
    let judge = async |disk: &FaultDisk,
                       clock: &Shifted,
                       (known, resolved, ids): (Known, Known, Vec<_>),
                       what: &str| {
        let store = EmbeddedDeadLetters::open_on(ROOT, host(disk, clock));
        let list = store.list(&all, 100).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let there: BTreeSet<u64> =
            list.iter().filter_map(|l| l.letter.record.eb_ref.offset.as_u64()).collect();
        assert_eq!(there.len(), list.len(), "{what}: a letter is there twice");
        assert!(known.answered.is_subset(&there), "{what}: answered {:?}, there {there:?}", known.answered);
        assert!(known.denied.is_disjoint(&there), "{what}: denied {:?}, there {there:?}", known.denied);
        for (n, id) in ids {
            assert_eq!(store.get(id).await.unwrap().letter, letter(n), "{what}");
        }
        for l in &list {
            let n = l.letter.record.eb_ref.offset.as_u64().unwrap();
            assert!(!resolved.answered.contains(&n) || l.resolved.is_some(), "{what}: {n} was resolved");
            assert!(!resolved.denied.contains(&n) || l.resolved.is_none(), "{what}: {n} was not resolved");
        }
        let next = store.put(&[letter(77)]).await.pop().unwrap().unwrap_or_else(|e| panic!("{what}: {e}"));
        let again = EmbeddedDeadLetters::open_on(ROOT, host(disk, clock));
        assert_eq!(again.get(next).await.unwrap().letter, letter(77), "{what}");
    };
    assert!(sweep(script, judge).await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_on_a_disk_that_fails_anywhere_are_never_given_twice() {
    let key =
        LeaseKey { consumer: scope().subscriber, topic: scope().topic, partition_id: scope().partition_id };
    let script = async |disk: &FaultDisk, clock: &Shifted| {
        let mut epochs = Vec::new();
        let store = EmbeddedLeases::open_on(ROOT, host(disk, clock));
        for n in 0..5 {
            if let Ok(Claim::Held(lease)) = store.claim(&key, &format!("worker-{n}"), HOUR).await {
                epochs.push(lease.epoch);
                let _ = store.release(&key, &lease).await;
            }
            clock.pass(HOUR + HOUR);
        }
        epochs
    };
    let judge = async |disk: &FaultDisk, clock: &Shifted, mut epochs: Vec<u64>, what: &str| {
        let store = EmbeddedLeases::open_on(ROOT, host(disk, clock));
        match store.claim(&key, "next", HOUR).await.unwrap_or_else(|e| panic!("{what}: {e}")) {
            Claim::Held(lease) => epochs.push(lease.epoch),
            Claim::Taken { .. } => panic!("{what}: every lease had ended"),
        }
        assert!(epochs.is_sorted_by(|a, b| a < b), "{what}: {epochs:?}");
    };
    assert!(sweep(script, judge).await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_flipped_byte_of_a_segment_is_refused_or_its_tail_is_handled_again_and_never_misread() {
    let clock = Shifted::default();
    let disk = FaultDisk::new(1);
    let config = MarksConfig::new(ROOT);
    let store = EmbeddedProcessed::open_on(&config, host(&disk, &clock));
    for n in 0..3 {
        let progress = step(&scope(), vec![mark(n)], Cut::Begin, Cut::Begin);
        store.record(&progress, &lease()).await.unwrap();
    }
    let (path, good) =
        disk.files().into_iter().find(|(p, _)| p.extension().is_some_and(|e| e == "jsonl")).unwrap();
    let last = good[..good.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        disk.damage(&path, &bad);
        let store = EmbeddedProcessed::open_on(&config, host(&disk, &clock));
        match store.seen(&scope(), &[mark(0), mark(1), mark(2)], false).await {
            Ok(seen) => {
                assert!(at >= last, "byte {at} was not noticed");
                assert_eq!(seen, [Seen::Here, Seen::Here, Seen::No], "byte {at}");
                assert!(disk.files().iter().any(|(p, _)| p.display().to_string().contains(".torn-")));
            }
            Err(e) => {
                assert_eq!(e.kind().code(), "corrupt", "byte {at}: {e}");
                assert!(at < last, "byte {at} of the last line: {e}");
            }
        }
    }
}
