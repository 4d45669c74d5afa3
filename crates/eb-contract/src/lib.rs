//! The contract of the event bus: the types, errors and traits that every backend, store, gate and consumer
//! shares. No I/O and no runtime live here.
//!
//! # The laws a backend signs
//! 1. **Bytes in, bytes out.** A bus never validates, transforms, routes or dedupes: the bytes of an
//!    [`EnvelopeRef`] come back exactly as they went in, and the same envelope published twice is two records.
//! 2. **An ACK is a durable append at a stable position.** An [`EbRef`] exists only after the bytes would survive
//!    a power cut, and its position is never given to another record.
//! 3. **Order per partition key**, fixed when `publish` is *called*, not when its future is polled. A record of a
//!    key is sent only after the earlier one's ACK or within one atomic append; after a final failure the later
//!    ones of that key in the batch answer [`ErrorKind::NotAttempted`].
//! 4. **Checkpoints are cuts** ([`Cut`]) between what is processed and what is not.
//! 5. **Offsets are strings of a kind** on the wire and compare numerically within their kind only.
//! 6. **Nothing is lost quietly**: a read error is an error, never an empty batch.
//!
//! # Where things are
//! | module | holds |
//! |---|---|
//! | [`names`](Topic) | newtypes that cannot hold a bad value: [`Topic`], [`PartitionId`], [`PartitionKey`], [`ConsumerName`], [`BusIncarnation`] |
//! | offset, position | [`Offset`], [`OffsetKind`], [`Cut`], [`StartAt`] |
//! | envelope, record | [`EnvelopeRef`], [`PublishRecord`], [`Record`], [`ReadBatch`], [`EbRef`] |
//! | bus | [`EventBusPublisher`], [`EventBusReader`], [`Cursor`], [`EventBusAdmin`] and [`Capabilities`] |
//! | ext, tail | conveniences nobody implements: [`EventBusReaderExt`], [`TopicTail`] |
//! | group | [`EventBusGroups`]: consumer groups that a service keeps itself |
//! | [`stores`] | [`stores::CheckpointStore`], [`stores::AdmissionIndex`], [`stores::LeaseStore`], [`stores::ProcessedStore`], [`stores::DeadLetterStore`] |
//! | health | [`Health`]: how a gate or a consumer is |
//! | [`digest`] | digests of what a bus holds, equal on any backend that holds the same facts |
//! | error | [`Error`]: kind, may I retry, what happened |
//!
//! # Implementing a backend
//! Implement [`EventBusPublisher`], [`EventBusReader`], [`Cursor`] and [`EventBusAdmin`], declare honest
//! [`Capabilities`], and hand a factory to the conformance suite. Custom positions use
//! [`OffsetKind::External`].

mod bus;
mod capabilities;
pub mod digest;
mod eb_ref;
mod envelope;
mod error;
mod ext;
mod group;
mod health;
mod names;
mod offset;
mod partition;
mod position;
mod record;
pub mod stores;
mod tail;
mod timestamp;

pub use bus::{
    Cursor, EventBusAdmin, EventBusPublisher, EventBusReader, Head, PartitionInfo, TopicPartitions,
};
pub use capabilities::{Capabilities, Durability, KeyOrder};
pub use eb_ref::EbRef;
pub use envelope::{EnvelopeError, EnvelopeLimits, EnvelopeRef};
pub use error::{Effect, Error, ErrorKind, Result, Retry};
pub use ext::EventBusReaderExt;
pub use futures_core::future::BoxFuture;
pub use group::{Delivery, DeliveryLimit, EventBusGroups, GroupBacklog, GroupMember};
pub use health::{Health, HealthCheck, HealthStatus};
pub use names::{BusIncarnation, ConsumerName, InvalidName, PartitionId, PartitionKey, RegisterName, Topic};
pub use offset::{InvalidOffset, Offset, OffsetKind};
pub use partition::{key_hash, partition_for};
pub use position::{Cut, StartAt};
pub use record::{PublishRecord, ReadBatch, ReadLimit, ReadState, Record};
pub use tail::TopicTail;
pub use timestamp::{InvalidTimestamp, Timestamp};
