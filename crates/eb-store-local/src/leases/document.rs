//! What the file of leases holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eb_contract::stores::{Lease, Reported, WorkReport};
use eb_contract::{ConsumerName, Error, ErrorKind, PartitionId, Result, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use crate::files::{corrupt, line};

const SORT: &str = "leases";
/// What is written. Version 1 had no reports; it is read as a file without any.
const VERSION: u32 = 2;

/// Every lease and living worker of a consumer on a topic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) consumer: ConsumerName,
    pub(super) topic: Topic,
    /// The boot that the ends belong to.
    boot: [u8; 16],
    pub(super) leases: BTreeMap<PartitionId, Held>,
    pub(super) workers: BTreeMap<String, Until>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// `None` once it was released, or its boot has ended.
    pub(super) until: Option<Until>,
    /// What its holder last said of its work.
    pub(super) reported: Option<Reported>,
}

/// An end on the boot's clock, and how long before it was set at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Until {
    end_us: u64,
    given_us: u64,
}

impl Until {
    pub(super) fn after(now: Duration, time_to_live: Duration) -> Self {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Self { end_us: micros(now + time_to_live), given_us: micros(time_to_live) }
    }

    /// The one that ends later.
    pub(super) fn later(self, other: Self) -> Self {
        if other.end_us > self.end_us { other } else { self }
    }

    /// What is left; `None` when it has ended, or was never given by this clock.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        let left = Duration::from_micros(self.end_us).checked_sub(now)?;
        (!left.is_zero() && left <= Duration::from_micros(self.given_us)).then_some(left)
    }
}

impl Held {
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        self.until.and_then(|until| until.left(now))
    }

    pub(super) fn extend(&mut self, until: Until) {
        self.until = Some(self.until.map_or(until, |before| before.later(until)));
    }

    pub(super) fn release(&mut self) {
        (self.until, self.reported) = (None, None);
    }

    /// The report, as long as the lease lasts.
    pub(super) fn reported(&self, now: Duration) -> Option<Reported> {
        self.reported.filter(|_| self.left(now).is_some())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseFile {
    partition_id: PartitionId,
    owner: String,
    epoch: u64,
    until: Option<Until>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    report: Option<ReportFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportFile {
    at: Timestamp,
    work: WorkReport,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerFile {
    owner: String,
    until: Until,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "crc32c")]
    _crc32c: String,
    #[serde(rename = "line")]
    _line: String,
    #[serde(rename = "version")]
    _version: u32,
    consumer: ConsumerName,
    topic: Topic,
    boot: String,
    leases: Vec<LeaseFile>,
    workers: Vec<WorkerFile>,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Document {
    pub(super) fn new(of: &(ConsumerName, Topic), boot: [u8; 16]) -> Self {
        let (consumer, topic) = of.clone();
        Self { consumer, topic, boot, leases: BTreeMap::new(), workers: BTreeMap::new() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let leases = self.leases.iter().map(|(partition_id, held)| LeaseFile {
            partition_id: *partition_id,
            owner: held.lease.owner.clone(),
            epoch: held.lease.epoch,
            until: held.until,
            report: held.reported.map(|Reported { work, at }| ReportFile { at, work }),
        });
        let workers =
            self.workers.iter().map(|(owner, until)| WorkerFile { owner: owner.clone(), until: *until });
        let mut out = Vec::new();
        let start = line::begin(&mut out, SORT);
        line::member(&mut out, "version", &VERSION);
        line::member(&mut out, "consumer", &self.consumer);
        line::member(&mut out, "topic", &self.topic);
        line::name_of(&mut out, "boot");
        line::hex(&mut out, &self.boot);
        line::member(&mut out, "leases", &leases.collect::<Vec<_>>());
        line::member(&mut out, "workers", &workers.collect::<Vec<_>>());
        line::end(&mut out, start);
        out
    }

    /// Reads the file; what another boot than `boot` has written has ended.
    pub(super) fn decode(
        op: &'static str,
        path: &Path,
        bytes: &[u8],
        of: &(ConsumerName, Topic),
        boot: [u8; 16],
    ) -> Result<Self> {
        let bad = |why: String| {
            corrupt(op, path, 0, format!("these are no leases that were written here: {why}"))
                .advise("remove the file to begin anew; new epochs lie above the old ones")
        };
        let text = bytes.strip_suffix(b"\n").filter(|text| line::sort(text) == Some(SORT));
        let text = text.ok_or_else(|| bad("the checksum does not hold".to_owned()))?;
        let head: Versioned = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
        if !(1..=VERSION).contains(&head.version) {
            let what = format!("format version {}, this program knows 1 to {VERSION}", head.version);
            return Err(Error::new(ErrorKind::WrongVersion, op, what)
                .at(path.display())
                .advise("use a newer program"));
        }
        let file: File = serde_json::from_slice(text).map_err(|e| bad(e.to_string()))?;
        if (&file.consumer, &file.topic) != (&of.0, &of.1) {
            return Err(bad(format!("they are of {} on {}", file.consumer, file.topic)));
        }
        let written: [u8; 16] =
            line::unhex(&file.boot).ok_or_else(|| bad("the boot's id is none".to_owned()))?;
        let this_boot = written == boot;
        let held = |l: LeaseFile| {
            let lease = Lease { owner: l.owner, epoch: l.epoch };
            let until = l.until.filter(|_| this_boot);
            let reported = l.report.filter(|_| until.is_some());
            let reported = reported.map(|ReportFile { at, work }| Reported { work, at });
            (l.partition_id, Held { lease, until, reported })
        };
        let workers = file.workers.into_iter().filter(|_| this_boot).map(|w| (w.owner, w.until));
        Ok(Self {
            consumer: file.consumer,
            topic: file.topic,
            boot,
            leases: file.leases.into_iter().map(held).collect(),
            workers: workers.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use eb_contract::stores::WorkPhase;

    use super::*;

    fn of() -> (ConsumerName, Topic) {
        (ConsumerName::new("scorer").unwrap(), Topic::new("t").unwrap())
    }

    fn document() -> Document {
        let mut document = Document::new(&of(), [7; 16]);
        let until = Until::after(Duration::from_secs(100), Duration::from_secs(60));
        let lease = Lease { owner: "a \"b\" \u{0}".to_owned(), epoch: u64::MAX };
        let work = WorkReport { phase: WorkPhase::Paused, in_flight: 7, keys_retrying: 2, retries: u64::MAX };
        let reported = Some(Reported { work, at: Timestamp::from_micros(1_769_680_000_000_000).unwrap() });
        document.leases.insert(PartitionId(3), Held { lease, until: Some(until), reported });
        document.workers.insert("a".to_owned(), until);
        document
    }

    fn decode(bytes: &[u8], boot: [u8; 16]) -> Result<Document> {
        Document::decode("claim", Path::new("leases.json"), bytes, &of(), boot)
    }

    #[test]
    fn what_was_written_comes_back_in_the_same_boot() {
        assert_eq!(decode(&document().encode(), [7; 16]).unwrap(), document());
    }

    #[test]
    fn another_boot_keeps_the_epochs_and_ends_the_leases() {
        let later = decode(&document().encode(), [8; 16]).unwrap();
        let held = &later.leases[&PartitionId(3)];
        assert_eq!((held.lease.epoch, held.until, held.reported), (u64::MAX, None, None));
        assert!(later.workers.is_empty());
    }

    #[test]
    fn a_file_of_the_first_version_is_read_and_one_of_a_later_version_is_refused() {
        let mut old = document();
        old.leases.values_mut().for_each(|held| held.reported = None);
        let text = String::from_utf8(old.encode()).unwrap();
        let of_version = |version: &str| {
            let body = text.trim_end().split_once(r#""line""#).unwrap().1;
            let body = body.replacen(r#""version":2"#, &format!(r#""version":{version}"#), 1);
            let mut out = Vec::new();
            let start = line::begin(&mut out, SORT);
            let from = body.find(r#","version""#).unwrap();
            out.extend_from_slice(&body.as_bytes()[from..body.len() - 1]);
            line::end(&mut out, start);
            out
        };
        assert_eq!(of_version("2"), text.as_bytes(), "the same line, put together by hand");
        assert_eq!(decode(&of_version("1"), [7; 16]).unwrap(), old);
        let newer = decode(&of_version("3"), [7; 16]).unwrap_err();
        assert_eq!(*newer.kind(), ErrorKind::WrongVersion);
    }

    #[test]
    fn an_end_that_this_clock_cannot_have_given_has_ended() {
        let until = Until::after(Duration::from_secs(1_000_000), Duration::from_secs(60));
        assert_eq!(until.left(Duration::from_secs(5)), None, "the clock began anew");
        assert_eq!(until.left(Duration::from_secs(1_000_000)), Some(Duration::from_secs(60)));
        assert_eq!(until.left(Duration::from_secs(1_000_060)), None);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_corrupt() {
        let good = document().encode();
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(matches!(decode(&bad, [7; 16]).unwrap_err().kind(), ErrorKind::Corrupt { .. }));
            }
            assert!(matches!(decode(&good[..byte], [7; 16]).unwrap_err().kind(), ErrorKind::Corrupt { .. }));
        }
    }
}
