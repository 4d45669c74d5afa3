//! Records between their call and their answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eb_contract::{EbRef, Error, ErrorKind, PartitionKey, PublishRecord, Result, Topic};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::OP;

/// What a record costs in memory while it is held, besides its bytes.
const OVERHEAD: usize = 256;

/// A record that has been called for and not been answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: PublishRecord,
    pub(super) called: Instant,
    reply: Reply,
}

impl Pending {
    pub(super) fn new(record: PublishRecord, reply: Reply, called: Instant) -> Self {
        Self { record, called, reply }
    }

    /// What it counts in an append.
    pub(super) fn bytes(&self) -> usize {
        self.record.partition_key.as_str().len() + self.record.envelope.len()
    }

    /// What it counts in memory.
    pub(super) fn cost(&self) -> usize {
        self.bytes() + OVERHEAD
    }

    pub(super) fn key(&self) -> &PartitionKey {
        &self.record.partition_key
    }

    /// Gives the answer; nobody may be waiting for it any more.
    pub(super) fn answer(self, answer: Result<EbRef>) {
        match self.reply {
            Reply::One(caller) => drop(caller.send(answer)),
            Reply::Part(batch, index) => batch.answer(index, self.record.partition_key, answer),
        }
    }

    /// Whether an earlier record of its key and batch failed, so that it must not be tried.
    pub(super) fn is_barred(&self) -> bool {
        match &self.reply {
            Reply::One(_) => false,
            Reply::Part(batch, _) => {
                let parts = batch.parts.lock();
                !parts.failed.is_empty() && parts.failed.contains(self.key())
            }
        }
    }
}

/// Where a record's one answer goes.
#[derive(Debug)]
pub(super) enum Reply {
    /// To a call of one record.
    One(oneshot::Sender<Result<EbRef>>),
    /// To this place of a batch.
    Part(Arc<Batch>, usize),
}

/// The answers to a `publish_batch`, given out together once the last is there.
#[derive(Debug)]
pub(super) struct Batch {
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    answers: Vec<Option<Result<EbRef>>>,
    left: usize,
    /// The keys of which a record failed.
    failed: HashSet<PartitionKey>,
    caller: Option<oneshot::Sender<Vec<Result<EbRef>>>>,
}

impl Batch {
    /// A batch of which some records are answered already.
    pub(super) fn new(
        answers: Vec<Option<Result<EbRef>>>,
    ) -> (Arc<Self>, oneshot::Receiver<Vec<Result<EbRef>>>) {
        let (caller, answered) = oneshot::channel();
        let left = answers.iter().filter(|a| a.is_none()).count();
        let parts = Parts { answers, left, failed: HashSet::new(), caller: Some(caller) };
        (Arc::new(Self { parts: Mutex::new(parts) }), answered)
    }

    fn answer(&self, index: usize, key: PartitionKey, answer: Result<EbRef>) {
        let mut parts = self.parts.lock();
        debug_assert!(parts.answers[index].is_none(), "a record is answered once");
        if answer.is_err() {
            parts.failed.insert(key);
        }
        parts.answers[index] = Some(answer);
        parts.left -= 1;
        if parts.left > 0 {
            return;
        }
        let answers = std::mem::take(&mut parts.answers);
        let caller = parts.caller.take();
        drop(parts);
        if let Some(caller) = caller {
            // An error means that the caller has dropped its future.
            drop(caller.send(answers.into_iter().flatten().collect()));
        }
    }
}

/// How much a publisher holds, and may.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { held: AtomicUsize::new(0), limit }
    }

    /// Takes one call's cost. However large it is, it is taken while less than the limit is held, so that no call is
    /// too large for ever.
    pub(super) fn take(&self, topic: &Topic, cost: usize) -> Result<()> {
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < self.limit).then(|| held.saturating_add(cost))
        });
        taken.map(drop).map_err(|held| {
            let message = format!("{held} bytes of records wait to be written already");
            Error::new(ErrorKind::Throttled { after: None }, OP, message)
                .at(topic)
                .advise("publish again when some of them are answered")
        })
    }

    pub(super) fn give_back(&self, cost: usize) {
        self.held.fetch_sub(cost, Ordering::Relaxed);
    }
}

/// What a record is answered whose predecessor failed.
pub(super) fn not_attempted(place: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotAttempted, OP, "an earlier record of this key failed").at(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_takes_one_call_more_and_then_throttles() {
        let (budget, topic) = (Budget::new(100), Topic::new("t").unwrap());
        budget.take(&topic, 99).unwrap();
        budget.take(&topic, 1_000_000).unwrap();
        let e = budget.take(&topic, 1).unwrap_err();
        assert_eq!(e.kind().code(), "throttled");
        budget.give_back(1_000_000);
        budget.take(&topic, 1).unwrap();
    }
}
