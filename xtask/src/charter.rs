//! `cargo xtask charter`: the charter's rules over the whole workspace, by `charter.toml`.

use std::io::Write as _;
use std::process::ExitCode;

use eb_charter::Charter;

use crate::Outcome;

/// Options of `cargo xtask charter`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Violations as JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Checks the workspace; fails where anything breaks the charter.
pub(crate) fn run(options: &Options) -> Outcome {
    let report = Charter::find(crate::workspace_root())?.check()?;
    let mut out = std::io::stdout().lock();
    for violation in &report.violations {
        if options.json {
            writeln!(out, "{}", serde_json::to_string(violation)?)?;
        } else {
            writeln!(out, "{violation}")?;
        }
    }
    out.flush()?;
    match report.violations.len() {
        0 => {
            eprintln!("cargo xtask charter: {} files keep the charter", report.files);
            Ok(ExitCode::SUCCESS)
        }
        n => {
            Err(format!("{n} violations of the charter; an exception goes into charter.toml with its reason")
                .into())
        }
    }
}
