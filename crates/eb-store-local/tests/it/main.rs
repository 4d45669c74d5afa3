//! The embedded admission index, from outside.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod behaviour;
mod consumer_faults;
mod consumer_kills;
mod consumers;
mod damage;
mod killed;
mod law;
mod registers;
mod support;
