//! Test support: fault-injecting disk, event generator, process harness.
