//! Stores of the event bus in PostgreSQL: consumer checkpoints ([`PgCheckpointStore`]) and the admission index that
//! several gates share ([`PgAdmissionIndex`]). [`PgRegisterStore`] keeps small values that processes agree on.
//!
//! # What is durable, and when
//! Whatever is answered `Ok` was committed with `synchronous_commit` on, by a server that runs with `fsync` and
//! `full_page_writes` on; one that does not is refused on open. What survives the loss of the *server* is a matter of its
//! replication: set `synchronous_standby_names` there.
//!
//! The tables are described in `SCHEMA.md`, with the rights that they need. They are made and brought up to date by
//! embedded migrations ([`Migrations`]), in one transaction, by whichever program comes first.
//!
//! # Checkpoints
//! ```text
//! commit of one   ─ UPDATE … WHERE version, incarnation, lease and cut allow it ─► done, or:
//! commit of many  ─ BEGIN · lock the rows, in order · check all · write all · COMMIT ─► all or none
//! commit_in       ─ the same within the consumer's own transaction
//! ```
//! Offsets are `numeric` and compare as numbers in SQL as in the program, so an offset of 129 digits is no special case.
//!
//! # The admission index
//! ```text
//!            reserve                       publish              confirm
//! gate A ──► INSERT reservation, COMMIT ──► (the log) ──► INSERT entry, DELETE reservation, COMMIT
//! gate B ──► finds the reservation: in flight, ask again · finds the entry: admitted, there
//! ```
//! - A reservation is committed, with its start cuts, **before** it is answered, and so before anything is published
//!   under it. Of two gates that want a key one gets it: keys are unique.
//! - A confirmation stores the entry and deletes the reservation in one transaction, so a key is never for a moment
//!   neither. How a reservation that comes just then is answered is told in `admission/reserve.rs`.
//! - A gate that crashes leaves its reservations. They are listed by
//!   [`open_reservations`](eb_contract::stores::AdmissionIndex::open_reservations) at once, and their keys are in
//!   flight until they are settled, ended lease or not. From the end of their lease on, other gates may settle them:
//!   read the log from their start cuts, then apply what was found or, past the deadline,
//!   [`give_up`](eb_contract::stores::AdmissionIndex::give_up) what was not. `give_up` leaves one alone whose lease has
//!   not ended; [`release`](eb_contract::stores::AdmissionIndex::release) ends a gate's own alone.
//! - An entry never moves. A gate that is merely slow may find, on confirming, that another has admitted its key
//!   meanwhile: it is told which entry stands, and answers with that.
//! - Calls made at the same time share statements (see `admission/batch.rs`), so the cost of a commit is shared too.
//! - Ages and leases are measured by the database's clock alone. Gates' clocks need not agree.
//!
//! # What failures look like
//! | what happens | what follows |
//! |---|---|
//! | the connection breaks, or the server goes down | `Unavailable`, retry later. A checkpoint's commit whose answer was lost has [`Effect::Unknown`](eb_contract::Effect::Unknown): load it to see. Calls of the index are repeated by themselves a few times: each comes to the same when it is done twice |
//! | the server comes back | the next call connects anew. What was answered `Ok` is there |
//! | the server, or a lock, takes too long | `Timeout`; by the server's word nothing happened, without an answer the effect of a commit is unknown |
//! | all connections are in use | `Throttled` after [`PgConfig::pool_wait`] |
//! | the server is a standby, or read only | `Unavailable`, saying so |
//! | the disk is full | `StorageFull`, retry later |
//! | user, password, certificate, rights are wrong | `InvalidInput`, never retry (a refused certificate: `Unavailable` with the reason) |
//! | the schema is another program version's | `WrongVersion` on open |
//! | a row holds what no program of ours writes | `Corrupt`, naming the place |
//! | a future is dropped | the statement is done or not. A reservation whose answer nobody took is given out again to the same gate, or ends with its lease |
//!
//! The full table by SQLSTATE is in `error.rs`. Passwords are in no error, no `Debug` and no trace.
//!
//! # Connections
//! Each store has a pool of its own ([`PgConfig::max_connections`]). Encryption is TLS with verification or none
//! ([`Tls`]). A connection that failed or was given up on is closed, never handed on. A pooler in between must
//! keep sessions together (prepared statements and session settings are used).
//!
//! # Measured
//! `cargo run --release -p eb-checkpoint-pg --example stores_bench`: a Postgres 15 of this machine with `fsync` on, two
//! cores with much other work beside (so the ratios tell more than the rates); rounds take turns, medians of 15.
//!
//! | | a second | client, µs CPU each | bare statements of the same work | ratio |
//! |---|---|---|---|---|
//! | checkpoint commits, 1 at once | 141 | 88 | 153 prepared `UPDATE`s on the same pool | 0.92 |
//! | checkpoint commits, 8 at once | 946 | 46 | 821 | 1.15 |
//! | reservations, 2 callers of 500 keys | 24,000 | 1.9 | 54,000 rows in batched `INSERT`s | 0.45 |
//! | reserved and confirmed, the same | 17,400 | 2.4 | 54,000 | 0.32 |
//!
//! A reservation is more than its `INSERT`: it asks for the entry before and looks after, by two indexes.

mod admission;
mod checkpoint;
mod config;
mod consumer;
mod db;
mod error;
mod migrate;
mod position;
mod register;
mod text;
mod time;
mod tls;

pub use admission::{PgAdmissionIndex, PgIndexConfig};
pub use checkpoint::{PgCheckpointStore, ResetHistory};
pub use config::{Migrations, PgConfig, Tls};
pub use consumer::{PgDeadLetters, PgLeases, PgProcessed, PgTransaction};
pub use migrate::{SchemaState, check};
pub use register::PgRegisterStore;
