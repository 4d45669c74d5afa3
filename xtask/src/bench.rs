//! `cargo xtask bench`: builds the benchmarks in release form and runs them.

use std::process::{Command, ExitCode};

use crate::Outcome;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Passed on to the benchmarks; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the benchmarks, and ends as they end.
pub(crate) fn run(options: &Options) -> Outcome {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--release", "--quiet", "--package", "eb-bench", "--"])
        .args(&options.rest)
        .status()?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(code) => Err(format!("the benchmarks ended with exit code {code}").into()),
        None => Err("the benchmarks were ended by a signal".into()),
    }
}
