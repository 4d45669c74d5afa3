//! The backend against real servers: the conformance suite, crashes, cut connections, settings, deletions.

// Clippy takes only `#[test]` functions for tests, not their helpers.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod appending;
mod claiming;
mod common;
mod conformance;
mod crashing;
mod cutting;
mod deleting;
mod groups;
mod large;
mod losing;
mod opening;
mod proxy;
mod waiting;
