//! The tasks as they are called.
#![allow(clippy::unwrap_used, reason = "tests")]

mod services;
