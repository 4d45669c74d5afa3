//! Checking a bus: every line, the index and the watermark against the log, what crashes left behind, digests of what is there.
//!
//! A check changes nothing. It runs beside a living writer, up to its watermark. It says of each thing that it finds where it is,
//! whether it touches records that were ACKed, and what [`repair`] would do about it; a repair then does exactly that, or nothing. Records that were synced
//! are never touched: what is wrong with them is reported, and a copy has to be restored.
//!
//! Everything here blocks: call it on a thread that may.

mod log;
mod partition;
mod plan;
mod repair;
mod report;

use std::io;
use std::path::Path;

use eb_contract::digest::KeySequenceDigest;
use eb_contract::{Error, ErrorKind, PartitionId, Result, Topic};

pub use self::repair::{Repaired, repair, repair_on};
pub use self::report::{
    Acked, Finding, FindingKind, KeySequences, PartitionReport, Repair, Report, Severity, TopicReport,
};
use crate::disk::{Disk, OpenMode, RealDisk};
use crate::error::io_error;
use crate::layout::{Layout, Unfinished};

const OP: &str = "verify";

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only this topic.
    pub topic: Option<Topic>,
    /// Only this partition of each topic.
    pub partition: Option<PartitionId>,
    /// Also work out the digest over per-key sequences. It takes about 80 bytes of memory for each distinct record.
    pub key_sequences: bool,
}

/// How far a check is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The topic that is being read.
    pub topic: &'a Topic,
    /// The partition that is being read.
    pub partition_id: PartitionId,
    /// Good records so far, in this partition.
    pub records: u64,
    /// Bytes read so far, in this partition.
    pub bytes: u64,
    /// Bytes to read in this partition.
    pub total_bytes: u64,
}

/// Checks the bus in a folder. `progress` is called about once a MiB. Blocking.
///
/// # Errors
/// `NotFound` when there is no bus, or not the topic or partition that was asked for; `Corrupt` or `WrongVersion` when the folder is not this version's;
/// `Io` when something cannot be read at all. What is wrong inside is no error: it is in the report.
pub fn verify(root: &Path, scope: &Scope, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Report> {
    verify_on(&RealDisk, root, scope, progress)
}

/// As [`verify`], on another disk.
///
/// # Errors
/// As for [`verify`].
pub fn verify_on(
    disk: &dyn Disk,
    root: &Path,
    scope: &Scope,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report> {
    let layout = Layout::new(root);
    layout.open_root(disk, false)?;
    let mut report =
        Report { root: root.to_owned(), topics: Vec::new(), findings: Vec::new(), repairs: Vec::new() };
    leftover(disk, &mut report, &root.join("bus.json.tmp"));
    let topics = match &scope.topic {
        Some(topic) => vec![topic.clone()],
        None => layout.topics(disk)?,
    };
    for topic in topics {
        if let Some(found) = check_topic(disk, &layout, &topic, scope, progress, &mut report)? {
            report.topics.push(found);
        }
    }
    if scope.topic.is_none() {
        for unfinished in layout.unfinished(disk)? {
            note_unfinished(&mut report, unfinished);
        }
    }
    Ok(report)
}

fn check_topic(
    disk: &dyn Disk,
    layout: &Layout,
    topic: &Topic,
    scope: &Scope,
    progress: &mut dyn FnMut(Progress<'_>),
    report: &mut Report,
) -> Result<Option<TopicReport>> {
    let meta = match layout.load_topic(disk, OP, topic) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt { .. } | ErrorKind::WrongVersion) => {
            report.findings.push(Finding {
                kind: FindingKind::UnusableTopic,
                severity: Severity::Facts,
                acked: Acked::Unknown,
                file: layout.topic_dir(topic),
                line: None,
                byte: None,
                message: format!("none of the topic's records can be read: {e}"),
            });
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    leftover(disk, report, &layout.topic_dir(topic).join("topic.json.tmp"));
    let mut keys = scope.key_sequences.then(KeySequenceDigest::default);
    let mut partitions = Vec::new();
    for id in (0..meta.partitions).map(PartitionId).filter(|id| scope.partition.is_none_or(|p| p == *id)) {
        let checked = partition::Check { disk, layout, meta: &meta, id, locked: false };
        partitions.push(checked.run(keys.as_mut(), progress)?);
    }
    if let Some(wanted) = scope.partition.filter(|p| p.0 >= meta.partitions) {
        let what = format!("the topic has {} partitions", meta.partitions);
        return Err(Error::new(ErrorKind::NotFound, OP, what).at(format_args!("{topic}/{wanted}")));
    }
    let whole = partitions.iter().all(|p| p.digest.is_some());
    let key_sequences = keys.filter(|_| whole).map(|k| KeySequences {
        digest: k.finish(),
        keys: k.keys(),
        first_occurrences: k.first_occurrences(),
    });
    Ok(Some(TopicReport { topic: topic.clone(), partitions, key_sequences }))
}

/// A temporary file beside the one it was to become.
fn leftover(disk: &dyn Disk, report: &mut Report, file: &Path) {
    if disk.open(file, OpenMode::Read).is_ok() {
        report.findings.push(temporary(file));
        report.repairs.push(Repair::RemoveTemporary { file: file.to_owned() });
    }
}

fn temporary(file: &Path) -> Finding {
    Finding {
        kind: FindingKind::TemporaryFile,
        severity: Severity::Unfinished,
        acked: Acked::NotApplicable,
        file: file.to_owned(),
        line: None,
        byte: None,
        message: "a temporary file that a crash has left".to_owned(),
    }
}

fn note_unfinished(report: &mut Report, unfinished: Unfinished) {
    let Unfinished { topic, dir, records, planned } = unfinished;
    let (severity, message) = match (records, planned) {
        (true, _) => {
            (Severity::Facts, "a log with records in it, but topic.json is missing; restore it from a copy")
        }
        (false, Some(_)) => {
            (Severity::Unfinished, "a topic whose creation was not finished; nobody could publish to it yet")
        }
        (false, None) => (
            Severity::Unfinished,
            "a topic whose creation was not finished; create it again, or remove the folder",
        ),
    };
    report.findings.push(Finding {
        kind: FindingKind::UnfinishedTopic,
        severity,
        acked: if records { Acked::Unknown } else { Acked::No },
        file: dir,
        line: None,
        byte: None,
        message: message.to_owned(),
    });
    if let (false, Some(partitions)) = (records, planned) {
        report.repairs.push(Repair::FinishTopic { topic, partitions });
    }
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    io_error(OP, path, "cannot read it", e)
}
