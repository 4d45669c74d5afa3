//! The test kit's own promises.

mod events;
#[cfg(unix)]
mod services;
