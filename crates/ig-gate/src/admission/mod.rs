//! One admission, from the call to its answer.

mod decide;
mod elsewhere;
mod evidence;
mod launch;
mod publish;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use eb_contract::BoxFuture;
use eb_contract::stores::AdmissionEntry;
use tokio::task::JoinHandle;
use tracing::Span;

pub(crate) use decide::{Bounds, Candidate, Refusal, entry_of, event_prefix, identify};
pub(crate) use launch::{no_answer, reserve_request};
pub(crate) use publish::publish;

use crate::error::{GateError, GateErrorCode};
use crate::gate::Gate;
use crate::inflight::{Flight, Outcome};
use crate::reason::{Detail, ReasonCode};
use crate::receipt::{Decision, Receipt};
use crate::room::Held;

/// The answer to one [`Gate::admit`], to be awaited.
///
/// The event's place in the order of its key was fixed when `admit` was called. Dropping this does not withdraw the
/// event: it is admitted or refused all the same, unobserved, and sending it again gives the answer.
#[must_use = "the answer comes only when awaited"]
pub struct Admission {
    gate: Gate,
    state: State,
    span: Span,
}

enum State {
    /// Answered in the call; empty once that answer was given.
    Answered(Option<GateError>),
    Leading(Arc<Flight>, Box<Candidate>),
    Following(Box<Follower>),
    /// Reading what the log says of an event on a stream that would not be chosen today.
    Locating(BoxFuture<'static, Result<Receipt, GateError>>),
    Quarantining(JoinHandle<Result<Receipt, GateError>>),
}

/// A duplicate of an event in flight.
struct Follower {
    flight: Arc<Flight>,
    candidate: Candidate,
    /// Its place among those who wait.
    slot: Option<usize>,
    /// Its bytes wait with it: should the first turn out to contradict what was admitted before, so may this one, and its
    /// evidence is the input.
    _room: Held,
}

impl Admission {
    /// Does all that can be done in the call.
    pub(crate) fn start(gate: Gate, input: &Bytes) -> Self {
        let span = tracing::debug_span!(
            "admit",
            event_id = tracing::field::Empty,
            decision = tracing::field::Empty,
            eb_ref = tracing::field::Empty,
            error = tracing::field::Empty,
        );
        let state = span.in_scope(|| Self::decide(&gate, input, &span));
        Self { gate, state, span }
    }

    fn decide(gate: &Gate, input: &Bytes, span: &Span) -> State {
        let core = &gate.core;
        if core.is_closed() {
            return State::Answered(Some(GateError::closed()));
        }
        if let Err(error) = core.fit() {
            return State::Answered(Some(error));
        }
        let started = Instant::now();
        let decided = decide::decide(&core.policy, core.bounds, input);
        let done = Instant::now();
        core.metrics.decide.record(done.duration_since(started).as_secs_f64());
        let candidate = match decided {
            Ok(candidate) => candidate,
            Err(refusal) => {
                span.record("event_id", refusal.event.event_id.as_deref());
                return Self::quarantine(gate, refusal);
            }
        };
        span.record("event_id", candidate.event.event_id.as_deref());
        let flight = Arc::new(Flight::new(
            candidate.key,
            candidate.payload_hash,
            candidate.topic.clone(),
            core.units(candidate.held_bytes()),
        ));
        if let Err(first) = core.flights.insert(&flight) {
            let Some(room) = core.waiting_room.hold(candidate.held_bytes()) else {
                return State::Answered(Some(core.too_busy()));
            };
            // From now on two callers depend on it.
            first.detach(core);
            return State::Following(Box::new(Follower {
                flight: first,
                candidate,
                slot: None,
                _room: room,
            }));
        }
        launch::launch(core, &flight, &candidate, done);
        State::Leading(flight, Box::new(candidate))
    }

    fn quarantine(gate: &Gate, refusal: Box<Refusal>) -> State {
        match evidence::keep(&gate.core, refusal) {
            Ok(task) => State::Quarantining(task),
            Err(error) => State::Answered(Some(error)),
        }
    }

    /// What a flight's outcome means for this caller: the answer, or what must come before it.
    fn conclude(
        &self,
        candidate: Candidate,
        outcome: Outcome,
        leading: bool,
    ) -> Result<Result<Receipt, GateError>, State> {
        let (entry, decision) = match outcome {
            Outcome::Failed(error) => return Ok(Err(error)),
            Outcome::Admitted(entry) if leading => (entry, Decision::Admit),
            Outcome::Admitted(entry) | Outcome::Before(entry) => (entry, Decision::Duplicate),
        };
        if entry.payload_hash != candidate.payload_hash {
            return Err(Self::quarantine(&self.gate, contradiction(candidate, entry)));
        }
        if entry.eb_ref.topic != candidate.topic {
            let core = Arc::clone(&self.gate.core);
            return Err(State::Locating(Box::pin(elsewhere::receipt(core, candidate, entry))));
        }
        let rev = Arc::clone(&self.gate.core.rev);
        let Candidate { event, admission, .. } = candidate;
        Ok(Ok(Receipt::admitted(decision, event, admission, entry.eb_ref, rev)))
    }

    fn answer(&self, answer: Result<Receipt, GateError>) -> Result<Receipt, GateError> {
        self.gate.core.metrics.answered(&answer);
        match &answer {
            Ok(receipt) => {
                self.span.record("decision", receipt.decision.as_str());
                if let Some(eb_ref) = &receipt.eb_ref {
                    self.span.record("eb_ref", tracing::field::display(eb_ref));
                }
            }
            Err(error) => {
                self.span.record("error", tracing::field::display(error));
            }
        }
        answer
    }
}

/// An event whose identity was admitted with another payload.
fn contradiction(candidate: Candidate, first: AdmissionEntry) -> Box<Refusal> {
    let problem =
        format!("differs from that of the event that was admitted under this identity at {}", first.eb_ref);
    Box::new(Refusal {
        reason: ReasonCode::PayloadHashMismatch,
        details: vec![Detail::new("payload", problem)],
        event: candidate.event,
        input: candidate.input,
        first: Some(first),
    })
}

impl Future for Admission {
    type Output = Result<Receipt, GateError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let _entered = this.span.clone().entered();
        loop {
            let (outcome, leading) = match &mut this.state {
                State::Answered(error) => {
                    let error = error.take().unwrap_or_else(polled_again);
                    return Poll::Ready(this.answer(Err(error)));
                }
                State::Quarantining(task) => {
                    return Pin::new(task).poll(cx).map(|kept| {
                        let answer = kept.unwrap_or_else(|e| Err(evidence::task_ended(&e)));
                        this.state = State::Answered(None);
                        this.answer(answer)
                    });
                }
                State::Locating(receipt) => {
                    return receipt.as_mut().poll(cx).map(|answer| {
                        this.state = State::Answered(None);
                        this.answer(answer)
                    });
                }
                State::Leading(flight, _) => match flight.poll_lead(&this.gate.core, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => (outcome, true),
                },
                State::Following(follower) => match follower.flight.poll_follow(&mut follower.slot, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(outcome) => (outcome, false),
                },
            };
            let candidate = match std::mem::replace(&mut this.state, State::Answered(None)) {
                State::Leading(_, candidate) => *candidate,
                State::Following(follower) => follower.candidate,
                // Only these two come to an outcome.
                State::Answered(_) | State::Locating(_) | State::Quarantining(_) => continue,
            };
            match this.conclude(candidate, outcome, leading) {
                Ok(answer) => return Poll::Ready(this.answer(answer)),
                Err(state) => this.state = state,
            }
        }
    }
}

/// A future must not be polled after it was ready.
fn polled_again() -> GateError {
    GateError::new(
        GateErrorCode::GateUnhealthy,
        eb_contract::Retry::Later,
        "the admission was answered before",
    )
}

impl Drop for Admission {
    fn drop(&mut self) {
        // The publish may have been called: what becomes of it must reach the index all the same.
        if let State::Leading(flight, _) = &self.state {
            flight.detach(&self.gate.core);
        }
    }
}
