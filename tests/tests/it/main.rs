//! Whole-system tests: real processes that are killed, services that go away, and a disk that fails.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod consumers;
mod corpus;
mod fault;
#[cfg(unix)]
mod on_redis;
mod process;
#[cfg(unix)]
mod rollout;
#[cfg(unix)]
mod shared;
