//! Whole-system tests: real processes that are killed, and a disk that fails.

mod corpus;
mod fault;
mod process;
#[cfg(unix)]
mod shared;
