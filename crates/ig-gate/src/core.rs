//! What all parts of an open gate share.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use eb_contract::stores::{AdmissionEntry, AdmissionIndex, PolicyRev};
use eb_contract::{
    BoxFuture, EbRef, Effect, EnvelopeRef, EventBusPublisher, EventBusReader, PartitionKey, Topic,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::admission::Bounds;
use crate::config::GateConfig;
use crate::error::{GateError, GateErrorCode};
use crate::inflight::{Driven, Flight, FlightTable, Ground};
use crate::metrics::GateMetrics;
use crate::policy::Policy;
use crate::progress::Progress;
use crate::quarantine::QuarantineStore;
use crate::room::Room;
use crate::sequencer::Turn;

/// How long a caller waits before it comes back to a gate that was too busy.
const BUSY: Duration = Duration::from_millis(50);

pub(crate) struct Core {
    pub(crate) config: GateConfig,
    pub(crate) policy: Policy,
    pub(crate) rev: Arc<PolicyRev>,
    pub(crate) bounds: Bounds,
    pub(crate) publisher: Arc<dyn EventBusPublisher>,
    pub(crate) reader: Arc<dyn EventBusReader>,
    pub(crate) index: Arc<dyn AdmissionIndex>,
    pub(crate) quarantine: Arc<dyn QuarantineStore>,
    pub(crate) flights: FlightTable,
    pub(crate) lanes: Lanes,
    pub(crate) turns: mpsc::Sender<Turn>,
    pub(crate) permits: Semaphore,
    /// For events that wait for their turn.
    pub(crate) waiting_room: Room,
    /// For inputs that wait for their evidence.
    pub(crate) evidence_room: Room,
    pub(crate) progress: Progress,
    pub(crate) blocked: Mutex<BlockedKeys>,
    pub(crate) blocked_count: AtomicUsize,
    /// Held while a checkpoint is taken and committed.
    pub(crate) committing: tokio::sync::Mutex<()>,
    /// Held during one look at what is blocked.
    pub(crate) reconciling: tokio::sync::Mutex<()>,
    pub(crate) wake_checkpointer: Notify,
    pub(crate) wake_reconciler: Notify,
    pub(crate) evidence_pending: AtomicUsize,
    pub(crate) evidence_settled: Notify,
    pub(crate) closed: AtomicBool,
    pub(crate) metrics: GateMetrics,
    pub(crate) runtime: Handle,
    pub(crate) last_error: Mutex<Option<(Instant, String)>>,
    /// What one unit of the bound on admissions in flight stands for.
    unit_bytes: usize,
    max_units: u32,
}

/// Keys that stay blocked after their callers were answered.
#[derive(Default)]
pub(crate) struct BlockedKeys {
    /// In the log, but not in the index.
    pub(crate) unindexed: Vec<(Arc<Flight>, AdmissionEntry)>,
    /// Nobody knows whether they are in the log.
    pub(crate) unknown: Vec<Unknown>,
}

/// A key whose publish had an unknown outcome.
#[derive(Clone)]
pub(crate) struct Unknown {
    pub(crate) flight: Arc<Flight>,
    pub(crate) since: Instant,
}

/// What a [`Core`] is made of.
pub(crate) struct CoreParts {
    pub(crate) config: GateConfig,
    pub(crate) policy: Policy,
    pub(crate) publisher: Arc<dyn EventBusPublisher>,
    pub(crate) reader: Arc<dyn EventBusReader>,
    pub(crate) index: Arc<dyn AdmissionIndex>,
    pub(crate) quarantine: Arc<dyn QuarantineStore>,
    pub(crate) progress: Progress,
    pub(crate) turns: mpsc::Sender<Turn>,
    pub(crate) runtime: Handle,
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Self {
        let CoreParts { config, policy, publisher, reader, index, quarantine, progress, turns, runtime } =
            parts;
        let max_in_flight = config.max_in_flight.clamp(1, Semaphore::MAX_PERMITS.min(1 << 24));
        let max_units = u32::try_from(max_in_flight).unwrap_or(1 << 24);
        let bounds = Bounds {
            input: config.limits,
            envelope: eb_contract::EnvelopeLimits {
                max_bytes: publisher.capabilities().max_envelope_bytes.min(config.limits.max_bytes()),
                max_depth: config.limits.max_depth(),
            },
        };
        Self {
            unit_bytes: (config.max_in_flight_bytes / max_in_flight).max(1),
            max_units,
            rev: Arc::new(policy.rev().clone()),
            policy,
            bounds,
            publisher,
            reader,
            index,
            quarantine,
            flights: FlightTable::new(),
            lanes: Lanes::default(),
            turns,
            permits: Semaphore::new(max_in_flight),
            waiting_room: Room::new(config.max_waiting_bytes),
            evidence_room: Room::new(config.max_waiting_bytes),
            progress,
            blocked: Mutex::default(),
            blocked_count: AtomicUsize::new(0),
            committing: tokio::sync::Mutex::default(),
            reconciling: tokio::sync::Mutex::default(),
            wake_checkpointer: Notify::new(),
            wake_reconciler: Notify::new(),
            evidence_pending: AtomicUsize::new(0),
            evidence_settled: Notify::new(),
            closed: AtomicBool::new(false),
            metrics: GateMetrics::new(),
            runtime,
            last_error: Mutex::new(None),
            config,
        }
    }

    /// What an event takes of the bound on admissions in flight.
    pub(crate) fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(self.unit_bytes)).unwrap_or(u32::MAX).clamp(1, self.max_units)
    }

    pub(crate) fn checkpoint_every(&self) -> u64 {
        self.config.checkpoint_every.min(self.index.max_lag() / 4).max(1)
    }

    /// Takes note of a record that is in the log and in the index, or will be once its flight has ended.
    pub(crate) fn acked(&self, eb_ref: &EbRef, key: &PartitionKey, envelope: &EnvelopeRef) {
        let behind = self.progress.acked(eb_ref, key, envelope);
        if behind.is_multiple_of(self.checkpoint_every()) {
            self.wake_checkpointer.notify_one();
        }
    }

    /// Whether the gate can keep its promises now.
    pub(crate) fn fit(&self) -> Result<(), GateError> {
        let (lag, max_lag) = (self.progress.lag(), self.index.max_lag());
        if lag >= max_lag {
            self.wake_checkpointer.notify_one();
            return Err(GateError::unhealthy(format!(
                "the index's checkpoint is {lag} records behind the log, the limit is {max_lag}"
            )));
        }
        // Each of them may add to it; that many at once are a lot of work and no fault.
        if lag + self.flights.len() as u64 >= max_lag {
            self.wake_checkpointer.notify_one();
            return Err(self.too_busy());
        }
        let blocked = self.blocked_count.load(Ordering::Relaxed);
        if blocked >= self.config.max_waiting {
            return Err(GateError::unhealthy(format!(
                "{blocked} events are blocked by unknown outcomes or by the index"
            )));
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn too_busy(&self) -> GateError {
        GateError::throttled("too many admissions are waiting or in flight", BUSY)
    }

    /// Remembers a failure for health.
    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        *self.last_error.lock() = Some((Instant::now(), what.to_string()));
    }

    /// The key of a flight that was blocked may be decided anew.
    pub(crate) fn unblock(&self, flight: &Flight) {
        self.blocked_count.fetch_sub(1, Ordering::Relaxed);
        self.flights.remove(flight);
        flight.settle();
    }
}

impl Ground for Core {
    fn run(self: &Arc<Self>, flight: Arc<Flight>, work: BoxFuture<'static, Driven>) {
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            let driven = work.await;
            flight.finish(&core, driven);
        });
    }

    fn landed(&self, flight: &Arc<Flight>, driven: &Driven, held_units: bool) {
        match driven {
            Driven::Settled(_) => self.flights.remove(flight),
            Driven::Unindexed(entry) => {
                self.blocked_count.fetch_add(1, Ordering::Relaxed);
                self.blocked.lock().unindexed.push((Arc::clone(flight), entry.clone()));
                self.wake_reconciler.notify_one();
            }
            Driven::Unknown(_) => {
                self.blocked_count.fetch_add(1, Ordering::Relaxed);
                self.blocked
                    .lock()
                    .unknown
                    .push(Unknown { flight: Arc::clone(flight), since: Instant::now() });
                self.wake_reconciler.notify_one();
            }
        }
        if held_units {
            self.permits.add_permits(flight.units as usize);
        }
    }
}

impl Core {
    /// Takes note of a publish that was not ACKed, and says so in the gate's words.
    pub(crate) fn publish_failed(&self, error: eb_contract::Error) -> GateError {
        self.metrics.publish_failed(&error);
        self.note(&error);
        if error.effect() == Effect::Unknown {
            tracing::warn!(%error, "the outcome of a publish is unknown; reconciling from the log");
        } else {
            tracing::debug!(%error, "publish failed");
        }
        let error = GateError::publish(error);
        debug_assert!(error.code() != GateErrorCode::GateClosed);
        error
    }
}

/// Which partition keys have events waiting for their turn, so that no later event of the key passes them.
#[derive(Default)]
pub(crate) struct Lanes {
    waiting: AtomicUsize,
    counts: Mutex<HashMap<u64, u32>>,
}

/// A partition key of a topic. Two keys may share a lane; they then merely keep their order among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lane(u64);

impl Lane {
    pub(crate) fn of(topic: &Topic, key: &PartitionKey) -> Self {
        let mut hasher = DefaultHasher::new();
        topic.as_str().hash(&mut hasher);
        key.as_str().hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Lanes {
    /// Whether an event of this key is waiting.
    pub(crate) fn is_busy(&self, topic: &Topic, key: &PartitionKey) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0 && self.counts.lock().contains_key(&Lane::of(topic, key).0)
    }

    /// Takes a place for an event of the lane. `false` when `max` are waiting already.
    pub(crate) fn enter(&self, lane: Lane, max: usize) -> bool {
        let one_more = |waiting| (waiting < max).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_err() {
            return false;
        }
        *self.counts.lock().entry(lane.0).or_insert(0) += 1;
        true
    }

    /// Its publish was called, or it will not be.
    pub(crate) fn leave(&self, lane: Lane) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&lane.0) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&lane.0);
            }
        }
        drop(counts);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
