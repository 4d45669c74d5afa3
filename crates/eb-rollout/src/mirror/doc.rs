//! The mirror's document: who makes it, how far both logs agree, what was found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use eb_contract::{Cut, Topic};
use serde::{Deserialize, Serialize};

use crate::doc::Document;
use crate::latency::Summary;
use crate::state::Side;

const FORMAT: u32 = 1;

/// The most findings that are kept; one is enough to roll back.
pub(super) const MOST_FINDINGS: usize = 20;

/// How the mirror stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorState {
    /// The format of the document.
    pub format: u32,
    /// Which run of the mirror it belongs to.
    pub run: u64,
    /// The bus that is copied from.
    pub from: Side,
    /// Who makes it; `None` while nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// How far each topic has come.
    pub topics: BTreeMap<Topic, TopicMirror>,
    /// Records that were copied.
    pub copied: u64,
    /// Records that were ACKed, were missing, and were copied again.
    pub repaired: u64,
    /// Late copies of records in the mirror's log.
    pub duplicates: u64,
    /// Windows that failed and were tried again.
    pub failures: u64,
    /// What was missing or differed and could not be repaired.
    pub findings: Vec<Finding>,
    /// Why the last window failed, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For how long windows have failed without one that succeeded, in milliseconds.
    pub failing_ms: u64,
    /// For how long the mirror has not been at the head, in milliseconds.
    pub lag_ms: u64,
    /// The 99th percentile of the mirror's publishes in the last window of time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// Of how many publishes that is.
    pub samples: u64,
    /// The how manieth window of its worker's that is.
    #[serde(default)]
    pub window: u64,
    /// Who stored it, and which of their changes it is.
    pub stamp: String,
}

/// How far the mirror of one topic has come. Cuts of the source are those of its logical partitions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicMirror {
    /// Where mirroring began in the primary's log.
    pub source_start: BTreeMap<u32, Cut>,
    /// Where it began in the mirror's log.
    pub mirror_start: BTreeMap<u32, Cut>,
    /// Everything before these cuts is in the mirror's log, and equal.
    pub source: BTreeMap<u32, Cut>,
    /// It lies before these.
    pub mirror: BTreeMap<u32, Cut>,
    /// How many records that is.
    pub records: u64,
}

/// A difference that could not be repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Of which topic.
    pub topic: Topic,
    /// Of which partition of the mirror's bus.
    pub partition: u32,
    /// At which offset there.
    pub offset: String,
    /// What is wrong.
    pub kind: FindingKind,
}

/// What is wrong with a record of the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// It was ACKed and is not there, also after it was copied again.
    Missing,
    /// The primary's log has no such record.
    Differing,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset, kind } = self;
        match kind {
            FindingKind::Missing => {
                write!(f, "an event is missing in the mirror, at {topic}/{partition}@{offset}")
            }
            FindingKind::Differing => {
                write!(f, "an event in the mirror is not the primary's, at {topic}/{partition}@{offset}")
            }
        }
    }
}

impl MirrorState {
    pub(super) fn new(run: u64, from: Side) -> Self {
        Self {
            format: FORMAT,
            run,
            from,
            leader: None,
            topics: BTreeMap::new(),
            copied: 0,
            repaired: 0,
            duplicates: 0,
            failures: 0,
            findings: Vec::new(),
            error: None,
            failing_ms: 0,
            lag_ms: 0,
            p99_us: None,
            samples: 0,
            window: 0,
            stamp: String::new(),
        }
    }

    /// For how long nothing could be copied.
    pub(crate) fn failing_for(&self) -> Duration {
        Duration::from_millis(self.failing_ms)
    }

    /// How long the mirror's publishes take.
    pub(crate) fn latency(&self) -> Option<(u64, Summary)> {
        let p99 = Duration::from_micros(self.p99_us?);
        Some((self.window, Summary { samples: self.samples, p99 }))
    }

    pub(super) fn found(&mut self, finding: Finding) {
        tracing::error!(%finding, "the mirror differs");
        metrics::counter!("eb_rollout_mirror_findings_total").increment(1);
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        }
    }
}

impl Document for MirrorState {
    fn check(&self) -> Result<(), String> {
        if self.format == FORMAT {
            Ok(())
        } else {
            Err(format!("it has format {}, this program knows {FORMAT}", self.format))
        }
    }

    fn stamp(&self) -> &str {
        &self.stamp
    }

    fn set_stamp(&mut self, stamp: String) {
        self.stamp = stamp;
    }
}
