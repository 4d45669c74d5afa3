//! The embedded admission index.

mod codec;
mod contract;
mod index;
mod layout;
mod offload;
mod store;
mod tail;
mod writer;

pub use index::{EmbeddedAdmissionIndex, IndexStats};
