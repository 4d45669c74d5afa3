//! The reference backend against the suite, and its own faults.

mod checkpoints;
mod conformance;
