//! The reference checkpoint store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, Cut, Error, ErrorKind, PartitionId, Result, Timestamp, Topic,
};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use crate::error::invalid;

/// How a commit of several checkpoints goes when one of them is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitMode {
    /// Each stands alone, as in a store of files.
    #[default]
    EachAlone,
    /// None is committed and the innocent ones answer `NotAttempted`, as in a store with transactions.
    AllOrNone,
}

/// What a reset left behind for the record.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetHistory {
    /// Where the checkpoint stood; `None` when there was none.
    pub from: Option<Cut>,
    /// Where it was set to.
    pub to: Cut,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Checkpoints in memory: they live as long as any clone of the store, and cloning is the way to reopen it.
///
/// Of several reasons to refuse a commit the first of these is answered: `InvalidInput`, `Fenced`,
/// `WrongIncarnation`, `VersionConflict`, `BackwardCommit`. A refused commit changes nothing, not even the lease
/// epoch that is remembered. A reset forgets `caught_up_at`: the consumer is no longer where it was.
/// The newest [`MemoryCheckpointStore::HISTORY`] resets of a checkpoint are kept.
///
/// Calls are done when they return their future; dropping it changes nothing.
#[derive(Clone, Default)]
pub struct MemoryCheckpointStore {
    mode: CommitMode,
    state: Arc<Mutex<State>>,
}

type Key = (ConsumerName, Topic, PartitionId);

#[derive(Default)]
struct State {
    stored: BTreeMap<Key, Stored>,
    outage: Option<Error>,
}

struct Stored {
    checkpoint: Checkpoint,
    /// The newest lease seen; kept through resets.
    fence: Option<Lease>,
    history: VecDeque<ResetHistory>,
}

impl MemoryCheckpointStore {
    /// How many resets of a checkpoint are remembered.
    pub const HISTORY: usize = 100;

    /// An empty store in which each checkpoint of a commit stands alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store.
    #[must_use]
    pub fn with_mode(mode: CommitMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// From now on every call answers `error`, until [`MemoryCheckpointStore::recover`]: for tests and drills.
    pub fn outage(&self, error: Error) {
        self.state.lock().outage = Some(error);
    }

    /// Ends an outage.
    pub fn recover(&self) {
        self.state.lock().outage = None;
    }

    /// The resets of a checkpoint, oldest first.
    #[must_use]
    pub fn history(
        &self,
        consumer: &ConsumerName,
        topic: &Topic,
        partition: PartitionId,
    ) -> Vec<ResetHistory> {
        let state = self.state.lock();
        let stored = state.stored.get(&(consumer.clone(), topic.clone(), partition));
        stored.map(|s| s.history.iter().cloned().collect()).unwrap_or_default()
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match &state.outage {
            Some(outage) => Err(outage.clone()),
            None => work(&mut state),
        }
    }

    /// Commits one checkpoint, as [`CheckpointStore::commit`] does.
    pub(crate) fn commit_one_now(&self, checkpoint: &Checkpoint, lease: &Lease) -> Result<Checkpoint> {
        self.with(|state| state.check(checkpoint, lease).map(|()| state.put(checkpoint, lease)))
    }

    fn commit_now(&self, checkpoints: &[Checkpoint], lease: &Lease) -> Vec<Result<Checkpoint>> {
        let mut state = self.state.lock();
        if let Some(outage) = &state.outage {
            return checkpoints.iter().map(|_| Err(outage.clone())).collect();
        }
        match self.mode {
            CommitMode::EachAlone => {
                checkpoints.iter().map(|c| state.check(c, lease).map(|()| state.put(c, lease))).collect()
            }
            CommitMode::AllOrNone => {
                let twice = |i: usize| checkpoints[..i].iter().any(|c| key(c) == key(&checkpoints[i]));
                let checks: Vec<Result<()>> = (0..checkpoints.len())
                    .map(|i| match checkpoints.get(i) {
                        Some(c) if twice(i) => Err(invalid("commit", place(c), "it is twice in one commit")),
                        Some(c) => state.check(c, lease),
                        None => Ok(()),
                    })
                    .collect();
                let refused = checks.iter().any(Result::is_err);
                checks
                    .into_iter()
                    .zip(checkpoints)
                    .map(|(check, c)| match check {
                        Err(e) => Err(e),
                        Ok(()) if refused => Err(not_attempted(c)),
                        Ok(()) => Ok(state.put(c, lease)),
                    })
                    .collect()
            }
        }
    }
}

fn key(c: &Checkpoint) -> Key {
    (c.consumer.clone(), c.topic.clone(), c.partition_id)
}

fn place(c: &Checkpoint) -> String {
    format!("{} {}/{}", c.consumer, c.topic, c.partition_id)
}

fn not_attempted(c: &Checkpoint) -> Error {
    Error::new(ErrorKind::NotAttempted, "commit", "another checkpoint of the commit was refused").at(place(c))
}

impl State {
    /// Whether `c` may be committed.
    fn check(&self, c: &Checkpoint, lease: &Lease) -> Result<()> {
        let refuse = |kind: ErrorKind, message: String| Err(Error::new(kind, "commit", message).at(place(c)));
        if lease.owner.is_empty() || lease.owner.chars().count() > 256 {
            return Err(invalid("commit", place(c), "a lease owner has 1 to 256 characters"));
        }
        let Some(stored) = self.stored.get(&key(c)) else {
            return match c.version {
                0 => Ok(()),
                seen => refuse(
                    ErrorKind::VersionConflict { current: 0 },
                    format!("version {seen} was expected, nothing is stored"),
                ),
            };
        };
        if let Some(fence) = &stored.fence
            && (lease.epoch < fence.epoch || lease.epoch == fence.epoch && lease.owner != fence.owner)
        {
            return refuse(
                ErrorKind::Fenced,
                format!(
                    "epoch {} of `{}` has taken over from epoch {}",
                    fence.epoch, fence.owner, lease.epoch
                ),
            );
        }
        let current = &stored.checkpoint;
        if c.bus_incarnation != current.bus_incarnation {
            return refuse(
                ErrorKind::WrongIncarnation,
                format!("the checkpoint belongs to {}, not {}", current.bus_incarnation, c.bus_incarnation),
            );
        }
        if c.version != current.version {
            return refuse(
                ErrorKind::VersionConflict { current: current.version },
                format!("version {} was expected, version {} is stored", c.version, current.version),
            );
        }
        match c.cut.compare(&current.cut) {
            None => Err(invalid("commit", place(c), "the cut is of another offset kind than the stored one")),
            Some(order) if order.is_lt() => refuse(
                ErrorKind::BackwardCommit { current: current.cut },
                format!("{} lies before the stored {}", c.cut, current.cut),
            ),
            Some(_) => Ok(()),
        }
    }

    /// Stores what [`State::check`] let pass.
    fn put(&mut self, c: &Checkpoint, lease: &Lease) -> Checkpoint {
        let before = self.stored.remove(&key(c));
        let caught_up_before = before.as_ref().and_then(|s| s.checkpoint.caught_up_at);
        let checkpoint = Checkpoint {
            caught_up_at: c.caught_up_at.max(caught_up_before),
            version: before.as_ref().map_or(0, |s| s.checkpoint.version) + 1,
            lease: Some(lease.clone()),
            committed_at: Some(Timestamp::now()),
            ..c.clone()
        };
        let history = before.map(|s| s.history).unwrap_or_default();
        let stored = Stored { checkpoint: checkpoint.clone(), fence: Some(lease.clone()), history };
        self.stored.insert(key(c), stored);
        checkpoint
    }

    fn reset(&mut self, request: &ResetRequest) -> Result<Checkpoint> {
        let place = format!("{} {}/{}", request.consumer, request.topic, request.partition_id);
        if request.reason.trim().is_empty() {
            return Err(invalid("reset", place, "a reset needs a reason"));
        }
        if request.reason.chars().count() > 1024 {
            return Err(invalid("reset", place, "a reason has at most 1,024 characters"));
        }
        let key = (request.consumer.clone(), request.topic.clone(), request.partition_id);
        let before = self.stored.remove(&key);
        let (from, version, lease, fence, mut history) = match before {
            Some(s) => (Some(s.checkpoint.cut), s.checkpoint.version, s.checkpoint.lease, s.fence, s.history),
            None => (None, 0, None, None, VecDeque::new()),
        };
        let now = Timestamp::now();
        if history.len() == MemoryCheckpointStore::HISTORY {
            history.pop_front();
        }
        history.push_back(ResetHistory { from, to: request.cut, reason: request.reason.clone(), at: now });
        let checkpoint = Checkpoint {
            consumer: request.consumer.clone(),
            topic: request.topic.clone(),
            partition_id: request.partition_id,
            cut: request.cut,
            caught_up_at: None,
            version: version + 1,
            bus_incarnation: BusIncarnation::clone(&request.bus_incarnation),
            lease,
            committed_at: Some(now),
        };
        self.stored.insert(key, Stored { checkpoint: checkpoint.clone(), fence, history });
        Ok(checkpoint)
    }
}

impl CheckpointStore for MemoryCheckpointStore {
    fn load<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        let key = (consumer.clone(), topic.clone(), partition);
        ready(self.with(|state| Ok(state.stored.get(&key).map(|s| s.checkpoint.clone())))).boxed()
    }

    fn commit<'a>(
        &'a self,
        checkpoints: &'a [Checkpoint],
        lease: &'a Lease,
    ) -> BoxFuture<'a, Vec<Result<Checkpoint>>> {
        ready(self.commit_now(checkpoints, lease)).boxed()
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<Checkpoint>>> {
        let list = self.with(|state| {
            let all = state.stored.values().map(|s| &s.checkpoint);
            Ok(all.filter(|c| consumer.is_none_or(|name| c.consumer == *name)).cloned().collect())
        });
        ready(list).boxed()
    }

    fn reset<'a>(&'a self, request: &'a ResetRequest) -> BoxFuture<'a, Result<Checkpoint>> {
        ready(self.with(|state| state.reset(request))).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        ready(self.with(|_| Ok(()))).boxed()
    }
}
