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
use eb_contract::{BoxFuture, Cut, PartitionId, PublishRecord, Result};

use super::{Candidate, publish};
use crate::core::{Core, Lane};
use crate::error::GateError;
use crate::inflight::{Driven, Flight, Outcome};
use crate::metrics::since;
use crate::sequencer::Turn;

/// Starts a flight that was just put into the table.
pub(crate) fn launch(core: &Arc<Core>, flight: &Arc<Flight>, candidate: &Candidate) {
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
    let mut reserve = reserve_one(core, flight);
    // Nobody needs to be woken: what is not ready now is awaited in the queue.
    match reserve.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => queue(core, flight, candidate, record, Some(reserve)),
        Poll::Ready(Ok(Reserved::Fresh(reservation))) => {
            flight.reserved(reservation, Vec::new());
            // Given back when the flight ends.
            units.forget();
            flight.hold_units();
            let work = publish(core, flight, record, reservation);
            flight.drive(core, work);
        }
        Poll::Ready(Ok(Reserved::Admitted(entry))) => {
            flight.finish(core, Driven::Settled(Outcome::Before(entry)));
        }
        Poll::Ready(Ok(in_flight @ Reserved::InFlight { .. })) => {
            queue(core, flight, candidate, record, Some(Box::pin(std::future::ready(Ok(in_flight)))));
        }
        Poll::Ready(Err(error)) => {
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
    reserve: Option<BoxFuture<'static, Result<Reserved>>>,
) {
    let lane = Lane::of(&flight.topic, &record.partition_key);
    let room = core.waiting_room.hold(candidate.input.len());
    let Some(room) = room.filter(|_| core.lanes.enter(lane, core.config.max_waiting.max(1))) else {
        flight.finish(core, failed(core.too_busy()));
        return;
    };
    let turn = Turn::new(Arc::clone(flight), record, lane, room, reserve);
    // Full it cannot be: it has a place for each that may wait.
    if core.turns.try_send(turn).is_err() {
        core.lanes.leave(lane);
        flight.finish(core, failed(core.too_busy()));
    }
}

fn reserve_one(core: &Arc<Core>, flight: &Flight) -> BoxFuture<'static, Result<Reserved>> {
    let request = reserve_request(core, flight, Vec::new());
    let core = Arc::clone(core);
    let started = Instant::now();
    Box::pin(async move {
        let answers = core.index.reserve(std::slice::from_ref(&request)).await;
        since(&core.metrics.index, started);
        answers?.pop().ok_or_else(no_answer)
    })
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
        policy: core.rev.as_ref().clone(),
    }
}
