//! Project tasks: `cargo xtask smoke | test | services | bench | charter | deny`.

mod bench;
mod charter;
mod deny;
mod services;
mod signals;
mod smoke;
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
    /// Send generated events through the gate, read them back every way, reopen, compare digests; on Kinesis and Postgres with --profile dev_local, on Redis and Postgres with --profile dev_redis
    Smoke(smoke::Options),
    /// Run every test: unit, property, conformance, fault, crash and command-line suites
    Test(suite::Options),
    /// Start, stop and show Kinesis (LocalStack), Postgres and Redis for development
    #[command(subcommand)]
    Services(services::Command),
    /// Measure against raw baselines in the same run (release build)
    Bench(bench::Options),
    /// Check sources, configuration and schemas by charter.toml: nothing past the gate, well-named and complete events
    Charter(charter::Options),
    /// Check licences, bans and sources of all dependencies by deny.toml
    Deny,
}

/// The folder of the workspace, wherever the task is called from.
fn workspace_root() -> &'static std::path::Path {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Smoke(options) => smoke::run(&options),
        Task::Test(options) => suite::run(&options),
        Task::Services(command) => services::run(&command),
        Task::Bench(options) => bench::run(&options),
        Task::Charter(options) => charter::run(&options),
        Task::Deny => deny::run(),
    };
    outcome.unwrap_or_else(|e| {
        eprintln!("cargo xtask: {e}");
        ExitCode::FAILURE
    })
}
