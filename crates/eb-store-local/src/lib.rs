//! Embedded stores of the event bus: the admission index of one gate, and registers that the processes of one machine
//! share ([`register`]), and what the consumers of one machine need: leases ([`leases`]), marks of what was handled ([`marks`]), dead
//! letters ([`letters`]), whose files FORMAT.md describes. This page is about the index.
//!
//! The index answers "was this event admitted, and where". It is a *view of the log*: all that is in it can be read
//! from the log again, and nothing in it is ever newer than the log. That decides how it is made.
//!
//! # How it works
//! - **In memory:** at most [`max_lag`](AdmissionIndexConfig::max_lag) admissions that are not on disk yet (the
//!   *tail*). They are asked first. When half of that many are there, when a checkpoint is committed and on close,
//!   a thread of the index writes them as one sorted table. When the tail is full, confirmations wait.
//! - **On disk:** an LSM tree, the engine of [fjall](https://docs.rs/fjall) without fjall's journal. The log is the
//!   journal. A batch becomes one new table that holds the entries, their number, the checkpoint, new topics
//!   and policies; it is written and synced, and then made part of the tree by one rename, itself synced. So **a
//!   checkpoint is on disk only together with every entry before it**, after any crash or power cut, and there is
//!   nothing to replay on open.
//! - A second thread merges tables. Filters (15 bits an entry) and block indexes stay in memory, so that an
//!   unknown key, the usual case, costs no disk access, and a known one a single block.
//! - **Reservations** are numbers: with one gate nobody else can be publishing a key, so one that was neither
//!   confirmed nor released can be reserved again, also right after a crash.
//!
//! The folder's layout is described in `admission/layout.rs`, keys and values in `admission/codec.rs`. An entry takes
//! 41 + 47 bytes with small numbers: key (1), hash of the event id (8), dedupe key (32); payload hash (32), time (8),
//! kind, topic, partition, offset. The event id's hash comes first, so that an event is found by its id alone.
//!
//! # What failures look like
//! | what happens | what follows |
//! |---|---|
//! | the process dies, or power fails | what was in the tail is gone; the stored checkpoint says from where the gate reads the log. A half-written table is not part of the tree and is removed on open |
//! | a batch cannot be written (disk full, I/O error) | it stays in the tail and is tried again twice a second; `commit_checkpoint` and `probe` answer the error (retry: later). When the tail is full, `confirm` answers it too. Nothing is forgotten: the log has it, and look-ups still find it |
//! | merging fails | look-ups slow down as tables pile up; `probe` answers the error, and the next batch tries again |
//! | a table, or the list of tables, is damaged | [`Corrupt`](eb_contract::ErrorKind::Corrupt), on open or at the read that meets it (each block and the list have checksums); found by a write or a merge, it ends the index's use until it is opened anew |
//! | another format | [`WrongVersion`](eb_contract::ErrorKind::WrongVersion) on open |
//! | the pointer to the tables is missing, or the tables as a whole | `Corrupt`: an index never starts empty over what it held, because a stream that expires does not tell the older part of it again |
//! | a second process opens it | [`Locked`](eb_contract::ErrorKind::Locked), naming the holder |
//!
//! `Corrupt` and `WrongVersion` say what to do: remove the index ([`EmbeddedAdmissionIndex::remove`]) and open it again;
//! the gate then rebuilds it from the log. Whether the log still holds what the index says (another
//! log, a log cut short) is for the gate to check, with the checkpoint's cuts and checksum.
//!
//! **The lag** after a crash is counted from the checkpoint, so the gate commits one at least every `max_lag / 2` records.
//! Each commit is a table of its own: do it by number of records (25,000, say), not once a second, and on close.
//!
//! # Blocking
//! [`reserve`](eb_contract::stores::AdmissionIndex::reserve), `get` and `confirm` work on the caller's thread: a miss
//! takes 0.5 µs (p99 1 µs) and a hit 3 µs (p99 9 µs) where the block is in a cache, which a hand-over to another thread
//! costs many times over. A duplicate whose block is in no cache waits for one read of 4 KiB. Everything that reads more
//! (`find_event`, `scan`, `apply` of more than 64 entries) runs on threads of the index. Opening blocks.
//!
//! # Why this engine
//! Measured with the work that this index has, on two cores with other work beside (figures vary by a factor of
//! two; written bytes and processor time hardly do): 40-byte random keys, 56-byte values, each insert
//! after a look-up that misses, a batch of 5,000 (3 million events) or 25,000 (10 million) synced with its checkpoint.
//!
//! | | events | events/s | CPU µs/event | written B/event | disk B/event | open | RSS MiB | miss µs p50/p99 | hit µs p50/p99 |
//! |---|---|---|---|---|---|---|---|---|---|
//! | **lsm-tree 3.1, tables written directly** | 10 M | 128,000 | 7.2 | 1,080 | 105 | 37 ms | 150 | 0.5 / 1.4 | 7 / 13 |
//! | the same, merged later (as it is here) | 3 M | 216,000 | 3.0 | 360 | 107 | 6 ms | 95 | 1.0 / 2.3 | 6 / 13 |
//! | fjall 3.1 (the same engine with its journal) | 10 M | 153,000 | 7.8 | 720 | 110 | 680 ms | 256 | 2.4 / 13 | 10 / 20 |
//! | redb 4.5 | 10 M | 26,000 | 22 | 4,100 | 164 | 1 ms | 89 | 4.5 / 9 | 5 / 8 |
//! | canopydb 0.2 | 10 M | 68,000 | 16 | 4,170 | 180 | 1 ms | 370 | 3.9 / 9 | 4 / 8 |
//! | heed 0.23 (LMDB) | 3 M | 52,000 | 11 | 40,300 | 179 | 0.1 ms | 547, mapped | 1.4 / 3 | 1.3 / 2 |
//! | rusqlite 0.41 (SQLite, WAL) | 3 M | 32,000 | 25 | 10,100 | 115 | 0.7 ms | 78 | 6 / 11 | 7 / 11 |
//!
//! With keys in random order a B-tree rewrites a page for each entry: redb and canopydb write 4 KB an event, LMDB 40,
//! SQLite 10, against under 1 KB here, and they fall below what a gate admits. LMDB's map counts as resident memory. fjall's
//! journal is up to 64 MB to replay on open, most of a second, and two key spaces in it can come back at different
//! moments unless every batch is synced; this index has the log and needs no other journal. lsm-tree is pure Rust
//! and part of fjall's releases (MIT or Apache-2.0, 3.1.10), builds in 13 s with about 30 small
//! crates; no C. RocksDB was left out for its build.
//!
//! What the engine does not do is done here: it reads its list of tables without verifying it (`layout.rs` does), it
//! answers some damage with a panic (caught, and turned into `Corrupt`), and it takes no lock. Only its documented
//! interface is used (`ingestion`, `get`, `range`, `prefix`, `compact`).
//!
//! `cargo run --release -p eb-store-local --example admission_index -- --events 10000000` measures the index itself.
//! Two runs, with the machine to itself (1 million events) and with three others wanting each core (10 million):
//!
//! | | 1 M, quiet | 10 M, crowded |
//! |---|---|---|
//! | reserve and confirm, groups of 64, events/s | 327,000 | 65,000 |
//! | processor time of everything, µs/event | 3.6 | 9.0 |
//! | a reservation that misses, µs p50 / p99 | 0.5 / 0.9 | 1.7 / 4.8 |
//! | a reservation that hits, µs p50 / p99 | 3.2 / 9.0 | 11 / 102 |
//! | bytes on disk for each event | 91 | 92 |
//! | open, ms | 1.3 | 22 |
//! | open 99,000 behind and apply these, ms (processor time) | 214 (180) | 739 (310) |
//! | resident while filling / largest, MiB | 82 / 181 | 174 / 334 |
//! | scan, µs/event (processor time) | 0.7 | 0.8 |

mod admission;
mod config;
mod error;
mod files;
mod host;
pub mod leases;
pub mod letters;
mod lock;
pub mod marks;
pub mod register;

pub use admission::{EmbeddedAdmissionIndex, IndexStats};
pub use config::AdmissionIndexConfig;
pub use host::{Clock, Host, SystemClock};
pub use leases::EmbeddedLeases;
pub use letters::EmbeddedDeadLetters;
pub use marks::{EmbeddedProcessed, MarksConfig};
pub use register::FileRegisterStore;
