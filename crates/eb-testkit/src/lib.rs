//! Test support: fault-injecting disk, event generator, process harness, native servers.
//!
//! | module | holds |
//! |---|---|
//! | [`events`] | realistic platform events from a seed, each with the answer that a gate must give |
//! | [`fault_disk`] | a disk in memory that fails on request and survives power cuts as badly as the format page allows |
//! | [`process`] | child processes that are killed at random moments, and what they said until then |
//! | `kinesis_fake` | a fake of Kinesis over HTTP, whose every answer a test can script (feature `kinesis-fake`) |
//! | `services` | Postgres, LocalStack and its Kinesis engine, installed and started without containers (Unix) |
//! | [`Rng`], [`Budget`] | repeatable chance; how long a suite may run |

pub mod events;
pub mod fault_disk;
#[cfg(feature = "kinesis-fake")]
pub mod kinesis_fake;
pub mod process;
mod rng;
#[cfg(unix)]
pub mod services;

pub use rng::{Budget, Rng, is_long, seed};
