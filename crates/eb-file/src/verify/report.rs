//! What a check of a bus found, for people and for machines.

use std::fmt;
use std::path::PathBuf;

use eb_contract::digest::Digest;
use eb_contract::{PartitionId, Topic};
use serde::Serialize;

/// What was found in a bus.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The folder.
    pub root: PathBuf,
    /// One for each topic that was checked, sorted.
    pub topics: Vec<TopicReport>,
    /// Findings that belong to no partition.
    pub findings: Vec<Finding>,
    /// Repairs that belong to no partition.
    pub repairs: Vec<Repair>,
}

/// What was found in a topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicReport {
    /// The topic.
    pub topic: Topic,
    /// Its partitions, sorted.
    pub partitions: Vec<PartitionReport>,
    /// The digest over per-key sequences of first occurrences. `None` when it was not asked for, or when a record cannot be read.
    pub key_sequences: Option<KeySequences>,
}

/// The digest over per-key sequences of first occurrences: equal on any backend that holds the same facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeySequences {
    /// The digest.
    pub digest: Digest,
    /// How many keys there are.
    pub keys: u64,
    /// How many distinct records, copies not counted.
    pub first_occurrences: u64,
}

/// What was found in a partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionReport {
    /// Which.
    pub partition_id: PartitionId,
    /// Good records, as far as was looked.
    pub records: u64,
    /// How many bytes of log were looked at.
    pub bytes: u64,
    /// The next offset that was synced, as the sidecar says.
    pub watermark: Option<u64>,
    /// A writer has the partition open: only what lies below its watermark was looked at, and nothing can be repaired now.
    pub being_written: bool,
    /// The digest over all records. `None` when a record cannot be read.
    pub digest: Option<Digest>,
    /// What is wrong or worth knowing, in the order of the log.
    pub findings: Vec<Finding>,
    /// How many findings are left out, beyond the first 1,000.
    pub more_findings: u64,
    /// What a repair would do.
    pub repairs: Vec<Repair>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Note,
    /// What a crash leaves, and the next opening for writing puts right.
    Unfinished,
    /// Something that is derived from the log is wrong, and can be made anew.
    Derived,
    /// Records that were ACKed, or what is needed to read them, are damaged or missing. No repair touches it.
    Facts,
}

/// What a finding says about the ACKs of the records it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Acked {
    /// They had been synced, so their publishers may have their ACKs.
    Yes,
    /// Nobody was told that they are durable.
    No,
    /// Nothing is left that says.
    Unknown,
    /// It is not about records.
    NotApplicable,
}

/// What was found. The names do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A record that had been synced cannot be read.
    DamagedRecord,
    /// Records that had been synced are not there.
    MissingRecords,
    /// The log's last lines were never ACKed and are not whole.
    TornTail,
    /// Whole lines at the end that nothing proves to have been synced.
    UnprovenTail,
    /// Blank lines after the last record.
    Padding,
    /// A record claims to be published before the one in front of it.
    TimeFalls,
    /// The sidecar is not there.
    SidecarMissing,
    /// The sidecar cannot be believed.
    SidecarDamaged,
    /// The watermark does not fit the log.
    WatermarkWrong,
    /// Index entries that do not fit the log.
    IndexWrong,
    /// Index entries are missing.
    IndexLags,
    /// Bytes that a recovery set aside.
    SetAside,
    /// A temporary file that a crash left.
    TemporaryFile,
    /// A topic whose creation was not finished.
    UnfinishedTopic,
    /// A topic that cannot be used.
    UnusableTopic,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it touches records that were ACKed.
    pub acked: Acked,
    /// In which file.
    pub file: PathBuf,
    /// The 1-based line, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The 0-based byte, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// In words.
    pub message: String,
}

/// One thing that a repair does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Repair {
    /// Opens and closes the partition as a writer does: sets a torn tail aside, writes and syncs what nothing proves, cuts padding, makes
    /// the sidecar anew.
    Recover {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition_id: PartitionId,
        /// The torn tail to set aside: where in the log it begins.
        #[serde(skip_serializing_if = "Option::is_none")]
        set_aside_from_byte: Option<u64>,
        /// How many bytes of it.
        set_aside_bytes: u64,
        /// Bytes of whole lines to write and sync again.
        rewrite_bytes: u64,
        /// Bytes of padding to cut.
        cut_bytes: u64,
        /// Why the sidecar is made anew.
        #[serde(skip_serializing_if = "Option::is_none")]
        rebuild_sidecar: Option<String>,
    },
    /// Removes a temporary file.
    RemoveTemporary {
        /// Which.
        file: PathBuf,
    },
    /// Finishes the creation of a topic without records.
    FinishTopic {
        /// The topic.
        topic: Topic,
        /// With so many partitions.
        partitions: u32,
    },
}

impl Report {
    /// All findings, with the partition they belong to.
    pub fn findings(&self) -> impl Iterator<Item = (Option<(&Topic, PartitionId)>, &Finding)> {
        let of_partitions = self.topics.iter().flat_map(|t| {
            t.partitions
                .iter()
                .flat_map(move |p| p.findings.iter().map(move |f| (Some((&t.topic, p.partition_id)), f)))
        });
        self.findings.iter().map(|f| (None, f)).chain(of_partitions)
    }

    /// Everything that a repair would do, in its order.
    pub fn repairs(&self) -> impl Iterator<Item = &Repair> {
        self.repairs
            .iter()
            .chain(self.topics.iter().flat_map(|t| t.partitions.iter().flat_map(|p| &p.repairs)))
    }

    /// The worst that was found; `None` when nothing was.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings().map(|(_, f)| f.severity).max()
    }

    /// Whether every ACKed record is there, as far as can be told.
    #[must_use]
    pub fn facts_are_whole(&self) -> bool {
        self.worst() != Some(Severity::Facts)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        if let Some(byte) = self.byte {
            write!(f, " byte {byte}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recover {
                topic,
                partition_id,
                set_aside_from_byte,
                set_aside_bytes,
                rewrite_bytes,
                cut_bytes,
                rebuild_sidecar,
            } => {
                write!(f, "recover {topic}/{partition_id}")?;
                let mut mark = ": ";
                let mut step = |text: String| {
                    let written = write!(f, "{mark}{text}");
                    mark = "; ";
                    written
                };
                if let Some(byte) = set_aside_from_byte {
                    step(format!(
                        "set {set_aside_bytes} bytes from byte {byte} on aside in a file of their own"
                    ))?;
                }
                if *rewrite_bytes > 0 {
                    step(format!("write and sync {rewrite_bytes} bytes of whole lines again"))?;
                }
                if *cut_bytes > 0 {
                    step(format!("cut {cut_bytes} bytes of padding"))?;
                }
                if let Some(why) = rebuild_sidecar {
                    step(format!("make the sidecar anew ({why})"))?;
                }
                Ok(())
            }
            Self::RemoveTemporary { file } => write!(f, "remove {}", file.display()),
            Self::FinishTopic { topic, partitions } => {
                write!(f, "finish the creation of {topic} with {partitions} partitions")
            }
        }
    }
}
