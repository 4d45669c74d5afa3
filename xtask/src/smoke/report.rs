//! What the smoke run prints: progress while it runs, one table at the end, with a column for each bus.

use std::io::{IsTerminal as _, Write};
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
    /// Before there is a bus.
    common: Vec<Row>,
    columns: Vec<Column>,
    digests: Vec<Row>,
    failure: Option<String>,
    terminal: bool,
}

/// What was found on one bus. The same steps are made on each, so rows of one number belong together.
struct Column {
    bus: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
enum Row {
    Section(String),
    Step { what: String, found: String },
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
            common: Vec::new(),
            columns: Vec::new(),
            digests: Vec::new(),
            failure: None,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// What follows was found on this bus.
    pub(super) fn column(&mut self, bus: &str) {
        self.columns.push(Column { bus: bus.to_owned(), rows: Vec::new() });
        self.step = Instant::now();
    }

    fn rows(&mut self) -> &mut Vec<Row> {
        self.columns.last_mut().map_or(&mut self.common, |column| &mut column.rows)
    }

    pub(super) fn section(&mut self, what: &str) {
        self.rows().push(Row::Section(what.to_owned()));
    }

    /// A step that did what it should.
    pub(super) fn passed(&mut self, what: &str, found: &str) {
        let milliseconds = self.step.elapsed().as_secs_f64() * 1000.0;
        self.step = Instant::now();
        let found = format!("{found} ({milliseconds:.0} ms)");
        self.rows().push(Row::Step { what: what.to_owned(), found });
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
        let found = format!("{}, an ACK survives {:?}", c.offset_kind, c.durability);
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
        self.failure = Some(why.to_string());
    }

    /// The digests of each bus, in the order of the columns.
    pub(super) fn digests(&mut self, buses: &[Vec<TopicDigest>]) {
        let Some(first) = buses.first() else { return };
        for t in first {
            let others: Vec<_> =
                buses.iter().filter_map(|bus| bus.iter().find(|d| d.topic == t.topic)).collect();
            let equal = others.len() == buses.len() && others.iter().all(|d| d.digest == t.digest);
            let (records, keys) = (t.records, t.keys);
            let found = match (buses.len(), equal) {
                (1, _) => format!("{} ({records} records, {keys} keys)", t.digest),
                (_, true) => format!("{} on both ({records} records, {keys} keys)", t.digest),
                (_, false) => {
                    let each: Vec<_> = others.iter().map(|d| d.digest.to_string()).collect();
                    format!("DIFFER: {}", each.join(" and "))
                }
            };
            self.digests.push(Row::Step { what: t.topic.to_string(), found });
        }
    }

    pub(super) fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "smoke · profile {} · seed {} · {}", self.profile, self.seed, self.runs.display())?;
        self.table(&mut out)?;
        if let Some(why) = &self.failure {
            let bus = match self.columns.as_slice() {
                [_, .., last] => format!("on {}: ", last.bus),
                _ => String::new(),
            };
            writeln!(out, "  FAIL  {}{why}", if self.digests.is_empty() { &bus } else { "" })?;
        }
        let verdict = if self.failure.is_some() { "FAILED" } else { "all as it should be" };
        writeln!(out, "\n{verdict}, {:.1} s", self.started.elapsed().as_secs_f64())
    }

    fn table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let columns: Vec<&[Row]> = self.columns.iter().map(|c| c.rows.as_slice()).collect();
        let all = self.common.iter().chain(columns.iter().copied().flatten()).chain(&self.digests);
        let names = all.filter_map(|row| match row {
            Row::Step { what, .. } => Some(what.chars().count()),
            Row::Section(_) => None,
        });
        let name = names.max().unwrap_or(0);
        let first = self.columns.first().map_or(0, |column| {
            let widths = column.rows.iter().map(|row| match row {
                Row::Step { found, .. } => found.chars().count(),
                Row::Section(_) => 0,
            });
            widths.max().unwrap_or(0).max(column.bus.chars().count())
        });
        for row in &self.common {
            print_row(out, name, 0, &[Some(row)])?;
        }
        if let [one, .., other] = self.columns.as_slice() {
            writeln!(out, "\n        {:name$}  {:first$} │ {}", "", one.bus, other.bus)?;
        }
        let length = columns.iter().map(|rows| rows.len()).max().unwrap_or(0);
        for number in 0..length {
            let cells: Vec<_> = columns.iter().map(|rows| rows.get(number)).collect();
            print_row(out, name, first, &cells)?;
        }
        if !self.digests.is_empty() {
            writeln!(
                out,
                "\n  digest over per-key sequences of first occurrences (any backend with these facts gives the same)"
            )?;
        }
        for row in &self.digests {
            print_row(out, name, 0, &[Some(row)])?;
        }
        Ok(())
    }
}

/// One step, as each bus found it.
fn print_row(out: &mut impl Write, name: usize, first: usize, cells: &[Option<&Row>]) -> std::io::Result<()> {
    let found = |cell: &Option<&Row>| match cell {
        Some(Row::Step { found, .. }) => found.clone(),
        _ => "not reached".to_owned(),
    };
    match cells.iter().flatten().next() {
        None => Ok(()),
        Some(Row::Section(what)) => writeln!(out, "\n  {what}"),
        Some(Row::Step { what, .. }) => match cells {
            [one, .., other] => {
                writeln!(out, "  ok    {what:name$}  {:first$} │ {}", found(one), found(other))
            }
            _ => writeln!(out, "  ok    {what:name$}  {}", found(&cells[0])),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        report.table(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn two_buses_stand_side_by_side_and_a_step_that_was_not_reached_is_not_ok_in_silence() {
        let mut report = Report::new("p", 1, Path::new("/runs"));
        report.common.push(Row::Step { what: "generated".into(), found: "20 events".into() });
        for (bus, steps) in [("kinesis", 2), ("file", 1)] {
            report.column(bus);
            for (what, found) in [("opened", "here"), ("admitted", "all 20")].into_iter().take(steps) {
                report.rows().push(Row::Step { what: what.into(), found: found.into() });
            }
        }
        assert_eq!(
            text(&report),
            "  ok    generated  20 events\n\
             \n                   kinesis │ file\n\
             \x20 ok    opened     here    │ here\n\
             \x20 ok    admitted   all 20  │ not reached\n"
        );
    }
}
