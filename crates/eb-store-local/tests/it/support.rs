//! Events, a log, and a gate's way of reopening.

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, IndexCut, PolicyRev,
    ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BusIncarnation, Cut, EbRef, Offset, OffsetKind, PartitionId, Timestamp, Topic};
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex};
use sha2::{Digest, Sha256};
use std::path::Path;

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// The key of an event, as the gate makes it.
pub(crate) fn key(event: u64) -> AdmissionKey {
    let id: [u8; 32] = Sha256::digest(event.to_le_bytes()).into();
    let dedupe: [u8; 32] = Sha256::digest([b"v1".as_slice(), &id].concat()).into();
    AdmissionKey { event: *id.first_chunk().unwrap(), dedupe }
}

/// The event as admitted at a line of the traffic topic.
pub(crate) fn entry(event: u64, line: u64) -> AdmissionEntry {
    entry_at(event, &topic("fp.bus.traffic.v1"), Offset::from_u64(OffsetKind::FileLine, line))
}

pub(crate) fn entry_at(event: u64, topic: &Topic, offset: Offset) -> AdmissionEntry {
    AdmissionEntry {
        key: key(event),
        payload_hash: Sha256::digest(event.to_be_bytes()).into(),
        eb_ref: EbRef {
            topic: topic.clone(),
            partition_id: PartitionId(0),
            offset,
            published_at_utc: Timestamp::from_micros(1_700_000_000_000_000 + event as i64).unwrap(),
        },
    }
}

pub(crate) fn policy(revision: &str) -> PolicyRev {
    PolicyRev { policy_id: "fraud".to_owned(), revision: revision.to_owned(), content_digest: "0".repeat(64) }
}

pub(crate) fn request(event: u64) -> ReserveRequest {
    ReserveRequest {
        key: key(event),
        payload_hash: Sha256::digest(event.to_be_bytes()).into(),
        topic: topic("fp.bus.traffic.v1"),
        start: Vec::new(),
        policy: policy("1").into(),
    }
}

/// A checkpoint before the line.
pub(crate) fn checkpoint(line: u64) -> IndexCheckpoint {
    IndexCheckpoint {
        key_version: 1,
        cuts: vec![IndexCut {
            topic: topic("fp.bus.traffic.v1"),
            partition_id: PartitionId(0),
            bus_incarnation: BusIncarnation::new("0195e6a8-0000-7000-8000-000000000001").unwrap(),
            cut: Cut::Next(Offset::from_u64(OffsetKind::FileLine, line)),
            last_crc32c: line.checked_sub(1).map(|last| last as u32),
            caught_up_at: None,
        }],
    }
}

/// The line that a checkpoint is before.
pub(crate) fn line_of(checkpoint: &IndexCheckpoint) -> u64 {
    match checkpoint.cuts[0].cut {
        Cut::Next(offset) => offset.as_u64().unwrap(),
        other => panic!("not a cut of this log: {other}"),
    }
}

pub(crate) fn open(dir: &Path) -> EmbeddedAdmissionIndex {
    EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir)).unwrap()
}

/// Reserves events that must be fresh.
pub(crate) async fn reserve(index: &EmbeddedAdmissionIndex, events: &[u64]) -> Vec<ReservationId> {
    let requests: Vec<_> = events.iter().map(|e| request(*e)).collect();
    let answers = index.reserve(&requests).await.unwrap();
    let fresh = |answer| match answer {
        Reserved::Fresh(id) => id,
        other => panic!("expected a fresh key, got {other:?}"),
    };
    answers.into_iter().map(fresh).collect()
}

/// Reserves and confirms `events` at the lines that begin at `first_line`.
pub(crate) async fn admit(index: &EmbeddedAdmissionIndex, events: &[u64], first_line: u64) {
    let reservations = reserve(index, events).await;
    let confirmed = reservations.into_iter().zip(events).zip(first_line..);
    let confirmed = confirmed
        .map(|((reservation, event), line)| Confirmation { reservation, entry: entry(*event, line) })
        .collect();
    index.confirm(confirmed).await.unwrap();
}

pub(crate) async fn get(index: &EmbeddedAdmissionIndex, event: u64) -> Option<AdmissionEntry> {
    index.get(key(event)).await.unwrap()
}

/// Every entry, page by page.
pub(crate) async fn scan_all(index: &EmbeddedAdmissionIndex, page: usize) -> Vec<AdmissionEntry> {
    let mut all: Vec<AdmissionEntry> = Vec::new();
    loop {
        let next = index.scan(all.last().map(|e| e.key), page).await.unwrap();
        let end = next.len() < page;
        all.extend(next);
        if end {
            return all;
        }
    }
}
