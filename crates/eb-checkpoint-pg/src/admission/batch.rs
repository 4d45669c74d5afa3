//! Many callers, few statements: calls that wait at the same time become one batch.
//!
//! A batch is made when a statement may be sent, not before: while [`Limits::in_flight`] batches are under way the calls
//! of the next one gather. So a lone caller waits for nothing, and many share the cost of a commit. The queue is
//! bounded; past it callers wait.

use std::sync::Arc;

use eb_contract::{BoxFuture, Error, Result};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::closed;

/// How many calls may wait.
const QUEUE: usize = 4096;

/// How batches are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// After how many items no further call is taken into a batch.
    pub(super) items: usize,
    /// How many batches may be under way at once.
    pub(super) in_flight: usize,
}

/// What is done with a batch: one answer for each item, or one error for all.
pub(super) trait Work: Send + Sync + 'static {
    type Item: Send + 'static;
    type Answer: Send + 'static;

    fn run(self: Arc<Self>, items: Vec<Self::Item>) -> BoxFuture<'static, Result<Vec<Self::Answer>>>;

    /// Answers whose caller is gone.
    fn unclaimed(&self, answers: Vec<Self::Answer>);
}

struct Call<W: Work> {
    items: Vec<W::Item>,
    answer: oneshot::Sender<Result<Vec<W::Answer>>>,
}

/// The queue before a [`Work`].
pub(super) struct Batcher<W: Work> {
    calls: Mutex<Option<mpsc::Sender<Call<W>>>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl<W: Work> Batcher<W> {
    /// Starts a task on the current runtime; it ends with [`Batcher::close`], or when this is dropped.
    pub(super) fn start(work: Arc<W>, limits: Limits) -> Self {
        let (calls, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(serve(work, queue, limits));
        Self { calls: Mutex::new(Some(calls)), task: tokio::sync::Mutex::new(Some(task)) }
    }

    /// Dropping the future does not withdraw a call that was taken.
    pub(super) async fn call(&self, op: &'static str, items: Vec<W::Item>) -> Result<Vec<W::Answer>> {
        let calls = self.calls.lock().clone().ok_or_else(|| closed(op))?;
        let (answer, answered) = oneshot::channel();
        calls.send(Call { items, answer }).await.map_err(|_| closed(op))?;
        drop(calls);
        answered.await.unwrap_or_else(|_| Err(closed(op)))
    }

    /// Takes no further calls, and waits for those that were taken.
    pub(super) async fn close(&self) {
        drop(self.calls.lock().take());
        if let Some(task) = self.task.lock().await.take() {
            // A task that was cancelled with its runtime has nothing left to wait for.
            let _ = task.await;
        }
    }
}

async fn serve<W: Work>(work: Arc<W>, mut queue: mpsc::Receiver<Call<W>>, limits: Limits) {
    let in_flight = u32::try_from(limits.in_flight.max(1)).unwrap_or(u32::MAX);
    let slots = Arc::new(Semaphore::new(in_flight as usize));
    while let Some(first) = queue.recv().await {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let mut calls = vec![first];
        let mut items = calls[0].items.len();
        while items < limits.items {
            let Ok(call) = queue.try_recv() else { break };
            items += call.items.len();
            calls.push(call);
        }
        let work = work.clone();
        tokio::spawn(async move {
            run(&work, calls).await;
            drop(slot);
        });
    }
    // Whoever closes waits until the last answer is given.
    let _ = slots.acquire_many(in_flight).await;
}

async fn run<W: Work>(work: &Arc<W>, calls: Vec<Call<W>>) {
    let mut waiting = Vec::with_capacity(calls.len());
    let mut items = Vec::new();
    for call in calls {
        waiting.push((call.items.len(), call.answer));
        items.extend(call.items);
    }
    let expected = items.len();
    match work.clone().run(items).await {
        Ok(answers) if answers.len() == expected => {
            let mut answers = answers.into_iter();
            for (count, caller) in waiting {
                if let Err(Ok(unclaimed)) = caller.send(Ok(answers.by_ref().take(count).collect())) {
                    work.unclaimed(unclaimed);
                }
            }
        }
        Ok(answers) => {
            let message = format!("{} answers for {expected} keys", answers.len());
            let error = Error::new(eb_contract::ErrorKind::ProtocolViolation, "admission index", message);
            fail(waiting.into_iter().map(|(_, caller)| caller), &error);
        }
        Err(error) => fail(waiting.into_iter().map(|(_, caller)| caller), &error),
    }
}

fn fail<T>(callers: impl Iterator<Item = oneshot::Sender<Result<T>>>, error: &Error) {
    for caller in callers {
        // One that is gone needs no answer.
        let _ = caller.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Doubles numbers, in batches that it remembers; waits for a permit before each.
    struct Doubler {
        batches: Mutex<Vec<usize>>,
        unclaimed: Mutex<Vec<u64>>,
        gate: Semaphore,
    }

    impl Doubler {
        fn new(permits: usize) -> Arc<Self> {
            let gate = Semaphore::new(permits);
            Arc::new(Self { batches: Mutex::default(), unclaimed: Mutex::default(), gate })
        }
    }

    impl Work for Doubler {
        type Item = u64;
        type Answer = u64;

        fn run(self: Arc<Self>, items: Vec<u64>) -> BoxFuture<'static, Result<Vec<u64>>> {
            Box::pin(async move {
                self.batches.lock().push(items.len());
                self.gate.acquire().await.expect("never closed").forget();
                Ok(items.into_iter().map(|n| n * 2).collect())
            })
        }

        fn unclaimed(&self, answers: Vec<u64>) {
            self.unclaimed.lock().extend(answers);
        }
    }

    const LIMITS: Limits = Limits { items: 100, in_flight: 1 };

    #[tokio::test]
    async fn calls_that_wait_together_share_a_batch_and_each_gets_its_own_answers() {
        let work = Doubler::new(0);
        let batcher = Arc::new(Batcher::start(work.clone(), LIMITS));
        let mut callers = Vec::new();
        for n in 0..20 {
            let batcher = batcher.clone();
            callers.push(tokio::spawn(async move { batcher.call("double", vec![n, n + 1]).await }));
        }
        // All calls are queued while the first batch is held.
        while work.batches.lock().is_empty() || Arc::strong_count(&batcher) < 21 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        work.gate.add_permits(100);
        for (n, caller) in (0..).zip(callers) {
            assert_eq!(caller.await.unwrap().unwrap(), [n * 2, n * 2 + 2]);
        }
        let batches = work.batches.lock().clone();
        assert_eq!(batches.iter().sum::<usize>(), 40);
        assert!(batches.len() < 20, "{batches:?}");
    }

    #[tokio::test]
    async fn what_a_gone_caller_was_answered_is_handed_back() {
        let work = Doubler::new(0);
        let batcher = Batcher::start(work.clone(), LIMITS);
        let mut call = Box::pin(batcher.call("double", vec![7]));
        while work.batches.lock().is_empty() {
            assert!((&mut call).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        drop(call);
        work.gate.add_permits(1);
        batcher.close().await;
        assert_eq!(*work.unclaimed.lock(), [14]);
        assert_eq!(batcher.call("double", vec![1]).await.unwrap_err().kind().code(), "closed");
    }
}
