//! Entries and reservations as rows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eb_contract::stores::{AdmissionEntry, AdmissionKey, OpenReservation, ReservationId, ReserveRequest};
use eb_contract::{EbRef, PartitionId, Result, Timestamp, Topic};
use tokio_postgres::Row;

use crate::position::{corrupt, offset};
use crate::text::unescape;
use crate::time::from_system;

/// A key as it is stored: the event's eight bytes, then the dedupe key's thirty-two. So keys sort as the contract
/// sorts them, and the entries of an event lie side by side.
pub(super) type KeyBytes = [u8; 40];

pub(super) fn key_bytes(key: &AdmissionKey) -> KeyBytes {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&key.event);
    bytes[8..].copy_from_slice(&key.dedupe);
    bytes
}

fn key_of(bytes: &[u8]) -> Option<AdmissionKey> {
    let (event, dedupe) = bytes.split_first_chunk::<8>()?;
    Some(AdmissionKey { event: *event, dedupe: dedupe.try_into().ok()? })
}

/// Reads an entry, `None` where a join found none.
pub(super) fn entry(op: &'static str, place: &str, row: &Row) -> Result<Option<AdmissionEntry>> {
    let key: Option<&[u8]> = row.get(0);
    let Some(key) = key else { return Ok(None) };
    let damaged = |what: &str| corrupt(op, place, what);
    let payload_hash: &[u8] = row.get(1);
    let published_at: SystemTime = row.get(6);
    Ok(Some(AdmissionEntry {
        key: key_of(key).ok_or_else(|| damaged("a key"))?,
        payload_hash: payload_hash.try_into().map_err(|_| damaged("a payload hash"))?,
        eb_ref: EbRef {
            topic: Topic::new(row.get(2)).map_err(|_| damaged("a topic name"))?,
            partition_id: PartitionId(
                u32::try_from(row.get::<_, i64>(3)).map_err(|_| damaged("a partition number"))?,
            ),
            offset: offset(op, place, row.get(4), row.get(5))?,
            published_at_utc: from_system(op, place, published_at)?,
        },
    }))
}

pub(super) fn entries(op: &'static str, place: &str, rows: &[Row]) -> Result<Vec<AdmissionEntry>> {
    rows.iter().filter_map(|row| entry(op, place, row).transpose()).collect()
}

/// Reads an open reservation. Its age is measured by the database's clock and told in this process's, so that their
/// difference never makes a reservation look older or younger than it is.
pub(super) fn open(op: &'static str, place: &str, row: &Row, now: Timestamp) -> Result<OpenReservation> {
    let damaged = |what: &str| corrupt(op, place, what);
    let (id, gate, age, renewed): (i64, i64, i64, i64) = (row.get(0), row.get(6), row.get(8), row.get(9));
    let (key, payload_hash): (&[u8], &[u8]) = (row.get(1), row.get(2));
    let name: Option<&str> = row.get(7);
    let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
    let reserved_at = now.as_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    let reserved_at = Timestamp::from_micros(reserved_at.max(0)).unwrap_or(now);
    let renewed_at = Timestamp::from_micros(reserved_at.as_micros().saturating_add(renewed.max(0)));
    Ok(OpenReservation {
        reservation: ReservationId(u64::try_from(id).map_err(|_| damaged("a reservation's number"))?),
        request: ReserveRequest {
            key: key_of(key).ok_or_else(|| damaged("a key"))?,
            payload_hash: payload_hash.try_into().map_err(|_| damaged("a payload hash"))?,
            topic: Topic::new(row.get(3)).map_err(|_| damaged("a topic name"))?,
            start: serde_json::from_str(row.get(4)).map_err(|_| damaged("a reservation's start"))?,
            policy: serde_json::from_str(row.get(5))
                .map(Arc::new)
                .map_err(|_| damaged("a reservation's policy"))?,
        },
        owner: owner(name, gate),
        reserved_at,
        renewed_at: renewed_at.unwrap_or(now),
    })
}

/// A gate's name, and which of its openings.
pub(super) fn owner(name: Option<&str>, gate: i64) -> String {
    let name = name.and_then(unescape).unwrap_or_else(|| "a gate".to_owned());
    format!("{name}#{gate}")
}
