//! The file bus over a disk that fails: every operation of a workload, every fault, and what is left afterwards.
//!
//! A case is: a workload with one fault in it; the end of the process or of the machine; a recovery with, at times, a second
//! fault in it; and then the questions of [`aftermath`]. A case that fails prints its seed, its plan and the last operations of the
//! disk; `EB_TEST_SEED` repeats the run that it was part of.
//!
//! # What these suites are known to catch
//! A suite that cannot fail shows nothing, so each of these was built into the bus once, and is caught:
//!
//! * an ACK, a watermark, or a tail shown to readers, ahead of the sync; a watermark that is one too high;
//! * a failed sync that is tried again and believed, or called "without effect";
//! * a failed write whose lines are left in the log, or cut off without a sync;
//! * a recovery that does not write the tail again, does not sync, or leaves padding behind;
//! * a torn tail that is cut before its copy, or its copy's name, is durable;
//! * a metadata file that is renamed before it is synced, or whose folder is not synced after;
//! * a new folder, topic, log or sidecar whose name is not durable before the first ACK, also where the process that made it
//!   died in between;
//! * a `durable` above the start of its group, which turns torn tails into damage;
//! * a reader that shows a dead writer's lines without writing and syncing them again, or a living one's before their sync.
mod aftermath;
mod checkpoints;
mod creation;
mod readers;
mod recovery;
mod session;
mod sweep;
mod workload;
