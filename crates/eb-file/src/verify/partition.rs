//! One partition: its log, its sidecar, and what lies beside them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::digest::KeySequenceDigest;
use eb_contract::{Error, ErrorKind, PartitionId, Result};

use super::log::{Damage, KEPT, LogScan, scan_log};
use super::plan::Plan;
use super::{
    Acked, Finding, FindingKind, OP, PartitionReport, Progress, Repair, Severity, temporary, unreadable,
};
use crate::block::{Patience, read_at};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::line::LineDamage;
use crate::format::sidecar::{ENTRY_LEN, Entry, Header};
use crate::index::{self, Found};
use crate::layout::{Layout, PartitionFiles, TopicMeta};

const HEADER_ATTEMPTS: u32 = 5;
const ENTRIES_PER_READ: usize = 4096;

/// A check of one partition.
pub(super) struct Check<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) layout: &'a Layout,
    pub(super) meta: &'a TopicMeta,
    pub(super) id: PartitionId,
    /// The caller holds the writer's lock, so nobody writes.
    pub(super) locked: bool,
}

/// What is known of the sidecar.
struct Sidecar {
    header: Option<(Header, Arc<dyn DiskFile>)>,
    /// Why there is none to believe.
    why: Option<(FindingKind, String)>,
}

impl Check<'_> {
    pub(super) fn run(
        &self,
        mut keys: Option<&mut KeySequenceDigest>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PartitionReport> {
        let files = self.layout.partition(&self.meta.topic, self.id);
        let log = match self.disk.open(&files.log, OpenMode::Read) {
            Ok(log) => log,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(self.without_log(&files)),
            Err(e) => return Err(unreadable(&files.log, e)),
        };
        let mut written = !self.locked && self.is_written(&files)?;
        loop {
            // Digests start over with the scan.
            let sidecar = self.sidecar(&files)?;
            let len = log.len().map_err(|e| unreadable(&files.log, e))?;
            let watermark = sidecar.header.as_ref().map(|(h, _)| h.watermark);
            let end = match watermark {
                Some(w) if written => w.bytes.min(len),
                _ => len,
            };
            let mut tell = |bytes, records| {
                progress(Progress {
                    topic: &self.meta.topic,
                    partition_id: self.id,
                    records,
                    bytes,
                    total_bytes: end,
                });
            };
            let next = watermark.map_or(0, |w| w.next);
            match scan_log(&*log, end, next, keys.as_deref_mut(), &mut tell) {
                Ok(scan) => return self.judge(&files, &scan, &sidecar, len, end, written),
                // A writer has opened the log meanwhile and cut what was torn.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && !written && keys.is_none() => {
                    written = true;
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Error::new(ErrorKind::Unavailable, OP, "the log changed while it was read")
                        .at(files.log.display())
                        .advise("verify again"));
                }
                Err(e) => return Err(unreadable(&files.log, e)),
            }
        }
    }

    fn without_log(&self, files: &PartitionFiles) -> PartitionReport {
        let mut report = self.empty();
        let message = "the log is missing: none of its records can be read";
        report.find(FindingKind::MissingRecords, Severity::Facts, Acked::Yes, &files.log, None, message);
        report
    }

    fn empty(&self) -> PartitionReport {
        PartitionReport {
            partition_id: self.id,
            records: 0,
            bytes: 0,
            watermark: None,
            being_written: false,
            digest: None,
            findings: Vec::new(),
            more_findings: 0,
            repairs: Vec::new(),
        }
    }

    /// Whether someone holds the writer's lock. Makes no lock file where there is none.
    fn is_written(&self, files: &PartitionFiles) -> Result<bool> {
        match self.disk.open(&files.lock, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(unreadable(&files.lock, e)),
            Ok(_) => {}
        }
        match crate::lock::peek(self.disk, &files.lock) {
            Ok(held) => Ok(held),
            // Who may not lock cannot know, and is as careful as if it were.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(true)
            }
            Err(e) => Err(unreadable(&files.lock, e)),
        }
    }

    fn sidecar(&self, files: &PartitionFiles) -> Result<Sidecar> {
        let mut attempt = 1;
        loop {
            let found = index::find(self.disk, &files.sidecar, self.meta.incarnation, self.id.0)
                .map_err(|e| unreadable(&files.sidecar, e))?;
            return Ok(match found {
                Found::Usable(header, file) => Sidecar { header: Some((header, file)), why: None },
                Found::Newer(version) => {
                    let what = format!("the sidecar has version {version}, which this program does not know");
                    return Err(Error::new(ErrorKind::WrongVersion, OP, what)
                        .at(files.sidecar.display())
                        .advise("use a newer program"));
                }
                Found::Unusable(_) if attempt < HEADER_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                }
                Found::Unusable(why) => {
                    let is_there = self.disk.open(&files.sidecar, OpenMode::Read).is_ok();
                    let kind =
                        if is_there { FindingKind::SidecarDamaged } else { FindingKind::SidecarMissing };
                    Sidecar { header: None, why: Some((kind, why)) }
                }
            });
        }
    }

    fn judge(
        &self,
        files: &PartitionFiles,
        scan: &LogScan,
        sidecar: &Sidecar,
        len: u64,
        end: u64,
        written: bool,
    ) -> Result<PartitionReport> {
        let header = sidecar.header.as_ref().map(|(h, _)| h);
        let watermark = header.map_or(0, |h| h.watermark.next);
        let mut report = PartitionReport {
            records: scan.good,
            bytes: end,
            watermark: header.map(|h| h.watermark.next),
            being_written: written,
            ..self.empty()
        };
        // A bad line is an interior fault if the watermark or a later group proves that it was synced.
        let proven = watermark.max(scan.durable);
        let torn = scan.damages.iter().find(|d| d.offset >= proven);
        for damage in scan.damages.iter().filter(|d| d.offset < proven) {
            let (message, acked) = (interior(damage, scan, watermark), Acked::Yes);
            let at = Some((damage.line, damage.byte));
            report.find(FindingKind::DamagedRecord, Severity::Facts, acked, &files.log, at, message);
        }
        report.more_findings += scan.more_damages;
        for (line, byte) in &scan.falls {
            let message = "it was published before the record in front of it, says its time";
            let at = Some((*line, *byte));
            report.find(FindingKind::TimeFalls, Severity::Facts, Acked::Yes, &files.log, at, message);
        }
        let fits = self.judge_watermark(files, scan, header, len, &mut report);
        let mut plan = Plan::default();
        if !written {
            self.judge_tail(files, scan, header, torn, len, &mut plan, &mut report);
        }
        self.judge_index(files, scan, sidecar, len, written, fits, &mut plan, &mut report)?;
        self.leftovers(files, &mut report)?;
        use FindingKind::{DamagedRecord, MissingRecords, WatermarkWrong};
        let lost = |f: &Finding| {
            f.severity == Severity::Facts && matches!(f.kind, DamagedRecord | MissingRecords | WatermarkWrong)
        };
        let whole = !report.findings.iter().any(lost);
        if whole {
            report.records = scan.end.next;
            report.digest = Some(scan.digest.finish());
        }
        if written {
            report.repairs.clear();
        } else if whole && let Some(recover) = plan.repair(&self.meta.topic, self.id) {
            report.repairs.insert(0, recover);
        }
        Ok(report)
    }

    /// Whether the log is as long as the watermark says, and has the line there that it says.
    fn judge_watermark(
        &self,
        files: &PartitionFiles,
        scan: &LogScan,
        header: Option<&Header>,
        len: u64,
        report: &mut PartitionReport,
    ) -> bool {
        let Some(w) = header.map(|h| h.watermark) else { return true };
        // Where a damaged record already says so, counting what it hides adds nothing.
        let clear = scan.damages.iter().all(|d| d.offset >= w.next);
        if len < w.bytes || (clear && scan.end.next < w.next) {
            let from = scan.end.next;
            let message = format!(
                "records {from} to {} were synced and are missing: the log has {len} bytes, the sidecar says {}",
                w.next.saturating_sub(1),
                w.bytes
            );
            report.find(FindingKind::MissingRecords, Severity::Facts, Acked::Yes, &files.log, None, message);
            return false;
        }
        match scan.at_watermark {
            Some(at) if clear && at.bytes != w.bytes => {
                let message = format!(
                    "the sidecar says that record {} starts at byte {}, it starts at byte {}: bytes were added or lost before it",
                    w.next, w.bytes, at.bytes
                );
                let line = Some((w.next + 1, at.bytes));
                report.find(
                    FindingKind::WatermarkWrong,
                    Severity::Facts,
                    Acked::Yes,
                    &files.log,
                    line,
                    message,
                );
                false
            }
            Some(at) if clear && at.last_time != w.last_time => {
                let message = "the time it gives for the last synced record is not that record's";
                report.find(
                    FindingKind::WatermarkWrong,
                    Severity::Derived,
                    Acked::NotApplicable,
                    &files.sidecar,
                    None,
                    message,
                );
                false
            }
            _ => true,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn judge_tail(
        &self,
        files: &PartitionFiles,
        scan: &LogScan,
        header: Option<&Header>,
        torn: Option<&Damage>,
        len: u64,
        plan: &mut Plan,
        report: &mut PartitionReport,
    ) {
        let good_end = torn.map_or(scan.end.bytes, |d| d.byte);
        if let Some(damage) = torn {
            let bytes = scan.content_end - damage.byte;
            let acked = if header.is_some() { Acked::No } else { Acked::Unknown };
            let told = match acked {
                Acked::No => "nobody was told that they are durable",
                _ => "without a sidecar nothing says whether anybody was told that they are durable",
            };
            let message = format!(
                "the last {bytes} bytes are torn ({}): {told}; the next opening for writing sets them aside",
                damage.what
            );
            let at = Some((damage.line, damage.byte));
            report.find(FindingKind::TornTail, Severity::Unfinished, acked, &files.log, at, message);
            plan.torn = Some((damage.byte, bytes));
        }
        let padding = len - scan.content_end.max(good_end.min(len));
        if padding > 0 {
            let message = format!("{padding} bytes of blank lines after the last record");
            report.find(
                FindingKind::Padding,
                Severity::Unfinished,
                Acked::NotApplicable,
                &files.log,
                None,
                message,
            );
            report.last_at(len - padding);
            plan.padding = padding;
        }
        let proven = header.map_or(0, |h| h.watermark.bytes).max(scan.group.bytes);
        if good_end > proven && scan.damages.iter().all(|d| d.byte >= good_end) {
            let message = format!(
                "{} bytes of whole lines, from record {} on, that nothing proves to have been synced; the next opening for writing writes and \
                 syncs them again",
                good_end - proven,
                header.map_or(0, |h| h.watermark.next).max(scan.group.next),
            );
            report.find(
                FindingKind::UnprovenTail,
                Severity::Unfinished,
                Acked::Unknown,
                &files.log,
                None,
                message,
            );
            report.last_at(proven);
            plan.unproven = good_end - proven;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn judge_index(
        &self,
        files: &PartitionFiles,
        scan: &LogScan,
        sidecar: &Sidecar,
        len: u64,
        written: bool,
        fits: bool,
        plan: &mut Plan,
        report: &mut PartitionReport,
    ) -> Result<()> {
        let Some((header, file)) = &sidecar.header else {
            // A log that was never written to has none.
            if let Some((kind, why)) = sidecar.why.clone().filter(|_| len > 0) {
                let message = format!("it cannot be used: {why}; the log is read by scan");
                plan.rebuild(files, report, kind, message);
            }
            return Ok(());
        };
        if !fits {
            plan.sidecar.get_or_insert_with(|| "its watermark did not fit".to_owned());
        }
        let below: Vec<&Entry> = scan.entries.iter().filter(|e| e.byte < header.watermark.bytes).collect();
        let whole = scan.damages.is_empty();
        let mut slot = 0;
        let mut block = vec![0; ENTRIES_PER_READ * ENTRY_LEN];
        while slot < header.entries {
            let left = usize::try_from(header.entries - slot).unwrap_or(usize::MAX);
            let want = left.min(ENTRIES_PER_READ) * ENTRY_LEN;
            let read = read_at(&**file, Patience::Blocking, &mut block[..want], Entry::place(slot))
                .map_err(|e| unreadable(&files.sidecar, e))?;
            for bytes in block[..read].chunks(ENTRY_LEN) {
                let expected = usize::try_from(slot).ok().and_then(|i| below.get(i).copied());
                if let Some(message) = entry_fault(slot, Entry::decode(bytes, slot), expected, whole) {
                    plan.rebuild(files, report, FindingKind::IndexWrong, message);
                }
                slot += 1;
            }
            if read < want {
                let message = format!("it ends before index entry {slot} of {}", header.entries);
                plan.rebuild(files, report, FindingKind::IndexWrong, message);
                break;
            }
        }
        let missing = (below.len() as u64).saturating_sub(header.entries);
        if missing > 0 && !written {
            let message = format!("{missing} index entries are missing: look-ups there take a scan");
            plan.rebuild(files, report, FindingKind::IndexLags, message);
        }
        Ok(())
    }

    /// What lies beside the log under names of this partition.
    fn leftovers(&self, files: &PartitionFiles, report: &mut PartitionReport) -> Result<()> {
        let prefix = files.torn_prefix();
        let mut names: Vec<String> = self
            .disk
            .list(&files.dir)
            .map_err(|e| unreadable(&files.dir, e))?
            .into_iter()
            .filter(|e| !e.is_dir && e.name.starts_with(&prefix))
            .map(|e| e.name)
            .collect();
        names.sort();
        for name in names {
            let path = files.dir.join(&name);
            if path == files.torn_temporary() {
                report.findings.push(temporary(&path));
                report.repairs.push(Repair::RemoveTemporary { file: path });
                continue;
            }
            let size = self.disk.open(&path, OpenMode::Read).and_then(|f| f.len());
            let size = size.map_err(|e| unreadable(&path, e))?;
            let message = format!(
                "{size} bytes that a recovery set aside; keep them as long as someone may ask, then remove the file"
            );
            report.find(FindingKind::SetAside, Severity::Note, Acked::No, &path, None, message);
        }
        Ok(())
    }
}

impl PartitionReport {
    /// Gives the last finding a byte without a line.
    fn last_at(&mut self, byte: u64) {
        if let Some(finding) = self.findings.last_mut() {
            finding.byte = Some(byte);
        }
    }

    pub(super) fn find(
        &mut self,
        kind: FindingKind,
        severity: Severity,
        acked: Acked,
        file: &std::path::Path,
        at: Option<(u64, u64)>,
        message: impl Into<String>,
    ) {
        if self.findings.len() >= KEPT {
            self.more_findings += 1;
            return;
        }
        self.findings.push(Finding {
            kind,
            severity,
            acked,
            file: PathBuf::from(file),
            line: at.map(|(line, _)| line),
            byte: at.map(|(_, byte)| byte),
            message: message.into(),
        });
    }
}

fn interior(damage: &Damage, scan: &LogScan, watermark: u64) -> String {
    let evidence = if damage.offset < watermark {
        format!("the sidecar says that {watermark} records were synced")
    } else {
        format!("record {} behind it says that {} records were synced", scan.durable_at, scan.durable)
    };
    match damage.what {
        LineDamage::Offset { expected, found } if found > expected => {
            format!("records {expected} to {} are missing before this line, and {evidence}", found - 1)
        }
        what => format!("record {} is damaged: {what}; {evidence}", damage.offset),
    }
}

fn entry_fault(slot: u64, found: Option<Entry>, expected: Option<&Entry>, whole: bool) -> Option<String> {
    match (found, expected) {
        (None, _) => Some(format!("index entry {slot} is damaged")),
        (Some(found), Some(expected)) if found != *expected => Some(format!(
            "index entry {slot} says that record {} starts at byte {}; record {} at byte {} belongs there",
            found.offset, found.byte, expected.offset, expected.byte
        )),
        (Some(_), None) if whole => Some(format!("index entry {slot} names no line of the log")),
        _ => None,
    }
}
