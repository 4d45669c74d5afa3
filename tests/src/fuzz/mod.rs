//! What everything that parses bytes from outside must hold, whatever the bytes.
//!
//! Each target takes arbitrary bytes and panics when a promise is broken. `fuzz/` feeds them from a coverage-guided fuzzer (nightly); the
//! kept corpus in `fuzz/corpus` is replayed on stable by the tests. Where a checksum would stop nearly every input at the door, the
//! first byte says whether the target mends it first.

mod checkpoint;
mod config;
mod envelope;
mod line;
mod log;
mod sidecar;

pub use checkpoint::checkpoint;
pub use config::{policy, profile};
pub use envelope::envelope;
pub use line::line;
pub use log::{index, log};
pub use sidecar::sidecar;

/// A target's body.
pub type Target = fn(&[u8]);

/// All targets, by the name that they have under `fuzz/`.
pub const TARGETS: [(&str, Target); 8] = [
    ("line", line),
    ("sidecar", sidecar),
    ("log", log),
    ("index", index),
    ("envelope", envelope),
    ("profile", profile),
    ("policy", policy),
    ("checkpoint", checkpoint),
];
