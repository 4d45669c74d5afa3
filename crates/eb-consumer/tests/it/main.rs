//! What a consumer promises, on a bus and stores of memory.

mod handling;
mod letters;
mod sharing;
mod support;
mod transactions;
