//! Two buses in memory and a register, and rollouts over them.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, EbRef, EnvelopeRef, EventBusAdmin, EventBusPublisher, EventBusReader, EventBusReaderExt,
    PartitionKey, PublishRecord, ReadLimit, ReadState, Record, Result, StartAt, Topic,
};
use eb_memory::{MemoryBus, MemoryConfig, MemoryRegisterStore};
use eb_rollout::{Phase, PublisherFactory, RolloutBus, RolloutConfig, RolloutParts, SideBus, Triggers};
use tokio::time::Instant;

/// What outlives a process: two buses and a register.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) old: Arc<MemoryBus>,
    pub(crate) new: Arc<MemoryBus>,
    pub(crate) registers: MemoryRegisterStore,
}

pub(crate) fn factory(bus: &Arc<MemoryBus>) -> PublisherFactory {
    let bus = bus.clone();
    Arc::new(move || -> BoxFuture<'static, Result<Arc<dyn EventBusPublisher>>> {
        let publisher: Arc<dyn EventBusPublisher> = Arc::new(bus.publisher());
        Box::pin(async move { Ok(publisher) })
    })
}

pub(crate) fn side(name: &str, bus: &Arc<MemoryBus>) -> SideBus {
    SideBus {
        name: name.to_owned(),
        reader: Arc::new(bus.reader()),
        admin: Arc::new(bus.admin()),
        publisher: factory(bus),
        shows_within: Duration::ZERO,
    }
}

impl World {
    pub(crate) fn new(old: MemoryConfig, new: MemoryConfig) -> Self {
        let bus = |config| Arc::new(MemoryBus::with_config(config));
        Self { old: bus(old), new: bus(new), registers: MemoryRegisterStore::new() }
    }

    pub(crate) fn plain() -> Self {
        Self::new(MemoryConfig::default(), MemoryConfig::default())
    }

    pub(crate) fn parts(&self) -> RolloutParts {
        RolloutParts {
            old: side("old-memory", &self.old),
            new: side("new-memory", &self.new),
            registers: Arc::new(self.registers.clone()),
        }
    }

    /// One process.
    pub(crate) async fn open(&self, config: RolloutConfig) -> RolloutBus {
        RolloutBus::open(self.parts(), config).await.unwrap()
    }
}

/// Short leases, no triggers.
pub(crate) fn quick() -> RolloutConfig {
    let never = Triggers { on_finding: false, unavailable_for: None, p99_ratio: None, ..Triggers::default() };
    let mut config = RolloutConfig {
        lease: Duration::from_millis(30),
        rest: Duration::ZERO,
        triggers: Triggers { check_every: Duration::from_millis(10), ..never },
        ..RolloutConfig::default()
    };
    config.mirror.idle = Duration::from_millis(2);
    config.mirror.patience = Duration::from_millis(500);
    config
}

/// Steps forward until `to`, each step as soon as nothing is missing for it.
pub(crate) async fn advance_to(bus: &RolloutBus, to: Phase) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let status = bus.control().status().await.unwrap();
        if status.state.phase >= to {
            return;
        }
        if let Err(missing) = bus.control().advance("a test").await {
            assert!(missing.is_retryable() && Instant::now() < deadline, "{missing}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn topic() -> Topic {
    Topic::new("facts").unwrap()
}

pub(crate) async fn make_topic(bus: &RolloutBus, partitions: u32) -> Topic {
    bus.admin().create_topic(&topic(), partitions).await.unwrap();
    topic()
}

/// Event `n` of a key.
pub(crate) fn event(key: &str, n: usize) -> PublishRecord {
    let envelope = format!(r#"{{"event_id":"{key}-{n}","n":{n}}}"#);
    PublishRecord::new(PartitionKey::new(key).unwrap(), EnvelopeRef::new(envelope).unwrap())
}

pub(crate) async fn publish(publisher: &dyn EventBusPublisher, key: &str, n: usize) -> EbRef {
    publisher.publish(&topic(), event(key, n)).await.unwrap()
}

/// Everything that a reader of the chain is handed, parents before children, until nothing more is there.
pub(crate) async fn read_chain(reader: &dyn EventBusReader, topic: &Topic) -> Vec<Record> {
    let mut tail = reader.tail_topic(topic, StartAt::Earliest, ReadLimit::default()).await.unwrap();
    let mut all = Vec::new();
    let mut at_head = std::collections::BTreeSet::new();
    while let Some(batch) = tail.next().await {
        let (partition, batch) = batch.unwrap();
        let is_empty = batch.records.is_empty();
        all.extend(batch.records);
        match batch.state {
            ReadState::CaughtUp if is_empty => {
                at_head.insert(partition);
            }
            ReadState::CaughtUp | ReadState::More => {
                at_head.remove(&partition);
            }
            ReadState::Closed { .. } => {
                at_head.remove(&partition);
            }
        }
        let open = reader.partitions(topic).await.unwrap().partitions.into_iter().filter(|p| !p.closed);
        if open.map(|p| p.id).all(|id| at_head.contains(&id)) {
            break;
        }
    }
    all
}
