//! The test kit's own promises.

mod events;
