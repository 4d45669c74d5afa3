//! The file bus through its public face, on real folders.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod checking;
mod checkpointing;
mod common;
mod conformance;
mod reading;
mod recovering;
mod showing;
mod writing;
