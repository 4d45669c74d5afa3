//! Ways past the gate.

mod by_name;
mod by_type;
mod foreign;
mod imported;
mod renamed;
mod typed;
