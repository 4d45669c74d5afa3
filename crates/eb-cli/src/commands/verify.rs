//! `eb verify`

use std::path::{Path, PathBuf};
use std::time::Duration;

use eb_contract::digest::{Digest, KeySequenceDigest, PartitionDigest};
use eb_contract::{Error, ErrorKind, EventBusReader, PartitionId, ReadLimit, ReadState, StartAt, Topic};
use eb_profile::file_verify::{
    self, Finding, KeySequences, PartitionReport, Repair, Report, Scope, Severity, TopicReport,
};
use eb_profile::{BusKind, Profile};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::{self, Global};
use crate::commands::{chosen_topics, nothing_yet, open_reading};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: &args::Verify) -> Outcome {
    let profile = Profile::load(&global.profile)?;
    match (profile.wiring.event_bus_kind, profile.wiring.event_bus.root.clone()) {
        // Not by opening the bus: one that is too damaged to open is what this is for.
        (BusKind::File, Some(root)) => {
            profile.notices.iter().for_each(|notice| ui.note(notice));
            files(ui, args, root).await
        }
        _ if args.repair => {
            let what = format!("a bus of kind {} cannot be repaired", profile.wiring.event_bus_kind.as_str());
            Err(Failure::failed("unsupported", what).advise("leave --repair out"))
        }
        _ => read_through(ui, global, args).await,
    }
}

/// Checks the folder of a file bus, and repairs it where that is asked for.
async fn files(ui: &mut Ui, args: &args::Verify, root: PathBuf) -> Outcome {
    let scope = Scope { topic: args.topic.clone(), partition: None, key_sequences: !args.skip_key_digest };
    let mut report = check(ui, &root, &scope).await?;
    show(ui, &report)?;
    let planned = report.repairs().count();
    let mut done = 0;
    if args.repair && planned > 0 {
        if !args.yes && !agreed(ui, planned)? {
            return Err(Failure::failed("declined", "nothing was changed"));
        }
        let repaired = blocking("repair", move || file_verify::repair(&report)).await?;
        for repair in &repaired {
            if ui.is_json() {
                ui.json(&Line::Repaired { repair: &repair.repair })?;
            } else {
                let mark = ui.style(ui::GOOD, "done");
                ui.line(&format!("{mark}  {}", ui::visible(&repair.repair.to_string())))?;
            }
        }
        done = repaired.len();
        report = check(ui, &root, &scope).await?;
    }
    let worst = report.worst();
    let records = report.topics.iter().flat_map(|t| &t.partitions).map(|p| p.records).sum();
    let summary = Line::Summary {
        facts_are_whole: report.facts_are_whole(),
        worst,
        records,
        repairs_planned: planned,
        repairs_done: done,
    };
    if ui.is_json() {
        ui.json(&summary)?;
    } else {
        conclude(ui, worst, planned, done)?;
    }
    ui.flush()?;
    if report.facts_are_whole() {
        return Ok(Exit::Done);
    }
    let damages = report.findings().filter(|(_, f)| f.severity == Severity::Facts).count();
    let noun = if damages == 1 { "damage" } else { "damages" };
    let what = format!("{damages} {noun} to records that were ACKed, or to what is needed to read them");
    Err(Failure::failed("facts_damaged", what)
        .advise("no repair touches those: restore the files from a copy"))
}

fn agreed(ui: &Ui, planned: usize) -> Result<bool, Failure> {
    if !ui.may_ask() {
        return Err(Failure::usage("--repair needs --yes where nobody can be asked")
            .advise("look at the plan, then run it again with --yes"));
    }
    ui.ask(&format!("eb: do {planned} repairs as shown?"))
}

async fn check(ui: &Ui, root: &Path, scope: &Scope) -> Result<Report, Failure> {
    let bar = if ui.may_draw() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}") {
        bar.set_style(style);
    }
    let (root, scope, shown) = (root.to_owned(), scope.clone(), bar.clone());
    let checked = blocking("verify", move || {
        file_verify::verify(&root, &scope, &mut |at| {
            shown.set_length(at.total_bytes);
            shown.set_position(at.bytes);
            shown.set_message(format!("{}/{}", at.topic, at.partition_id));
        })
    });
    let report = checked.await;
    bar.finish_and_clear();
    report.map_err(|e| if is_nothing_yet(&e) { nothing_yet(e) } else { e.into() })
}

/// The bus is not there, rather than a topic in it.
fn is_nothing_yet(e: &Error) -> bool {
    *e.kind() == ErrorKind::NotFound && e.operation() == "open"
}

async fn blocking<T: Send + 'static>(
    op: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::new(ErrorKind::Unavailable, op, "it was interrupted").with_source(e)))
}

/// What `eb verify` prints as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'r> {
    Partition {
        topic: &'r Topic,
        #[serde(flatten)]
        report: &'r PartitionReport,
    },
    Topic {
        topic: &'r Topic,
        key_sequences: Option<KeySequences>,
    },
    /// What belongs to no partition.
    Bus {
        findings: &'r [Finding],
        repairs: &'r [Repair],
    },
    Repaired {
        repair: &'r Repair,
    },
    Summary {
        facts_are_whole: bool,
        worst: Option<Severity>,
        records: u64,
        repairs_planned: usize,
        repairs_done: usize,
    },
}

fn show(ui: &mut Ui, report: &Report) -> Result<(), Failure> {
    if !ui.is_json() {
        return for_people(ui, report);
    }
    for TopicReport { topic, partitions, key_sequences } in &report.topics {
        for report in partitions {
            ui.json(&Line::Partition { topic, report })?;
        }
        ui.json(&Line::Topic { topic, key_sequences: *key_sequences })?;
    }
    if !report.findings.is_empty() || !report.repairs.is_empty() {
        ui.json(&Line::Bus { findings: &report.findings, repairs: &report.repairs })?;
    }
    Ok(())
}

fn for_people(ui: &mut Ui, report: &Report) -> Result<(), Failure> {
    let digest = |d: Option<Digest>| d.map_or_else(|| "-".to_owned(), |d| d.to_string());
    let mut rows = Vec::new();
    for topic in &report.topics {
        for p in &topic.partitions {
            rows.push(vec![
                topic.topic.to_string(),
                p.partition_id.to_string(),
                ui::count(p.records),
                ui::count(p.bytes),
                if p.being_written { "being written".to_owned() } else { String::new() },
                digest(p.digest),
            ]);
        }
    }
    ui.table(&["TOPIC", "PARTITION", "RECORDS", "BYTES", "", "DIGEST"], &rows)?;
    let rows: Vec<_> = report
        .topics
        .iter()
        .filter_map(|t| Some((t, t.key_sequences?)))
        .map(|(t, k)| {
            vec![t.topic.to_string(), ui::count(k.keys), ui::count(k.first_occurrences), k.digest.to_string()]
        })
        .collect();
    if !rows.is_empty() {
        ui.table(&["TOPIC", "KEYS", "FIRST OCCURRENCES", "KEY SEQUENCES DIGEST"], &rows)?;
    }
    for (_, finding) in report.findings() {
        let style = match finding.severity {
            Severity::Note => ui::FAINT,
            Severity::Unfinished | Severity::Derived => ui::WARN,
            Severity::Facts => ui::BAD,
        };
        let severity = format!("{:?}", finding.severity).to_lowercase();
        let mark = ui.style(style, &severity);
        ui.line(&format!("{mark}  {}", ui::visible(&finding.to_string())))?;
    }
    for partition in report.topics.iter().flat_map(|t| &t.partitions).filter(|p| p.more_findings > 0) {
        ui.line(&format!("and {} more in partition {}", partition.more_findings, partition.partition_id))?;
    }
    for repair in report.repairs() {
        let mark = ui.style(ui::HEAD, "would");
        ui.line(&format!("{mark}  {}", ui::visible(&repair.to_string())))?;
    }
    ui.flush()
}

fn conclude(ui: &mut Ui, worst: Option<Severity>, planned: usize, done: usize) -> Result<(), Failure> {
    let whole = ui.style(ui::GOOD, "every ACKed record is there");
    match worst {
        Some(Severity::Facts) => Ok(()),
        _ if planned > done => {
            ui.line(&format!("{whole}; `eb verify --repair` does what is shown, and so does the next writer"))
        }
        _ => ui.line(&whole),
    }
}

/// Reads everything on a bus whose storage is not ours to check: what its reader hands out, counted and digested.
async fn read_through(ui: &mut Ui, global: &Global, args: &args::Verify) -> Outcome {
    let platform = open_reading(ui, global).await?;
    let reader = platform.reader();
    for topic in chosen_topics(&platform, args.topic.as_ref()).await? {
        let mut keys = (!args.skip_key_digest).then(KeySequenceDigest::default);
        for partition in reader.partitions(&topic).await?.partitions {
            let digest = read_partition(ui, &*reader, &topic, partition.id, keys.as_mut()).await?;
            let line = ReadLine {
                r#type: "partition",
                topic: &topic,
                partition_id: partition.id,
                records: digest.records(),
                digest: digest.finish(),
            };
            line.show(ui)?;
        }
        if let Some(keys) = keys {
            let key_sequences = KeySequences {
                digest: keys.finish(),
                keys: keys.keys(),
                first_occurrences: keys.first_occurrences(),
            };
            if ui.is_json() {
                ui.json(&Line::Topic { topic: &topic, key_sequences: Some(key_sequences) })?;
            } else {
                ui.line(&format!("{topic}  key sequences {}", key_sequences.digest))?;
            }
        }
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct ReadLine<'t> {
    r#type: &'static str,
    topic: &'t Topic,
    partition_id: PartitionId,
    records: u64,
    digest: Digest,
}

impl ReadLine<'_> {
    fn show(&self, ui: &mut Ui) -> Result<(), Failure> {
        if ui.is_json() {
            return ui.json(self);
        }
        let records = ui::count(self.records);
        ui.line(&format!("{}/{}  {records} records  {}", self.topic, self.partition_id, self.digest))
    }
}

async fn read_partition(
    ui: &Ui,
    reader: &dyn EventBusReader,
    topic: &Topic,
    partition: PartitionId,
    mut keys: Option<&mut KeySequenceDigest>,
) -> Result<PartitionDigest, Failure> {
    let bar = if ui.may_draw() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.set_message(format!("{topic}/{partition}"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut digest = PartitionDigest::default();
    let mut cursor = reader.cursor(topic, partition, StartAt::Earliest).await?;
    loop {
        let batch = cursor.next(ReadLimit::default()).await?;
        for record in &batch.records {
            digest.add(record);
            if let Some(keys) = &mut keys {
                keys.add(record);
            }
        }
        bar.set_position(digest.records());
        if batch.state != ReadState::More {
            bar.finish_and_clear();
            return Ok(digest);
        }
    }
}
