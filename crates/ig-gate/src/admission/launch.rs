//! A new flight's way to its publish: at once where that can be, else in turn.
//!
//! # Order
//! Two events of one partition key are published in the order in which `admit` was called for them. The call itself
//! publishes when (a) the index answers at once, (b) the bound on admissions in flight leaves room and (c) no event
//! of the key is waiting. Otherwise the event queues for its turn ([`sequencer`](crate::sequencer)), and then (c) holds
//! up every later one of its key. An event leaves the queue only after its publish was called.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use eb_contract::stores::{ReserveRequest, Reserved};
use eb_contract::{Cut, PartitionId, PublishRecord};

use super::{Candidate, publish};
use crate::core::{Core, Lane};
use crate::error::GateError;
use crate::inflight::{Driven, Flight, Outcome};
use crate::sequencer::Turn;

/// Starts a flight that was just put into the table. `started` is now.
pub(crate) fn launch(core: &Arc<Core>, flight: &Arc<Flight>, candidate: &Candidate, started: Instant) {
    // Whoever closes the gate looks at the table after setting the flag; so one of the two sees the other.
    if core.is_closed() {
        flight.finish(core, failed(GateError::closed()));
        return;
    }
    let record = PublishRecord::new(candidate.admission.partition_key.clone(), candidate.envelope.clone());
    let at_once = !core.index.is_shared() && !core.lanes.is_busy(&flight.topic, &record.partition_key);
    if !at_once {
        return queue(core, flight, candidate, record, None);
    }
    // Given back by leaving this function, but for a publish: what waits must not hold room that others before it need.
    let Ok(units) = core.permits.try_acquire_many(flight.units) else {
        return queue(core, flight, candidate, record, None);
    };
    let request = [reserve_request(core, flight, Vec::new())];
    let mut reserve = core.index.reserve(&request);
    // Nobody needs to be woken: what is not ready now is asked for anew in the queue. The reservation that may be made
    // for nobody is a number and nothing more, the index being this gate's alone.
    let answer = match reserve.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => return queue(core, flight, candidate, record, None),
        Poll::Ready(answers) => answers.and_then(|mut answers| answers.pop().ok_or_else(no_answer)),
    };
    let answered = Instant::now();
    core.metrics.index.record(answered.duration_since(started).as_secs_f64());
    match answer {
        Ok(Reserved::Fresh(reservation)) => {
            flight.reserved(reservation, Vec::new());
            // Given back when the flight ends.
            units.forget();
            flight.hold_units();
            let work = publish(core, flight, record, reservation, answered);
            flight.drive(core, work);
        }
        Ok(Reserved::Admitted(entry)) => {
            flight.finish(core, Driven::Settled(Outcome::Before(entry)));
        }
        Ok(in_flight @ Reserved::InFlight { .. }) => {
            queue(core, flight, candidate, record, Some(in_flight));
        }
        Err(error) => {
            core.note(&error);
            flight.finish(core, failed(GateError::index(error)));
        }
    }
}

fn failed(error: GateError) -> Driven {
    Driven::Settled(Outcome::Failed(error))
}

fn queue(
    core: &Arc<Core>,
    flight: &Arc<Flight>,
    candidate: &Candidate,
    record: PublishRecord,
    answer: Option<Reserved>,
) {
    let lane = Lane::of(&flight.topic, &record.partition_key);
    let room = core.waiting_room.hold(candidate.input.len());
    let Some(room) = room.filter(|_| core.lanes.enter(lane, core.config.max_waiting.max(1))) else {
        flight.finish(core, failed(core.too_busy()));
        return;
    };
    let turn = Turn::new(Arc::clone(flight), record, lane, room, answer);
    // Full it cannot be: it has a place for each that may wait.
    if core.turns.try_send(turn).is_err() {
        core.lanes.leave(lane);
        flight.finish(core, failed(core.too_busy()));
    }
}

/// An index that answers fewer keys than it was asked for.
pub(crate) fn no_answer() -> eb_contract::Error {
    eb_contract::Error::new(
        eb_contract::ErrorKind::ProtocolViolation,
        "reserve",
        "the index answered fewer keys than it was asked for",
    )
}

pub(crate) fn reserve_request(
    core: &Core,
    flight: &Flight,
    start: Vec<(PartitionId, Cut)>,
) -> ReserveRequest {
    ReserveRequest {
        key: flight.key,
        payload_hash: flight.payload_hash,
        topic: flight.topic.clone(),
        start,
        policy: Arc::clone(&core.rev),
    }
}
