//! One checkpoint as a file: its bytes, and which changes it allows.

use std::path::Path;

use eb_contract::stores::{Checkpoint, Lease, ResetRequest};
use eb_contract::{BusIncarnation, Cut, Error, ErrorKind, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Key, key_of};
use crate::error::corrupt;

/// How many resets are remembered.
pub(super) const HISTORY: usize = 100;
/// More than 100 resets with the longest reasons take.
pub(super) const MAX_FILE_BYTES: usize = 2 << 20;

const FORMAT: &str = "eb-file-checkpoint";
const VERSION: u32 = 1;
const MAX_REASON_CHARS: usize = 1024;
/// What precedes the eight digits of the checksum; every byte after them is covered.
const PREFIX: &[u8] = b"{\n  \"crc32c\": \"";
const COVERED: usize = PREFIX.len() + 8;

/// What a reset left behind for the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastReset {
    /// Where the checkpoint stood; `None` when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Cut>,
    /// Where it was set to.
    pub to: Cut,
    /// The life of the bus that `to` belongs to.
    pub bus_incarnation: BusIncarnation,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A checkpoint with what the store remembers beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) checkpoint: Checkpoint,
    /// The newest lease seen; kept through resets.
    pub(super) fence: Option<Lease>,
    /// Oldest first.
    pub(super) resets: Vec<PastReset>,
}

#[derive(Serialize)]
struct FileOut<'a> {
    crc32c: &'a str,
    format: &'a str,
    version: u32,
    checkpoint: &'a Checkpoint,
    fence: &'a Option<Lease>,
    resets: &'a [PastReset],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIn {
    #[serde(rename = "crc32c")]
    _crc32c: String,
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    checkpoint: Checkpoint,
    fence: Option<Lease>,
    resets: Vec<PastReset>,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u32,
}

impl Stored {
    /// The file's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let file = FileOut {
            crc32c: "00000000",
            format: FORMAT,
            version: VERSION,
            checkpoint: &self.checkpoint,
            fence: &self.fence,
            resets: &self.resets,
        };
        let mut bytes =
            serde_json::to_vec_pretty(&file).expect("structs of strings, numbers and cuts always serialise");
        bytes.push(b'\n');
        let crc = format!("{:08x}", crc_fast::crc32_iscsi(&bytes[COVERED..]));
        bytes[PREFIX.len()..COVERED].copy_from_slice(crc.as_bytes());
        bytes
    }

    /// Reads a file's bytes; they must be the checkpoint of `key`.
    pub(super) fn decode(op: &'static str, path: &Path, bytes: &[u8], key: &Key) -> Result<Self> {
        let bad = |why: String| {
            corrupt(op, path, None, None, format!("it is no checkpoint that was written here: {why}"))
                .advise("restore it from a copy, or move it away and reset the checkpoint with a reason")
        };
        let digits = bytes.strip_prefix(PREFIX).and_then(|rest| rest.get(..8));
        let digits = digits.ok_or_else(|| bad("it does not begin as one does".to_owned()))?;
        let crc = format!("{:08x}", crc_fast::crc32_iscsi(&bytes[COVERED..]));
        if digits != crc.as_bytes() {
            return Err(bad(format!("its checksum is {crc}, it says {}", String::from_utf8_lossy(digits))));
        }
        let head: Versioned = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if head.format != FORMAT {
            return Err(bad(format!("its format is {:?}", head.format)));
        }
        if head.version != VERSION {
            let what = format!("format version {}, this program knows {VERSION}", head.version);
            return Err(Error::new(ErrorKind::WrongVersion, op, what)
                .at(path.display())
                .advise("use a newer program"));
        }
        let file: FileIn = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if key_of(&file.checkpoint) != *key {
            return Err(bad(format!("it is of {}", place(&file.checkpoint))));
        }
        // Commits count on from it.
        if !(1..u64::MAX).contains(&file.checkpoint.version) {
            return Err(bad(format!("a checkpoint never has version {}", file.checkpoint.version)));
        }
        Ok(Self { checkpoint: file.checkpoint, fence: file.fence, resets: file.resets })
    }

    /// What is stored after committing `c`, where `before` allows that.
    pub(super) fn committed(before: Option<Self>, c: &Checkpoint, lease: &Lease) -> Result<Self> {
        if lease.owner.is_empty() || lease.owner.chars().count() > 256 {
            return Err(invalid("commit", place(c), "a lease owner has 1 to 256 characters"));
        }
        match &before {
            Some(before) => before.allows(c, lease)?,
            None if c.version != 0 => {
                return Err(refused(
                    ErrorKind::VersionConflict { current: 0 },
                    c,
                    format!("version {} was expected, nothing is stored", c.version),
                ));
            }
            None => {}
        }
        let stood = before.as_ref().map(|s| &s.checkpoint);
        let checkpoint = Checkpoint {
            caught_up_at: c.caught_up_at.max(stood.and_then(|s| s.caught_up_at)),
            version: stood.map_or(0, |s| s.version) + 1,
            lease: Some(lease.clone()),
            committed_at: Some(Timestamp::now()),
            ..c.clone()
        };
        Ok(Self {
            checkpoint,
            fence: Some(lease.clone()),
            resets: before.map(|s| s.resets).unwrap_or_default(),
        })
    }

    fn allows(&self, c: &Checkpoint, lease: &Lease) -> Result<()> {
        let current = &self.checkpoint;
        if let Some(fence) = &self.fence
            && (lease.epoch < fence.epoch || lease.epoch == fence.epoch && lease.owner != fence.owner)
        {
            let what = format!(
                "epoch {} of {:?} has taken over from epoch {}",
                fence.epoch, fence.owner, lease.epoch
            );
            return Err(refused(ErrorKind::Fenced, c, what));
        }
        if c.bus_incarnation != current.bus_incarnation {
            let what =
                format!("the checkpoint belongs to {}, not {}", current.bus_incarnation, c.bus_incarnation);
            return Err(refused(ErrorKind::WrongIncarnation, c, what));
        }
        if c.version != current.version {
            let what = format!("version {} was expected, version {} is stored", c.version, current.version);
            return Err(refused(ErrorKind::VersionConflict { current: current.version }, c, what));
        }
        match c.cut.compare(&current.cut) {
            None => Err(invalid("commit", place(c), "the cut is of another offset kind than the stored one")),
            Some(order) if order.is_lt() => Err(refused(
                ErrorKind::BackwardCommit { current: current.cut },
                c,
                format!("{} lies before the stored {}", c.cut, current.cut),
            )),
            Some(_) => Ok(()),
        }
    }

    /// What is stored after a reset.
    pub(super) fn reset(before: Option<Self>, request: &ResetRequest) -> Self {
        let now = Timestamp::now();
        let (stood, fence, mut resets) = match before {
            Some(s) => (Some(s.checkpoint), s.fence, s.resets),
            None => (None, None, Vec::new()),
        };
        if resets.len() >= HISTORY {
            resets.drain(..=resets.len() - HISTORY);
        }
        resets.push(PastReset {
            from: stood.as_ref().map(|s| s.cut),
            to: request.cut,
            bus_incarnation: request.bus_incarnation.clone(),
            reason: request.reason.clone(),
            at: now,
        });
        let checkpoint = Checkpoint {
            consumer: request.consumer.clone(),
            topic: request.topic.clone(),
            partition_id: request.partition_id,
            cut: request.cut,
            caught_up_at: None,
            version: stood.as_ref().map_or(0, |s| s.version) + 1,
            bus_incarnation: request.bus_incarnation.clone(),
            lease: stood.and_then(|s| s.lease),
            committed_at: Some(now),
        };
        Self { checkpoint, fence, resets }
    }
}

/// Refuses a reset without a reason, or with a book.
pub(super) fn check_reason(key: &Key, reason: &str) -> Result<()> {
    let place = format!("{} {}/{}", key.0, key.1, key.2);
    if reason.trim().is_empty() {
        return Err(invalid("reset", place, "a reset needs a reason"));
    }
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(invalid("reset", place, "a reason has at most 1,024 characters"));
    }
    Ok(())
}

fn place(c: &Checkpoint) -> String {
    format!("{} {}/{}", c.consumer, c.topic, c.partition_id)
}

fn invalid(op: &'static str, place: String, what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, op, what).at(place)
}

fn refused(kind: ErrorKind, c: &Checkpoint, what: String) -> Error {
    let advice = match kind {
        ErrorKind::VersionConflict { .. } => "load it again and go on from there",
        ErrorKind::BackwardCommit { .. } => "to go back, reset the checkpoint with a reason",
        ErrorKind::Fenced => "stop this consumer, another has taken over",
        _ => "to go over to another life of the bus, reset the checkpoint with a reason",
    };
    Error::new(kind, "commit", what).at(place(c)).advise(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eb_contract::{ConsumerName, Offset, OffsetKind, PartitionId, Topic};

    fn key() -> Key {
        (ConsumerName::new("c").unwrap(), Topic::new("t").unwrap(), PartitionId(0))
    }

    fn stored() -> Stored {
        let (consumer, topic, partition_id) = key();
        let checkpoint = Checkpoint {
            consumer,
            topic,
            partition_id,
            cut: Cut::Next(Offset::from_u64(OffsetKind::FileLine, 100)),
            caught_up_at: Some(Timestamp::EPOCH),
            version: 0,
            bus_incarnation: BusIncarnation::new("life-1").unwrap(),
            lease: None,
            committed_at: None,
        };
        Stored::committed(None, &checkpoint, &Lease { owner: "a \"b\"".to_owned(), epoch: 3 }).unwrap()
    }

    fn request(n: u64) -> ResetRequest {
        let (consumer, topic, partition_id) = key();
        ResetRequest {
            consumer,
            topic,
            partition_id,
            cut: Cut::Next(Offset::from_u64(OffsetKind::FileLine, n)),
            bus_incarnation: BusIncarnation::new("life-1").unwrap(),
            reason: format!("replay {n}"),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Stored> {
        Stored::decode("load", Path::new("f.json"), bytes, &key())
    }

    #[test]
    fn what_was_written_comes_back_and_can_be_read_by_people() {
        let stored = Stored::reset(Some(stored()), &request(7));
        let bytes = stored.encode();
        assert_eq!(decode(&bytes).unwrap(), stored);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\"offset\": \"7\"") && text.contains("\"reason\": \"replay 7\""), "{text}");
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_corrupt() {
        let good = stored().encode();
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                let e = decode(&bad).unwrap_err();
                assert!(
                    matches!(e.kind(), ErrorKind::Corrupt { file, .. } if file == "f.json"),
                    "{byte}: {e}"
                );
            }
            assert!(decode(&good[..byte]).is_err());
        }
    }

    #[test]
    fn another_checkpoints_file_and_a_later_version_are_named() {
        let mut other = stored();
        other.checkpoint.consumer = ConsumerName::new("C").unwrap();
        assert!(decode(&other.encode()).unwrap_err().to_string().contains("C t/0"));
        let text = String::from_utf8(stored().encode())
            .unwrap()
            .replace("\"version\": 1,\n  \"checkpoint\"", "\"version\": 2,\n  \"checkpoint\"");
        let crc = crc_fast::crc32_iscsi(&text.as_bytes()[COVERED..]);
        let text = format!("{}{crc:08x}{}", &text[..PREFIX.len()], &text[COVERED..]);
        assert_eq!(*decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::WrongVersion);
    }

    #[test]
    fn a_version_that_no_commit_can_follow_is_corrupt() {
        for version in [0, u64::MAX] {
            let mut bent = stored();
            bent.checkpoint.version = version;
            assert!(matches!(decode(&bent.encode()).unwrap_err().kind(), ErrorKind::Corrupt { .. }));
        }
    }

    #[test]
    fn only_the_newest_resets_are_remembered_and_the_largest_file_is_still_read() {
        let mut s = stored();
        for n in 0..HISTORY as u64 + 20 {
            s = Stored::reset(
                Some(s),
                &ResetRequest { reason: "\u{1}".repeat(MAX_REASON_CHARS), ..request(n) },
            );
        }
        assert_eq!(s.resets.len(), HISTORY);
        assert_eq!(s.resets[0].to, request(20).cut);
        assert_eq!((s.checkpoint.version, s.fence.as_ref().map(|f| f.epoch)), (HISTORY as u64 + 21, Some(3)));
        assert!(s.encode().len() < MAX_FILE_BYTES);
    }
}
