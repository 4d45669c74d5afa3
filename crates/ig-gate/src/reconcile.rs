//! What became of publishes with unknown outcomes, by the log.
//!
//! A key whose publish ended with [`Effect::Unknown`](eb_contract::Effect::Unknown) stays blocked, and its callers are
//! told `PUBLISH_OUTCOME_UNKNOWN`, until this has read the log from a cut that lies before the publish:
//!
//! | the log | and | then |
//! |---|---|---|
//! | holds the record | | it is admitted: the index gets the entry, later calls are answered DUPLICATE |
//! | does not, single writer, or a bus whose [`probe_settles`](eb_contract::Capabilities::probe_settles) | `probe` said before the read that a publish could succeed | it never was published: the key is free |
//! | does not, any other with several writers | the unknown outcome was older than `unknown_deadline` before the read | the same; what still comes is a copy |
//! | does not, otherwise | | it stays blocked; the next look comes soon |
//!
//! A poisoned partition fails its `probe`, so its keys stay blocked until the bus is opened anew, and the gate with it.
//! Keys that were ACKed but that the index did not take are handed to it again here, too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::AdmissionEntry;
use eb_contract::{EnvelopeRef, PartitionId, PartitionKey, Result, Topic};

use crate::core::{Core, Unknown};
use crate::inflight::Flight;
use crate::scan::{Start, TopicScan, oldest, own_copy};

/// The first and the longest pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// Looks after blocked keys until the gate is gone.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        core.wake_reconciler.notified().await;
        let mut pause = PAUSE.0;
        while !settle_all(&core).await {
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
                () = core.wake_reconciler.notified() => pause = PAUSE.0,
            }
        }
    }
}

/// One look at everything that is blocked. Gives back whether nothing is any more.
pub(crate) async fn settle_all(core: &Arc<Core>) -> bool {
    // Closing looks too, and a key must not be settled twice.
    let _one_at_a_time = core.reconciling.lock().await;
    retry_unindexed(core).await;
    let mut by_topic: HashMap<Topic, Vec<Unknown>> = HashMap::new();
    for unknown in &core.blocked.lock().unknown {
        by_topic.entry(unknown.flight.topic.clone()).or_default().push(unknown.clone());
    }
    for (topic, unknown) in by_topic {
        if let Err(error) = reconcile(core, &topic, unknown).await {
            core.note(&error);
            tracing::warn!(%error, %topic, "unknown outcomes could not be reconciled yet");
        }
    }
    let blocked = core.blocked.lock();
    core.metrics.unknown.set(blocked.unknown.len() as f64);
    blocked.unknown.is_empty() && blocked.unindexed.is_empty()
}

async fn retry_unindexed(core: &Arc<Core>) {
    let waiting = core.blocked.lock().unindexed.clone();
    let mut settled = Vec::new();
    for (flight, entry) in waiting {
        if let Err(error) = tell_index(core, &flight, entry).await {
            core.note(&error);
            break;
        }
        settled.push(flight);
    }
    let keys = keys(&settled);
    core.blocked.lock().unindexed.retain(|(flight, _)| !keys.contains(&flight.key.dedupe));
    settled.iter().for_each(|flight| core.unblock(flight));
}

/// A key is blocked by one flight at most.
fn keys(flights: &[Arc<Flight>]) -> HashSet<[u8; 32]> {
    flights.iter().map(|flight| flight.key.dedupe).collect()
}

/// The reservation may have been taken over by another gate long since, so what is told is what was found, and what
/// stands stays. The reservation itself has ended with it; the index forgets that this gate held it.
async fn tell_index(core: &Core, flight: &Flight, entry: AdmissionEntry) -> Result<()> {
    core.index.apply(vec![entry]).await?;
    match flight.reservation() {
        Some(reservation) => core.index.release(vec![reservation]).await,
        None => Ok(()),
    }
}

async fn reconcile(core: &Arc<Core>, topic: &Topic, unknown: Vec<Unknown>) -> Result<()> {
    let capabilities = core.publisher.capabilities();
    let may_land_late = capabilities.multi_writer && !capabilities.probe_settles;
    let is_final: Vec<bool> = if may_land_late {
        unknown.iter().map(|u| u.since.elapsed() >= core.config.unknown_deadline).collect()
    } else {
        let healthy = core.publisher.probe(topic).await.is_ok();
        vec![healthy; unknown.len()]
    };
    let mut wanted: HashMap<[u8; 32], Option<Found>> =
        unknown.iter().map(|u| (u.flight.key.dedupe, None)).collect();
    let mut scan = TopicScan::open(core.reader.as_ref(), topic, start(core, topic, &unknown)).await?;
    while let Some(scanned) = scan.next().await? {
        for (entry, record) in scanned.entries.into_iter().zip(&scanned.records) {
            if let Some(found @ None) = wanted.get_mut(&entry.key.dedupe) {
                *found = Some((entry, own_copy(record)));
            }
        }
    }
    let mut settled = Vec::new();
    let mut told = Ok(());
    for (Unknown { flight, .. }, is_final) in unknown.into_iter().zip(is_final) {
        let found = wanted.remove(&flight.key.dedupe).flatten();
        if found.is_none() && !is_final {
            continue;
        }
        told = tell(core, &flight, found).await;
        if told.is_err() {
            break;
        }
        settled.push(flight);
    }
    let keys = keys(&settled);
    core.blocked.lock().unknown.retain(|u| !keys.contains(&u.flight.key.dedupe));
    settled.iter().for_each(|flight| core.unblock(flight));
    told
}

/// An entry that the log holds, with what its record was made of.
type Found = (AdmissionEntry, Option<(PartitionKey, EnvelopeRef)>);

/// Tells the index what the log has told.
async fn tell(core: &Core, flight: &Flight, found: Option<Found>) -> Result<()> {
    let Some((entry, record)) = found else {
        tracing::info!(topic = %flight.topic, "an unknown outcome: the event is not in the log");
        return match flight.reservation() {
            Some(reservation) => core.index.release(vec![reservation]).await,
            None => Ok(()),
        };
    };
    tracing::info!(eb_ref = %entry.eb_ref, "an unknown outcome: the event is in the log");
    let eb_ref = entry.eb_ref.clone();
    tell_index(core, flight, entry).await?;
    if let Some((key, envelope)) = record {
        // As good as an ACK: a record that the index's checkpoint lacks.
        core.acked(&eb_ref, &key, &envelope);
    }
    Ok(())
}

/// Cuts at or before every place where these publishes may have landed.
fn start(core: &Core, topic: &Topic, unknown: &[Unknown]) -> BTreeMap<PartitionId, Start> {
    if !core.index.is_shared() {
        // The index's checkpoint never passes a key that is in flight or blocked.
        return core.progress.committed_cuts(topic).into_iter().collect();
    }
    let from = oldest(unknown.iter().map(|u| u.flight.start().into_iter().collect()));
    from.into_iter().map(|(partition, cut)| (partition, Start { cut, since: None })).collect()
}
