//! The writing side: the append happens in the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eb_contract::{
    BoxFuture, Capabilities, EbRef, Error, ErrorKind, EventBusPublisher, PublishRecord, Result, Topic,
};
use futures_util::FutureExt;
use futures_util::future::ready;
use tokio::sync::oneshot;

use crate::error;
use crate::state::{Answers, Held, Shared, refuse_all};

/// Publishes to a [`MemoryBus`](crate::MemoryBus).
///
/// Records are appended when `publish` is called, so that dropping its future changes nothing; while publishes are
/// held ([`Faults::hold`](crate::Faults::hold)) they queue in the order of the calls.
pub struct MemoryPublisher {
    shared: Arc<Shared>,
    /// Tells this handle's held records from others'.
    id: u64,
    closed: Arc<AtomicBool>,
}

impl MemoryPublisher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self { shared, id: MADE.fetch_add(1, Ordering::Relaxed), closed: Arc::default() }
    }

    fn submit(&self, topic: &Topic, records: Vec<PublishRecord>) -> Submitted {
        let count = records.len();
        let mut state = self.shared.lock();
        // Read under the lock, so that `close` knows of every call that came before it.
        if self.closed.load(Ordering::Relaxed) {
            return Submitted::Done(refuse_all(count, &error::closed("publish")));
        }
        if !state.faults.holding {
            let answers = state.append_batch(topic, records, &self.shared.config);
            drop(state);
            self.shared.notify();
            return Submitted::Done(answers);
        }
        let limit = self.shared.config.max_held_records;
        if state.held_records() + count > limit {
            return Submitted::Done(refuse_all(count, &error::too_many_held(topic, limit)));
        }
        let (answer, answered) = oneshot::channel();
        state.faults.held.push_back(Held { publisher: self.id, topic: topic.clone(), records, answer });
        Submitted::Held { count, answered }
    }
}

enum Submitted {
    Done(Answers),
    Held { count: usize, answered: oneshot::Receiver<Answers> },
}

impl Submitted {
    fn into_future(self) -> BoxFuture<'static, Answers> {
        match self {
            Self::Done(answers) => ready(answers).boxed(),
            Self::Held { count, answered } => {
                // The sender only goes unused when the whole bus is dropped with records held.
                let gone =
                    Error::new(ErrorKind::Closed, "publish", "the bus was dropped while the record was held");
                answered.map(move |answers| answers.unwrap_or_else(|_| refuse_all(count, &gone))).boxed()
            }
        }
    }
}

impl EventBusPublisher for MemoryPublisher {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        let answers = self.submit(topic, vec![record]).into_future();
        answers.map(|mut one| one.pop().expect("a batch of one has one answer")).boxed()
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        self.submit(topic, records).into_future()
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        let state = self.shared.lock();
        let answer = match &state.faults.outage {
            _ if self.closed.load(Ordering::Relaxed) => Err(error::closed("probe")),
            Some(outage) => Err(outage.clone()),
            None => state.topic("probe", topic).map(drop),
        };
        ready(answer).boxed()
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        let state = self.shared.lock();
        self.closed.store(true, Ordering::Relaxed);
        drop(state);
        let (shared, id) = (self.shared.clone(), self.id);
        async move {
            let mut changes = shared.listen();
            while shared.lock().faults.held.iter().any(|h| h.publisher == id) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
            Ok(())
        }
        .boxed()
    }
}
