//! The file bus over a disk that fails: every operation of a workload, every fault, and what is left afterwards.
//!
//! A case is: a workload with one fault in it; the end of the process or of the machine; a recovery with, at times, a second
//! fault in it; and then the questions of [`aftermath`].
mod aftermath;
mod checkpoints;
mod creation;
mod readers;
mod recovery;
mod session;
mod sweep;
mod workload;
