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
//! | `policy.partitioning_profiles_ref`, `policy.class_map_ref`, `policy.schema_policy_ref` | files below the config root; payload schemas and their lock lie below its `schemas/` | required |
//! | `wiring.event_bus_kind` | `file`, `memory`, `kinesis`, `redis` | required |
//! | `wiring.event_bus.root` | a file bus's folder | for `file` |
//! | `wiring.event_bus.topics.<name>` | number of partitions, 1–10,000 (`redis`: 4,096) | |
//! | `wiring.event_bus.create_topics` | make missing topics when opened for writing | `false` |
//! | `wiring.event_bus.max_envelope_bytes` | 1 KiB–16 MiB; no more than the bus takes | 1 MiB |
//! | `wiring.event_bus.preallocate_bytes` | for `file`: blank lines written ahead of the records, 0–1 GiB; a lone publisher gains most | 0 |
//! | `wiring.event_bus.reserve_bytes` | for `file`: the most room asked of the file system beyond a log's end, 0–1 GiB; large batches gain | 16 MiB |
//! | `wiring.event_bus.kinesis`, `.redis` | for the kind of that name: see below | for that kind |
//! | `wiring.checkpoint_store.kind` | `file`, `memory`, `postgres` | required |
//! | `wiring.checkpoint_store.root` | for `file`: checkpoints lie below its `checkpoints/` | the bus's root |
//! | `wiring.admission_index.kind` | `embedded`, `memory`, `postgres` (the one that several gates may share; on Redis a gate with another kind excludes every other) | required |
//! | `wiring.admission_index.path` | for `embedded`: its folder; each kind of bus has its own below it | for `embedded` |
//! | `wiring.admission_index.max_lag` | records that it may be behind the log, 1,000–1,000,000 | 100,000 |
//! | `wiring.admission_index.cache_bytes` | for `embedded`: memory for what was read from disk, 1 MiB–64 GiB | 64 MiB |
//! | `wiring.admission_index.gate` | for `postgres`: what the other gates call this one | the profile's id |
//! | `wiring.admission_index.lease_ms` | for `postgres`: how long a reservation of a gate that has gone keeps the others from looking into it | 30,000 |
//! | `wiring.quarantine.kind` | `file`, `memory` | required |
//! | `wiring.quarantine.root` | for `file`: the folder of a bus of its own, topic [`QUARANTINE_TOPIC`] | for `file` |
//! | `wiring.consumers.mode` | `required`: without its bus a consumer does not start; `degraded`: for development, it then runs on a bus in the process, loudly | `required` |
//! | `wiring.consumers.source` | `log`: any bus, from a checkpoint on; `groups`: the consumer groups that a Redis keeps | `log` |
//! | `wiring.consumers.lease_store.kind`, `.processed_store.kind`, `.dead_letter_store.kind` | `embedded`, `memory`, `postgres` (the database of the checkpoint store); beside the leases lie the notes of crashes | as the checkpoint store: `file` → `embedded` |
//! | `wiring.consumers.<store>.path` | for `embedded`: its folder | `consumers` below the checkpoint store's root |
//! | `wiring.consumers.retention.marks_hours` | how long marks are kept behind the checkpoint, 1–876,000 | 168 |
//!
//! A store with `kind: postgres` has besides:
//!
//! | key | value | default |
//! |---|---|---|
//! | `url` | `postgres://user:password@host:port/database`; a secret | required |
//! | `schema` | where the tables lie: `<schema>_<event_bus_kind>`, for positions of one kind of bus mean nothing in another | `event_bus` |
//! | `tls` | `by_address` (off on this machine, else verified, or as the address's `sslmode` says), `off`, `verified` | `by_address` |
//! | `ca_file` | for `verified`: a PEM file of the certificates to trust | those of the system |
//! | `migrations` | `apply`: tables are made and brought up to date when the store is first used; `verify`: refuse where that was not done | `apply` |
//! | `max_connections` | of this store, 1–1,000 | 8 |
//! | `pool_wait_ms`, `connect_timeout_ms`, `statement_timeout_ms`, `lock_timeout_ms` | milliseconds | 5,000, 10,000, 10,000, 5,000 |
//! | `allow_unsafe_server` | use a server without `fsync`, whose answers are not durable | `false` |
//!
//! The checkpoint store connects when it is first used, so that who only reads the bus needs no database; the index connects with the
//! gate. [`Profile::look_at_databases`] tries both and changes nothing.
//!
//! The section `kinesis` may be empty (`kinesis: {}`) for AWS with region and credentials from the environment:
//!
//! | key | value | default |
//! |---|---|---|
//! | `region` | | from the environment; `us-east-1` for a `http://` endpoint |
//! | `endpoint_url` | another address than AWS's own | |
//! | `credentials` | `chain` (variables, shared files, web identity, container, instance), `test` (meaningless ones, for emulators) | `test` for a `http://` endpoint, else `chain` |
//! | `stream_prefix` | put before a topic's name to make its stream's | |
//! | `streams.<topic>` | the stream of a topic that is called otherwise | |
//! | `ordering` | `strict` (at most one record of a key in flight), `batched` (no order of a key's records) | `strict` |
//! | `connect_timeout_ms`, `attempt_timeout_ms` | | 3,000, 10,000 |
//! | `publish.max_records_per_call`, `.max_bytes_per_call`, `.max_record_bytes` | the service's limits | 500, 5 MiB, 1 MiB |
//! | `publish.calls_in_flight`, `.max_buffered_bytes` | of a topic | 8, 64 MiB |
//! | `publish.shard_records_per_second`, `.shard_bytes_per_second` | pacing; 0 for both is none | 1,000, 1 MiB; none for a `http://` endpoint |
//! | `publish.give_up_after_ms` | how long a record may be refused, all attempts together | 30,000 |
//! | `read.max_records_per_call` | | 10,000 |
//! | `read.shard_calls_per_second`, `.shard_bytes_per_second` | pacing of all readers of the process; 0 for both is none | 5, 2,000,000; none for a `http://` endpoint |
//! | `read.idle_poll_ms` | how long a cursor at the head waits between two looks | 250; 25 for a `http://` endpoint |
//! | `read.shards_fresh_for_ms`, `.horizon_margin_ms`, `.retry_for_ms` | | 30,000, 1,800,000, 10,000 |
//!
//! The section `redis`:
//!
//! | key | value | default |
//! |---|---|---|
//! | `url` | `redis[s]://[user[:password]@]host[:port][/database]` (the user is one of the server's ACL; `rediss` is encrypted), or `unix:///path`; a secret | required |
//! | `stream_prefix` | what all keys begin with, in braces: buses of different prefixes share a server | `eb` |
//! | `accept_weaker_ack` | open also where a crash of the server can take ACKed records: `appendfsync everysec`, replicas, Sentinel, Cluster. The capabilities then say `weaker`, and the notes of `eb profile check` what can be lost | `false`: such a server is refused |
//! | `ca_file` | for `rediss://`: a PEM file of the certificates to trust | those of the system |
//! | `client_certificate_file`, `client_key_file` | for `rediss://`: who we are, where the server asks | |
//! | `connect_timeout_ms` | until a connection is made and the server's settings are checked | 3,000 |
//! | `answer_timeout_ms` | a publish without an answer by then has an unknown outcome | 10,000 |
//! | `gate_timeout_ms` | a gate that has said nothing for so long keeps no other out; the same for all of a bus | 30,000 |
//! | `publish.max_records_per_group`, `.max_bytes_per_group` | how deep a partition's appends are pipelined: what gathers while one is under way goes out as the next | 512, 1 MiB |
//! | `publish.max_buffered_bytes` | of all topics; a publish beyond it is `Throttled` | 64 MiB |
//! | `publish.give_up_after_ms` | how long a publish waits for a server that is away, before it fails with no effect | 5,000 |
//! | `read.waiting_connections`, `.poll_every_ms` | how many reads wait at the head on a connection of their own, and how often the others look | 16, 20 |
//!
//! `wiring.event_bus.max_envelope_bytes` is the limit of the Redis bus, too.
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
//! too; stores in Postgres and the embedded index have a place for each kind.
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
//! | `local`, `dev_local`, `dev_redis`, and none of these | the built-in copy | the built-in policies | the current folder |
//!
//! # Failure
//! A [`ProfileError`] names file, line, column and key, and says what to do. Opening for reading makes nothing and locks nothing. Opening for writing makes
//! folders and topics, each whole or not at all; the one lock that opening takes is the admission index's, with the first [`Platform::gate`].
//! A partition is locked when it is first published to.

mod backend;
mod builtin;
mod consumer;
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
mod redis;
mod rollout;
mod secret;
mod section;
mod stores;
mod wiring;
mod yaml;

pub use backend::Purpose;
pub use builtin::built_in_schemas;
pub use consumer::{
    ConsumerMode, ConsumerSourceKind, ConsumerStoreConfig, Consumers, ConsumersConfig, open_consumers,
    open_consumers_with,
};
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
pub use redis::{RedisPublish, RedisRead, RedisSettings, RedisTls};
pub use rollout::{RolloutSettings, RolloutSide, RolloutState, RolloutTriggers};
pub use secret::Secret;
pub use section::{Origin, Setting};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
