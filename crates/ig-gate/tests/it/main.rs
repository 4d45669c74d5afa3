//! The gate's behaviour, through its public face, over the in-process reference bus and index.

#![allow(clippy::unwrap_used, reason = "helpers of tests too")]

mod answers;
mod checkpoints;
mod config_files;
mod duplicates;
mod errors;
mod expiring;
mod generated;
mod health;
mod law;
mod leases;
mod observed;
mod order;
mod quarantine;
mod receipts;
mod recovery;
mod schemas;
mod shared_index;
mod support;
mod unknown;
