//! The bus against real engines (kinesis-local, LocalStack) and against a scripted fake of the service.

// Clippy takes only `#[test]` functions for tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod conformance;
mod engine;
mod publish_chaos;
mod publish_engines;
mod publish_faults;
mod publish_flow;
mod publish_support;
mod read_faults;
mod read_head;
mod read_horizon;
mod read_support;
mod reshard;
