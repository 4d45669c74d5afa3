//! What the smoke run prints: progress while it runs, one table at the end.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use eb_profile::Platform;
use eb_testkit::events::{Event, Expected};

use super::checks::TopicDigest;

/// The table, filled step by step.
pub(super) struct Report {
    profile: String,
    seed: u64,
    runs: PathBuf,
    started: Instant,
    step: Instant,
    rows: Vec<Row>,
    terminal: bool,
}

enum Row {
    Section(String),
    Step { ok: bool, what: String, found: String, seconds: Option<f64> },
}

impl Report {
    pub(super) fn new(profile: &str, seed: u64, runs: &Path) -> Self {
        let now = Instant::now();
        Self {
            profile: profile.to_owned(),
            seed,
            runs: runs.to_owned(),
            started: now,
            step: now,
            rows: Vec::new(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn section(&mut self, what: &str) {
        self.rows.push(Row::Section(what.to_owned()));
    }

    /// A step that did what it should.
    pub(super) fn passed(&mut self, what: &str, found: &str) {
        let seconds = self.step.elapsed().as_secs_f64();
        self.step = Instant::now();
        let (what, found) = (what.to_owned(), found.to_owned());
        self.rows.push(Row::Step { ok: true, what, found, seconds: Some(seconds) });
    }

    pub(super) fn generated(&mut self, events: &[Event]) {
        let count = |wanted: fn(&Expected) -> bool| events.iter().filter(|e| wanted(&e.expected)).count();
        let bytes: usize = events.iter().map(|e| e.bytes.len()).sum();
        let found = format!(
            "{} events, {} KB: {} to admit, {} duplicates, {} to quarantine",
            events.len(),
            bytes / 1000,
            count(|e| matches!(e, Expected::Admit)),
            count(|e| matches!(e, Expected::DuplicateOf(_))),
            count(|e| matches!(e, Expected::Quarantine(_)))
        );
        self.passed("events generated", &found);
    }

    pub(super) fn opened(&mut self, platform: &Platform) {
        for notice in &platform.profile().notices {
            eprintln!("{notice}");
        }
        let c = platform.capabilities();
        let found = format!("{} bus, {}, an ACK survives {:?}", c.backend, c.offset_kind, c.durability);
        self.passed("platform opened", &found);
    }

    pub(super) fn progress(&self, what: &str, done: usize, of: usize) {
        if self.terminal && (done.is_multiple_of(256) || done == of) {
            eprint!("\r{what} {done}/{of} ");
            if done == of {
                eprintln!();
            }
        }
    }

    pub(super) fn failed(&mut self, why: &(dyn std::error::Error + Send + Sync)) {
        let (what, found) = ("FAILED".to_owned(), why.to_string());
        self.rows.push(Row::Step { ok: false, what, found, seconds: None });
    }

    pub(super) fn digests(&mut self, topics: &[TopicDigest]) {
        self.section("digest over per-key sequences of first occurrences (any backend with these facts gives the same)");
        for t in topics {
            let found = format!("{} ({} records, {} keys)", t.digest, t.records, t.keys);
            self.rows.push(Row::Step { ok: true, what: t.topic.to_string(), found, seconds: None });
        }
    }

    pub(super) fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        let width = self.rows.iter().map(|row| match row {
            Row::Step { what, .. } => what.chars().count(),
            Row::Section(_) => 0,
        });
        let width = width.max().unwrap_or(0);
        writeln!(out, "smoke · profile {} · seed {} · {}", self.profile, self.seed, self.runs.display())?;
        for row in &self.rows {
            match row {
                Row::Section(what) => writeln!(out, "\n  {what}")?,
                Row::Step { ok, what, found, seconds } => {
                    let mark = if *ok { "ok  " } else { "FAIL" };
                    let time = seconds.map_or_else(String::new, |s| format!("  ({:.0} ms)", s * 1000.0));
                    writeln!(out, "  {mark}  {what:width$}  {found}{time}")?;
                }
            }
        }
        let failed = self.rows.iter().any(|row| matches!(row, Row::Step { ok: false, .. }));
        let verdict = if failed { "FAILED" } else { "all as it should be" };
        writeln!(out, "\n{verdict}, {:.1} s", self.started.elapsed().as_secs_f64())
    }
}
