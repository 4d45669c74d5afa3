//! What the gate decides by: partitioning profiles, class map and schema policy, as one revision.

mod class_map;
mod partitioning;
mod payload;
mod schema_policy;

use std::fmt::Write as _;

use eb_contract::Topic;
use eb_contract::stores::PolicyRev;
use serde_saphyr::Spanned;
use sha2::{Digest as _, Sha256};

pub use class_map::{Class, ClassMap, DEFAULT_CLASS, PINS};
pub use partitioning::{PartitioningProfile, PartitioningProfiles};
pub use schema_policy::{DefaultAction, SchemaPolicy, SchemaSource};

use crate::yaml::ConfigError;

/// One file of a policy, as it was read.
#[derive(Debug, Clone, Copy)]
pub struct PolicyFile<'f> {
    /// What errors call it, usually its path.
    pub name: &'f str,
    /// Its bytes.
    pub bytes: &'f [u8],
}

/// The files of a policy.
#[derive(Debug, Clone, Copy)]
pub struct PolicyFiles<'f> {
    /// The policy's name, such as `ig.policy`.
    pub policy_id: &'f str,
    /// Its revision, such as `v0`.
    pub revision: &'f str,
    /// `partitioning_profiles_v0.yaml`.
    pub partitioning: PolicyFile<'f>,
    /// `class_map_v0.yaml`.
    pub class_map: PolicyFile<'f>,
    /// `schema_policy_v0.yaml`.
    pub schema_policy: PolicyFile<'f>,
}

/// A policy, ready to decide.
#[derive(Debug, Clone)]
pub struct Policy {
    rev: PolicyRev,
    partitioning: PartitioningProfiles,
    class_map: ClassMap,
    schema: SchemaPolicy,
    /// By the place of the class in the class map.
    profiles: Vec<PartitioningProfile>,
}

impl Policy {
    /// Reads and checks all files together. `schemas` gives the payload schemas that the schema policy names.
    ///
    /// The content digest is SHA-256 over the three files in the order partitioning profiles, class map, schema
    /// policy, then the lock of the event schemas where the policy has one, each as `u64-BE length ‖ bytes`. Payload schemas take part
    /// through their digests in policy and lock.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and key.
    pub fn load(files: PolicyFiles<'_>, schemas: &SchemaSource<'_>) -> Result<Self, ConfigError> {
        let PolicyFiles { policy_id, revision, partitioning, class_map, schema_policy } = files;
        let profiles = PartitioningProfiles::from_yaml(partitioning.name, partitioning.bytes)?;
        let classes = ClassMap::from_yaml(class_map.name, class_map.bytes)?;
        let schema = SchemaPolicy::from_yaml(schema_policy.name, schema_policy.bytes, &classes, schemas)?;
        let by_class = classes.classes().iter().map(|class| {
            let profile = profiles.for_class(class.name());
            profile.cloned().map_err(|e| ConfigError::new(partitioning.name, e).key("profiles"))
        });
        let by_class = by_class.collect::<Result<_, _>>()?;
        let mut digest = Sha256::new();
        let files = [partitioning, class_map, schema_policy].map(|file| file.bytes);
        for bytes in files.into_iter().chain(schema.lock()) {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        let rev = PolicyRev {
            policy_id: policy_id.to_owned(),
            revision: revision.to_owned(),
            content_digest: hex(&digest.finalize()),
        };
        Ok(Self { rev, partitioning: profiles, class_map: classes, schema, profiles: by_class })
    }

    /// Which policy this is.
    #[must_use]
    pub fn rev(&self) -> &PolicyRev {
        &self.rev
    }

    /// Its class map.
    #[must_use]
    pub fn class_map(&self) -> &ClassMap {
        &self.class_map
    }

    /// Its schema policy.
    #[must_use]
    pub fn schema_policy(&self) -> &SchemaPolicy {
        &self.schema
    }

    /// Its partitioning profiles.
    #[must_use]
    pub fn partitioning(&self) -> &PartitioningProfiles {
        &self.partitioning
    }

    /// All streams that it publishes to, sorted.
    #[must_use]
    pub fn streams(&self) -> Vec<Topic> {
        self.partitioning.streams()
    }

    /// Class and partitioning profile of an event type.
    #[must_use]
    pub fn route(&self, event_type: &str) -> (&Class, &PartitioningProfile) {
        let index = self.class_map.index_of(event_type);
        (&self.class_map.classes()[index], &self.profiles[index])
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn check_version(name: &str, version: &Spanned<String>) -> Result<(), ConfigError> {
    if version.value == "v0" {
        return Ok(());
    }
    let message = format!("`{}` is not known; this program reads v0", version.value);
    Err(ConfigError::new(name, message).key("version").at(version.referenced))
}
