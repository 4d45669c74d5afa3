//! The bus as a whole, and the tasks of a process.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::RegisterStore;
use eb_contract::{
    BoxFuture, Capabilities, Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, Result,
    Topic,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::RolloutConfig;
use crate::control::Control;
use crate::doc::Doc;
use crate::outage::Outage;
use crate::publisher::RolloutPublisher;
use crate::reader::RolloutReader;
use crate::shared::{Shared, SideHandles};
use crate::slot::Slot;
use crate::state::{EndState, Side, State};
use crate::{capabilities, guard, mirror, switch};

/// Opens a publisher of a bus. It is asked for one when an epoch or the mirror needs it, closes it afterwards, and then asks anew.
pub type PublisherFactory =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn EventBusPublisher>>> + Send + Sync>;

/// One of the two buses.
#[derive(Clone)]
pub struct SideBus {
    /// What it is, such as `file`: told apart from the other, and remembered in the register.
    pub name: String,
    /// Its reading side. Closing it is the caller's.
    pub reader: Arc<dyn EventBusReader>,
    /// Makes topics.
    pub admin: Arc<dyn EventBusAdmin>,
    /// Opens its writing side.
    pub publisher: PublisherFactory,
    /// How long it may take until its reading side shows what it has ACKed: nothing for most, about a second for Kinesis. An epoch's
    /// end is looked for only after that time, so leaving such a bus takes so much longer.
    pub shows_within: Duration,
}

/// What a rollout is made of.
#[derive(Clone)]
pub struct RolloutParts {
    /// The bus that is left.
    pub old: SideBus,
    /// The bus that is moved to.
    pub new: SideBus,
    /// Where the state is kept: shared by all processes, and durable.
    pub registers: Arc<dyn RegisterStore>,
}

/// An opening of a bus made of two; see the [crate](crate)'s documentation. Needs a tokio runtime with its clock for as long as any
/// handle is there.
pub struct RolloutBus {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// Ends the tasks of the process when its last handle is gone.
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Running {
    /// Of handles that the process's own tasks use.
    pub(crate) fn detached() -> Arc<Self> {
        Arc::new(Self { stop: watch::Sender::new(false), workers: Mutex::default() })
    }

    /// Ends the workers, so that those of other processes can take over at once.
    pub(crate) async fn rest(&self, patience: Duration) {
        self.stop.send_replace(true);
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            if tokio::time::timeout(patience, worker).await.is_err() {
                tracing::warn!("a worker of the rollout does not come to rest");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl RolloutBus {
    /// Opens the rollout. With `workers` in the config this process may mirror and watches for triggers; without, it never writes but
    /// what is published through it. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// `InvalidInput` for settings that cannot be, or a register that belongs to other buses; what the register's store says.
    pub async fn open(parts: RolloutParts, config: RolloutConfig) -> Result<Self> {
        let (name, mirror_name) = config.check()?;
        let RolloutParts { old, new, registers } = parts;
        if old.name == new.name {
            let what = format!("the old and the new bus are both called {}", old.name);
            return Err(Error::new(ErrorKind::InvalidInput, "open rollout", what));
        }
        let buses = [old.name.clone(), new.name.clone()];
        let state: Doc<State> = Doc::new(registers.clone(), name, config.owner.clone());
        let primary = state.load().await?.map_or(Side::Old, |(_, state)| state.primary());
        let (of_old, of_new) = (old.reader.capabilities(), new.reader.capabilities());
        let now = if primary == Side::Old { of_old } else { of_new };
        let capabilities = capabilities::of(of_old, of_new, now);
        let mirror = Doc::new(registers, mirror_name, config.owner.clone());
        let sides = [old, new].map(|side| SideHandles {
            slot: Slot::new(side.publisher, side.reader.capabilities().multi_writer),
            reader: side.reader,
            admin: side.admin,
            shows_within: side.shows_within,
            outage: Outage::default(),
        });
        let shared = Arc::new(Shared::new(config, capabilities, (state, mirror), sides, buses));
        shared.refresh().await?;
        let stop = watch::Sender::new(false);
        let mut workers = Vec::new();
        tokio::spawn(renew(shared.clone(), stop.subscribe()));
        if shared.config.workers {
            // Before anybody writes under a lease, everybody must know how long one is.
            switch::change(&shared, "the beginning", |state| {
                Ok(state.stamp.is_empty().then(|| state.clone()))
            })
            .await?;
            workers.push(tokio::spawn(mirror::run(shared.clone(), stop.subscribe())));
            workers.push(tokio::spawn(guard::run(shared.clone(), stop.subscribe())));
        }
        Ok(Self { shared, running: Arc::new(Running { stop, workers: Mutex::new(workers) }) })
    }

    /// A new publishing handle. Its first records may wait for a lease.
    #[must_use]
    pub fn publisher(&self) -> RolloutPublisher {
        RolloutPublisher::new(self.shared.clone(), self.running.clone())
    }

    /// A new reading handle.
    #[must_use]
    pub fn reader(&self) -> RolloutReader {
        RolloutReader::new(self.shared.clone(), self.running.clone())
    }

    /// A handle that makes topics.
    #[must_use]
    pub fn admin(&self) -> RolloutAdmin {
        RolloutAdmin { shared: self.shared.clone(), _running: self.running.clone() }
    }

    /// A handle that moves the rollout on and back.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone(), self.running.clone())
    }

    /// What the bus promises.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }
}

/// Renews the lease, and finishes switches that nobody finishes.
async fn renew(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        let lease = shared.lease();
        // Everybody who publishes waits for the end of a switch.
        let often = if lease.state.is_active() { 3 } else { 10 };
        tokio::select! {
            () = tokio::time::sleep(lease.length() / often) => {}
            () = shared.renew.notified() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let lease = match shared.refresh().await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::warn!(%error, "the lease could not be renewed");
                continue;
            }
        };
        let orphaned = Shared::grace(&lease)
            + lease.length()
            + shared.config.reach
            + patience(&shared, &lease.state)
            + switch::shown_after(&shared, &lease.state);
        if !lease.state.is_active() && Instant::now() >= lease.seen_at + orphaned {
            tracing::warn!("a switch that nobody finishes is finished here");
            if let Err(error) = switch::complete(&shared, &lease).await {
                tracing::warn!(%error, "the switch was called off");
            }
        }
    }
}

/// How long whoever switches may be busy with a planned switch after everybody's lease has ended.
fn patience(shared: &Shared, state: &State) -> Duration {
    let planned = state.switching.as_ref().is_some_and(|s| !s.urgent);
    if planned { shared.config.drain } else { Duration::ZERO }
}

/// Makes topics on both buses.
pub struct RolloutAdmin {
    shared: Arc<Shared>,
    _running: Arc<Running>,
}

impl RolloutAdmin {
    async fn create(&self, topic: &Topic, partitions: u32) -> Result<()> {
        const OP: &str = "create_topic";
        let shared = &self.shared;
        if partitions == 0 || partitions >= crate::state::MOST {
            let what =
                format!("{partitions} partitions asked for, it must be 1 to {}", crate::state::MOST - 1);
            return Err(Error::new(ErrorKind::InvalidInput, OP, what).at(topic));
        }
        let deadline = Instant::now() + shared.config.drain + shared.config.max_wait;
        loop {
            let lease = shared.refresh().await?;
            if !lease.state.is_active() {
                if Instant::now() > deadline {
                    return Err(crate::error::unavailable(OP, "the bus is being switched").at(topic));
                }
                shared.changed(&lease, lease.length()).await;
                continue;
            }
            let (primary, epoch) = (lease.state.primary(), lease.state.epoch);
            shared.side(primary).admin.create_topic(topic, partitions).await?;
            // The new bus is not touched before the mirror needs it, nor the old one once it is left for good.
            if lease.state.phase.is_mirrored() {
                shared.side(primary.other()).admin.create_topic(topic, partitions).await?;
            }
            if !lease.state.is_implicit() && lease.state.topics.contains_key(topic) {
                return Ok(());
            }
            let segment = switch::start_of(shared, topic, primary, epoch, None).await?;
            let reason = format!("topic {topic} was made");
            let made = switch::change(shared, &reason, |now| {
                if now.is_implicit()
                    || now.epoch != epoch
                    || !now.is_active()
                    || now.topics.contains_key(topic)
                {
                    return Ok(None);
                }
                let mut next = now.clone();
                next.topics.insert(topic.clone(), vec![segment.clone()]);
                Ok(Some(next))
            })
            .await?;
            // A switch that begins after this moment finds the topic where it is.
            if made.state.is_active() && (made.state.is_implicit() || made.state.topics.contains_key(topic)) {
                return Ok(());
            }
        }
    }
}

impl EventBusAdmin for RolloutAdmin {
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.create(topic, partitions))
    }
}

/// Settles what is pending, where the buses answer.
pub(crate) async fn settle_all(shared: &Shared, state: &State, side: Option<Side>) -> Result<()> {
    let mut outcome = Ok(());
    for (topic, at) in state.pending() {
        let of = state.topics.get(&topic).and_then(|c| c.get(at)).map(|s| (s.side, s.end));
        if of.is_some_and(|(s, end)| end == EndState::Pending && side.is_none_or(|side| side == s))
            && let Err(error) = switch::settle_topic(shared, &topic).await
        {
            outcome = Err(error);
        }
    }
    outcome
}
