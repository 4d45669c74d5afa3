//! The broken publisher.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use eb_contract::{
    BoxFuture, Capabilities, EbRef, Effect, EnvelopeRef, Error, ErrorKind, EventBusAdmin, EventBusPublisher,
    EventBusReader, PartitionKey, PublishRecord, Result, Timestamp, Topic,
};
use eb_memory::{MemoryBus, MemoryPublisher};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::bent_bus::{Bend, Journal, Published};

pub(crate) struct BentPublisher {
    bend: Bend,
    capabilities: Capabilities,
    bus: MemoryBus,
    inner: Arc<MemoryPublisher>,
    journal: Arc<Journal>,
    calls: AtomicUsize,
    last: Mutex<HashMap<Topic, EbRef>>,
    seen: Mutex<HashMap<EnvelopeRef, EbRef>>,
    turn: watch::Sender<usize>,
    closed: Arc<AtomicBool>,
}

impl BentPublisher {
    pub(crate) fn new(bend: Bend, capabilities: Capabilities, bus: MemoryBus, journal: Arc<Journal>) -> Self {
        Self {
            bend,
            capabilities,
            inner: Arc::new(bus.publisher()),
            bus,
            journal,
            calls: AtomicUsize::new(0),
            last: Mutex::default(),
            seen: Mutex::default(),
            turn: watch::Sender::new(0),
            closed: Arc::default(),
        }
    }

    fn bend_record(&self, record: PublishRecord) -> PublishRecord {
        let PublishRecord { partition_key, envelope } = record;
        let key = |text: String| PartitionKey::new(text).expect("a key made from a key");
        match self.bend {
            Bend::StripsSpaces => {
                let text = envelope.as_str().expect("UTF-8").replace(' ', "");
                PublishRecord::new(partition_key, EnvelopeRef::from_stored(text.into()))
            }
            Bend::TrimsKeys if !partition_key.as_str().trim().is_empty() => {
                PublishRecord::new(key(partition_key.as_str().trim().to_owned()), envelope)
            }
            Bend::AnotherPartitionRule if partition_key.as_str().chars().count() < 256 => {
                PublishRecord::new(key(format!("{partition_key}\u{1}")), envelope)
            }
            _ => PublishRecord::new(partition_key, envelope),
        }
    }

    /// The answer to one record, appended now.
    fn append(&self, topic: &Topic, record: PublishRecord) -> Result<EbRef> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let record = self.bend_record(record);
        let last = self.last.lock().get(topic).cloned();
        match (self.bend, last) {
            (Bend::SharedOffsets, Some(last)) if call % 7 == 6 => {
                self.put(topic, record)?;
                return Ok(last);
            }
            (Bend::AckWithoutAppend, Some(mut last)) if call % 7 == 6 => {
                last.offset = last.offset.successor().unwrap_or(last.offset);
                return Ok(last);
            }
            (Bend::Dedupes, _) => {
                if let Some(first) = self.seen.lock().get(&record.envelope) {
                    return Ok(first.clone());
                }
            }
            (Bend::StraysToAnotherTopic, _) if call % 10 == 9 => {
                let topics = self.bus.reader().topics().now_or_never().expect("memory answers at once")?;
                if let Some(other) = topics.iter().find(|t| *t != topic) {
                    let at = self.put(other, record)?;
                    return Ok(EbRef { topic: topic.clone(), ..at });
                }
            }
            (Bend::MakesMissingTopics, _) => {
                let made = self.bus.admin().create_topic(topic, 1).now_or_never();
                _ = made.expect("memory answers at once");
            }
            _ => {}
        }
        let envelope = record.envelope.clone();
        let at = self.put(topic, record)?;
        self.last.lock().insert(topic.clone(), at.clone());
        self.seen.lock().insert(envelope, at.clone());
        Ok(at)
    }

    fn put(&self, topic: &Topic, record: PublishRecord) -> Result<EbRef> {
        let answer = self.inner.publish(topic, record).now_or_never().expect("memory answers at once");
        match (self.bend, answer) {
            (Bend::RefusalOfUnknownEffect, Err(e)) => Err(e.with_effect(Effect::Unknown)),
            (Bend::AckTimeIsNotTheRecords, Ok(at)) => Ok(EbRef { published_at_utc: Timestamp::EPOCH, ..at }),
            (_, answer) => answer,
        }
    }

    fn sent_again(&self, topic: &Topic, record: &PublishRecord) -> impl FnOnce() + Send + 'static {
        let (inner, topic, record) = (self.inner.clone(), topic.clone(), record.clone());
        move || {
            _ = inner.publish(&topic, record).now_or_never();
        }
    }
}

/// Does something when it is dropped before it was disarmed.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

impl EventBusPublisher for BentPublisher {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        let (topic, inner, closed) = (topic.clone(), self.inner.clone(), self.closed.clone());
        match self.bend {
            Bend::OrderAtFirstPoll => async move { inner.publish(&topic, record).await }.boxed(),
            Bend::LaterWaitsForEarlierPoll => {
                let mine = self.calls.fetch_add(1, Ordering::Relaxed);
                let (turn, mut turns) = (self.turn.clone(), self.turn.subscribe());
                async move {
                    _ = turns.wait_for(|now| *now == mine).await;
                    let answer = inner.publish(&topic, record).await;
                    turn.send_replace(mine + 1);
                    answer
                }
                .boxed()
            }
            Bend::CloseAbandonsCalls => async move {
                if closed.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorKind::Closed, "publish", "closed before it was sent"));
                }
                inner.publish(&topic, record).await
            }
            .boxed(),
            Bend::PublishesAfterClose => {
                let publisher = self.bus.publisher();
                async move { publisher.publish(&topic, record).await }.boxed()
            }
            Bend::DroppedCallsAreSentAgain => {
                let mut again = OnDrop(Some(self.sent_again(&topic, &record)));
                let answer = self.append(&topic, record);
                async move {
                    again.disarm();
                    answer
                }
                .boxed()
            }
            _ => {
                let acked = Arc::new(AtomicBool::new(false));
                let copy = record.clone();
                let answer = self.append(&topic, record);
                if answer.is_ok() {
                    self.journal.published.lock().push(Published {
                        topic,
                        record: copy,
                        acked: acked.clone(),
                    });
                }
                async move {
                    acked.store(true, Ordering::Relaxed);
                    answer
                }
                .boxed()
            }
        }
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        let count = records.len();
        let mut answers: Vec<Result<EbRef>> = match self.bend {
            Bend::BatchGoesOnAfterFailure => records.into_iter().map(|r| self.append(topic, r)).collect(),
            Bend::BatchStopsAllKeys => {
                let mut failed = false;
                let one = |r| {
                    if failed {
                        return Err(Error::new(
                            ErrorKind::NotAttempted,
                            "publish",
                            "an earlier record failed",
                        ));
                    }
                    let answer = self.append(topic, r);
                    failed = answer.is_err();
                    answer
                };
                records.into_iter().map(one).collect()
            }
            Bend::BatchLosesItsLast if count > 1 => {
                let mut kept = records;
                kept.pop();
                let mut answers = self.inner.publish_batch(topic, kept).now_or_never().expect("at once");
                if let Some(Ok(last)) = answers.last().cloned() {
                    let offset = last.offset.successor().unwrap_or(last.offset);
                    answers.push(Ok(EbRef { offset, ..last }));
                }
                answers
            }
            Bend::BatchAppendsBackwards => {
                let backwards = records.into_iter().rev().collect();
                let mut answers = self.inner.publish_batch(topic, backwards).now_or_never().expect("at once");
                answers.reverse();
                answers
            }
            Bend::PublishesAfterClose => {
                self.bus.publisher().publish_batch(topic, records).now_or_never().expect("at once")
            }
            _ => {
                let bent: Vec<_> = records.into_iter().map(|r| self.bend_record(r)).collect();
                let answers = self.inner.publish_batch(topic, bent.clone()).now_or_never().expect("at once");
                for (answer, record) in answers.iter().zip(bent) {
                    if answer.is_ok() {
                        let acked = Arc::new(AtomicBool::new(true));
                        self.journal.published.lock().push(Published { topic: topic.clone(), record, acked });
                    }
                }
                answers
            }
        };
        match self.bend {
            Bend::BatchAnswersReversed => answers.reverse(),
            Bend::BatchAnswersMissing => drop(answers.pop()),
            _ => {}
        }
        std::future::ready(answers).boxed()
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        if self.bend == Bend::ProbePublishes {
            let envelope = EnvelopeRef::new("{\"n\":0}").expect("an object");
            let record = PublishRecord::new(PartitionKey::new("probe").expect("a key"), envelope);
            _ = self.inner.publish(topic, record).now_or_never();
        }
        self.inner.probe(topic)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.store(true, Ordering::Relaxed);
        if self.bend == Bend::CloseAbandonsCalls {
            return std::future::ready(Ok(())).boxed();
        }
        self.inner.close()
    }
}
