//! The test kit's own promises.

mod events;
mod kinesis_fake;
#[cfg(unix)]
mod services;
