//! The reference backend against the suite, and its own faults.

// Clippy takes only `#[test]` functions for tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod admissions;
mod checkpoints;
mod conformance;
mod consumers;
mod faults;
mod registers;
