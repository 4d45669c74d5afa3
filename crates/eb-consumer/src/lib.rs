//! Consumers: facts handled at least once, their effects once, in order of their key.
//!
//! # The promise
//! A consumer is a name ([`ConsumerName`](eb_contract::ConsumerName)), some topics and a handler for each event type. Any number of workers
//! (processes or [`EventConsumer`]s) run under the name and share the partitions.
//!
//! 1. **Every record is finished**: handled with success, put durably among the dead letters, or, where the consumer was told so, skipped.
//!    A crash at any point skips none.
//! 2. **In order per key**: the handler is called for a record only after the earlier ones of its key are finished. Different keys go side by
//!    side, and one that is being retried holds up no other.
//! 3. **Handled twice only within a bound**: see *What a crash brings again*. With a [`TransactionalStore`](eb_contract::stores::TransactionalStore)
//!    the handler's writes, the mark and the checkpoint are one transaction, and effects are exactly once, those of dead letters that are tried again
//!    included: a letter is written with its record's mark, and ends with its effect.
//! 4. **The checkpoint is the lowest unfinished cut.** What is finished past it is kept as marks ([`ProcessedStore`](eb_contract::stores::ProcessedStore)).
//!
//! # The life of a record
//! ```text
//!  read ─► decoded ─► seen before? ──yes──────────────────────────────────────────┐
//!                        │ no                                                       │
//!                     waiting for the earlier records of its key                    │
//!                        ▼                                                          ▼
//!                      ready ──► running ──ok──────────────────────────────────► finished ──► recorded ──► behind the cut
//!                        ▲          │ └─permanent, undecodable, attempts used up─► dying ─┘ (letter durable)
//!                        └─ backing off ◄─transient, unknown, panic                (mark durable)
//! ```
//! - *waiting*: at most one record of a key is past this state. A key that a dead letter parks sends its records from here to *dying*.
//! - *dying*: its dead letter is being written, or one from before is being resolved. While that fails, the record stays where it is, and its key and the cut with it.
//! - *finished*: nothing more will be done for it, but nobody else knows yet.
//! - *recorded*: the mark is durable. Its envelope is let go; its place is kept until the cut has passed it.
//!
//! A record takes up **room** from the moment it was read: in its partition until the cut has passed it, among all partitions until it
//! is recorded. Where there is no room, nothing is read. So a key that does not get on stops its partition only when
//! [`Limits::partition_records`] later records have been finished, and a store that is away stops everything at the same bound.
//!
//! # The life of a partition
//! ```text
//!  free ─claim─► held ─load checkpoint, parked keys─► running ──read to the end of a closed partition──► ended (cut `End` committed)
//!    ▲                                                  │ │ │
//!    │◄──released────────── draining ◄──surplus, shutdown┘ │ └─fenced, checkpoint moved, read refused─► given up, tried again later
//!    └◄──────────────── dropped ◄─────lease over────────────┘
//! ```
//! Workers heartbeat through a [`LeaseStore`](eb_contract::stores::LeaseStore). Each counts the live workers and the partitions that may be read, takes its
//! share (`⌊n/w⌋`, and `⌈n/w⌉` the `n mod w` workers that hold the most already) and gives up what is more: whoever joins or leaves moves nothing between the others. *Draining* finishes what runs, starts nothing, commits,
//! releases. The end of a lease is counted on the monotonic clock from before the claim was sent: at that moment handlers are dropped
//! where they await, and nothing is committed any more. A worker that slept past its end is stopped by the epoch, which the stores fence.
//!
//! A partition that came out of a resharding is read once the checkpoints of all its parents are at `End`. A consumer that is
//! new to a topic and starts elsewhere than at the oldest record writes down where, for all partitions at once and children
//! before their parents, before it reads.
//!
//! # What a crash brings again
//! | crash | delivered again | handled again |
//! |---|---|---|
//! | after the read, before the handler ran | everything past the stored cut that has no mark | nothing |
//! | while handlers run | the same | those whose handler had begun: at most one per key, at most [`Limits::concurrency`] of a worker |
//! | after success, before the mark is durable | the same | the finished ones that are not recorded: at most [`Limits::partition_records`] of a partition and [`Limits::total_records`] of a worker; usually what came within [`CommitPolicy::interval`] |
//! | between mark and checkpoint | the same | nothing: the marks answer |
//! | between dead letter and mark | the record, again | its handler is called again. If it fails, the letter is one (stores put a position once); if it succeeds now, the letter is resolved before the record counts as finished. Not within transactions, where the two are one |
//! | in the middle of a transaction | its records | their handlers run again; their effects were rolled back |
//! | in the answer to a transaction's commit | nothing, or the above | the version of the stored checkpoint tells which; should the commit land later still, the next transaction is refused, and the partition is opened anew |
//! | lease lost (paused, partitioned off) | as for a crash, to the next holder; the old one's commits are fenced | as for a crash |
//!
//! Handlers are dropped, not awaited, when a lease ends, when the grace time of a shutdown ends, and with the consumer itself: at an `await`, like every
//! future. What must not be cut in two belongs in a task of its own, or in a transaction. What acts through something that a drop does not end (a process,
//! another service) can see for itself until when it may: [`Event::hold`]. Within a transaction the record of the dropped handler is undone
//! alone, and what was handled before it is committed. After the grace time storing goes on for at most [`CommitPolicy::retry_max`].
//!
//! # Idempotency
//! What was read is asked for in batches ([`ProcessedStore::seen`](eb_contract::stores::ProcessedStore::seen)) before it is handled. A mark is recorded after the handler's success
//! (or with it, in a transaction), never before. The mark of a dead letter is recorded when the letter is durable. The second guard, by the event's
//! dedupe key, which is the gate's own ([`DedupeKey`](canonical_envelope::DedupeKey)), is on by default where the log may hold a copy of
//! an event ([`Capabilities::unknown_outcomes`](eb_contract::Capabilities::unknown_outcomes)); copies within the room are caught in memory. A copy of an event that
//! is a dead letter counts as that dead letter.
//!
//! # Failures
//! | what fails | what happens |
//! |---|---|
//! | the handler, permanently; the payload does not decode | dead letter, then finished |
//! | the handler, otherwise; a panic | tried again by the [`RetryPolicy`], and after its last attempt as [`AfterMax`] says. Attempts are counted by the holder: another one begins anew |
//! | the process, under a record (an abort, its memory), or it hangs past its lease | the next holder handles the record again; see *Records that end their process* |
//! | the handler does not return | its key waits; the others go on up to the room, as long as there are slots ([`Limits::concurrency`]). With [`Limits::handler_time`] it is dropped, and counts as failed; without, the health tells of it after five minutes |
//! | the dead-letter store | the record stays unfinished; tried again until it works |
//! | the lease ends while a letter is being written | see *Letters and leases* |
//! | the processed store or the checkpoint store | the step is tried again; handling goes on up to the room |
//! | reading, with a retry allowed | tried again; health degraded. Where the source has to be opened anew for that, it is, right where reading stopped: what was read is worked on meanwhile, and stays in order |
//! | reading, for good (out of range, damage, another incarnation) | what was read is finished, the partition is given up and looked at again every [`LeasePolicy::retry_failed`]; health failing. As long as something that was read is not finished (a key that is tried again for ever, say), the source is opened anew as often, and read on if it can be |
//! | the lease store | leases run out, partitions stop; they are claimed again when it is back |
//! | a reset of the checkpoint by someone | the next commit is refused; the partition is opened anew where the checkpoint says |
//!
//! # Letters and leases
//! Within transactions letters are fenced as effects are. Else a letter is put apart from the mark, and a worker may lose its partition between the two: the next holder
//! then handles a record that has an open letter. So whoever takes a partition asks for the open letters of what it reads up to the head, once for each
//! read, and only where the consumer has any. It handles such a record as any other; when that succeeds, it resolves the letter (*handled*) before the record is
//! finished, so that what is marked as handled has no open letter. A letter is begun only while a tenth of the lease is left, so that it has landed when the next holder asks.
//!
//! What remains: stores do not check a letter's lease. One that is under way for longer than that tenth (a store that hangs, a worker that is stopped in the middle of writing),
//! and lands once the next holder has asked, stays open for a record that may have been handled. It holds the time at which it was put, and retrying it calls the handler again.
//! After a reset of the checkpoint the same goes for records whose letters are older: up to the head their letters are resolved where they are handled.
//!
//! # Records that end their process
//! A record under which the process ends comes to the next holder, and ends that one, too; its attempts died with the processes. So each partition has a note of how its holders
//! ended, in a register ([`Stores::registers`]): written when the partition is taken and when it is given back, and not otherwise. After [`RetryPolicy::max_crashes`] holders that
//! did neither give it back nor move the stored cut, what they may have read is worked on with care: one record at a time, alone, each written down before its handler is called. A record under
//! which so many holders ended in a row is not called again; it has used up its attempts, its letter says so, and [`RetryPolicy::after_max`] is followed. So it ends at most twice
//! as many processes as the limit, and the count starts over whenever the stored cut has moved in between. Workers that are killed at random give nothing up, unless so many in a row die within the
//! call of one and the same record, under care. Without an order ([`Ordering::Unordered`]) there are no holders, and nothing is counted: such a record comes for ever.
//!
//! # What others see
//! With every heartbeat a worker reports for each partition that it holds what it is doing, how much it has in flight, how many keys it tries again
//! and how often it had to ([`WorkReport`](eb_contract::stores::WorkReport)). The report lives as long as the lease: of a worker that died, or was taken over from, nothing is shown.
//! [`overview`] puts that beside checkpoints, heads, dead letters and the backlog of groups, for all workers, wherever they run.
//!
//! # Groups of a service
//! Where the service itself hands out records ([`EventBusGroups`](eb_contract::EventBusGroups)), the same machine runs with acknowledgements after the marks:
//! the marks and the cut are stored first, then the records are acknowledged. With an order per key, one worker holds a partition by a lease, takes over
//! what others left pending, and reads its pending records before new ones. [`Ordering::Unordered`] lets several workers share one partition: no
//! leases, no checkpoint, no order.
//!
//! # Where things are
//! `partition/` is the state machine, without I/O and clocks. `lane/plain` runs one partition, `lane/tx` the same within transactions, `team` the leases,
//! `care` what is known of crashes, `fetch` reads ahead, `source/` has the two sources, `routes` the handlers, `redrive` tries dead letters again, `overview` looks at all workers.

mod builder;
mod care;
mod config;
mod consumer;
mod context;
mod error;
mod event;
mod fetch;
mod hold;
mod item;
mod lane;
mod ledger;
mod metrics;
mod overview;
mod partition;
mod redrive;
mod retry;
mod room;
mod routes;
mod source;
mod status;
mod team;
#[cfg(test)]
mod testing;

pub use builder::{ConsumerBuilder, ConsumerSource, Handlers, OnTheirOwn, Within};
pub use config::{CommitPolicy, CopyGuard, LeasePolicy, Limits, Mode, Ordering};
pub use consumer::{EventConsumer, RunningConsumer};
pub use context::Stores;
pub use eb_contract::{Health, HealthCheck, HealthStatus};
pub use error::{BuildError, ConsumerError, HandlerError, HandlerResult, Verdict};
pub use event::{Event, RawEvent};
pub use hold::Hold;
pub use overview::{PartitionOverview, overview};
pub use redrive::Retried;
pub use retry::{AfterMax, Backoff, RetryPolicy};
pub use routes::Unhandled;
pub use status::{PartitionStatus, Phase};
