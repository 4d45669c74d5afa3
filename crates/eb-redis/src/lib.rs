//! The event bus on Redis Streams, on one Redis server of version 7.0 or newer.
//!
//! # Mapping
//! | contract | Redis |
//! |---|---|
//! | bus | all keys that begin with `{prefix}:`; the braces put them into one hash slot, so that scripts may touch several |
//! | which gates had the bus last | the hash `{prefix}:gate`; see [`RedisBus::claim`] |
//! | the list of topics | the set `{prefix}:topics` |
//! | topic | the hash `{prefix}:t:<topic>`: `partitions`, `incarnation` (random, made with it), and what was trimmed |
//! | partition | the stream `{prefix}:s:<topic>:<n>` |
//! | record | one entry with two fields: `k` the partition key, `e` the envelope, byte for byte |
//! | offset | the entry's id, `<milliseconds>-<sequence>`, compared as two integers |
//! | key → partition | [`eb_contract::partition_for`] |
//! | `published_at_utc` | the id's milliseconds: the server's clock, held by the server so that ids always rise |
//! | ACK | the answer to the script that appended the record, which the server sends after its `fsync` |
//!
//! A topic name has no colon, so no topic's keys are another's.
//!
//! # What the server must be
//! With `appendfsync always` the server writes and syncs its append-only file before it sends the answers of an
//! event-loop turn, and ends itself when that fails: an answer is an ACK. Opening reads `INFO` and `CONFIG GET` and
//! refuses with one line that says what to set, unless all of these hold:
//!
//! | demanded | because otherwise |
//! |---|---|
//! | `appendonly yes`, `appendfsync always` | a crash takes up to everything, or the last second |
//! | `no-appendfsync-on-rewrite no` | nothing is synced while the file is rewritten |
//! | the append-only file is complete: not just being made, nor being rewritten after a setting was changed, for then it may have been switched off | a crash takes what the rewrite has not finished |
//! | `maxmemory 0`, or a policy that evicts nothing without a time to live | memory pressure deletes whole streams |
//! | no replicas, no Cluster | a failover promotes a server that may not have the newest ACKs |
//! | the user may run `CONFIG GET` | nobody knows |
//!
//! With [`accept_weaker_ack`](RedisConfig::accept_weaker_ack) it opens all the same: the capabilities then say
//! [`Durability::Weaker`](eb_contract::Durability::Weaker), and the notes say what a crash can take. Settings may change
//! while the bus is open: they are read again on every connection, by every `probe`, and **the three that make an answer
//! an ACK travel with every append**, behind it in the same pipeline, with the state of the append-only file. An append that finds them changed is answered with
//! effect unknown, and none is sent until they are right. Switching the file off and on again starts a rewrite, and until it is done
//! what is appended goes where a restart does not look. No answer of the server tells that rewrite from any other; so the first append that meets a rewrite
//! asks whether `CONFIG SET` was run since the file was last seen to be on without one, and if so, is answered with effect unknown.
//! What nobody sees is a setting that is changed in the very turn of the server's loop in which a record is appended, behind it.
//!
//! Not offered: `WAITAOF` (Redis 7.2) in place of `appendfsync always`, because readers would see what is not synced yet;
//! following redirections of a Cluster, and asking Sentinels. Name the primary, or an address that leads to it.
//!
//! # Publishing
//! `publish` puts the record into the line of its partition, which fixes its place, and returns. Each partition has one
//! append under way at a time; what gathers meanwhile is the next group. A group is one Lua script, so it is applied as a
//! whole and in order, and it stops at the first entry that the server refuses. The script checks, before it appends:
//!
//! - the topic's hash is there and has the incarnation that was known when the line was opened;
//! - the stream's last id is not below the last one that was ACKed here. Data is lost behind an unbroken connection, too: by
//!   `REPLICAOF` to an older copy and back, by `RESTORE`, by `XSETID`. Looking costs the server about 10 µs an append of small records and, since `XINFO STREAM`
//!   copies the first entry and the last, 0.3 ms where they have 100 KB.
//!
//! `XADD` runs with `NOMKSTREAM`: nothing but `create_topic` makes a stream.
//!
//! | what came back | the group's records | later records of their keys |
//! |---|---|---|
//! | ids | ACKed | go on |
//! | no connection, `LOADING`, `READONLY`, `MISCONF`: nothing was sent or run | wait, and are tried again for [`give_up_after`](PublishConfig::give_up_after); then fail, effect none | in the same batch `NotAttempted` |
//! | `OOM` | `StorageFull`, effect none; what the script had appended before is ACKed | in the same batch `NotAttempted` |
//! | **the answer is lost**: a timeout, a cut connection | **effect unknown**, not sent again | called for before the answer: `NotAttempted` |
//! | the settings were found changed behind the append | `Unavailable`, effect unknown | as above |
//! | the hash or the stream is gone, another incarnation, a last id below our last ACK, an id that does not rise | the partition is **poisoned**: `FactsMissing`, and every later call on it `Poisoned` until the bus is opened anew | |
//!
//! A lost append must not land behind a later record of its key. So before anything else is sent, the new connection
//! ends the old one on the server (`CLIENT KILL ID`): the lost append has then been applied, or never will be. A server
//! that was restarted has no old connection.
//!
//! ## Several gates
//! Several publishers may append to one topic; the server orders them. Several *gates* may admit only where they share
//! their admission index: one that does not know what another admits would admit it again. [`RedisBus::claim`] says what a
//! gate is, and the server's list of clients says who else is there: a gate alone excludes every other, by name and
//! address, and one whose connection broke goes on only if no other has been there since.
//!
//! ## Memory, cancellation, the end
//! A publisher holds [`max_buffered_bytes`](PublishConfig::max_buffered_bytes) of records, and one call's more at most;
//! their futures are pending. Beyond that `publish` answers `Throttled` with no effect. Dropping a future withdraws
//! nothing and leaves nothing half done. Dropping the publisher is closing it: what was called for is finished in the
//! background. If the runtime ends first, unanswered records are answered `Closed`, effect unknown.
//!
//! # Reading
//! A read is one transaction of `XRANGE`, `XINFO STREAM` and the topic's hash, so that records, horizon, head and
//! incarnation are of one moment. What is read is synced: the server sends answers to reads after the sync, too.
//! `XRANGE` knows no limit of bytes: how many records are asked for follows from what those before measured, and after a read during which the connection broke it is a quarter,
//! so that an answer too large for the server's `client-output-buffer-limit` comes in parts.
//! At the head a read with `wait` blocks in `XREAD BLOCK` on a connection of its own, or, when all of
//! [`waiting_connections`](ReadConfig::waiting_connections) are taken, looks again every
//! [`poll_every`](ReadConfig::poll_every).
//!
//! ## The horizon
//! [`RedisAdmin::trim`] trims and writes down up to where, in one script. Anything else that deletes (`XTRIM` by hand, a
//! `MAXLEN`, `XDEL`) is found by comparing the stream's `entries-added` with its length, and then nobody knows what
//! exactly is gone:
//!
//! | deleted by | a cut is out of range when |
//! |---|---|
//! | nothing | never |
//! | `RedisAdmin::trim` alone | a trimmed record lies behind it: exact |
//! | something else, at the front | it lies before the oldest entry left, even where nothing may be missing |
//! | `XDEL` in the middle | it lies before `max-deleted-entry-id`: the hole is never stepped over; `Earliest`, too, is refused then, naming the first entry behind the hole |
//!
//! # Facts that are gone
//! A cut `After(k)` says that `k` was there. If the stream's last id is below `k`, or the topic's hash has another
//! incarnation than when the cursor was made, or the hash or a stream of it is gone, reading answers `FactsMissing`.
//!
//! # Consumer groups
//! [`RedisGroups`] hands records to the members of a group, each to one of them, until it is acknowledged. A record that was deleted before anybody was
//! handed it, or before it was acknowledged, is out of range: the server's own commands step over both in silence. With one
//! active member a partition's records come in the log's order.
//!
//! # Rights of an ACL user
//! `~{prefix}:* +@connection +info +config|get +client|id +client|kill +eval +evalsha +script|load +multi +exec +hget
//! +hmget +hset +sadd +smembers +exists +xadd +xtrim +xrange +xrevrange +xread +xlen +xinfo|stream +xgroup|create +xgroup|destroy`
//! (`prefix` with its braces); for consumer groups also `+xreadgroup +xack +xclaim +xpending +xinfo|groups`.
//!
//! # Why the `redis` crate, and how much of it
//! Its codec, its URL parser and its multiplexed connection are used; its connecting is not. Streams are made here so
//! that TLS uses ring with the certificates that the config names, and so that bytes written to the socket are counted:
//! that tells an append that was never sent (effect none) from one whose answer is lost (effect unknown).

mod admin;
mod bus;
mod claim;
mod config;
mod error;
mod groups;
mod keys;
mod link;
mod marks;
mod publisher;
mod reader;
mod reply;
mod scripts;
mod settings;
mod tls;
mod topics;
mod transport;

pub use admin::RedisAdmin;
pub use bus::{RedisBus, capabilities};
pub use claim::GateClaim;
pub use config::{PublishConfig, ReadConfig, RedisConfig, RedisUrl, Timeouts, TlsConfig};
pub use groups::RedisGroups;
pub use publisher::RedisPublisher;
pub use reader::RedisReader;
