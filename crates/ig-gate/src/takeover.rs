//! Other gates' reservations whose leases have ended: what became of them, by the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use eb_contract::stores::{AdmissionEntry, OpenReservation};
use eb_contract::{Result, Timestamp, Topic};

use crate::core::Core;
use crate::inflight::Flight;
use crate::scan::{TopicScan, oldest};

/// What became of a reservation.
pub(crate) enum Takeover {
    /// The event lies in the log.
    Found(AdmissionEntry),
    /// It does not, and will not by that gate; the key can be reserved again.
    Released,
    /// It does not yet, and still may.
    Undecided,
}

/// Settles the reservations of these flights' keys with one read of each topic, from the oldest of their cuts. A key
/// of a topic that could not be read is left out.
pub(crate) async fn settle(core: &Core, flights: Vec<Arc<Flight>>) -> HashMap<[u8; 32], Takeover> {
    // What is no longer open was settled meanwhile: asking again will tell.
    let mut told: HashMap<_, _> = flights.iter().map(|f| (f.key.dedupe, Takeover::Released)).collect();
    if told.is_empty() {
        return told;
    }
    let open = match core.index.open_reservations().await {
        Ok(open) => open,
        Err(error) => {
            core.note(&error);
            tracing::warn!(%error, "reservations of other gates could not be looked at");
            return HashMap::new();
        }
    };
    let mut by_topic: HashMap<Topic, Vec<OpenReservation>> = HashMap::new();
    for open in open.into_iter().filter(|r| told.contains_key(&r.request.key.dedupe)) {
        by_topic.entry(open.request.topic.clone()).or_default().push(open);
    }
    for (topic, open) in by_topic {
        for reservation in &open {
            told.remove(&reservation.request.key.dedupe);
        }
        match settle_topic(core, &topic, open).await {
            Ok(settled) => told.extend(settled),
            Err(error) => {
                core.note(&error);
                tracing::warn!(%error, %topic, "reservations of other gates could not be settled");
            }
        }
    }
    told
}

async fn settle_topic(
    core: &Core,
    topic: &Topic,
    open: Vec<OpenReservation>,
) -> Result<HashMap<[u8; 32], Takeover>> {
    // Looked at before the log is read: a deadline that passes during the read proves nothing.
    let now = Timestamp::now();
    let is_too_late =
        |r: &OpenReservation| now.saturating_since(r.reserved_at) >= core.config.unknown_deadline;
    let mut told: HashMap<_, _> = open.iter().map(|r| (r.request.key.dedupe, Takeover::Undecided)).collect();
    let from = oldest(open.iter().map(|r| r.request.start.iter().copied().collect::<BTreeMap<_, _>>()));
    let mut scan = TopicScan::open(core.reader.as_ref(), topic, from).await?;
    let mut entries = Vec::new();
    while let Some(scanned) = scan.next().await? {
        for entry in scanned.entries {
            // The first record of a key is the one that counts.
            if let Some(open @ Takeover::Undecided) = told.get_mut(&entry.key.dedupe) {
                *open = Takeover::Found(entry.clone());
                entries.push(entry);
            }
        }
    }
    if !entries.is_empty() {
        core.index.apply(entries).await?;
    }
    let mut given_up = Vec::new();
    for reservation in open.iter().filter(|r| is_too_late(r)) {
        if let Some(open @ Takeover::Undecided) = told.get_mut(&reservation.request.key.dedupe) {
            *open = Takeover::Released;
            given_up.push(reservation.reservation);
        }
    }
    if !given_up.is_empty() {
        core.index.release(given_up).await?;
    }
    Ok(told)
}
