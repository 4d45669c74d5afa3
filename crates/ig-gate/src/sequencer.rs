//! Events that wait for their turn, one task for all of them.
//!
//! Here come the events that [`admission`](crate::admission) could not publish in the call: those of a shared index
//! (which answers over a network, many keys at a time), those past the bound on admissions in flight, those whose
//! look-up was not ready, and whatever came after them under the same partition key.
//!
//! The queue is bounded by [`GateConfig::max_waiting`](crate::GateConfig::max_waiting). It is worked off in batches:
//! room for each, one [`reserve`](eb_contract::stores::AdmissionIndex::reserve) for all, then publishes in order. A
//! key that another gate is publishing is parked with everything of its lane behind it, until that gate has
//! confirmed, or its lease has ended and the log has told what became of it. The log is read by
//! [`takeover`](crate::takeover) beside all this: others need not wait for it. What is parked counts as waiting, holds no room, and is
//! reserved anew when its turn comes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{ReservationId, Reserved};
use eb_contract::{Cut, PartitionId, PublishRecord, Retry, Topic};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admission::{publish, reserve_request};
use crate::core::{Core, Lane};
use crate::error::{GateError, GateErrorCode};
use crate::inflight::{Driven, Flight, Outcome};
use crate::metrics::since;
use crate::room::Held;
use crate::takeover::{Takeover, Takeovers};

/// The most events of one reserve call.
const BATCH: usize = 512;
/// The shortest and longest time between two looks at a key that another gate is publishing.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// One event that waits.
pub(crate) struct Turn {
    flight: Arc<Flight>,
    record: PublishRecord,
    lane: Lane,
    _room: Held,
    answer: Option<Reserved>,
    has_units: bool,
    /// Since when another gate is known to be publishing it.
    elsewhere: Option<Instant>,
}

impl Turn {
    /// `answer` is the index's, where it was asked already.
    pub(crate) fn new(
        flight: Arc<Flight>,
        record: PublishRecord,
        lane: Lane,
        room: Held,
        answer: Option<Reserved>,
    ) -> Self {
        Self { flight, record, lane, _room: room, answer, has_units: false, elsewhere: None }
    }

    /// Gives its room back while it waits for another gate; what it was told by then will be old.
    fn rest(&mut self, core: &Core) -> Option<ReservationId> {
        if std::mem::take(&mut self.has_units) && self.flight.take_units() {
            core.permits.add_permits(self.flight.units as usize);
        }
        match self.answer.take() {
            Some(Reserved::Fresh(reservation)) => {
                self.flight.unreserved();
                Some(reservation)
            }
            _ => None,
        }
    }
}

/// Lanes whose first event another gate is publishing.
type Parked = HashMap<Lane, (Instant, VecDeque<Turn>)>;

/// What the sequencer keeps from one batch to the next.
#[derive(Default)]
struct Waiting {
    parked: Parked,
    takeovers: Takeovers,
}

/// Works off the queue until the gate is gone.
pub(crate) async fn run(core: Arc<Core>, mut turns: mpsc::Receiver<Turn>) {
    let mut waiting = Waiting::default();
    loop {
        let due = waiting.parked.values().map(|(at, _)| *at).min();
        let mut newcomer = None;
        tokio::select! {
            turn = turns.recv() => match turn {
                Some(turn) => newcomer = Some(turn),
                None => return,
            },
            told = waiting.takeovers.told() => tell(&mut waiting.parked, &told),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        let mut batch = take_due(&mut waiting.parked);
        while let Some(turn) = newcomer {
            match waiting.parked.get_mut(&turn.lane) {
                Some((_, behind)) => behind.push_back(turn),
                None => batch.push(turn),
            }
            newcomer = if batch.len() < BATCH { turns.try_recv().ok() } else { None };
        }
        work_off(&core, &mut waiting, batch).await;
        waiting.takeovers.start(&core);
    }
}

/// What the log has told about events that hold up their lanes.
fn tell(parked: &mut Parked, told: &HashMap<[u8; 32], Takeover>) {
    let now = Instant::now();
    for (at, turns) in parked.values_mut() {
        let Some(first) = turns.front_mut() else { continue };
        match told.get(&first.flight.key.dedupe) {
            Some(Takeover::Found(entry)) => {
                first.answer = Some(Reserved::Admitted(entry.clone()));
                *at = now;
            }
            Some(Takeover::Released) => *at = now,
            Some(Takeover::Undecided) | None => {}
        }
    }
}

/// Of the parked lanes whose time has come: the first event, where another gate may still be publishing it, else all
/// of them in order. What is left behind a first event stays due, in case that ends now.
fn take_due(parked: &mut Parked) -> Vec<Turn> {
    let now = Instant::now();
    let due: Vec<Lane> = parked.iter().filter(|(_, (at, _))| *at <= now).map(|(lane, _)| *lane).collect();
    let mut taken = Vec::new();
    for lane in due {
        let Some((at, mut turns)) = parked.remove(&lane) else { continue };
        if turns.front().is_some_and(|first| first.elsewhere.is_some()) {
            taken.extend(turns.pop_front());
            if !turns.is_empty() {
                parked.insert(lane, (at, turns));
            }
        } else {
            taken.extend(turns);
        }
    }
    taken
}

/// Makes room for each event, in order, then decides as many as there is room for.
async fn work_off(core: &Arc<Core>, waiting: &mut Waiting, batch: Vec<Turn>) {
    let mut ready = Vec::with_capacity(batch.len());
    for mut turn in batch {
        if !turn.has_units {
            if core
                .permits
                .try_acquire_many(turn.flight.units)
                .map(tokio::sync::SemaphorePermit::forget)
                .is_err()
            {
                // Those before it may be what others' room depends on.
                decide(core, waiting, std::mem::take(&mut ready)).await;
                // Nor may that room depend on callers who do not poll. Once is enough: room goes to the first in line.
                core.flights.all().iter().for_each(|flight| flight.detach(core));
                match core.permits.acquire_many(turn.flight.units).await {
                    Ok(room) => room.forget(),
                    Err(_) => continue,
                }
            }
            turn.has_units = true;
            turn.flight.hold_units();
        }
        ready.push(turn);
    }
    decide(core, waiting, ready).await;
}

async fn decide(core: &Arc<Core>, waiting: &mut Waiting, mut turns: Vec<Turn>) {
    reserve(core, &mut turns).await;
    let mut unused = Vec::new();
    for mut turn in turns {
        // The event that holds up a lane goes before what waits behind it.
        if turn.elsewhere.is_none()
            && let Some((_, behind)) = waiting.parked.get_mut(&turn.lane)
        {
            unused.extend(turn.rest(core));
            behind.push_back(turn);
            continue;
        }
        conclude(core, waiting, turn);
    }
    if !unused.is_empty()
        && let Err(error) = core.index.release(unused).await
    {
        // Their leases end them.
        core.note(&error);
        tracing::warn!(%error, "reservations could not be given back");
    }
}

/// Asks the index for all that have no answer yet. Those it cannot answer end here.
async fn reserve(core: &Arc<Core>, turns: &mut Vec<Turn>) {
    let mut requests = Vec::new();
    let mut starts: HashMap<&Topic, Vec<(PartitionId, Cut)>> = HashMap::new();
    for turn in turns.iter().filter(|t| t.answer.is_none()) {
        let start = if core.index.is_shared() {
            let topic = &turn.flight.topic;
            starts.entry(topic).or_insert_with(|| core.progress.acked_cuts(topic)).clone()
        } else {
            Vec::new()
        };
        requests.push(reserve_request(core, &turn.flight, start));
    }
    let mut answers = VecDeque::new();
    let mut failure = None;
    if !requests.is_empty() {
        let started = std::time::Instant::now();
        let reserved = core.index.reserve(&requests).await;
        since(&core.metrics.index, started);
        match reserved {
            Ok(reserved) => answers = reserved.into(),
            Err(error) => failure = Some(error),
        }
    }
    let mut requests = requests.into_iter();
    for turn in std::mem::take(turns) {
        let mut turn = turn;
        let answer = match turn.answer.take() {
            Some(answer) => Ok(answer),
            None => {
                let start = requests.next().map(|r| r.start).unwrap_or_default();
                let answer = match &failure {
                    Some(error) => Err(error.clone()),
                    None => answers.pop_front().ok_or_else(crate::admission::no_answer),
                };
                if let Ok(Reserved::Fresh(reservation)) = &answer {
                    turn.flight.reserved(*reservation, start);
                }
                answer
            }
        };
        match answer {
            Ok(answer) => {
                turn.answer = Some(answer);
                turns.push(turn);
            }
            Err(error) => {
                core.note(&error);
                end(core, &turn, Outcome::Failed(GateError::index(error)));
            }
        }
    }
}

/// What an answer means for an event whose turn it is.
fn conclude(core: &Arc<Core>, waiting: &mut Waiting, mut turn: Turn) {
    match turn.answer.take() {
        Some(Reserved::Fresh(reservation)) => {
            turn.flight.reserved(reservation, turn.flight.start());
            let now = std::time::Instant::now();
            let work = publish(core, &turn.flight, turn.record.clone(), reservation, now);
            core.lanes.leave(turn.lane);
            turn.flight.drive(core, work);
        }
        Some(Reserved::Admitted(entry)) => end(core, &turn, Outcome::Before(entry)),
        Some(Reserved::InFlight { owner, lease_left }) => {
            let since = *turn.elsewhere.get_or_insert_with(Instant::now);
            let wait = if lease_left.is_zero() {
                // Woken before, when the log has told.
                waiting.takeovers.want(turn.flight.key.dedupe);
                LOOK_AGAIN.1
            } else {
                lease_left.clamp(LOOK_AGAIN.0, LOOK_AGAIN.1)
            };
            if since.elapsed() >= core.config.unknown_deadline {
                let message =
                    format!("gate {owner} has been publishing the event and has not told its outcome");
                let error = GateError::new(GateErrorCode::PublishOutcomeUnknown, Retry::Later, message);
                return end(core, &turn, Outcome::Failed(error));
            }
            turn.rest(core);
            let at = Instant::now() + wait;
            let lane = waiting.parked.entry(turn.lane).or_insert_with(|| (at, VecDeque::new()));
            lane.0 = at;
            lane.1.push_front(turn);
        }
        None => end(core, &turn, Outcome::Failed(GateError::index(crate::admission::no_answer()))),
    }
}

fn end(core: &Arc<Core>, turn: &Turn, outcome: Outcome) {
    core.lanes.leave(turn.lane);
    turn.flight.finish(core, Driven::Settled(outcome));
}
