//! A world of memory: a bus, stores that fail on request, workers, and what their handlers saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use canonical_envelope::EnvelopeBuilder;
use eb_consumer::{
    CommitPolicy, ConsumerBuilder, ConsumerSource, EventConsumer, HandlerError, HandlerResult, LeasePolicy,
    OnTheirOwn, RawEvent, RetryPolicy, RunningConsumer, Stores,
};
use eb_contract::stores::{CheckpointStore, DeadLetter, DeadLetterFilter, DeadLetterStore};
use eb_contract::{
    ConsumerName, Cut, EnvelopeRef, Error, ErrorKind, EventBusAdmin, EventBusPublisher, PartitionId,
    PartitionKey, PublishRecord, Topic,
};
use eb_memory::{
    MemoryBus, MemoryCheckpointStore, MemoryConfig, MemoryDeadLetters, MemoryLeases, MemoryProcessed,
    MemoryRegisterStore,
};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) const TYPE: &str = "card.transaction.authorised";
pub(crate) const NAME: &str = "ledger";

pub(crate) fn topic() -> Topic {
    Topic::new("fp.bus.traffic.v1").unwrap()
}

pub(crate) fn name() -> ConsumerName {
    ConsumerName::new(NAME).unwrap()
}

pub(crate) fn outage() -> Error {
    Error::new(ErrorKind::Unavailable, "test", "away for a while")
}

pub(crate) fn envelope(event_type: &str, id: &str, payload: &str) -> EnvelopeRef {
    let built = EnvelopeBuilder::new(event_type)
        .event_id(id)
        .ts_utc(canonical_envelope::parse_time("2026-01-29T09:30:00.000001Z").unwrap())
        .manifest_fingerprint("a".repeat(64))
        .payload_json(payload)
        .build();
    EnvelopeRef::new(built.unwrap()).unwrap()
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) bus: Arc<MemoryBus>,
    pub(crate) checkpoints: MemoryCheckpointStore,
    pub(crate) processed: MemoryProcessed,
    pub(crate) letters: MemoryDeadLetters,
    pub(crate) leases: MemoryLeases,
    pub(crate) registers: MemoryRegisterStore,
    pub(crate) seen: Arc<Handled>,
}

impl World {
    pub(crate) async fn new(partitions: u32) -> Self {
        Self::on(MemoryConfig::default(), partitions).await
    }

    pub(crate) async fn on(config: MemoryConfig, partitions: u32) -> Self {
        let bus = MemoryBus::with_config(config);
        bus.admin().create_topic(&topic(), partitions).await.unwrap();
        Self {
            bus: Arc::new(bus),
            checkpoints: MemoryCheckpointStore::new(),
            processed: MemoryProcessed::new(),
            letters: MemoryDeadLetters::new(),
            leases: MemoryLeases::new(),
            registers: MemoryRegisterStore::new(),
            seen: Arc::default(),
        }
    }

    pub(crate) fn stores(&self) -> Stores {
        Stores {
            checkpoints: Arc::new(self.checkpoints.clone()),
            processed: Arc::new(self.processed.clone()),
            dead_letters: Arc::new(self.letters.clone()),
            leases: Arc::new(self.leases.clone()),
            registers: Arc::new(self.registers.clone()),
        }
    }

    pub(crate) fn source(&self) -> ConsumerSource {
        ConsumerSource::Log(Arc::new(self.bus.reader()))
    }

    /// A consumer without handlers yet: impatient with stores and leases, as tests are.
    pub(crate) fn builder(&self) -> ConsumerBuilder<OnTheirOwn> {
        let ms = Duration::from_millis;
        EventConsumer::builder(NAME)
            .topic(topic())
            .source(self.source())
            .stores(self.stores())
            .commit(CommitPolicy {
                interval: ms(10),
                retry: ms(5),
                retry_max: ms(50),
                ..CommitPolicy::default()
            })
            .leases(LeasePolicy {
                time_to_live: ms(1500),
                heartbeat: ms(100),
                rebalance: ms(50),
                retry_failed: ms(100),
                grace: ms(2000),
                ..LeasePolicy::default()
            })
            .retry(quick_retries())
    }

    /// A worker whose handler writes down what it sees and then answers as `answer` says.
    pub(crate) async fn worker<F>(&self, answer: F) -> RunningConsumer
    where
        F: Fn(&RawEvent) -> HandlerResult + Send + Sync + 'static,
    {
        self.start(self.builder(), answer).await
    }

    pub(crate) async fn start<F>(&self, builder: ConsumerBuilder<OnTheirOwn>, answer: F) -> RunningConsumer
    where
        F: Fn(&RawEvent) -> HandlerResult + Send + Sync + 'static,
    {
        let seen = Arc::clone(&self.seen);
        let answer = Arc::new(answer);
        let handler = move |event: RawEvent| {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            async move {
                seen.begun(&event);
                // Handlers that never wait would never run side by side.
                tokio::task::yield_now().await;
                let result = answer(&event);
                if result.is_ok() {
                    seen.done(&event);
                }
                result
            }
        };
        builder.otherwise(handler).build().unwrap().start().await.unwrap()
    }

    /// Publishes events `from..from + count`, one key after the other.
    pub(crate) async fn publish(&self, from: u64, count: u64, keys: u64) {
        let publisher = self.bus.publisher();
        for n in from..from + count {
            let key = PartitionKey::new(format!("k{}", n % keys)).unwrap();
            let envelope = envelope(TYPE, &format!("e{n}"), &format!(r#"{{"n":{n}}}"#));
            publisher.publish(&topic(), PublishRecord::new(key, envelope)).await.unwrap();
        }
    }

    pub(crate) async fn publish_one(&self, key: &str, envelope: EnvelopeRef) {
        let key = PartitionKey::new(key.to_owned()).unwrap();
        self.bus.publisher().publish(&topic(), PublishRecord::new(key, envelope)).await.unwrap();
    }

    pub(crate) async fn cut(&self, partition: u32) -> Option<Cut> {
        self.checkpoints.load(&name(), &topic(), PartitionId(partition)).await.unwrap().map(|c| c.cut)
    }

    /// Until the stored cut of a partition lies before the record `n`.
    pub(crate) async fn until_cut(&self, partition: u32, n: u64) {
        until("the cut", || async {
            self.cut(partition).await.and_then(|c| c.offset()?.as_u64()) == Some(n)
        })
        .await;
    }

    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        self.letters.list(&DeadLetterFilter::default(), 1000).await.unwrap()
    }
}

pub(crate) fn quick_retries() -> RetryPolicy {
    RetryPolicy {
        backoff: eb_consumer::Backoff::Fixed { delay: Duration::from_millis(2) },
        max_attempts: None,
        ..RetryPolicy::default()
    }
}

/// What handlers saw.
#[derive(Default)]
pub(crate) struct Handled {
    state: Mutex<Seen>,
    count: watch::Sender<u64>,
}

#[derive(Default, Clone)]
pub(crate) struct Seen {
    /// Event ids by the order in which a handler was first called for them, by key.
    pub(crate) begun: BTreeMap<String, Vec<String>>,
    /// How often each succeeded.
    pub(crate) done: BTreeMap<String, u32>,
    /// How often each was begun.
    pub(crate) calls: BTreeMap<String, u32>,
}

impl Handled {
    pub(crate) fn begun(&self, event: &RawEvent) {
        let mut state = self.state.lock();
        let calls = state.calls.entry(event.event_id().to_owned()).or_default();
        *calls += 1;
        if *calls == 1 {
            let key = event.partition_key().to_string();
            state.begun.entry(key).or_default().push(event.event_id().to_owned());
        }
    }

    pub(crate) fn done(&self, event: &RawEvent) {
        *self.state.lock().done.entry(event.event_id().to_owned()).or_default() += 1;
        self.count.send_modify(|n| *n += 1);
    }

    pub(crate) fn look(&self) -> Seen {
        self.state.lock().clone()
    }

    /// Until so many different events were handled.
    pub(crate) async fn until(&self, events: usize) {
        let mut count = self.count.subscribe();
        let enough = async {
            while self.state.lock().done.len() < events {
                count.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), enough).await.is_err() {
            panic!("{} of {events} events were handled", self.state.lock().done.len());
        }
    }

    /// Everything arrived, each key in its order.
    pub(crate) fn assert_all_in_order(&self, events: u64, keys: u64) {
        let seen = self.look();
        let all: BTreeSet<_> = (0..events).map(|n| format!("e{n}")).collect();
        assert_eq!(seen.done.keys().cloned().collect::<BTreeSet<_>>(), all);
        for key in 0..keys {
            let expected: Vec<_> = (key..events).step_by(keys as usize).map(|n| format!("e{n}")).collect();
            assert_eq!(seen.begun.get(&format!("k{key}")), Some(&expected), "the order of key {key}");
        }
    }
}

/// Looks again and again until it is so. Tests never wait for a time to pass, only for what must come.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let all = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), all).await.is_err() {
        panic!("{what} never came");
    }
}

pub(crate) fn number(event: &RawEvent) -> u64 {
    event.event_id()[1..].parse().unwrap()
}

pub(crate) fn transient() -> HandlerError {
    HandlerError::transient("not now")
}

/// How often something was counted.
pub(crate) fn tick(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, SeqCst) + 1
}
