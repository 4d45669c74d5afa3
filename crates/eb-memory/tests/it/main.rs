//! The reference backend against the suite, and its own faults.

mod admissions;
mod checkpoints;
mod conformance;
