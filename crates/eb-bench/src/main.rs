//! The benchmarks behind `cargo xtask bench`. Every figure is a ratio to a raw baseline measured in the same run, in
//! turn with it; what is printed is the median over the rounds.

mod consumer;
mod counting;
mod gate;
mod index;
mod kinesis;
mod kinesis_read;
mod measure;
mod publish;
mod raw;
#[cfg(unix)]
mod redis;
mod replay;
mod rollout;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::measure::{Result, Row};

/// Measure the event bus against raw baselines of the same run
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// Groups to run: publish, replay, open, gate, index, rollout, consumer (these if none is named), kinesis (needs Node and npm), redis
    /// (needs a redis-server)
    groups: Vec<String>,
    /// Rounds that count; one more warms up
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// A tenth of the work and three rounds: to see that it runs, not to quote
    #[arg(long)]
    quick: bool,
    /// Where the files go: a folder on the disk to be measured (default: target/bench)
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Also write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn scale(&self, n: u64) -> u64 {
        if self.quick { n / 10 } else { n }
    }
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        options.rounds = options.rounds.min(3);
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

type Group = fn(&Options, &std::path::Path) -> Result<Vec<Row>>;

const GROUPS: &[(&str, Group)] = &[
    ("publish", |o, f| Ok([publish::run(o, f, 256)?, publish::run(o, f, 1024)?].concat())),
    ("replay", |o, f| Ok([replay::replay(o, f, 256, 0.3)?, replay::replay(o, f, 1024, 0.5)?].concat())),
    ("open", replay::open),
    ("gate", gate::run),
    ("index", |o, _| index::run(o)),
    ("rollout", rollout::run),
    ("consumer", consumer::run),
    #[cfg(unix)]
    ("consumer-postgres", consumer::postgres),
    #[cfg(unix)]
    ("redis", redis::run),
    ("kinesis", kinesis::run),
    ("kinesis-read", kinesis_read::run),
];

/// Groups that run only when they are named: they need more than this workspace.
const NAMED_ONLY: &[&str] = &["kinesis", "kinesis-read", "redis", "consumer-postgres"];

fn run(options: &Options) -> Result<()> {
    if let Some(unknown) = options.groups.iter().find(|g| GROUPS.iter().all(|(name, _)| name != g)) {
        let known: Vec<_> = GROUPS.iter().map(|g| g.0).collect();
        return Err(format!("no group `{unknown}`: there are {}", known.join(", ")).into());
    }
    let folder = options.scratch.clone().unwrap_or_else(|| PathBuf::from("target/bench"));
    std::fs::create_dir_all(&folder)?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&folder)?;
    let mut rows = Vec::new();
    for (name, group) in GROUPS {
        let unnamed = options.groups.is_empty() && !NAMED_ONLY.contains(name);
        if unnamed || options.groups.iter().any(|g| g == name) {
            let measured = group(options, scratch.path())?;
            print(&measured);
            rows.extend(measured);
        }
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&rows)?)?;
    }
    let short: Vec<_> = rows.iter().filter(|r| r.reached == Some(false)).collect();
    println!("{} figures, {} below their aim", rows.len(), short.len());
    for row in short {
        println!(
            "  below: {}: {} ({:.2}, aimed at {:.2})",
            row.group,
            row.case,
            row.ratio.unwrap_or(0.0),
            row.aim.unwrap_or(0.0)
        );
    }
    Ok(())
}

/// One group as a table.
fn print(rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let mut group = String::new();
    let width = rows.iter().map(|r| r.case.chars().count()).max().unwrap_or(0).max(first.case.len());
    for row in rows {
        if row.group != group {
            group.clone_from(&row.group);
            println!("\n{group}");
            println!(
                "  {:width$} {:>12} {:>7} {:>13} {:>6} {:>9} {:>9}",
                "", "per second", "ratio", "(range)", "aim", "p50 µs", "p99 µs"
            );
        }
        let figure =
            |v: Option<f64>, digits: usize| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        let range = row.ratio_range.map_or_else(String::new, |(lo, hi)| format!("({lo:.2}–{hi:.2})"));
        let mark = match row.reached {
            Some(false) => " below",
            _ => "",
        };
        let extra: String = row.extra.iter().map(|(name, v)| format!("  {name} {v:.1}")).collect();
        println!(
            "  {:width$} {:>12.0} {:>7} {:>13} {:>6} {:>9} {:>9}{mark}{extra}",
            row.case,
            row.rate,
            figure(row.ratio, 2),
            range,
            figure(row.aim, 2),
            figure(row.p50_us, 1),
            figure(row.p99_us, 1)
        );
    }
}
