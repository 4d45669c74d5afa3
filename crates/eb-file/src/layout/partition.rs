//! The files of a partition, by name.

use std::path::{Path, PathBuf};

use eb_contract::{Error, ErrorKind, PartitionId, Result, Timestamp};

use crate::disk::DirEntry;
use crate::error::corrupt;

/// The files of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFiles {
    /// The topic's folder.
    pub dir: PathBuf,
    /// The active log.
    pub log: PathBuf,
    /// Watermark and index.
    pub sidecar: PathBuf,
    /// The writer's lock.
    pub lock: PathBuf,
    stem: String,
}

impl PartitionFiles {
    pub(super) fn new(dir: PathBuf, partition: PartitionId) -> Self {
        let stem = format!("partition={partition}");
        let file = |extension: &str| dir.join(format!("{stem}.{extension}"));
        Self { log: file("jsonl"), sidecar: file("idx"), lock: file("lock"), stem, dir }
    }

    /// What the names of set-aside files begin with.
    #[must_use]
    pub fn torn_prefix(&self) -> String {
        format!("{}.torn-", self.stem)
    }

    /// What a set-aside file is called until it is whole.
    #[must_use]
    pub fn torn_temporary(&self) -> PathBuf {
        self.dir.join(format!("{}tmp", self.torn_prefix()))
    }

    /// The name of a file for bytes that are set aside now. No colon, so that it is a name everywhere.
    #[must_use]
    pub fn torn(&self, now: Timestamp) -> PathBuf {
        let compact: String = now.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
        self.dir.join(format!("{}{compact}", self.torn_prefix()))
    }
}

/// Refuses a folder with a log that this version would silently skip.
pub(super) fn check_placeable(
    op: &'static str,
    dir: &Path,
    names: &[DirEntry],
    partitions: u32,
) -> Result<()> {
    for entry in names {
        let Some(middle) = entry.name.strip_prefix("partition=").and_then(|n| n.strip_suffix(".jsonl"))
        else {
            continue;
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| n.to_string() == text);
        if number(middle).is_some_and(|n| n < partitions) {
            continue;
        }
        let path = dir.join(&entry.name);
        let sealed = middle.split_once('.').is_some_and(|(n, base)| {
            number(n).is_some() && base.len() == 20 && base.bytes().all(|b| b.is_ascii_digit())
        });
        return Err(if sealed {
            Error::new(ErrorKind::WrongVersion, op, "a sealed segment, which format version 1 does not read")
                .at(path.display())
                .advise("use a newer program")
        } else {
            let what = format!("not a log of one of the topic's {partitions} partitions");
            corrupt(op, &path, None, None, what)
                .advise("move it out of the folder if it does not belong there")
        });
    }
    Ok(())
}
