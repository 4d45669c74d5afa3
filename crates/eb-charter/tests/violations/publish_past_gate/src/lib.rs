//! Ways past the gate.

mod by_name;
mod foreign;
mod imported;
mod renamed;
mod typed;
