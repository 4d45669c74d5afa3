//! The file bus: a durable, append-only log of JSON lines, one file per partition.
//!
//! [FORMAT.md](mod@format) fixes the bytes, what the disk is assumed to do, and the outcome of every kind of damage; read it
//! first. In short: an ACK is given after `fdatasync`; a torn tail is set aside, never deleted; damage to a record that was
//! synced is refused, naming file, line and byte.
//!
//! # Where things are
//! | module | job |
//! |---|---|
//! | [`mod@format`] | the bytes, without I/O: [`line`](format::line) (one record), [`sidecar`](format::sidecar) (watermark, index entries) |
//! | [`disk`] | the one way to the file system: [`disk::Disk`]; a test puts a faulty one underneath |
//! | [`layout`] | names of files, `bus.json` and `topic.json`: read, checked, created |
//! | [`scan`], [`assess`] | lines of a log in order, in large blocks; the judgement of the first bad one: what recovery, readers and `verify` share |
//! | `recovery`, `lock`, `index` | opening a log for writing: lock, check, set aside, write again; keeping the sidecar behind the writer |
//! | `publisher`, `batch` | the publishing handle: calls to partitions, answers to futures |
//! | `queue`, `writer`, `commit`, `reserve`, `watch` | calls become lines of a group; who writes it when; written, synced, answered, or undone; room ahead of the log; waiting awake for callers |
//! | `bus`, `config` | what all handles share; limits (blocking work runs on the threads of `eb-disk`) |
//! | `reader`, `cursor`, `horizon`, `seek`, `block` | reading: handles, how far one may see, look-ups by offset and time, blocks that records are slices of |
//! | [`verify`] | checking a bus, and repairing what may be repaired |
//! | [`checkpoints`] | consumer checkpoints as files |
//! | [`state`] | what writer and readers of one process share: how far the log is synced, and waiting for more |

pub mod assess;
mod batch;
mod block;
mod block_on;
mod bus;
pub mod checkpoints;
mod closing;
mod commit;
mod config;
mod cursor;
mod error;
pub mod format;
mod horizon;
mod host;
mod index;
pub mod layout;
mod lock;
mod publisher;
mod queue;
mod reader;
mod recovery;
mod reserve;
pub mod scan;
mod seek;
pub mod state;
mod timer;
pub mod verify;
mod watch;
mod writer;

pub use eb_disk as disk;
pub(crate) use eb_disk::offload;

pub use bus::{FileAdmin, FileBus};
pub use checkpoints::FileCheckpointStore;
pub use config::{FileBusConfig, InlineCommit};
pub use publisher::FilePublisher;
pub use reader::FileReader;
pub use recovery::{RecoveryReport, TornTail};
