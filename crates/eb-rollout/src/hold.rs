//! Keys that may not be sent to another bus yet: they have a record on a bus that was left, which is still under way, or whose outcome is
//! not decided.
//!
//! | the record on the bus that was left | its key waits |
//! |---|---|
//! | under way: its call has not ended | until the call ends: it might land when that bus is primary again, behind what came after it |
//! | of unknown outcome, the epoch's end pending | until the end is settled: then it is part of the log, or never will be |
//! | of unknown outcome, the end settled | not: whoever was told so reads the log first |

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use eb_contract::{PartitionKey, Topic};
use parking_lot::Mutex;

use crate::state::{EndState, State};

/// Counters for keys in flight: keys that share one are held together, which is harmless.
const COUNTERS: usize = 1024;
/// How many keys with unknown outcomes are told apart; beyond it all keys of the epoch count as such.
const MOST_UNKNOWN: usize = 100_000;

pub(crate) fn key_hash(topic: &Topic, key: &PartitionKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.as_str().hash(&mut hasher);
    key.as_str().hash(&mut hasher);
    hasher.finish()
}

/// What is not decided of the publishes of one epoch.
pub(crate) struct Undecided {
    pub(crate) epoch: u64,
    in_flight: Box<[AtomicU32]>,
    unknown: Mutex<HashSet<u64>>,
    overflown: AtomicBool,
}

impl Undecided {
    pub(crate) fn new(epoch: u64) -> Arc<Self> {
        let in_flight = (0..COUNTERS).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { epoch, in_flight, unknown: Mutex::default(), overflown: AtomicBool::new(false) })
    }

    fn counter(&self, key: u64) -> &AtomicU32 {
        &self.in_flight[key as usize % COUNTERS]
    }

    fn is_under_way(&self, key: u64) -> bool {
        self.counter(key).load(Ordering::Acquire) > 0
    }

    fn is_undecided(&self, key: u64) -> bool {
        self.overflown.load(Ordering::Relaxed) || self.unknown.lock().contains(&key)
    }

    fn is_any_under_way(&self) -> bool {
        self.in_flight.iter().any(|n| n.load(Ordering::Acquire) > 0)
    }

    fn is_unknown(&self, key: u64) {
        let mut unknown = self.unknown.lock();
        if unknown.len() < MOST_UNKNOWN {
            unknown.insert(key);
        } else {
            self.overflown.store(true, Ordering::Relaxed);
        }
    }
}

/// A record in flight. One that is dropped without an answer has an unknown outcome.
pub(crate) struct InFlight {
    of: Arc<Undecided>,
    key: u64,
    decided: bool,
}

impl InFlight {
    pub(crate) fn new(of: &Arc<Undecided>, key: u64) -> Self {
        of.counter(key).fetch_add(1, Ordering::AcqRel);
        Self { of: of.clone(), key, decided: false }
    }

    /// Its bus has said what became of it.
    pub(crate) fn decided(mut self) {
        self.decided = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.decided {
            self.of.is_unknown(self.key);
        }
        self.of.counter(self.key).fetch_sub(1, Ordering::AcqRel);
    }
}

/// The epochs that a publisher has left and that may have something undecided.
#[derive(Default)]
pub(crate) struct Holds {
    any: AtomicBool,
    left: Mutex<Vec<Arc<Undecided>>>,
}

impl Holds {
    /// An epoch is left.
    pub(crate) fn leave(&self, epoch: Arc<Undecided>) {
        self.left.lock().push(epoch);
        self.any.store(true, Ordering::Release);
    }

    /// Whether the key must wait.
    pub(crate) fn holds(&self, state: &State, topic: &Topic, key: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let pending = |epoch| {
            let chain = state.topics.get(topic);
            chain.is_some_and(|c| c.iter().any(|s| s.epoch == epoch && s.end == EndState::Pending))
        };
        let left = self.left.lock();
        left.iter().any(|left| left.is_under_way(key) || (pending(left.epoch) && left.is_undecided(key)))
    }

    /// Forgets what is decided.
    pub(crate) fn forget_settled(&self, state: &State) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut left = self.left.lock();
        let pending =
            |epoch| state.topics.values().flatten().any(|s| s.epoch == epoch && s.end == EndState::Pending);
        left.retain(|l| pending(l.epoch) || l.is_any_under_way());
        self.any.store(!left.is_empty(), Ordering::Release);
    }
}
