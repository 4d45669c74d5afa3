//! The composition root: from a profile's YAML to an open bus, its stores and its gate.
//!
//! Everything above this crate speaks to traits; everything below it is one backend. Here, and only here, a name in a profile becomes a backend.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let platform = eb_profile::open("local").await?;
//! let receipt = platform.gate().await?.admit(br#"{"event_id":"e-1"}"#.to_vec()).await?;
//! println!("{:?}", receipt.decision);
//! platform.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The profile
//! One YAML map, at most 256 KiB and 8 deep, without lists, anchors, aliases, tags or a second document. Keys that are not known are errors
//! that suggest the nearest known one.
//!
//! | key | value | |
//! |---|---|---|
//! | `profile_id` | 1–64 of `[A-Za-z0-9._-]` | required |
//! | `policy.policy_rev` | the policy's revision, as receipts name it | required |
//! | `policy.partitioning_profiles_ref`, `policy.class_map_ref`, `policy.schema_policy_ref` | files below the config root; payload schemas lie below its `schemas/` | required |
//! | `wiring.event_bus_kind` | `file`, `memory` (`kinesis`, `redis` in later releases) | required |
//! | `wiring.event_bus.root` | a file bus's folder | for `file` |
//! | `wiring.event_bus.topics.<name>` | number of partitions, 1–10,000 | |
//! | `wiring.event_bus.create_topics` | make missing topics when opened for writing | `false` |
//! | `wiring.event_bus.max_envelope_bytes` | 1 KiB–16 MiB | 1 MiB |
//! | `wiring.event_bus.preallocate_bytes` | for `file`: blank lines written ahead of the records, 0–1 GiB; a lone publisher gains most | 0 |
//! | `wiring.checkpoint_store.kind` | `file`, `memory` (`postgres` in a later release) | required |
//! | `wiring.checkpoint_store.root` | for `file`: checkpoints lie below its `checkpoints/` | the bus's root |
//! | `wiring.checkpoint_store.url` | for `postgres`; a secret | for `postgres` |
//! | `wiring.admission_index.kind` | `embedded`, `memory` (`postgres` in a later release) | required |
//! | `wiring.admission_index.path` | for `embedded`: its folder; each kind of bus has its own below it | for `embedded` |
//! | `wiring.admission_index.max_lag` | records that it may be behind the log, 1,000–1,000,000 | 100,000 |
//! | `wiring.admission_index.cache_bytes` | memory for what was read from disk, 1 MiB–64 GiB | 64 MiB |
//! | `wiring.admission_index.url` | for `postgres`; a secret | for `postgres` |
//! | `wiring.quarantine.kind` | `file`, `memory` | required |
//! | `wiring.quarantine.root` | for `file`: the folder of a bus of its own, topic [`QUARANTINE_TOPIC`] | for `file` |
//!
//! With `event_bus_kind: memory` the checkpoint store and the index must be in memory too: they would outlive what they refer to.
//!
//! ## Variables
//! `${VAR}` and `${VAR:-default}` stand for environment variables in any value, also in numbers; `$${` is a literal `${`. A variable that is
//! not set and has no default is an error that names it. What a variable holds is not looked at again.
//!
//! ## The rollback switch
//! `EVENT_BUS_KIND` in the environment ([`KIND_OVERRIDE`]) overrides `event_bus_kind`, and [`Profile::notices`] says so. The settings of the
//! kind it switches to may stand in the profile beside those of the kind it switches from. Switched to `memory`, checkpoints and index are kept in memory
//! too.
//!
//! ## Secrets
//! The values of keys that hold secrets, and every value in which a variable takes part whose name says that it holds one
//! (`…PASSWORD…`, `…SECRET…`, `…TOKEN…`, `…CREDENTIAL…`, `…_KEY`), are masked in [`Profile::settings`], in errors and in `Debug`.
//!
//! # Finding profiles and files
//! | given | profile | config root (policies) | relative data paths start at |
//! |---|---|---|---|
//! | a path (holds a `/`, or ends in `.yaml`) | that file | two above a folder `platform/profiles`, else the file's folder | the current folder |
//! | a name, `EB_CONFIG_DIR` set | `$EB_CONFIG_DIR/platform/profiles/<name>.yaml`, nothing else | `$EB_CONFIG_DIR` | the current folder |
//! | a name | `config/platform/profiles/<name>.yaml` here or in the nearest folder above | that `config` | the folder that holds `config` |
//! | `local`, and none of these | the built-in copy | the built-in policies | the current folder |
//!
//! # Failure
//! A [`ProfileError`] names file, line, column and key, and says what to do. Opening for reading makes nothing and locks nothing. Opening for writing makes
//! folders and topics, each whole or not at all; the one lock that opening takes is the admission index's, with the first [`Platform::gate`].
//! A partition is locked when it is first published to.

mod backend;
mod builtin;
mod error;
mod gate;
#[cfg(feature = "file")]
mod inline;
mod interpolate;
mod kinesis;
mod locate;
mod model;
mod open;
mod postgres;
mod secret;
mod section;
mod stores;
mod wiring;
mod yaml;

pub use backend::Purpose;
/// Checking and repairing a file bus: for `eb verify`.
#[cfg(feature = "file")]
pub use eb_file::verify as file_verify;
pub use error::{OpenError, Place, ProfileError};
pub use gate::QUARANTINE_TOPIC;
pub use interpolate::{Env, MAX_EXPANDED_BYTES, VariableUse};
pub use kinesis::{KinesisCredentials, KinesisPublish, KinesisRead, KinesisSettings};
pub use locate::{CONFIG_DIR, ProfileSource};
pub use model::{
    AdmissionIndexConfig, BusKind, CheckpointStoreConfig, EventBusConfig, KIND_OVERRIDE, PolicyConfig,
    PolicyRef, Profile, QuarantineConfig, Wiring,
};
pub use open::{Platform, open, open_reading};
pub use postgres::{PostgresSettings, PostgresTls};
pub use secret::Secret;
pub use section::{Origin, Setting};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
