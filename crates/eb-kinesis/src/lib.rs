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
//!
//! # Publishing
//! `publish` leaves the record at the door of its topic, which fixes its place, and returns. The topic's task takes
//! records in, in that order, and sends what has gathered while other calls were under way, as a group commit does:
//! nothing waits for a timer. A call has at most [`max_records_per_call`](PublishConfig::max_records_per_call) records
//! and [`max_bytes_per_call`](PublishConfig::max_bytes_per_call), and
//! [`calls_in_flight`](PublishConfig::calls_in_flight) calls of a topic are under way at once.
//!
//! ## Order
//! `PutRecords` promises no order among the records of a call, and may take a record while it refuses an earlier one of
//! the same key. With [`Ordering::Strict`] a key therefore has one record in a call at most, and the next one leaves when
//! that one is settled; a record that was refused is sent again before anything else of its key. The sequence numbers
//! that a key gets must rise: one that does not is a `ProtocolViolation`, which is the record's answer and is logged as an
//! error, and the records behind it are `NotAttempted`. (The numbers of the 32,768 to 65,536 keys that were ACKed last
//! are remembered.) A key's throughput is one record per round trip; a topic's is not bounded by that.
//! Packing many records of a key into one, as Amazon's producer library does, would lift that, and is not offered: such
//! records would share a sequence number, and every other reader of the stream would have to unpack them.
//!
//! ## What each failure does
//! | what came back | the record | later records of its key |
//! |---|---|---|
//! | an entry is throttled | not stored: sent again, its shard given less for a while | wait |
//! | an entry failed inside the service | maybe stored: sent again, a copy at worst | wait |
//! | the call was throttled | sent again | wait |
//! | no connection; no credentials, or expired ones; a signature of another time; a stream that is being made | sent again, one call at a time, with pauses up to two seconds | wait |
//! | any of these, for [`give_up_after`](PublishConfig::give_up_after) | fails with the last reason; effect none, or unknown where an attempt may have stored it | see below |
//! | an entry or the call is refused for good | fails, effect none | go on; those of its batch are `NotAttempted` |
//! | **the answer is lost**: a timeout, a broken connection, a 5xx, an answer that cannot be read or has another number of entries | fails at once, **effect unknown, and is not sent again** | `NotAttempted` |
//! | an entry without shard or sequence number, a number that does not rise | `ProtocolViolation`, effect unknown | `NotAttempted` |
//!
//! A lost call may still land, also seconds later. Its records are not sent again here, because whoever published them
//! can find out from the log (the gate does) and a second copy cannot be taken back. What must never happen is that a
//! later record of the key overtakes it. So every record of the key that was called for before the lost one was
//! answered (for a record of a batch: before the batch was) is answered `NotAttempted`, by whichever call it came.
//! **What remains:** a caller that publishes the key again
//! after it has seen the unknown outcome may be faster than the lost call, which then lands behind. Reading the log first
//! makes that improbable, and nothing makes it impossible: the service has no call that settles it. A key whose record
//! failed with effect none is not held up beyond the batch.
//!
//! A record that failed *inside* the service is another matter: its answer has come, so nothing of it is under way.
//!
//! ## Why the SDK retries nothing
//! Its retries would send a lost call again unseen, and would be blind to entries that failed in a call that did not.
//! (The HTTP client below it sends a request again where it took a connection from its pool that had been closed before
//! a byte of the request was written to it. That is no second attempt.)
//!
//! ## Pacing
//! Each shard has a lane with a token bucket ([`shard_rate`](PublishConfig::shard_rate)) and a window that its refusals
//! narrow, so that one shard that is slow holds up nothing but its own keys. Which key belongs to which shard is asked
//! of the service before the first record of a topic (`DescribeStreamSummary`, `ListShards`), and again when an answer names
//! another shard than expected. If it cannot be had, the stream is one lane without a rate.
//!
//! ## Memory, cancellation, the end
//! A topic holds [`max_buffered_bytes`](PublishConfig::max_buffered_bytes) of records (and one call's more at most);
//! their futures are pending. Beyond that `publish` answers `Throttled` with no effect. A call under way costs about two and a half
//! times its bytes besides, for the SDK's copies. Dropping a future withdraws nothing and leaves nothing half done.
//!
//! Dropping the publisher is closing it: what was called for is finished in the background, and then its tasks end. That
//! takes as long as its shards take records (a long queue of one key takes a round trip for each), and `give_up_after` and a
//! call's timeout at most where they take none. If the runtime ends first, every record that was not answered is answered
//! `Closed`: effect unknown if it was in flight, else none.
//!
//! # Reading
//! A cursor reads a shard by `GetRecords`, up to [`max_records_per_call`](ReadConfig::max_records_per_call) at once, and
//! keeps what was not asked for yet: one page at most. It keeps its iterator, and makes a new one from its place when that
//! has expired. A `next` that is dropped leaves its call under way for the following one, on the runtime that polled it. All cursors of a bus share the
//! pace of each shard ([`shard_rate`](ReadConfig::shard_rate)), and wait together when one is throttled. Enhanced fan-out
//! (`SubscribeToShard`) is not used.
//!
//! The next page is asked for when the present one is handed out, not before. Asking for it ahead was tried (with small pages,
//! four shards, an engine on the same machine) and gained nothing that could be told from chance: 0.96 of a bare loop of
//! `GetRecords` with it, 0.92 without. It would hold a second page, and the last page of a catch-up would cost one more
//! call, because what was asked for before a `next` cannot tell that `next` that it has caught up.
//!
//! | what the service says | what the cursor says |
//! |---|---|
//! | `MillisBehindLatest` 0, with or without records | `CaughtUp` with the last of them, from the `next` whose own call this was |
//! | the same, to a call that an earlier `next` had made | `More` with the records; without any it is called again. What the service shows when a `next` begins is never missing from what that calls caught up |
//! | `MillisBehindLatest` 0 with as many records as were asked for, or a MiB of them | `More`: an engine that measures by arrival times says 0 also in the middle of a millisecond |
//! | a page, with or without records, further behind, or that does not say how far | `More` |
//! | no next iterator | `Closed` with the children that the page names, else `ListShards`; the cut is `End` |
//! | the record of an `After` again, or ones further back | dropped, once it is clear that it is the same stream; else `WrongIncarnation` |
//! | numbers that do not rise within a page | `ProtocolViolation` |
//! | throttled | called again, for [`retry_for`](ReadConfig::retry_for); then `Throttled` |
//! | no answer, a broken one, a 5xx | called again twice; then `Timeout` or `Unavailable` |
//! | an iterator or stream that is not found | a new iterator, or `NotFound`, or `WrongIncarnation`: the stream is looked at |
//! | a record that is no envelope, or has no key of ours | those before it; then `Corrupt` with its place, as often as it is asked for |
//! | a record that the Kinesis Producer Library has packed | the same with `Unsupported` |
//!
//! Whether it still is the same stream is asked every [`shards_fresh_for`](ReadConfig::shards_fresh_for)
//! (`DescribeStreamSummary`, once for all cursors of a topic). AWS binds iterators to a stream's life, and an emulator that does
//! not may show a cursor that much of the new one.
//!
//! ## Where a cursor starts
//! Every start is turned into a cut when the cursor is made; nothing hangs on an iterator's life.
//! `Latest` is the cut of [`head`](eb_contract::EventBusReader::head), `Timestamp` the first record with that time by its own arrival
//! (the service counts in milliseconds), `Earliest` the first record left, or `Begin`.
//!
//! ## The head
//! There is no call for the last sequence number. It is read: forward from the furthest place that this bus has read or
//! has had ACKed (one `GetShardIterator`, one `GetRecords`; the latter alone while the shard is idle), otherwise from
//! the horizon by jumps in time (four calls where the service tells how far behind a page is, some forty for 24 idle
//! hours, at five of each kind a second). **What remains:** the service promises no time within which a record that
//! *another* process had ACKed can be read; usually it is milliseconds. A head may lie that much too early, never too late.
//!
//! ## The horizon
//! The service goes on at the oldest record left when a place has expired, without a word, and says nowhere what it has
//! expired. So a cursor knows two things of its place: the cut, and a time *since* which everything after the cut has
//! arrived. That is the arrival of the record before it, or later: the last time at which the service said
//! that nothing lay behind (`caught_up_at` of [`StartAt::Resume`](eb_contract::StartAt::Resume) when it is resumed; what this
//! bus has read or had ACKed counts too), or the stream's creation. Then:
//! - as long as that time is younger than the retention less [`horizon_margin`](ReadConfig::horizon_margin), nothing
//!   unread can have expired, and the cursor follows its iterator. This is how an idle stream gives no false alarm. What
//!   counts is the shortest retention since the place was last known to be whole: raising it brings nothing back. For a
//!   stored cut that is a day, the least that a stream can be set to;
//! - otherwise the place must prove itself at each read: `AT_SEQUENCE_NUMBER` must bring its own record, or the oldest
//!   record left must not lie behind it. The answer is `OutOfRange` with the oldest left if neither holds;
//! - `Begin` has no record of its own. It is proved by a stream younger than its retention, by a time since which it was
//!   empty, or by a parent that is still listed (the service lists it until retention has passed since it ended).
//!
//! **What remains:** false alarms are possible, unnoticed losses are not, but for these: the clocks of consumer and service lie
//! further apart than the margin (AWS refuses signatures that are 5 minutes off); `caught_up_at` says what was not so; the
//! retention is shortened, which takes effect here up to `shards_fresh_for` later; it was raised after records had expired, and
//! a `Begin` was stored. A false alarm is: the record of an `After` has expired, the next one had not been published by then, and
//! nobody says that the consumer was at the head within the last day.

mod admin;
mod bus;
mod client;
mod config;
mod error;
mod publisher;
mod reader;
mod shards;

pub use admin::KinesisAdmin;
pub use bus::{KinesisBus, capabilities};
pub use config::{
    CredentialSource, Credentials, KinesisConfig, Ordering, PublishConfig, Rate, ReadConfig, StreamNames,
    Timeouts,
};
pub use publisher::{KinesisPublisher, PublishStats};
pub use reader::KinesisReader;
