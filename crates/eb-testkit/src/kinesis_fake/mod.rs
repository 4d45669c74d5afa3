//! A fake of Amazon Kinesis Data Streams over plain HTTP, for what no emulator does: every answer can be scripted.
//!
//! # Protocol
//!
//! The one that `aws-sdk-kinesis` 1.130 speaks: awsJson 1.1, a POST to `/` whose `x-amz-target` is
//! `Kinesis_20131202.<operation>`; blobs are base64, timestamps are seconds of the epoch with a fraction, errors carry
//! `__type` and `message`. HTTP/1.1 on 127.0.0.1, keep-alive, no TLS. Signatures are not looked at.
//!
//! # Model
//!
//! | what | after |
//! |---|---|
//! | MD5 of the partition key, or the explicit hash key, picks the open shard; shards split the 128-bit range evenly | API Reference: `PutRecord`, `CreateStream` |
//! | sequence numbers rise strictly within a stream, so within every shard; they are decimal strings of any length | API Reference: `PutRecords`, `Record` (pattern `0\|([1-9]\d{0,128})`) |
//! | a failed entry does not stop later ones; entries carry `ProvisionedThroughputExceededException` or `InternalFailure`; a call holds 500 entries and 10 MiB | API Reference: `PutRecords` |
//! | a record holds 1 MiB with its key, unless the stream is set to more (up to 10 MiB) | Developer Guide: "Handle large records" |
//! | iterators of five types; they expire after five minutes; a timestamp in the future is refused, one before the horizon means the horizon | API Reference: `GetShardIterator` |
//! | a page holds up to 10,000 records and 10 MiB; at the end of a closed shard `NextShardIterator` is null and `ChildShards` are named | API Reference: `GetRecords` |
//! | 5 calls and 2 MB a second per shard for reading, 1,000 records and 1 MB for writing (off by default) | Developer Guide: "Quotas and limits" |
//! | a split or merge closes the parents and opens children that name them; closed shards vanish when retention has passed | Developer Guide: "After a reshard" |
//! | shard filters, pagination by `NextToken`, tokens that expire after five minutes | API Reference: `ListShards`, `ListStreams` |
//!
//! Where the documentation is silent the fake does what clients of the service report: a position below the trim
//! horizon is taken for the horizon, **without a word** ([`BelowHorizon`] has the other answers that were seen); a
//! sequence number above what the stream has given, below the shard's first, or of another shard is an
//! `InvalidArgumentException`; a stream that is being created or deleted is not found by reads and writes. The exact type of a refusal for size (`ValidationException` or `InvalidArgumentException`) is a best guess.
//!
//! Not modelled: enhanced fan-out, encryption, tags, resource policies, dry runs, `UpdateShardCount`, on-demand scaling
//! (such a stream is one of four shards), eventual consistency of listings. An operation that is not modelled answers
//! `UnknownOperationException`. Two shards of a stream share one sequence of numbers, so that a child's are above its
//! parents', as in the service.
//!
//! # Scripts
//!
//! A request [waits, acts, waits, answers](Reaction), and each step can be bent: entries refused or denied, whole calls
//! refused, answers held back by a [`Gate`], cut, edited, replaced. Requests are carried through after their client has
//! gone, because the service does that too. [`Chaos`] scripts at random, repeatably.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use eb_testkit::kinesis_fake::{Cut, Fate, Fault, KinesisFake, Op, Reaction};
//!
//! let fake = KinesisFake::start().await?;
//! fake.create_stream("orders", 3);
//! fake.script(
//!     Op::PutRecords,
//!     [
//!         Reaction::plain().entry(1, Fate::Refuse(Fault::throttled())),
//!         Reaction::plain().cut(Cut::Reset),
//!     ],
//! );
//! // … point a client at fake.endpoint_url() …
//! assert_eq!(fake.scripted(Op::PutRecords), 2);
//! assert!(fake.records("orders").is_empty());
//! # std::io::Result::Ok(()) })?; Ok(()) }
//! ```

mod chaos;
mod fault;
mod gate;
mod handle;
mod limits;
mod log;
mod model;
mod script;
mod sequence;
mod server;

pub use chaos::Chaos;
pub use fault::Fault;
pub use gate::Gate;
pub use handle::{KinesisFake, Options};
pub use limits::{BelowHorizon, Limits, ReadRate, WriteRate};
pub use log::{EntryResult, Op, Outcome, Request};
pub use model::{Entry, ShardInfo, StoredRecord, StreamStatus};
pub use script::{Cut, Fate, Reaction};
pub use sequence::{SequenceNumber, SequenceStyle};
