//! The event bus on Amazon Kinesis Data Streams, or on what speaks its protocol.
//!
//! # Mapping
//! | contract | Kinesis |
//! |---|---|
//! | topic | a stream: prefix and topic name, or a name of its own ([`StreamNames`]) |
//! | partition | a shard, by the number in its id; the id itself is [`PartitionInfo::native_id`](eb_contract::PartitionInfo::native_id) |
//! | offset | the sequence number, an integer of up to 129 digits, compared as one |
//! | partition key | the partition key; the service hashes it with MD5 and picks the shard |
//! | envelope | the record's data, byte for byte |
//! | `published_at_utc` | in an ACK the publisher's clock, in a record read its approximate arrival |
//! | incarnation | the stream's ARN and creation time |
//! | ACK | the entry of a `PutRecords` answer that carries a sequence number |
//!
//! What the service promises is taken from the [API reference](https://docs.aws.amazon.com/kinesis/latest/APIReference/)
//! and the [developer guide](https://docs.aws.amazon.com/streams/latest/dev/); emulators promise less, and nothing here
//! relies on more than both keep.

mod admin;
mod bus;
mod client;
mod config;
mod error;
mod shards;

pub use admin::KinesisAdmin;
pub use bus::{KinesisBus, capabilities};
pub use config::{
    CredentialSource, Credentials, KinesisConfig, Ordering, PublishConfig, Rate, ReadConfig, StreamNames,
    Timeouts,
};
