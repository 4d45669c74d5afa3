//! Doing what a check has shown.

use std::io;
use std::path::Path;

use eb_contract::{Error, ErrorKind, PartitionId, Result, Topic};

use super::partition::Check;
use super::{Repair, Report};
use crate::disk::{Disk, RealDisk};
use crate::error::io_error;
use crate::layout::{Layout, PartitionFiles, TopicMeta};
use crate::lock::{WriterId, WriterLock, lock_writer};
use crate::recovery::{RecoveryReport, recover_locked};

const OP: &str = "repair";

/// A repair that was done.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// What was done.
    pub repair: Repair,
    /// What the recovery of a partition found and did.
    pub recovery: Option<RecoveryReport>,
}

/// A partition to recover, locked and found as it was shown.
struct Locked {
    lock: WriterLock,
    files: PartitionFiles,
    meta: TopicMeta,
    id: PartitionId,
}

/// Does what `report` shows as repairs, or nothing: each partition is locked and checked again, and if anything is not as it was shown, nothing is
/// changed. Records that were synced are never touched. A crash in the middle leaves a bus for which checking and repairing can be done again. Blocking.
///
/// # Errors
/// `Locked` while a writer has one of the partitions open; `Unavailable` when the bus has changed since it was checked; otherwise as recovery says.
pub fn repair(report: &Report) -> Result<Vec<Repaired>> {
    repair_on(&RealDisk, report)
}

/// As [`repair`], on another disk.
///
/// # Errors
/// As for [`repair`].
pub fn repair_on(disk: &dyn Disk, report: &Report) -> Result<Vec<Repaired>> {
    let layout = Layout::new(&report.root);
    let mut locked = Vec::new();
    for repair in report.repairs() {
        if let Repair::Recover { topic, partition_id, .. } = repair {
            locked.push((repair, lock_and_compare(disk, &layout, topic, *partition_id, repair)?));
        }
    }
    let mut done = Vec::new();
    for (repair, Locked { lock, files, meta, id }) in locked {
        let (mut open, recovery) = recover_locked(lock, disk, &files, &meta, id, disk.boot_id(), true)?;
        open.sidecar.close().map_err(|e| {
            io_error(OP, &files.sidecar, "the log is recovered, but its sidecar is not synced", e)
        })?;
        done.push(Repaired { repair: repair.clone(), recovery: Some(recovery) });
    }
    for repair in report.repairs() {
        match repair {
            Repair::Recover { .. } => continue,
            Repair::RemoveTemporary { file } => remove(disk, file)?,
            Repair::FinishTopic { topic, partitions } => _ = layout.create_topic(disk, topic, *partitions)?,
        }
        done.push(Repaired { repair: repair.clone(), recovery: None });
    }
    Ok(done)
}

fn lock_and_compare(
    disk: &dyn Disk,
    layout: &Layout,
    topic: &Topic,
    id: PartitionId,
    shown: &Repair,
) -> Result<Locked> {
    let meta = layout.load_topic(disk, OP, topic)?;
    let files = layout.partition(topic, id);
    let lock = lock_writer(OP, disk, &files, WriterId::fresh())?;
    let now = Check { disk, layout, meta: &meta, id, locked: true }.run(None, &mut |_| {})?;
    if !now.repairs.contains(shown) {
        return Err(Error::new(ErrorKind::Unavailable, OP, "the partition has changed since it was checked")
            .at(format_args!("{topic}/{id}"))
            .advise("check again, look at what a repair would do now, and repair then"));
    }
    Ok(Locked { lock, files, meta, id })
}

fn remove(disk: &dyn Disk, file: &Path) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    match disk.remove(file) {
        // A recovery has used it meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| disk.sync_dir(dir)),
    }
    .map_err(|e| io_error(OP, file, "cannot remove it", e))
}
