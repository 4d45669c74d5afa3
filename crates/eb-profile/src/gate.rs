//! The gate of a profile.

use std::sync::Arc;

use canonical_envelope::Limits;
use eb_contract::stores::AdmissionIndex;
use eb_contract::{Error, ErrorKind, Topic};
use ig_gate::policy::{PolicyFile, PolicyFiles};
use ig_gate::{Gate, GateConfig, GateParts, LogQuarantine, Policy};

use crate::backend::{self, Bus, Purpose};
use crate::error::{OpenError, ProfileError};
use crate::model::{PolicyRef, Profile};

/// The topic of evidence, on a bus of its own.
pub const QUARANTINE_TOPIC: &str = "ig.quarantine.v1";

const POLICY_ID: &str = "ig.policy";

/// Reads and checks the policy files of a profile.
pub(crate) fn load_policy(profile: &Profile) -> Result<Policy, OpenError> {
    let config = &profile.policy;
    let read = |reference: &PolicyRef| {
        profile.source.read(&reference.path).map_err(|what| {
            ProfileError::new(&profile.source.name(), what)
                .at(reference.at)
                .key(format!("policy.{}", reference.key))
                .advise(match profile.source.config_root() {
                    Some(root) => format!("references are paths below {}", root.display()),
                    None => "the built-in profile has its own policies only".to_owned(),
                })
        })
    };
    let partitioning = read(&config.partitioning_profiles_ref)?;
    let class_map = read(&config.class_map_ref)?;
    let schema_policy = read(&config.schema_policy_ref)?;
    let files = PolicyFiles {
        policy_id: POLICY_ID,
        revision: &config.policy_rev,
        partitioning: PolicyFile { name: &partitioning.0, bytes: &partitioning.1 },
        class_map: PolicyFile { name: &class_map.0, bytes: &class_map.1 },
        schema_policy: PolicyFile { name: &schema_policy.0, bytes: &schema_policy.1 },
    };
    let schemas =
        |reference: &str| profile.source.read(&format!("schemas/{reference}")).map(|(_, bytes)| bytes);
    Ok(Policy::load(files, &schemas)?)
}

/// An open gate and what it stands on.
pub(crate) struct OpenGate {
    pub(crate) gate: Gate,
    index: Arc<dyn AdmissionIndex>,
    evidence: Bus,
}

impl OpenGate {
    /// Opens index and quarantine, then the gate over them and the bus.
    pub(crate) async fn open(profile: &Profile, bus: &Bus) -> Result<Self, OpenError> {
        let policy = load_policy(profile)?;
        let evidence = backend::open_quarantine_bus(profile, Purpose::Writing).await?;
        evidence.admin.create_topic(&quarantine_topic()?, 1).await?;
        // What the bus would refuse is better refused with a reason in a receipt.
        let of_bus = bus.publisher.capabilities().max_envelope_bytes;
        let max_bytes = profile.wiring.event_bus.max_envelope_bytes.min(of_bus);
        let config =
            GateConfig { limits: Limits::new(max_bytes, Limits::DEFAULT_DEPTH), ..GateConfig::default() };
        let quarantine = quarantine_on(&evidence)?;
        let index = backend::open_index(profile).await?;
        let parts = GateParts {
            publisher: bus.publisher.clone(),
            reader: bus.reader.clone(),
            index: index.clone(),
            quarantine: Arc::new(quarantine),
            policy,
            config,
        };
        // Before the log is read: what others have admitted until now is found there.
        let opened = match bus.claim(&*index).await {
            Ok(()) => Gate::open(parts).await.map_err(OpenError::from),
            Err(e) => Err(e.into()),
        };
        match opened {
            Ok(gate) => Ok(Self { gate, index, evidence }),
            Err(e) => {
                // The failed opening says more than what closing could add; it must not keep locks, though.
                let _ = index.close().await;
                bus.give_up_claim().await;
                Err(e)
            }
        }
    }

    /// Closes all of it; gives back the first failure.
    pub(crate) async fn close(self, bus: &Bus) -> Result<(), OpenError> {
        let gate = self.gate.close().await;
        bus.give_up_claim().await;
        let index = self.index.close().await;
        let publisher = self.evidence.publisher.close().await;
        let reader = self.evidence.reader.close().await;
        gate?;
        index?;
        publisher?;
        reader?;
        Ok(())
    }
}

/// The evidence that lies on a bus.
pub(crate) fn quarantine_on(evidence: &Bus) -> Result<LogQuarantine, Error> {
    Ok(LogQuarantine::new(
        evidence.publisher.clone(),
        evidence.reader.clone(),
        quarantine_topic()?,
        LogQuarantine::DEFAULT_PREFIX_BYTES,
    ))
}

fn quarantine_topic() -> Result<Topic, Error> {
    Topic::new(QUARANTINE_TOPIC).map_err(|e| Error::new(ErrorKind::InvalidInput, "open gate", e.to_string()))
}
