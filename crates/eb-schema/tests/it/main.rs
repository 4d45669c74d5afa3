//! Event schemas as their users meet them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod catalogue;
mod rules;
mod sound;
