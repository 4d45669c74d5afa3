//! Other gates' reservations whose leases have ended: what became of them, by the log.
//!
//! | the log, read from the reservation's start cuts | and | then |
//! |---|---|---|
//! | holds the event | | it is admitted: the index gets the entry, and the reservation ends with it |
//! | does not | the reservation was last renewed longer than `unknown_deadline` before the read | it is given up: the key can be reserved again |
//! | does not, otherwise | | it stays; the next look comes later |
//!
//! Two callers want to know. Events that this gate was asked to admit wait for it in the
//! [`sequencer`](crate::sequencer), which hands their keys over ([`Takeovers`]) and goes on with the others. And nobody at
//! all may ask for a crashed gate's events again, so all gates [`tend`] old reservations from time to time: they
//! would keep every opening gate reading from where the crashed one stood.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{AdmissionEntry, OpenReservation};
use eb_contract::{Result, Timestamp, Topic};
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::core::Core;
use crate::scan::{Start, TopicScan, oldest, own_copy};

/// The shortest rest between two looks for keys that wait, and the shortest between two for keys that nobody awaits.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// A dedupe key.
type Key = [u8; 32];

/// What became of a reservation.
#[derive(Debug, Clone)]
pub(crate) enum Takeover {
    /// The event is admitted, there.
    Found(AdmissionEntry),
    /// It is not open any more; asking for the key again tells.
    Released,
    /// The log does not hold it yet, and still may.
    Undecided,
}

/// Looks that events wait for: one at a time, in a task of its own, each for all the keys that have gathered. It ends
/// with this.
#[derive(Default)]
pub(crate) struct Takeovers {
    wanted: HashSet<Key>,
    under_way: HashSet<Key>,
    look: JoinSet<HashMap<Key, Takeover>>,
    started: Option<Instant>,
    rested: Option<Instant>,
}

impl Takeovers {
    /// From now on a look at this key is wanted, or one is under way.
    pub(crate) fn want(&mut self, key: Key) {
        if !self.under_way.contains(&key) {
            self.wanted.insert(key);
        }
    }

    /// Starts the next look if one is wanted, none is under way, and the last one lies back as long as it took.
    pub(crate) fn start(&mut self, core: &Arc<Core>) {
        let now = Instant::now();
        if self.wanted.is_empty() || !self.look.is_empty() || self.rested.is_some_and(|at| now < at) {
            return;
        }
        self.under_way = std::mem::take(&mut self.wanted);
        self.started = Some(now);
        let (own, keys) = (Arc::clone(core), self.under_way.clone());
        self.look.spawn_on(async move { settle(&own, keys).await }, &core.runtime);
    }

    /// What the look under way has come to; waits for ever where none is. Cancelling loses nothing.
    pub(crate) async fn told(&mut self) -> HashMap<Key, Takeover> {
        let told = match self.look.join_next().await {
            Some(Ok(told)) => told,
            // A look that was ended with the runtime has found nothing.
            Some(Err(_)) => HashMap::new(),
            None => std::future::pending().await,
        };
        let now = Instant::now();
        let took = self.started.take().map_or(Duration::ZERO, |started| now - started);
        self.rested = Some(now + took.max(REST.0));
        self.under_way.clear();
        told
    }
}

/// Settles the reservations of these keys. Those of a topic that could not be read are left out.
async fn settle(core: &Core, keys: HashSet<Key>) -> HashMap<Key, Takeover> {
    let open = match core.index.open_reservations().await {
        Ok(open) => open,
        Err(error) => {
            core.note(&error);
            tracing::warn!(%error, "reservations of other gates could not be looked at");
            return HashMap::new();
        }
    };
    let open: Vec<_> = open.into_iter().filter(|r| keys.contains(&r.request.key.dedupe)).collect();
    let still_open: HashSet<Key> = open.iter().map(|r| r.request.key.dedupe).collect();
    let mut told = settle_open(core, open).await;
    // What is no longer open was settled meanwhile.
    told.extend(keys.difference(&still_open).map(|key| (*key, Takeover::Released)));
    told
}

/// Settles reservations that nobody asks for any more, until the gate is gone.
pub(crate) async fn tend(core: Arc<Core>) {
    if !core.index.is_shared() {
        return;
    }
    let every = (core.config.unknown_deadline / 2).max(REST.1);
    loop {
        if let Err(error) = sweep(&core).await {
            core.note(&error);
            tracing::warn!(%error, "old reservations could not be looked at");
        }
        tokio::time::sleep(every).await;
    }
}

async fn sweep(core: &Core) -> Result<()> {
    let now = Timestamp::now();
    let mut old = core.index.open_reservations().await?;
    old.retain(|r| is_too_late(core, r, now));
    if !old.is_empty() {
        tracing::info!(reservations = old.len(), "settling reservations that nobody has told the outcome of");
        settle_open(core, old).await;
    }
    Ok(())
}

fn is_too_late(core: &Core, reservation: &OpenReservation, now: Timestamp) -> bool {
    now.saturating_since(reservation.renewed_at) >= core.config.unknown_deadline
}

/// One read of each topic, all topics at once.
async fn settle_open(core: &Core, open: Vec<OpenReservation>) -> HashMap<Key, Takeover> {
    let mut by_topic: HashMap<Topic, Vec<OpenReservation>> = HashMap::new();
    for open in open {
        by_topic.entry(open.request.topic.clone()).or_default().push(open);
    }
    let looks = by_topic.iter().map(|(topic, open)| async move {
        settle_topic(core, topic, open).await.unwrap_or_else(|error| {
            core.note(&error);
            tracing::warn!(%error, %topic, "reservations of other gates could not be settled");
            HashMap::new()
        })
    });
    join_all(looks).await.into_iter().flatten().collect()
}

async fn settle_topic(
    core: &Core,
    topic: &Topic,
    open: &[OpenReservation],
) -> Result<HashMap<Key, Takeover>> {
    // Looked at before the log is read: a deadline that passes during the read proves nothing.
    let now = Timestamp::now();
    let mut told: HashMap<_, _> = open.iter().map(|r| (r.request.key.dedupe, Takeover::Undecided)).collect();
    // None of the events can have come before its reservation.
    let since = open.iter().map(|r| r.reserved_at).min();
    let from = oldest(open.iter().map(|r| r.request.start.iter().copied().collect::<BTreeMap<_, _>>()));
    let from = from.into_iter().map(|(partition, cut)| (partition, Start { cut, since })).collect();
    let mut scan = TopicScan::open(core.reader.as_ref(), topic, from).await?;
    let (mut entries, mut records) = (Vec::new(), Vec::new());
    while let Some(scanned) = scan.next().await? {
        for (entry, record) in scanned.entries.into_iter().zip(&scanned.records) {
            // Of several copies the first counts, unless the index knows better.
            if let Some(open @ Takeover::Undecided) = told.get_mut(&entry.key.dedupe) {
                *open = Takeover::Found(entry.clone());
                records.extend(own_copy(record).map(|(key, envelope)| (entry.eb_ref.clone(), key, envelope)));
                entries.push(entry);
            }
        }
    }
    if !entries.is_empty() {
        for standing in core.index.apply(entries).await? {
            told.insert(standing.key.dedupe, Takeover::Found(standing));
        }
        // As good as ACKs: records that the index's checkpoint lacks.
        for (eb_ref, key, envelope) in &records {
            core.acked(eb_ref, key, envelope);
        }
    }
    let mut given_up = Vec::new();
    for reservation in open.iter().filter(|r| is_too_late(core, r, now)) {
        if let Some(open @ Takeover::Undecided) = told.get_mut(&reservation.request.key.dedupe) {
            *open = Takeover::Released;
            given_up.push(reservation.reservation);
        }
    }
    if !given_up.is_empty() {
        core.index.give_up(given_up).await?;
    }
    Ok(told)
}
