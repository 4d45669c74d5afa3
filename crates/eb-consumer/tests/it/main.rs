//! What a consumer promises, on a bus and stores of memory.

// Clippy takes only `#[test]` functions for tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod chaos;
mod crashes;
mod groups;
mod handling;
mod letters;
mod reopening;
mod sharing;
mod support;
mod transactions;
