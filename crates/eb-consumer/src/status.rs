//! How a consumer is: by what its parts have met, never by guessing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use eb_contract::stores::{WorkPhase, WorkReport};
use eb_contract::{Cut, Error, Health, HealthCheck, HealthStatus, PartitionId, Topic};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// For how long something may be in trouble until the consumer counts as failing.
const PATIENCE: Duration = Duration::from_secs(30);

/// For how long a handler may run until the health tells of it.
const LONG: Duration = Duration::from_secs(300);

/// What a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Being opened.
    Opening,
    /// Records are handled.
    Running,
    /// What runs is finished, then it is given up.
    Draining,
    /// A record used up its attempts, and the policy says to stop there.
    Halted,
}

/// A partition that this worker holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// Its topic.
    pub topic: Topic,
    /// Its number.
    pub partition_id: PartitionId,
    /// What it is doing.
    pub phase: Phase,
    /// The stored cut.
    pub committed: Cut,
    /// How far it was read.
    pub read_to: Cut,
    /// Records read and not finished.
    pub in_flight: usize,
    /// Of these, how many wait for another attempt.
    pub retrying: usize,
    /// Of these, how many wait for their dead letter to be durable.
    pub dying: usize,
    /// Finished records whose marks are not durable: what a crash would bring again.
    pub unrecorded: usize,
    /// Records that were handled since it was opened.
    pub handled: u64,
    /// Attempts that had to be repeated since it was opened.
    pub retries: u64,
    /// What is amiss, if something is.
    pub problem: Option<String>,
}

/// One partition as its lane tells it.
pub(crate) struct PartitionBoard {
    pub(crate) topic: Topic,
    pub(crate) partition: PartitionId,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) retrying: AtomicUsize,
    pub(crate) dying: AtomicUsize,
    pub(crate) unrecorded: AtomicUsize,
    pub(crate) handled: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Keys with a record that failed and is to be tried again.
    pub(crate) keys_retrying: AtomicUsize,
    /// No handler runs, and none could be called.
    pub(crate) idle: AtomicBool,
    /// Reading waits for room.
    pub(crate) full: AtomicBool,
    /// Since when the oldest handler runs that does.
    running: Mutex<Option<Instant>>,
    facts: Mutex<Facts>,
}

struct Facts {
    phase: Phase,
    committed: Cut,
    read_to: Cut,
    halted: Option<String>,
    /// By what.
    troubles: BTreeMap<&'static str, Trouble>,
}

/// Since when, and what it says.
type Trouble = (Instant, String);

impl PartitionBoard {
    fn new(topic: Topic, partition: PartitionId) -> Self {
        let facts = Facts {
            phase: Phase::Opening,
            committed: Cut::Begin,
            read_to: Cut::Begin,
            halted: None,
            troubles: BTreeMap::new(),
        };
        Self {
            topic,
            partition,
            in_flight: AtomicUsize::default(),
            retrying: AtomicUsize::default(),
            dying: AtomicUsize::default(),
            unrecorded: AtomicUsize::default(),
            handled: AtomicU64::default(),
            retries: AtomicU64::default(),
            keys_retrying: AtomicUsize::default(),
            idle: AtomicBool::default(),
            full: AtomicBool::default(),
            running: Mutex::default(),
            facts: Mutex::new(facts),
        }
    }

    pub(crate) fn running(&self, since: Option<Instant>) {
        *self.running.lock() = since;
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.facts.lock().phase = phase;
    }

    pub(crate) fn committed(&self, cut: Cut) {
        self.facts.lock().committed = cut;
    }

    pub(crate) fn read_to(&self, cut: Cut) {
        self.facts.lock().read_to = cut;
    }

    pub(crate) fn halted(&self, why: &str) {
        let mut facts = self.facts.lock();
        facts.phase = Phase::Halted;
        facts.halted = Some(why.to_owned());
    }

    /// Something failed, and is tried again.
    pub(crate) fn trouble(&self, what: &'static str, error: &Error) {
        let mut facts = self.facts.lock();
        let text = error.to_string();
        match facts.troubles.get_mut(what) {
            Some((_, said)) => *said = text,
            None => {
                tracing::warn!(topic = %self.topic, partition = %self.partition, what, error = %text, "in trouble");
                facts.troubles.insert(what, (Instant::now(), text));
            }
        }
    }

    /// It works again.
    pub(crate) fn well(&self, what: &'static str) {
        let mut facts = self.facts.lock();
        if !facts.troubles.is_empty() && facts.troubles.remove(what).is_some() {
            tracing::info!(topic = %self.topic, partition = %self.partition, what, "well again");
        }
    }

    fn status(&self) -> PartitionStatus {
        let facts = self.facts.lock();
        let trouble = facts.troubles.iter().map(|(what, (_, text))| format!("{what}: {text}")).next();
        PartitionStatus {
            topic: self.topic.clone(),
            partition_id: self.partition,
            phase: facts.phase,
            committed: facts.committed,
            read_to: facts.read_to,
            in_flight: self.in_flight.load(Relaxed),
            retrying: self.retrying.load(Relaxed),
            dying: self.dying.load(Relaxed),
            unrecorded: self.unrecorded.load(Relaxed),
            handled: self.handled.load(Relaxed),
            retries: self.retries.load(Relaxed),
            problem: facts.halted.clone().or(trouble),
        }
    }

    /// What goes with the next heartbeat.
    fn report(&self) -> WorkReport {
        let stuck = self.full.load(Relaxed) && self.idle.load(Relaxed);
        let phase = match self.facts.lock().phase {
            Phase::Halted => WorkPhase::Halted,
            Phase::Draining => WorkPhase::Draining,
            Phase::Running if stuck => WorkPhase::Paused,
            Phase::Opening | Phase::Running => WorkPhase::Running,
        };
        WorkReport {
            phase,
            in_flight: self.in_flight.load(Relaxed) as u64,
            keys_retrying: self.keys_retrying.load(Relaxed) as u64,
            retries: self.retries.load(Relaxed),
        }
    }

    fn checks(&self, checks: &mut Vec<HealthCheck>) {
        let facts = self.facts.lock();
        let name = format!("partition {}/{}", self.topic, self.partition);
        if let Some(why) = &facts.halted {
            checks.push(HealthCheck {
                name: name.clone(),
                status: HealthStatus::Failing,
                detail: format!("halted: {why}"),
            });
        }
        let running = self.running.lock().map(|since| since.elapsed());
        if let Some(time) = running.filter(|time| *time >= LONG) {
            checks.push(HealthCheck {
                name: name.clone(),
                status: HealthStatus::Degraded,
                detail: format!(
                    "a handler has been running for {} s, and its key waits for it",
                    time.as_secs()
                ),
            });
        }
        for (what, (since, text)) in &facts.troubles {
            checks.push(HealthCheck {
                name: name.clone(),
                status: severity(*since),
                detail: format!("{what}, for {} s: {text}", since.elapsed().as_secs()),
            });
        }
    }
}

fn severity(since: Instant) -> HealthStatus {
    if since.elapsed() < PATIENCE { HealthStatus::Degraded } else { HealthStatus::Failing }
}

/// Everything that the parts of a consumer say of themselves.
#[derive(Default)]
pub(crate) struct Board {
    partitions: Mutex<BTreeMap<(Topic, PartitionId), Arc<PartitionBoard>>>,
    /// Partitions that could not be opened or read, and why.
    failed: Mutex<BTreeMap<(Topic, PartitionId), String>>,
    /// Trouble with leases and lists of partitions, by topic.
    team: Mutex<BTreeMap<(&'static str, Topic), Trouble>>,
    left_unrecorded: AtomicU64,
    /// Why it runs on a substitute, if it does.
    degraded: Mutex<Option<String>>,
}

impl Board {
    pub(crate) fn open(&self, topic: &Topic, partition: PartitionId) -> Arc<PartitionBoard> {
        let board = Arc::new(PartitionBoard::new(topic.clone(), partition));
        self.partitions.lock().insert((topic.clone(), partition), Arc::clone(&board));
        board
    }

    /// The partition is no longer held. At the end of a worker what it leaves behind unrecorded counts.
    pub(crate) fn close(&self, topic: &Topic, partition: PartitionId, at_the_end: bool) {
        if let Some(board) = self.partitions.lock().remove(&(topic.clone(), partition)).filter(|_| at_the_end)
        {
            let left = board.unrecorded.load(Relaxed) as u64;
            self.left_unrecorded.fetch_add(left, Relaxed);
        }
    }

    /// How the work on a partition stands; `None` before it was opened.
    pub(crate) fn report(&self, topic: &Topic, partition: PartitionId) -> Option<WorkReport> {
        self.partitions.lock().get(&(topic.clone(), partition)).map(|board| board.report())
    }

    pub(crate) fn failed(&self, topic: &Topic, partition: PartitionId, why: Option<String>) {
        let key = (topic.clone(), partition);
        match why {
            Some(why) => _ = self.failed.lock().insert(key, why),
            None => _ = self.failed.lock().remove(&key),
        }
    }

    pub(crate) fn team_trouble(&self, topic: &Topic, what: &'static str, error: &Error) {
        let text = error.to_string();
        let mut team = self.team.lock();
        match team.get_mut(&(what, topic.clone())) {
            Some((_, said)) => *said = text,
            None => {
                tracing::warn!(%topic, what, error = %text, "in trouble");
                team.insert((what, topic.clone()), (Instant::now(), text));
            }
        }
    }

    pub(crate) fn team_well(&self, topic: &Topic, what: &'static str) {
        if self.team.lock().remove(&(what, topic.clone())).is_some() {
            tracing::info!(%topic, what, "well again");
        }
    }

    pub(crate) fn set_degraded(&self, why: String) {
        *self.degraded.lock() = Some(why);
    }

    pub(crate) fn statuses(&self) -> Vec<PartitionStatus> {
        self.partitions.lock().values().map(|p| p.status()).collect()
    }

    /// Handled records that were not recorded at the end.
    pub(crate) fn left_unrecorded(&self) -> u64 {
        self.left_unrecorded.load(Relaxed)
    }

    pub(crate) fn health(&self) -> Health {
        let mut checks = Vec::new();
        if let Some(why) = &*self.degraded.lock() {
            checks.push(HealthCheck {
                name: "mode".to_owned(),
                status: HealthStatus::Degraded,
                detail: why.clone(),
            });
        }
        for ((what, topic), (since, text)) in &*self.team.lock() {
            let detail = format!("for {} s: {text}", since.elapsed().as_secs());
            checks.push(HealthCheck { name: format!("{what} {topic}"), status: severity(*since), detail });
        }
        for ((topic, partition), why) in &*self.failed.lock() {
            let name = format!("partition {topic}/{partition}");
            checks.push(HealthCheck { name, status: HealthStatus::Failing, detail: why.clone() });
        }
        for partition in self.partitions.lock().values() {
            partition.checks(&mut checks);
        }
        let status = checks.iter().map(|c| c.status).max().unwrap_or(HealthStatus::Ready);
        Health { status, checks }
    }
}
