//! From a profile to open handles.

use std::sync::Arc;

use eb_contract::stores::CheckpointStore;
use eb_contract::{Capabilities, Error, EventBusAdmin, EventBusPublisher, EventBusReader, Topic};
use ig_gate::{Gate, QuarantineStore};
use tokio::sync::OnceCell;

use crate::backend::{self, Bus, Purpose};
use crate::error::OpenError;
use crate::gate;
use crate::interpolate::Env;
use crate::model::Profile;

/// Opens a profile for writing: makes the bus's folder, and the topics that are missing where the profile says
/// `create_topics: true`. The gate is opened by the first call of [`Platform::gate`].
///
/// `name_or_path` is a path where it holds a `/` or ends in `.yaml`, and else a name, looked for as
/// `config/platform/profiles/<name>.yaml` in the current folder and those above it (in `EB_CONFIG_DIR` instead, where that is
/// set); for those that the project ships there is a built-in copy of last resort.
///
/// Dropping the future leaves topics made or not; opening again goes on.
///
/// # Errors
/// [`OpenError`]: of the profile, with file, line and key, or of the backend.
pub async fn open(name_or_path: &str) -> Result<Platform, OpenError> {
    let platform = Platform::open(Profile::load(name_or_path)?, Purpose::Writing).await?;
    platform.ensure_topics().await?;
    Ok(platform)
}

/// Opens a profile for reading: makes nothing and locks nothing, so that it works beside a program that writes.
///
/// # Errors
/// As for [`open`]; [`ErrorKind::NotFound`](eb_contract::ErrorKind::NotFound) where nothing has been written yet.
pub async fn open_reading(name_or_path: &str) -> Result<Platform, OpenError> {
    Platform::open(Profile::load(name_or_path)?, Purpose::Reading).await
}

/// Open handles of everything that a profile names. Cheap parts are open; the gate opens when it is asked for.
pub struct Platform {
    profile: Profile,
    purpose: Purpose,
    bus: Bus,
    checkpoints: Arc<dyn CheckpointStore>,
    gate: OnceCell<gate::OpenGate>,
}

impl Platform {
    /// Opens a profile that was loaded before. For [`Purpose::Writing`] follow with [`Platform::ensure_topics`].
    ///
    /// # Errors
    /// As for [`open`].
    pub async fn open(profile: Profile, purpose: Purpose) -> Result<Self, OpenError> {
        let bus = backend::open_bus(&profile, purpose).await?;
        let checkpoints = backend::open_checkpoints(&profile)?;
        Ok(Self { profile, purpose, bus, checkpoints, gate: OnceCell::new() })
    }

    /// As [`open`] or [`open_reading`], with variables from elsewhere than the process.
    ///
    /// # Errors
    /// As for [`open`].
    pub async fn open_with(name_or_path: &str, purpose: Purpose, env: &Env) -> Result<Self, OpenError> {
        let platform = Self::open(Profile::load_with(name_or_path, env)?, purpose).await?;
        if purpose == Purpose::Writing {
            platform.ensure_topics().await?;
        }
        Ok(platform)
    }

    /// The profile that it was opened from, with its notices.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The bus's writing side. What is published here passes no gate: it is for facts that were admitted already, such as in a copy.
    #[must_use]
    pub fn publisher(&self) -> Arc<dyn EventBusPublisher> {
        self.bus.publisher.clone()
    }

    /// The bus's reading side.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn EventBusReader> {
        self.bus.reader.clone()
    }

    /// Makes topics.
    #[must_use]
    pub fn admin(&self) -> Arc<dyn EventBusAdmin> {
        self.bus.admin.clone()
    }

    /// The checkpoints of consumers.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        self.checkpoints.clone()
    }

    /// What was quarantined, for reading: beside a gate, too, also one of another process. Each call opens it anew.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](eb_contract::ErrorKind::NotFound) where no gate has been open yet; otherwise why it cannot be read.
    pub async fn quarantine(&self) -> Result<Arc<dyn QuarantineStore>, OpenError> {
        let evidence = backend::open_quarantine_bus(&self.profile, Purpose::Reading).await?;
        Ok(Arc::new(gate::quarantine_on(&evidence)?))
    }

    /// What the backend promises.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        self.bus.publisher.capabilities()
    }

    /// The phases of a bus that is made of two; `None` for any other.
    #[cfg(feature = "rollout")]
    #[must_use]
    pub fn rollout(&self) -> Option<eb_rollout::Control> {
        self.bus.rollout.as_ref().map(|(bus, _)| bus.control())
    }

    /// Makes the profile's topics that are missing, if it says `create_topics: true`. Gives back those it made.
    ///
    /// # Errors
    /// As for [`EventBusAdmin::create_topic`]: also for a topic that exists with another number of partitions, unless the
    /// backend's partitions may split and merge.
    pub async fn ensure_topics(&self) -> Result<Vec<Topic>, Error> {
        let wanted = &self.profile.wiring.event_bus;
        if !wanted.create_topics {
            return Ok(Vec::new());
        }
        let there = self.bus.reader.topics().await?;
        let mut made = Vec::new();
        for (topic, partitions) in &wanted.topics {
            let is_there = there.contains(topic);
            // Where partitions may split and merge, another number of them is nothing to wonder at.
            if is_there && self.capabilities().resharding {
                continue;
            }
            // Asked for also where it is there: a number of partitions that differs must not go unnoticed.
            self.bus.admin.create_topic(topic, *partitions).await?;
            if !is_there {
                made.push(topic.clone());
            }
        }
        Ok(made)
    }

    /// The gate, opened by the first call: takes the index's lock, reads what the index lacks from the log, and from then on the
    /// process is the one that writes.
    ///
    /// Dropping the future leaves the gate unopened; the next call opens it.
    ///
    /// # Errors
    /// As for [`Gate::open`]; [`ErrorKind::Locked`](eb_contract::ErrorKind::Locked) while another process has it. A platform that was
    /// opened for reading has none.
    pub async fn gate(&self) -> Result<&Gate, OpenError> {
        if self.purpose == Purpose::Reading {
            return Err(OpenError::Bus(Error::new(
                eb_contract::ErrorKind::Unsupported,
                "open gate",
                "the platform was opened for reading",
            )));
        }
        let open = || gate::OpenGate::open(&self.profile, &self.bus);
        Ok(&self.gate.get_or_try_init(open).await?.gate)
    }

    /// Finishes what is in flight and gives everything back: gate, index, bus. Dropping the platform instead loses nothing that was
    /// answered, but the next open has more to read.
    ///
    /// # Errors
    /// The first thing that could not be closed; the rest is closed all the same.
    pub async fn close(self) -> Result<(), OpenError> {
        let gate = match self.gate.into_inner() {
            Some(open) => open.close(&self.bus).await,
            None => Ok(()),
        };
        let publisher = self.bus.publisher.close().await;
        #[cfg(feature = "rollout")]
        if let Some((rollout, _)) = &self.bus.rollout {
            rollout.control().close().await;
        }
        let reader = self.bus.reader.close().await;
        gate?;
        publisher?;
        reader?;
        Ok(())
    }
}
