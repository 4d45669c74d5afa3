//! Answers on their way to the callers.

use std::collections::HashSet;
use std::sync::Arc;

use eb_contract::{EbRef, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Where a record's one answer goes. Nobody may be waiting for it any more.
#[derive(Debug)]
pub(super) enum Reply {
    /// To a call of one record.
    One(oneshot::Sender<Result<EbRef>>),
    /// To this place of a batch.
    Part(Arc<Batch>, usize),
}

impl Reply {
    pub(super) fn answer(self, answer: Result<EbRef>) {
        match self {
            // An error means that the caller has dropped its future.
            Self::One(caller) => drop(caller.send(answer)),
            Self::Part(batch, index) => batch.answer(index, answer),
        }
    }

    /// The batch it belongs to.
    pub(super) fn batch(&self) -> Option<&Arc<Batch>> {
        match self {
            Self::One(_) => None,
            Self::Part(batch, _) => Some(batch),
        }
    }

    /// Notes that a record of this key failed for good, and that later ones of its batch must not be tried.
    pub(super) fn key_failed(&self, key: u128) {
        if let Self::Part(batch, _) = self {
            batch.parts.lock().failed.insert(key);
        }
    }

    /// Whether an earlier record of this key and of the same batch failed.
    pub(super) fn has_failed(&self, key: u128) -> bool {
        match self {
            Self::One(_) => false,
            Self::Part(batch, _) => {
                let parts = batch.parts.lock();
                !parts.failed.is_empty() && parts.failed.contains(&key)
            }
        }
    }
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
    failed: HashSet<u128>,
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

    /// Whether the caller has been given the answers.
    pub(super) fn is_answered(&self) -> bool {
        self.parts.lock().left == 0
    }

    fn answer(&self, index: usize, answer: Result<EbRef>) {
        let mut parts = self.parts.lock();
        debug_assert!(parts.answers[index].is_none(), "a record is answered once");
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
