//! What all handles of a process share: the two buses, and what the register said last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eb_contract::{Capabilities, Error, ErrorKind, EventBusAdmin, EventBusReader, Result};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;

use crate::config::{RolloutConfig, margin};
use crate::doc::Doc;
use crate::error::{no_lease, within};
use crate::latency::Latencies;
use crate::mirror::MirrorState;
use crate::outage::Outage;
use crate::slot::Slot;
use crate::state::{Side, State};

/// How long the register may take to answer before the process goes on without a lease.
const REGISTER_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Shared {
    pub(crate) config: RolloutConfig,
    pub(crate) capabilities: Capabilities,
    pub(crate) state: Doc<State>,
    pub(crate) mirror: Doc<MirrorState>,
    pub(crate) latencies: Latencies,
    sides: [SideHandles; 2],
    buses: [String; 2],
    lease: watch::Sender<Arc<Lease>>,
    /// When the last answer of the register was asked for; held while it is asked.
    asked: Mutex<Option<Instant>>,
    base: Instant,
    /// Wakes the task that renews the lease.
    pub(crate) renew: Notify,
    /// Why the lease could not be renewed last, while it cannot.
    trouble: parking_lot::Mutex<Option<Error>>,
}

pub(crate) struct SideHandles {
    pub(crate) reader: Arc<dyn EventBusReader>,
    pub(crate) admin: Arc<dyn EventBusAdmin>,
    pub(crate) slot: Slot,
    /// How long it may take until the reader shows what the bus has ACKed.
    pub(crate) shows_within: Duration,
    /// Of publishes through this process's handles.
    pub(crate) outage: Outage,
}

/// What the register said, and until when it holds.
pub(crate) struct Lease {
    pub(crate) version: u64,
    pub(crate) state: State,
    /// When the answer was there.
    pub(crate) seen_at: Instant,
    base: Instant,
    /// Nanoseconds after `base`; 0 for never. Shared by all leases of one epoch.
    valid_until: Arc<AtomicU64>,
}

impl Lease {
    /// Whether the epoch is active for sure, at `now`.
    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        nanos(now.saturating_duration_since(self.base)) < self.valid_until.load(Ordering::Acquire)
    }

    /// How long everybody's leases are.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_millis(self.state.lease_ms)
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Shared {
    pub(crate) fn new(
        config: RolloutConfig,
        capabilities: Capabilities,
        (state, mirror): (Doc<State>, Doc<MirrorState>),
        sides: [SideHandles; 2],
        buses: [String; 2],
    ) -> Self {
        let base = Instant::now();
        let lease_ms = u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX);
        // Nothing was asked yet, so nothing holds.
        let first = Lease {
            version: 0,
            state: State::initial(buses.clone(), lease_ms),
            seen_at: base,
            base,
            valid_until: Arc::default(),
        };
        Self {
            config,
            capabilities,
            state,
            mirror,
            latencies: Latencies::default(),
            sides,
            buses,
            lease: watch::Sender::new(Arc::new(first)),
            asked: Mutex::new(None),
            base,
            renew: Notify::new(),
            trouble: parking_lot::Mutex::default(),
        }
    }

    pub(crate) fn side(&self, side: Side) -> &SideHandles {
        &self.sides[side.index()]
    }

    pub(crate) fn buses(&self) -> &[String; 2] {
        &self.buses
    }

    /// The newest that is known; perhaps over.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        self.lease.borrow().clone()
    }

    /// Hears of every change, and of every renewal.
    pub(crate) fn listen(&self) -> watch::Receiver<Arc<Lease>> {
        self.lease.subscribe()
    }

    /// How long a switch waits for everybody's lease to end.
    pub(crate) fn grace(lease: &Lease) -> Duration {
        lease.length() + margin(lease.length())
    }

    /// What the register says, asked at or after `after`. Callers at the same time share an answer.
    ///
    /// # Errors
    /// When the register does not answer.
    pub(crate) async fn refresh_since(&self, after: Instant) -> Result<Arc<Lease>> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at >= after) {
            return Ok(self.lease());
        }
        let started = Instant::now();
        let loaded = within("read rollout state", REGISTER_PATIENCE, self.load()).await;
        let loaded = loaded.map_err(|e| match e.kind() {
            ErrorKind::FactsMissing => e,
            _ => no_lease("read rollout state").with_source(e),
        });
        *self.trouble.lock() = loaded.as_ref().err().cloned();
        let lease = match loaded? {
            Some((version, state)) => self.install(version, &state, started)?,
            None => self.lease(),
        };
        *asked = Some(started);
        Ok(lease)
    }

    /// What stands in the register.
    ///
    /// # Errors
    /// `FactsMissing` where that is older than what this process has seen there: nobody may go on as if it had not happened.
    pub(crate) async fn load(&self) -> Result<Option<(u64, State)>> {
        let known = self.lease().version;
        let stands = self.state.load().await?;
        let now = stands.as_ref().map_or(0, |(version, _)| *version);
        if now >= known {
            return Ok(stands);
        }
        let what = format!(
            "version {now} stands, and version {known} has stood before: the register was lost, or restored from an older copy"
        );
        Err(Error::new(ErrorKind::FactsMissing, "read rollout state", what)
            .at(self.state.name())
            .advise("stop what was started since and put the newest copy back; without it the chain of epochs is lost"))
    }

    /// Why the lease could not be renewed last, while it cannot.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.trouble.lock().clone()
    }

    pub(crate) async fn refresh(&self) -> Result<Arc<Lease>> {
        self.refresh_since(Instant::now()).await
    }

    /// Takes what the register holds, or held, at a moment after `asked`. Older versions change nothing.
    pub(crate) fn install(&self, version: u64, state: &State, asked: Instant) -> Result<Arc<Lease>> {
        self.check_buses(state)?;
        let length = Duration::from_millis(state.lease_ms);
        let until =
            if state.is_active() { nanos((asked + length).saturating_duration_since(self.base)) } else { 0 };
        let mut result = None;
        self.lease.send_if_modified(|current| {
            if version < current.version {
                result = Some(current.clone());
                return false;
            }
            if version == current.version {
                current.valid_until.fetch_max(until, Ordering::AcqRel);
                result = Some(current.clone());
                return true;
            }
            let goes_on =
                current.state.epoch == state.epoch && current.state.is_active() && state.is_active();
            let valid_until = if goes_on {
                current.valid_until.clone()
            } else {
                current.valid_until.store(0, Ordering::Release);
                Arc::default()
            };
            valid_until.fetch_max(until, Ordering::AcqRel);
            let next = Lease {
                version,
                state: state.clone(),
                seen_at: Instant::now(),
                base: self.base,
                valid_until,
            };
            *current = Arc::new(next);
            result = Some(current.clone());
            true
        });
        Ok(result.unwrap_or_else(|| self.lease()))
    }

    fn check_buses(&self, state: &State) -> Result<()> {
        if state.buses == self.buses {
            return Ok(());
        }
        let what = format!(
            "the register {} belongs to a rollout from {} to {}, this one is from {} to {}",
            self.state.name(),
            state.buses[0],
            state.buses[1],
            self.buses[0],
            self.buses[1]
        );
        Err(Error::new(ErrorKind::InvalidInput, "open rollout", what)
            .advise("give each rollout a register, or a store, of its own"))
    }

    /// Until the register is known to say something else than `seen`, or for `patience`.
    pub(crate) async fn changed(&self, seen: &Lease, patience: Duration) {
        let mut lease = self.listen();
        let change = async {
            loop {
                if lease.borrow_and_update().version != seen.version {
                    return;
                }
                if lease.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        // Either way the caller looks again.
        let _ = tokio::time::timeout(patience, change).await;
    }
}
