//! A bus made of two, against the suite and against what can go wrong.

// Clippy takes only `#[test]` functions for tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod bent;
mod conformance;
mod files;
mod mirroring;
mod operators;
mod overtaking;
#[cfg(unix)]
mod process;
mod random;
mod registers;
mod support;
mod switching;
mod triggers;
