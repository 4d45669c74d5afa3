//! The fake of Kinesis: the model behind it, and its scripts.

mod client;
mod model;
mod scripts;
