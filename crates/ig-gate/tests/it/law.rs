//! The law of admission under random schedules with faults and crashes: one place for one event, whatever happens.

use std::collections::{HashMap, HashSet};
use std::future::Future as _;
use std::pin::Pin;
use std::task::Poll;

use eb_contract::{EbRef, Error, ErrorKind};
use eb_memory::{Fate, MemoryAdmissionIndex, MemoryConfig};
use ig_gate::{Admission, Decision, Gate, GateError, GateErrorCode, ReasonCode, Receipt};
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::support::{Event, TRAFFIC, World, event};

const EVENTS: u8 = 12;

#[derive(Debug, Clone)]
enum Step {
    /// Admit an event, in one of two contradicting versions.
    Admit(u8, bool),
    /// Poll everything that is pending.
    Poll,
    /// Drop a pending admission.
    Drop(u8),
    Hold,
    Release,
    Fail,
    /// The next publish has an unknown outcome; the flag says whether it is appended.
    Unknown(bool),
    /// Look-ups wait, or no longer.
    Slow(bool),
    Checkpoint,
    /// The process dies; what the bus holds back is appended all the same, or not.
    Crash(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..EVENTS, prop::bool::weighted(0.2)).prop_map(|(n, other)| Step::Admit(n, other)),
        4 => Just(Step::Poll),
        2 => any::<u8>().prop_map(Step::Drop),
        2 => Just(Step::Hold),
        3 => Just(Step::Release),
        2 => Just(Step::Fail),
        2 => any::<bool>().prop_map(Step::Unknown),
        2 => any::<bool>().prop_map(Step::Slow),
        3 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

fn made(n: u8, other: bool) -> Event {
    event(&format!("e-{n}")).payload(&format!(r#"{{"merchant_id":"m-{}","v":{other}}}"#, n % 3))
}

/// What the receipts have promised so far.
#[derive(Default)]
struct Promises {
    place: HashMap<u8, (EbRef, bool)>,
    admitted: HashSet<u8>,
}

impl Promises {
    fn take(&mut self, n: u8, other: bool, answer: Result<Receipt, GateError>) {
        let receipt = match answer {
            Ok(receipt) => receipt,
            Err(error) => {
                assert_ne!(error.code(), GateErrorCode::GateUnhealthy, "{error}");
                return;
            }
        };
        match receipt.decision {
            Decision::Admit | Decision::Duplicate => {
                let place = receipt.eb_ref.clone().unwrap();
                let known = self.place.entry(n).or_insert_with(|| (place.clone(), other));
                assert_eq!(*known, (place, other), "e-{n} has one place and one payload");
                if receipt.decision == Decision::Admit {
                    assert!(self.admitted.insert(n), "e-{n} was admitted twice");
                }
            }
            Decision::Quarantine => assert_eq!(receipt.reason_codes, [ReasonCode::PayloadHashMismatch]),
        }
    }
}

/// One life of the gate, in a runtime that dies with it.
struct Life {
    runtime: Runtime,
    gate: Option<Gate>,
    pending: Vec<(u8, bool, Admission)>,
}

impl Life {
    fn begin(world: &World) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let gate = runtime.block_on(world.open());
        Self { runtime, gate: Some(gate), pending: Vec::new() }
    }

    fn gate(&self) -> Gate {
        self.gate.clone().unwrap()
    }

    fn poll(&mut self, promises: &mut Promises) {
        let pending = std::mem::take(&mut self.pending);
        self.pending = self.runtime.block_on(async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let mut left = Vec::new();
            for (n, other, mut admission) in pending {
                let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut admission).poll(cx))).await;
                match polled {
                    Poll::Ready(answer) => promises.take(n, other, answer),
                    Poll::Pending => left.push((n, other, admission)),
                }
            }
            left
        });
    }

    /// Ends every task where it stands; only then the callers are gone.
    fn die(self) {
        let Self { runtime, gate, pending } = self;
        runtime.shutdown_background();
        drop((gate, pending));
    }
}

fn run(steps: Vec<Step>, sparse: bool, max_in_flight: usize) {
    let config = if sparse { MemoryConfig::stream_like() } else { MemoryConfig::default() };
    let setup = Builder::new_current_thread().build().unwrap();
    let mut world = setup.block_on(World::with(config, 2, MemoryAdmissionIndex::with_max_lag(64)));
    world.config.max_in_flight = max_in_flight;
    let mut promises = Promises::default();
    let mut life = Life::begin(&world);
    for step in steps {
        let faults = world.bus.faults();
        match step {
            Step::Admit(n, other) => {
                let admission = life.gate().admit(made(n, other));
                life.pending.push((n, other, admission));
            }
            Step::Poll => life.poll(&mut promises),
            Step::Drop(n) => {
                if !life.pending.is_empty() {
                    let at = usize::from(n) % life.pending.len();
                    drop(life.pending.remove(at));
                }
            }
            Step::Hold => faults.hold(),
            Step::Release => faults.release(),
            Step::Fail => {
                faults.next_records([Fate::Fail(Error::new(ErrorKind::Unavailable, "publish", "down"))]);
            }
            Step::Unknown(appended) => world.unknown(appended),
            Step::Slow(slow) => world.index.slow(slow),
            Step::Checkpoint => {
                let gate = life.gate();
                life.runtime.spawn(async move { gate.checkpoint().await });
            }
            Step::Crash(appended) => {
                life.die();
                if !appended {
                    let lost = Error::new(ErrorKind::Unavailable, "publish", "the process is dead");
                    faults.fail_next(faults.held(), &lost);
                }
                faults.release();
                faults.recover();
                world.index.slow(false);
                world.crash();
                life = Life::begin(&world);
            }
        }
    }
    life.poll(&mut promises);
    life.die();
    world.bus.faults().recover();
    world.crash();
    settle(&world, promises);
}

/// Opens a last time and asks for every event.
fn settle(world: &World, mut promises: Promises) {
    let life = Life::begin(world);
    for n in 0..EVENTS {
        let answer =
            life.runtime.block_on(life.gate().admit(made(n, promises.place.get(&n).is_some_and(|p| p.1))));
        let known = promises.place.contains_key(&n);
        if known {
            assert_eq!(answer.as_ref().unwrap().decision, Decision::Duplicate, "e-{n} was forgotten");
        }
        let other = promises.place.get(&n).is_some_and(|p| p.1);
        promises.take(n, other, answer);
    }
    let log = life.runtime.block_on(world.log(TRAFFIC));
    let mut seen = HashSet::new();
    for record in &log {
        let value: serde_json::Value = serde_json::from_slice(record.envelope.as_bytes()).unwrap();
        let id = value["event_id"].as_str().unwrap().to_owned();
        assert!(seen.insert(id.clone()), "{id} lies in the log twice");
        let n: u8 = id[2..].parse().unwrap();
        if let Some((place, other)) = promises.place.get(&n) {
            assert_eq!((place, *other), (&record.eb_ref, value["payload"]["v"].as_bool().unwrap()));
        }
    }
    assert_eq!(seen.len(), usize::from(EVENTS));
    life.die();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]
    #[test]
    fn one_event_has_one_place_whatever_fails_and_whenever_the_gate_dies(
        steps in prop::collection::vec(step(), 1..80),
        sparse in any::<bool>(),
        max_in_flight in prop_oneof![Just(2usize), Just(1000)],
    ) {
        run(steps, sparse, max_in_flight);
    }
}
