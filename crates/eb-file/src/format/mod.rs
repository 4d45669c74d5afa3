#![doc = include_str!("../../FORMAT.md")]

pub mod line;
pub mod sidecar;
