//! The in-process reference backend of the event bus, and reference stores: the contract, spelt out as plainly as
//! code can.
//!
//! # Model
//! A bus is a map from topic to partitions; a partition is a vector of records. Everything lies behind one lock:
//!
//! ```text
//! publish(…)  ── takes the lock at the call ──► append to the key's partition ──► EbRef
//! cursor.next ── takes the lock per read    ──► the records after its cut, or waits for a change and looks again
//! ```
//!
//! - **Order** is fixed at the call because the append happens in the call; the future merely carries the answer.
//! - **Offsets** are the record's index ([`OffsetKind::MemoryIndex`]), or with [`Offsets::Sparse`] irregularly spaced
//!   integers of up to 38 digits ([`OffsetKind::External`]), so that what must also work on a stream with gaps can be
//!   tried without one.
//! - **Partitions** own ranges of the 128-bit key hash, evenly split at first, so the key → partition rule is
//!   [`eb_contract::partition_for`] until a partition is split or merged ([`Faults::split`]).
//! - **Times** are the system clock's, held to `max(previous, now)` within a partition.
//!
//! # Durability
//! An ACK survives nothing but the closing of handles ([`Durability::Process`]): the data lives as long as any
//! [`MemoryBus`] over it. [`MemoryBus::reopen`] gives another opening of the same data, so that programs can be
//! tried across restarts.
//!
//! # Failure cases
//! | what | answer |
//! |---|---|
//! | an envelope over [`MemoryConfig::max_envelope_bytes`], or too many records in a batch | `TooLarge`, nothing appended |
//! | [`MemoryConfig::max_bytes`] would be exceeded | `StorageFull`, nothing appended |
//! | a topic or partition that is not there | `NotFound` |
//! | a cut of another offset kind, `End` of an open partition | `InvalidInput` |
//! | a cut with trimmed records behind it | `OutOfRange` naming the oldest left |
//! | a handle that was closed | `Closed` |
//! | anything a test asks for | see [`Faults`] |
//!
//! A dropped future leaves nothing behind but the append that its call has made.
//!
//! # Stores
//! [`MemoryCheckpointStore`] and [`MemoryAdmissionIndex`] are the same for consumer checkpoints and for the
//! admission index of one gate, [`MemoryRegisterStore`] for registers.
//!
//! [`OffsetKind::MemoryIndex`]: eb_contract::OffsetKind::MemoryIndex
//! [`OffsetKind::External`]: eb_contract::OffsetKind::External
//! [`Durability::Process`]: eb_contract::Durability::Process

mod admin;
mod admission;
mod bus;
mod checkpoint;
mod clock;
mod config;
mod dead_letters;
mod error;
mod faults;
mod leases;
mod log;
mod processed;
mod publisher;
mod reader;
mod register;
mod state;
mod transactions;

pub use admin::MemoryAdmin;
pub use admission::MemoryAdmissionIndex;
pub use bus::MemoryBus;
pub use checkpoint::{CommitMode, MemoryCheckpointStore, ResetHistory};
pub use clock::MemoryClock;
pub use config::{MemoryConfig, Offsets};
pub use dead_letters::MemoryDeadLetters;
pub use faults::{Fate, Faults};
pub use leases::MemoryLeases;
pub use processed::MemoryProcessed;
pub use publisher::MemoryPublisher;
pub use reader::{MemoryCursor, MemoryReader};
pub use register::MemoryRegisterStore;
pub use transactions::{Lost, MemoryTransaction, MemoryTransactions};
