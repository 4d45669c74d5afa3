//! What a consumer promises, on a bus and stores of memory.

mod chaos;
mod groups;
mod handling;
mod letters;
mod sharing;
mod support;
mod transactions;
