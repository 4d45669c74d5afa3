//! Partitioning profiles: which stream and which key an event gets.

use std::collections::BTreeMap;

use canonical_envelope::{Envelope, KeyPath};
use eb_contract::{PartitionKey, Topic};
use serde::Deserialize;
use serde_saphyr::Spanned;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::yaml::{self, ConfigError};

/// All profiles of a file.
#[derive(Debug, Clone)]
pub struct PartitioningProfiles {
    profiles: BTreeMap<String, PartitioningProfile>,
}

/// One profile.
#[derive(Debug, Clone)]
pub struct PartitioningProfile {
    id: String,
    stream: Topic,
    key_precedence: Vec<KeyPath>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<String>,
    profiles: BTreeMap<String, Profile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    #[serde(default)]
    #[allow(dead_code, reason = "for those who read the file")]
    description: String,
    stream: Spanned<String>,
    key_precedence: Spanned<Vec<Spanned<String>>>,
    hash_algo: Spanned<String>,
}

impl PartitioningProfiles {
    /// Reads a file. `name` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of what is wrong.
    pub fn from_yaml(name: &str, bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: File = yaml::parse(name, bytes)?;
        super::check_version(name, &file.version)?;
        if file.profiles.is_empty() {
            return Err(ConfigError::new(name, "no profiles").key("profiles"));
        }
        let profiles = file.profiles.into_iter().map(|(id, profile)| {
            let at = |key: &str| format!("profiles.{id}.{key}");
            let stream = Topic::new(&profile.stream.value).map_err(|e| {
                ConfigError::new(name, e.to_string()).key(at("stream")).at(profile.stream.referenced)
            })?;
            if profile.key_precedence.value.is_empty() {
                return Err(ConfigError::new(name, "at least one path is needed")
                    .key(at("key_precedence"))
                    .at(profile.key_precedence.referenced));
            }
            let paths = profile.key_precedence.value.iter().map(|path| {
                path.value.parse::<KeyPath>().map_err(|e| {
                    ConfigError::new(name, e.to_string()).key(at("key_precedence")).at(path.referenced)
                })
            });
            let key_precedence = paths.collect::<Result<_, _>>()?;
            if profile.hash_algo.value != "sha256" {
                return Err(ConfigError::new(
                    name,
                    format!("unknown algorithm `{}`; only sha256 is known", profile.hash_algo.value),
                )
                .key(at("hash_algo"))
                .at(profile.hash_algo.referenced));
            }
            Ok((id.clone(), PartitioningProfile { id, stream, key_precedence }))
        });
        Ok(Self { profiles: profiles.collect::<Result<_, _>>()? })
    }

    /// The profile of a class: the one whose id ends in `.<class>`.
    ///
    /// # Errors
    /// With what is wrong in words where there is none, or more than one.
    pub fn for_class(&self, class: &str) -> Result<&PartitioningProfile, String> {
        let mut of_class =
            self.profiles.values().filter(|p| p.id.rsplit_once('.').is_some_and(|(_, c)| c == class));
        match (of_class.next(), of_class.next()) {
            (Some(profile), None) => Ok(profile),
            (None, _) => Err(format!(
                "class `{class}` has no partitioning profile; add one whose id ends in `.{class}`"
            )),
            (Some(a), Some(b)) => {
                Err(format!("class `{class}` has two partitioning profiles, {} and {}", a.id, b.id))
            }
        }
    }

    /// The first profile that publishes to a stream.
    pub(crate) fn for_stream(&self, stream: &Topic) -> Option<&PartitioningProfile> {
        self.profiles.values().find(|p| p.stream == *stream)
    }

    /// All streams that events may be published to, sorted, each once.
    #[must_use]
    pub fn streams(&self) -> Vec<Topic> {
        let mut streams: Vec<_> = self.profiles.values().map(|p| p.stream.clone()).collect();
        streams.sort();
        streams.dedup();
        streams
    }
}

impl PartitioningProfile {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The stream that its events are published to.
    #[must_use]
    pub fn stream(&self) -> &Topic {
        &self.stream
    }

    /// The paths that are tried for a key, in order.
    #[must_use]
    pub fn key_precedence(&self) -> &[KeyPath] {
        &self.key_precedence
    }

    /// The key of an event: the first path with a non-empty scalar, numbers and booleans as in compact JSON. One
    /// of more than 256 characters is replaced by the lower-case hexadecimal SHA-256 of its bytes. `None` where no
    /// path leads to one.
    #[must_use]
    pub fn partition_key(&self, envelope: &Envelope<'_>) -> Option<PartitionKey> {
        let found = self.key_precedence.iter().find_map(|path| envelope.scalar(path)?.into_key())?;
        match PartitionKey::new(&*found) {
            Ok(key) => Some(key),
            // Not empty, so it is too long.
            Err(_) => PartitionKey::new(hex(&Sha256::digest(found.as_bytes()))).ok(),
        }
    }
}
