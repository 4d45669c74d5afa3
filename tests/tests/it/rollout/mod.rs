//! A running platform that moves from one bus to another and back, in processes: publishers behind gates, a consumer with durable checkpoints,
//! an operator. From files and from a Redis to a Redis, from files to Kinesis and from Kinesis to a Redis. The new bus is killed (a Kinesis: cut off), halted
//! and slowed, and so is the old one where it is Kinesis; publishers are killed and halted across switches; then every receipt is held to the logs of
//! both buses.
//!
//! What would break these suites: an end cut that is taken while somebody may still write, an ACK that is released without a lease, a record behind its end
//! cut that is ACKed, a consumer that skips what a bus that is gone held, a gate that admits without knowing what was admitted, a mirror that leaves
//! something out.

mod audit;
mod buses;
mod moving;
mod place;
mod triggers;
mod wire;
