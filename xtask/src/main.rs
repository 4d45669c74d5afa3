//! Project tasks: `cargo xtask smoke | test | bench`.

mod bench;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a task ends: an exit code, or one line that says what is wrong.
type Outcome = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;

/// Tasks of the event bus project
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every test: unit, property, conformance, fault, crash and command-line suites
    Test(suite::Options),
    /// Measure against raw baselines in the same run (release build)
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test(options) => suite::run(&options),
        Task::Bench(options) => bench::run(&options),
    };
    outcome.unwrap_or_else(|e| {
        eprintln!("cargo xtask: {e}");
        ExitCode::FAILURE
    })
}
