//! `cargo xtask test`: everything that shows that the project keeps its promises, with the counts made visible.
//!
//! The suites share one Postgres, one Kinesis engine and one LocalStack, started for the run where no variable names
//! them. What needs one that cannot be had is left out and named; where `CI` is set that is a failure.

mod services;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use crate::Outcome;
use services::Shared;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run the long forms of the crash, fault and property suites (hundreds of cycles instead of a few)
    #[arg(long)]
    long: bool,
    /// Seed of the random suites; each prints the one it used
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only tests whose name contains this
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// One test binary's result, as its closing line tells it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
}

/// What the suites printed.
#[derive(Debug, Default)]
struct Summary {
    total: Counts,
    binaries: u64,
    /// Lines that a suite asks to be shown: its seed, its cycles, what it did not run.
    notes: Vec<String>,
    failures: Vec<String>,
}

/// Runs all tests and prints the counts.
pub(crate) fn run(options: &Options) -> Outcome {
    let shared = Shared::start();
    for line in shared.notes.iter().chain(&shared.missing) {
        eprintln!("{line}");
    }
    let (packages, tests) = shared.left_out();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(packages);
    if let Some(filter) = &options.filter {
        cargo.arg(filter);
    }
    cargo.args(["--", "--show-output"]).args(tests);
    cargo.envs(shared.variables.iter().map(|(name, url)| (name, url)));
    if options.long {
        cargo.env("EB_TEST_LONG", "1");
    }
    if let Some(seed) = options.seed {
        cargo.env("EB_TEST_SEED", seed.to_string());
    }
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut summary = Summary::default();
    summary.notes.extend(shared.notes.iter().chain(&shared.missing).cloned());
    if let Some(stdout) = child.stdout.take() {
        let mut reader = Reader::default();
        for line in BufReader::new(stdout).lines() {
            reader.take(&line?, &mut summary, &mut std::io::stdout().lock())?;
        }
    }
    let status = child.wait()?;
    print(&summary)?;
    if !status.success() || summary.total.failed > 0 {
        return Err(match summary.total.failed {
            0 => "the tests did not finish: see what cargo says above".into(),
            n => format!("{n} tests failed: see above, each with what it printed").into(),
        });
    }
    if services::is_ci() && !shared.missing.is_empty() {
        return Err(format!("in CI nothing is left out: {}", shared.missing.join("; ")).into());
    }
    if summary.total.passed == 0 {
        return Err("no test ran: check the filter".into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows the test harness's output: shows failures whole, the rest as one line for each binary.
#[derive(Default)]
struct Reader {
    in_failures: bool,
}

impl Reader {
    fn take(&mut self, line: &str, summary: &mut Summary, out: &mut impl Write) -> std::io::Result<()> {
        if let Some(counts) = closing_line(line) {
            writeln!(out, "  {line}")?;
            self.in_failures = false;
            summary.binaries += 1;
            summary.total.passed += counts.passed;
            summary.total.failed += counts.failed;
            summary.total.ignored += counts.ignored;
            summary.total.filtered += counts.filtered;
        } else if line == "failures:" {
            self.in_failures = true;
        } else if line == "successes:" {
            self.in_failures = false;
        } else if line.ends_with("... FAILED") {
            summary
                .failures
                .push(line.trim_end_matches("... FAILED").trim_start_matches("test ").trim().to_owned());
            writeln!(out, "  {line}")?;
        } else if line.ends_with(" has been running for over 60 seconds") {
            // Where a run is stopped from outside, this tells who was still at it.
            writeln!(out, "  {line}")?;
        } else if is_note(line) {
            summary.notes.push(line.to_owned());
        }
        if self.in_failures {
            writeln!(out, "  {line}")?;
        }
        out.flush()
    }
}

/// Suites mark what a reader of the summary must see.
fn is_note(line: &str) -> bool {
    ["not run:", "seed:", "cycles:"].iter().any(|mark| line.starts_with(mark))
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn closing_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    for part in rest.split("; ") {
        let (number, what) = part.split_once(' ')?;
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.ignored = number,
            "filtered out" => counts.filtered = number,
            _ => {}
        }
    }
    Some(counts)
}

fn print(summary: &Summary) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut notes = summary.notes.clone();
    notes.sort();
    notes.dedup();
    if !notes.is_empty() {
        writeln!(out, "\nWhat the suites say of their runs:")?;
        for note in notes {
            writeln!(out, "  {note}")?;
        }
    }
    if !summary.failures.is_empty() {
        writeln!(out, "\nFailed:")?;
        for name in &summary.failures {
            writeln!(out, "  {name}")?;
        }
    }
    let t = &summary.total;
    writeln!(out, "\n{} test binaries", summary.binaries)?;
    writeln!(out, "{} passed, {} failed, {} skipped", t.passed, t.failed, t.ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_closing_line_is_counted() {
        let line = "test result: FAILED. 21 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.21s";
        assert_eq!(closing_line(line), Some(Counts { passed: 21, failed: 2, ignored: 1, filtered: 3 }));
        assert_eq!(closing_line("test names::x ... ok"), None);
    }

    #[test]
    fn a_test_that_takes_long_is_shown_while_it_runs() {
        let mut shown = Vec::new();
        for line in ["test a ... ok", "test b has been running for over 60 seconds"] {
            Reader::default().take(line, &mut Summary::default(), &mut shown).unwrap();
        }
        assert_eq!(shown, b"  test b has been running for over 60 seconds\n");
    }

    #[test]
    fn failures_and_notes_reach_the_summary() {
        let mut summary = Summary::default();
        let mut reader = Reader::default();
        for line in [
            "running 2 tests",
            "test a ... ok",
            "test b ... FAILED",
            "seed: 7",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s",
        ] {
            reader.take(line, &mut summary, &mut Vec::new()).unwrap();
        }
        assert_eq!(summary.failures, ["b"]);
        assert_eq!(summary.notes, ["seed: 7"]);
        assert_eq!((summary.total.passed, summary.total.failed), (1, 1));
    }
}
