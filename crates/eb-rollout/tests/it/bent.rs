//! A bus whose publishers can be slowed, and made to swallow or change what they ACK.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use eb_contract::{
    BoxFuture, Capabilities, EbRef, EnvelopeRef, EventBusPublisher, PublishRecord, Result, Topic,
};
use eb_memory::MemoryBus;
use eb_rollout::PublisherFactory;
use parking_lot::Mutex;

/// What its publishers do wrong.
#[derive(Default)]
pub(crate) struct Bend {
    pub(crate) delay: Mutex<Duration>,
    /// So many records are ACKed at the place of another and not stored.
    pub(crate) swallow: AtomicUsize,
    /// Records are stored with other bytes.
    pub(crate) change: AtomicBool,
    /// How many publishers are open, and the most that were.
    pub(crate) open: AtomicUsize,
}

pub(crate) fn bent(bus: &Arc<MemoryBus>, bend: &Arc<Bend>) -> PublisherFactory {
    let (bus, bend) = (bus.clone(), bend.clone());
    Arc::new(move || -> BoxFuture<'static, Result<Arc<dyn EventBusPublisher>>> {
        bend.open.fetch_add(1, Ordering::SeqCst);
        let inner: Arc<dyn EventBusPublisher> = Arc::new(bus.publisher());
        let publisher = Arc::new(Bent { inner, bend: bend.clone(), last: Mutex::default() });
        Box::pin(async move { Ok(publisher as Arc<dyn EventBusPublisher>) })
    })
}

struct Bent {
    inner: Arc<dyn EventBusPublisher>,
    bend: Arc<Bend>,
    last: Mutex<Option<EbRef>>,
}

impl Bent {
    fn publish_one(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        let last = self.last.lock().clone();
        let swallow =
            self.bend.swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let done = match (swallow, last) {
            (Ok(_), Some(last)) => {
                let swallowed: BoxFuture<'static, Result<EbRef>> = Box::pin(async move { Ok(last) });
                swallowed
            }
            _ => {
                let record = if self.bend.change.load(Ordering::SeqCst) {
                    let other = EnvelopeRef::new(r#"{"event_id":"another"}"#).unwrap();
                    PublishRecord::new(record.partition_key, other)
                } else {
                    record
                };
                self.inner.publish(topic, record)
            }
        };
        let delay = *self.bend.delay.lock();
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            done.await
        })
    }
}

impl EventBusPublisher for Bent {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        self.publish_one(topic, record)
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        // Done in the call, as the memory bus does it, so that the last ACK is known to the next record.
        let mut calls = Vec::new();
        for record in records {
            let mut call = self.publish_one(topic, record);
            match futures_util::FutureExt::now_or_never(&mut call) {
                Some(answer) => {
                    if let Ok(at) = &answer {
                        *self.last.lock() = Some(at.clone());
                    }
                    calls.push(Box::pin(async move { answer }) as BoxFuture<'static, Result<EbRef>>);
                }
                None => calls.push(call),
            }
        }
        Box::pin(async move {
            let mut answers = Vec::new();
            for call in calls {
                answers.push(call.await);
            }
            answers
        })
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        self.inner.probe(topic)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.bend.open.fetch_sub(1, Ordering::SeqCst);
        self.inner.close()
    }
}
