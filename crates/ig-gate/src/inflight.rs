//! Admissions in flight: one [`Flight`] for each dedupe key that is being decided, found by its duplicates.
//!
//! A flight stays in the [`FlightTable`] until the index (or the log) answers for its key:
//!
//! ```text
//!                     ┌─ admitted, in the index ──► leaves the table
//! inserted ─ drives ──┼─ failed without effect ───► leaves the table
//!                     ├─ admitted, index failed ──► answers, stays until the index has it
//!                     └─ outcome unknown ─────────► answers, stays until the log has told
//! ```
//!
//! The work of a flight is a future that lies in the flight. Its leader (the first caller) polls it; once somebody
//! else depends on it (a duplicate, a checkpoint, close) or the leader is dropped, it moves to a task of its own, so
//! that no admission ever waits for another caller to poll.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use eb_contract::stores::{AdmissionEntry, AdmissionKey, ReservationId};
use eb_contract::{BoxFuture, Cut, PartitionId, Topic};
use parking_lot::Mutex;

use crate::error::GateError;

/// What became of a flight, as far as its callers are concerned.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It was admitted by this flight.
    Admitted(AdmissionEntry),
    /// It was admitted before this flight.
    Before(AdmissionEntry),
    /// No answer.
    Failed(GateError),
}

/// What the work of a flight comes to.
#[derive(Debug)]
pub(crate) enum Driven {
    /// The callers' answer, and the index or the log knows as much.
    Settled(Outcome),
    /// ACKed, but the index did not take it.
    Unindexed(AdmissionEntry),
    /// Nobody knows whether it is in the log.
    Unknown(GateError),
}

/// One key being decided.
pub(crate) struct Flight {
    pub(crate) key: AdmissionKey,
    pub(crate) payload_hash: [u8; 32],
    pub(crate) topic: Topic,
    /// What it takes of the bound on admissions in flight.
    pub(crate) units: u32,
    publishing: AtomicBool,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Must make progress without its leader.
    detached: bool,
    /// The key may be decided anew.
    settled: bool,
    holds_units: bool,
    reservation: Option<ReservationId>,
    /// Where a recovering gate starts to read; for shared indexes.
    start: Vec<(PartitionId, Cut)>,
    leader: Option<Waker>,
    /// Those who wait for an answer.
    for_done: Waiting,
    /// Those who wait for the key.
    for_settled: Waiting,
}

/// Wakers of those who wait for one thing. They are woken once, when it has come: nobody waits for it after that.
#[derive(Default)]
struct Waiting(Vec<Waker>);

impl Waiting {
    /// `slot` is the caller's own place, kept from one poll to the next.
    fn wait(&mut self, slot: &mut Option<usize>, waker: &Waker) {
        match slot.and_then(|own| self.0.get_mut(own)) {
            Some(own) => own.clone_from(waker),
            None => {
                *slot = Some(self.0.len());
                self.0.push(waker.clone());
            }
        }
    }

    fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.0)
    }
}

enum Phase {
    /// Its turn has not come.
    Queued,
    /// Its work, polled by the leader.
    Driving(BoxFuture<'static, Driven>),
    /// Its work runs in a task.
    Running,
    Done(Outcome),
}

/// Someone who can finish a flight: the gate.
pub(crate) trait Ground: Send + Sync + 'static {
    /// Runs a flight's work to its end in a task of its own.
    fn run(self: &Arc<Self>, flight: Arc<Flight>, work: BoxFuture<'static, Driven>);
    /// Takes note of what a flight came to, before its callers do.
    fn landed(&self, flight: &Arc<Flight>, driven: &Driven, held_units: bool);
}

impl Flight {
    pub(crate) fn new(key: AdmissionKey, payload_hash: [u8; 32], topic: Topic, units: u32) -> Self {
        let state = State {
            phase: Phase::Queued,
            detached: false,
            settled: false,
            holds_units: false,
            reservation: None,
            start: Vec::new(),
            leader: None,
            for_done: Waiting::default(),
            for_settled: Waiting::default(),
        };
        Self { key, payload_hash, topic, units, publishing: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Called before its publish is, so that who finds it not publishing knows that its record will lie behind all that
    /// were ACKed by then.
    pub(crate) fn starts_publishing(&self) {
        self.publishing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_publishing(&self) -> bool {
        self.publishing.load(Ordering::SeqCst)
    }

    pub(crate) fn hold_units(&self) {
        self.state.lock().holds_units = true;
    }

    /// Whether it held room, which is now the caller's to give back.
    pub(crate) fn take_units(&self) -> bool {
        std::mem::take(&mut self.state.lock().holds_units)
    }

    pub(crate) fn reserved(&self, reservation: ReservationId, start: Vec<(PartitionId, Cut)>) {
        let mut state = self.state.lock();
        state.reservation = Some(reservation);
        state.start = start;
    }

    pub(crate) fn reservation(&self) -> Option<ReservationId> {
        self.state.lock().reservation
    }

    /// Its reservation, while the callers' answer is still to come.
    pub(crate) fn pending_reservation(&self) -> Option<ReservationId> {
        let state = self.state.lock();
        state.reservation.filter(|_| !matches!(state.phase, Phase::Done(_)))
    }

    /// It was given back, and the key will be reserved anew.
    pub(crate) fn unreserved(&self) {
        self.state.lock().reservation = None;
    }

    pub(crate) fn start(&self) -> Vec<(PartitionId, Cut)> {
        self.state.lock().start.clone()
    }

    /// Gives a queued flight its work.
    pub(crate) fn drive<G: Ground>(self: &Arc<Self>, ground: &Arc<G>, work: BoxFuture<'static, Driven>) {
        let mut state = self.state.lock();
        if state.detached {
            state.phase = Phase::Running;
            drop(state);
            ground.run(Arc::clone(self), work);
            return;
        }
        state.phase = Phase::Driving(work);
        let leader = state.leader.take();
        drop(state);
        if let Some(leader) = leader {
            leader.wake();
        }
    }

    /// Polls as the first caller does.
    pub(crate) fn poll_lead<G: Ground>(
        self: &Arc<Self>,
        ground: &Arc<G>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome> {
        let mut state = self.state.lock();
        let driven = match &mut state.phase {
            Phase::Done(outcome) => return Poll::Ready(outcome.clone()),
            Phase::Queued | Phase::Running => None,
            Phase::Driving(work) => match work.as_mut().poll(cx) {
                Poll::Ready(driven) => Some(driven),
                Poll::Pending => None,
            },
        };
        let Some(driven) = driven else {
            match &mut state.leader {
                Some(leader) => leader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        // What is finished must not be polled again, by whomever the flight is detached for meanwhile.
        let finished = std::mem::replace(&mut state.phase, Phase::Running);
        drop(state);
        drop(finished);
        Poll::Ready(self.finish(ground, driven))
    }

    /// Polls as one who waits for another's flight; `slot` is empty at first.
    pub(crate) fn poll_follow(&self, slot: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.state.lock();
        if let Phase::Done(outcome) = &state.phase {
            return Poll::Ready(outcome.clone());
        }
        state.for_done.wait(slot, cx.waker());
        Poll::Pending
    }

    /// Until there is an answer for the callers.
    pub(crate) async fn done(&self) {
        let mut slot = None;
        std::future::poll_fn(|cx| self.poll_follow(&mut slot, cx).map(drop)).await;
    }

    /// Until the key may be decided anew.
    pub(crate) async fn settled(&self) {
        let mut slot = None;
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.settled {
                return Poll::Ready(());
            }
            state.for_settled.wait(&mut slot, cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// From now on the flight makes progress whether or not its leader polls.
    pub(crate) fn detach<G: Ground>(self: &Arc<Self>, ground: &Arc<G>) {
        let mut state = self.state.lock();
        if state.detached {
            return;
        }
        state.detached = true;
        if !matches!(state.phase, Phase::Driving(_)) {
            return;
        }
        let Phase::Driving(work) = std::mem::replace(&mut state.phase, Phase::Running) else { return };
        drop(state);
        ground.run(Arc::clone(self), work);
    }

    /// Ends the flight with what its work came to, tells everyone, and gives back the callers' answer.
    pub(crate) fn finish<G: Ground>(self: &Arc<Self>, ground: &Arc<G>, driven: Driven) -> Outcome {
        let held_units = self.take_units();
        ground.landed(self, &driven, held_units);
        let (outcome, settled) = match driven {
            Driven::Settled(outcome) => (outcome, true),
            Driven::Unindexed(entry) => (Outcome::Admitted(entry), false),
            Driven::Unknown(error) => (Outcome::Failed(error), false),
        };
        let mut state = self.state.lock();
        state.phase = Phase::Done(outcome.clone());
        // The log may have told meanwhile.
        state.settled |= settled;
        let leader = state.leader.take();
        let followers = state.for_done.take();
        let others = if state.settled { state.for_settled.take() } else { Vec::new() };
        drop(state);
        leader.into_iter().chain(followers).chain(others).for_each(Waker::wake);
        outcome
    }

    /// The key may be decided anew: the index or the log has told.
    pub(crate) fn settle(&self) {
        let mut state = self.state.lock();
        state.settled = true;
        let wakers = state.for_settled.take();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The keys that are being decided.
pub(crate) struct FlightTable {
    shards: Box<[Mutex<Shard>]>,
    len: AtomicUsize,
}

type Shard = HashMap<[u8; 32], Arc<Flight>, BuildHasherDefault<FirstBytes>>;

const SHARDS: usize = 64;

impl FlightTable {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), len: AtomicUsize::new(0) }
    }

    fn shard(&self, key: &AdmissionKey) -> &Mutex<Shard> {
        // The map hashes by the first bytes; the shard is chosen by others.
        &self.shards[usize::from(key.dedupe[31]) % SHARDS]
    }

    /// Puts a flight in, or gives back the one that is there for its key.
    pub(crate) fn insert(&self, flight: &Arc<Flight>) -> Result<(), Arc<Flight>> {
        match self.shard(&flight.key).lock().entry(flight.key.dedupe) {
            Entry::Occupied(there) => Err(Arc::clone(there.get())),
            Entry::Vacant(place) => {
                place.insert(Arc::clone(flight));
                self.len.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    pub(crate) fn remove(&self, flight: &Flight) {
        if self.shard(&flight.key).lock().remove(&flight.key.dedupe).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// All that are in it. A flight whose insertion happened before the call is among them, or has left.
    pub(crate) fn all(&self) -> Vec<Arc<Flight>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}

/// Keys are SHA-256 digests already: their first bytes are as good a hash as any.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_usize(&mut self, _length: usize) {
        // The length prefix of an array that is always 32 bytes long.
    }
}
