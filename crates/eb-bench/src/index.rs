//! The admission index, measured by its own crate's example in a process of its own, so that its memory is its own.

use std::process::Command;

use crate::Options;
use crate::measure::{Result, Row};

/// Runs the index's own measurement.
pub(crate) fn run(options: &Options) -> Result<Vec<Row>> {
    let events = options.scale(10_000_000);
    eprintln!("admission index: {events} events, in a process of its own");
    let out = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--release", "--quiet", "--package", "eb-store-local", "--example", "admission_index"])
        .args(["--", "--events", &events.to_string()])
        .output()?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned().into());
    }
    let figures: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out.stdout)?;
    println!("\nadmission index, {events} events");
    for (name, value) in &figures {
        println!("  {name:28} {value}");
    }
    Ok(Vec::new())
}
