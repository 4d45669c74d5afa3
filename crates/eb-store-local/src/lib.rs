//! Embedded stores of the event bus: the admission index.

mod admission;
mod config;
mod error;
mod lock;

pub use admission::{EmbeddedAdmissionIndex, IndexStats};
pub use config::AdmissionIndexConfig;
