//! The gate: opening, admitting, closing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use eb_contract::stores::{AdmissionIndex, PolicyEpoch, PolicyRev};
use eb_contract::{EventBusPublisher, EventBusReader, Health, Result, Retry, Timestamp};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admission::Admission;
use crate::config::GateConfig;
use crate::core::{Core, CoreParts};
use crate::error::{GateError, GateErrorCode};
use crate::health;
use crate::policy::Policy;
use crate::progress::Progress;
use crate::quarantine::QuarantineStore;
use crate::receipt::{Receipt, ReceiptId};
use crate::{checkpoint, lookup, reconcile, recovery, renewal, sequencer, takeover};

/// What a gate is made of. It closes none of these; whoever opened them does, after [`Gate::close`].
pub struct GateParts {
    /// Where admitted events go. Nobody else may publish there but other gates on a bus with several writers.
    pub publisher: Arc<dyn EventBusPublisher>,
    /// The same bus, to read.
    pub reader: Arc<dyn EventBusReader>,
    /// Which events were admitted.
    pub index: Arc<dyn AdmissionIndex>,
    /// Where evidence goes.
    pub quarantine: Arc<dyn QuarantineStore>,
    /// What to decide by.
    pub policy: Policy,
    /// Limits and intervals.
    pub config: GateConfig,
}

/// The only way for an event into the bus. Cloning shares it.
///
/// Dropping the last clone without [`Gate::close`] ends its background work: what was ACKed is in the log, and the next
/// open finds it there; events that were still waiting for their turn are not published.
#[derive(Clone)]
pub struct Gate {
    pub(crate) core: Arc<Core>,
    tasks: Arc<Tasks>,
}

/// The background work, ended with the gate.
struct Tasks {
    running: Vec<JoinHandle<()>>,
    closing: tokio::sync::Mutex<Option<Result<(), GateError>>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

impl Gate {
    /// Opens a gate: checks the index against the log, reads what the index lacks, then admits. Must be called within
    /// a tokio runtime, which also runs the gate's background work.
    ///
    /// Dropping the future leaves the index with more entries than its checkpoint says, which is fine.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`](eb_contract::ErrorKind::NotFound): a stream of the policy does not exist;
    /// - [`FactsMissing`](eb_contract::ErrorKind::FactsMissing): the index is ahead of its log, or a view of another;
    /// - [`WrongIncarnation`](eb_contract::ErrorKind::WrongIncarnation): the log was made anew;
    /// - [`WrongVersion`](eb_contract::ErrorKind::WrongVersion): the index holds keys of another version;
    /// - [`Corrupt`](eb_contract::ErrorKind::Corrupt): the log holds a record that no gate has admitted;
    /// - whatever reading the log or writing the index fails with.
    pub async fn open(parts: GateParts) -> Result<Self> {
        let GateParts { publisher, reader, index, quarantine, policy, config } = parts;
        let streams = policy.streams();
        let (checkpoint, read) = recovery::recover(reader.as_ref(), index.as_ref(), &streams).await?;
        tracing::info!(records = read, "the admission index is up to its log");
        let cuts = checkpoint.cuts.iter().map(|c| (c.topic.clone(), c.partition_id, c.cut)).collect();
        let epoch = PolicyEpoch { policy: policy.rev().clone(), since: Timestamp::now(), cuts };
        index.record_policy(epoch).await?;
        let (turns, queue) = mpsc::channel(config.max_waiting.max(1));
        let core = Arc::new(Core::new(CoreParts {
            progress: Progress::new(checkpoint),
            config,
            policy,
            publisher,
            reader,
            index,
            quarantine,
            turns,
            runtime: Handle::current(),
        }));
        let running = vec![
            tokio::spawn(sequencer::run(Arc::clone(&core), queue)),
            tokio::spawn(checkpoint::run(Arc::clone(&core))),
            tokio::spawn(reconcile::run(Arc::clone(&core))),
            tokio::spawn(takeover::tend(Arc::clone(&core))),
            tokio::spawn(renewal::run(Arc::clone(&core))),
        ];
        let tasks = Arc::new(Tasks { running, closing: tokio::sync::Mutex::new(None) });
        Ok(Self { core, tasks })
    }

    /// Admits one event, or says why not.
    ///
    /// All work that needs no waiting is done in the call, a few microseconds of it, and the event's place in the
    /// order of its partition key is fixed there: of two calls made one after the other, the first one's event is
    /// published first, whichever future is polled. At most
    /// [`max_in_flight`](GateConfig::max_in_flight) events are in flight; further ones wait in order, and past
    /// [`max_waiting`](GateConfig::max_waiting) the answer is `EB_THROTTLED` at once.
    ///
    /// Dropping the future does not withdraw the event. It is admitted or not, once, and sending it again tells.
    ///
    /// # Errors
    /// The awaited [`GateError`] is never a receipt: see [`GateErrorCode`] for what each leaves behind. An event
    /// that failed may be sent again where the error allows it; later events of its key may have been admitted
    /// meanwhile.
    pub fn admit(&self, input: impl Into<Bytes>) -> Admission {
        Admission::start(self.clone(), &input.into())
    }

    /// Admits events as a stream, answers in the order of the events, at most `concurrency` in flight (at least 1).
    /// [`Gate::admit`] is called for them in order, so each key's order is kept.
    ///
    /// Dropping the stream does not withdraw events that were taken from `inputs`.
    pub fn admit_stream<S>(
        &self,
        inputs: S,
        concurrency: usize,
    ) -> impl Stream<Item = Result<Receipt, GateError>> + use<S>
    where
        S: Stream<Item = Bytes>,
    {
        let gate = self.clone();
        inputs.map(move |input| gate.admit(input)).buffered(concurrency.max(1))
    }

    /// Admits several events and answers each, positionally, with
    /// [`batch_concurrency`](GateConfig::batch_concurrency) of them in flight. Each key's order is kept; one that
    /// fails does not stop the others.
    ///
    /// Dropping the future withdraws those events whose turn has not come, and no others.
    pub async fn admit_batch(&self, inputs: Vec<Bytes>) -> Vec<Result<Receipt, GateError>> {
        self.admit_stream(stream::iter(inputs), self.core.config.batch_concurrency).collect().await
    }

    /// The policy that is decided by.
    #[must_use]
    pub fn policy_rev(&self) -> &PolicyRev {
        &self.core.rev
    }

    /// How the gate is, by trying what it needs. Takes up to a few seconds where something hangs.
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn health(&self) -> Health {
        health::check(&self.core).await
    }

    /// The ADMIT receipts of an event id, made again from index, log and policy history: more than one where the id
    /// was used for several event types or runs. For events older than the policy history (an index that was
    /// rebuilt) the oldest known policy is named. Class and pins are left out under another policy than today's.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// When index or log cannot be read, or contradict each other.
    pub async fn receipt_by_event_id(&self, event_id: &str) -> Result<Vec<Receipt>> {
        lookup::by_event_id(&self.core, event_id).await
    }

    /// A receipt by its id: looked for in the quarantine, then by a walk through the whole index.
    ///
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// When quarantine, index or log cannot be read, or contradict each other.
    pub async fn receipt_by_receipt_id(&self, receipt_id: ReceiptId) -> Result<Option<Receipt>> {
        lookup::by_receipt_id(&self.core, receipt_id).await
    }

    /// The quarantine store.
    #[must_use]
    pub fn quarantine(&self) -> &Arc<dyn QuarantineStore> {
        &self.core.quarantine
    }

    /// Commits the index's checkpoint now, once what is in flight has settled.
    ///
    /// Dropping the future leaves the former checkpoint or the new one.
    ///
    /// # Errors
    /// When the index could not store it.
    pub async fn checkpoint(&self) -> Result<()> {
        checkpoint::commit(&self.core).await
    }

    /// Refuses further events with `GATE_CLOSED`, finishes those in flight and commits the index's checkpoint. The
    /// parts stay open. Closing again gives the same answer.
    ///
    /// Dropping the future leaves the gate closed to further events; calling it again goes on.
    ///
    /// # Errors
    /// `PUBLISH_OUTCOME_UNKNOWN` when keys stay blocked, `INDEX_UNAVAILABLE` when the checkpoint could not be stored.
    /// Nothing is lost: the next open reads from the former checkpoint.
    pub async fn close(&self) -> Result<(), GateError> {
        self.core.closed.store(true, Ordering::SeqCst);
        let mut closing = self.tasks.closing.lock().await;
        if let Some(answer) = &*closing {
            return answer.clone();
        }
        let answer = self.finish().await;
        self.tasks.running.iter().for_each(JoinHandle::abort);
        *closing = Some(answer.clone());
        answer
    }

    async fn finish(&self) -> Result<(), GateError> {
        let core = &self.core;
        let in_flight = core.flights.all();
        // All before any is awaited: the turn of one may come only when another has given its room back.
        in_flight.iter().for_each(|flight| flight.detach(core));
        for flight in in_flight {
            flight.done().await;
        }
        loop {
            let settled = core.evidence_settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if core.evidence_pending.load(Ordering::SeqCst) == 0 {
                break;
            }
            settled.await;
        }
        if !reconcile::settle_all(core).await {
            let blocked = core.blocked_count.load(Ordering::Relaxed);
            return Err(GateError::new(
                GateErrorCode::PublishOutcomeUnknown,
                Retry::AfterReopen,
                format!("{blocked} events stay blocked at close; opening again finds them in the log or not"),
            ));
        }
        if core.progress.lag() == 0 {
            return Ok(());
        }
        checkpoint::commit(core).await.map_err(GateError::index)
    }
}
