//! A memory bus that breaks one promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_conformance::{BusFactory, BusOffers, Outcome, Pace, TestBus};
use eb_contract::{
    BoxFuture, Capabilities, Cut, Error, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, Offset,
    PartitionId, PublishRecord, Result, Topic,
};
use eb_memory::{MemoryBus, MemoryConfig};
use parking_lot::Mutex;

use crate::bent_publisher::BentPublisher;
use crate::bent_reader::BentReader;

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bend {
    /// None: the wrapper itself must pass.
    Nothing,
    // Publishing.
    OrderAtFirstPoll,
    LaterWaitsForEarlierPoll,
    SharedOffsets,
    AckWithoutAppend,
    Dedupes,
    StripsSpaces,
    TrimsKeys,
    TakesOneByteMore,
    TakesOneByteLess,
    RefusalOfUnknownEffect,
    BatchGoesOnAfterFailure,
    BatchStopsAllKeys,
    BatchAnswersReversed,
    BatchAnswersMissing,
    BatchLosesItsLast,
    BatchAppendsBackwards,
    BatchTakesAnyNumber,
    StraysToAnotherTopic,
    AnotherPartitionRule,
    DroppedCallsAreSentAgain,
    PublishesAfterClose,
    CloseAbandonsCalls,
    ProbePublishes,
    MakesMissingTopics,
    AckTimeIsNotTheRecords,
    // Reading.
    ResumeSkipsOne,
    ResumeRepeatsOne,
    AfterRedelivers,
    ComparesOffsetsAsText,
    LatestIsEarliest,
    EarliestIsLatest,
    TimeIsIgnored,
    TimeIsExclusive,
    AnyKindOfCut,
    MissingPartitionIsFirst,
    MissingTopicIsEmpty,
    HeadLags,
    TopicsUnsorted,
    ParentsHidden,
    ReadsAfterClose,
    CloseLeavesReadsWaiting,
    JumpsSilently,
    OldestUnnamed,
    // Cursors.
    DeliversTwice,
    GapAtTheHead,
    DroppedReadsLoseRecords,
    AnyNumberOfRecords,
    AnyNumberOfBytes,
    NeverWaits,
    WaitsForGood,
    CaughtUpTooEarly,
    NextCutTooFar,
    BatchesBackwards,
    ChildrenUnnamed,
    // The bus.
    ReopeningLosesTheLast,
    ReadsBeforeDurable,
    ReopeningIsAnotherLife,
    AnyNumberOfPartitionsAgain,
    CreatingTwiceFails,
}

pub(crate) struct BentFactory {
    pub(crate) bend: Bend,
    pub(crate) config: MemoryConfig,
    pub(crate) partitions: u32,
    pub(crate) pace: Pace,
}

impl BusFactory for BentFactory {
    fn capabilities(&self) -> Capabilities {
        MemoryBus::with_config(self.config.clone()).capabilities().clone()
    }

    fn offers(&self) -> BusOffers {
        BusOffers { create_topics: true, trim: true, reshard: true, second_publisher: true }
    }

    fn pace(&self) -> Pace {
        self.pace
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
        Box::pin(async {
            let journal = Arc::new(Journal::default());
            let bus = BentBus::new(self.bend, self.capabilities(), self.config.clone(), journal, None);
            Ok(Box::new(bus) as Box<dyn TestBus>)
        })
    }
}

/// What was published, so that a bus can be made anew with something missing.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) topics: Mutex<BTreeMap<Topic, u32>>,
    pub(crate) published: Mutex<Vec<Published>>,
}

pub(crate) struct Published {
    pub(crate) topic: Topic,
    pub(crate) record: PublishRecord,
    /// Whether somebody was told.
    pub(crate) acked: Arc<AtomicBool>,
}

pub(crate) struct BentBus {
    bend: Bend,
    capabilities: Capabilities,
    config: MemoryConfig,
    bus: MemoryBus,
    journal: Arc<Journal>,
    publisher: Arc<BentPublisher>,
    reader: Arc<BentReader>,
}

impl BentBus {
    fn new(
        bend: Bend,
        capabilities: Capabilities,
        config: MemoryConfig,
        journal: Arc<Journal>,
        bus: Option<MemoryBus>,
    ) -> Self {
        let mut inner = config.clone();
        match bend {
            Bend::TakesOneByteMore => inner.max_envelope_bytes += 1,
            Bend::TakesOneByteLess => inner.max_envelope_bytes -= 1,
            Bend::BatchTakesAnyNumber => inner.max_batch_records = usize::MAX,
            _ => {}
        }
        let bus = bus.unwrap_or_else(|| MemoryBus::with_config(inner));
        Self {
            bend,
            publisher: Arc::new(BentPublisher::new(
                bend,
                capabilities.clone(),
                bus.reopen(),
                journal.clone(),
            )),
            reader: Arc::new(BentReader::new(bend, capabilities.clone(), bus.reopen())),
            capabilities,
            config,
            bus,
            journal,
        }
    }

    /// A new bus with what `keep` keeps of what was published; what it leaves out is replaced, so that the rest
    /// stays where it was, or left out.
    async fn made_anew(&self, keep: impl Fn(usize, &Published) -> Keep) -> Result<MemoryBus> {
        let bus = MemoryBus::with_config(self.config.clone());
        let topics = self.journal.topics.lock().clone();
        for (topic, partitions) in &topics {
            bus.admin().create_topic(topic, *partitions).await?;
        }
        let published = std::mem::take(&mut *self.journal.published.lock());
        let publisher = bus.publisher();
        for (n, p) in published.iter().enumerate() {
            let record = match keep(n, p) {
                Keep::It => p.record.clone(),
                Keep::SomethingElse => {
                    let other = eb_contract::EnvelopeRef::new(r#"{"event_id":"other","n":424242}"#);
                    PublishRecord::new(p.record.partition_key.clone(), other.expect("an object"))
                }
                Keep::Nothing => continue,
            };
            publisher.publish(&p.topic, record).await?;
        }
        *self.journal.published.lock() = published;
        Ok(bus)
    }
}

enum Keep {
    It,
    SomethingElse,
    Nothing,
}

impl TestBus for BentBus {
    fn publisher(&self) -> Arc<dyn EventBusPublisher> {
        self.publisher.clone()
    }

    fn reader(&self) -> Arc<dyn EventBusReader> {
        self.reader.clone()
    }

    fn admin(&self) -> Arc<dyn EventBusAdmin> {
        Arc::new(BentAdmin { bend: self.bend, bus: self.bus.reopen(), journal: self.journal.clone() })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.publisher.close().await?;
            self.reader.close().await?;
            let count = self.journal.published.lock().len();
            let bus = match self.bend {
                Bend::ReopeningLosesTheLast => {
                    self.made_anew(|n, _| if n + 1 == count { Keep::Nothing } else { Keep::It }).await?
                }
                Bend::ReadsBeforeDurable => {
                    self.made_anew(|_, p| {
                        if p.acked.load(Ordering::Relaxed) { Keep::It } else { Keep::SomethingElse }
                    })
                    .await?
                }
                Bend::ReopeningIsAnotherLife => self.made_anew(|_, _| Keep::It).await?,
                _ => self.bus.reopen(),
            };
            *self = Self::new(
                self.bend,
                self.capabilities.clone(),
                self.config.clone(),
                self.journal.clone(),
                Some(bus),
            );
            Ok(())
        })
    }

    fn second_publisher(&self) -> BoxFuture<'_, Outcome<Arc<dyn EventBusPublisher>>> {
        Box::pin(async {
            let second = BentPublisher::new(
                self.bend,
                self.capabilities.clone(),
                self.bus.reopen(),
                self.journal.clone(),
            );
            Ok(Arc::new(second) as Arc<dyn EventBusPublisher>)
        })
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        before: Offset,
    ) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.bus.faults().trim(topic, partition, &Cut::Next(before))?) })
    }

    fn split<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.bus.faults().split(topic, partition).map(drop)?) })
    }

    fn merge<'a>(&'a self, topic: &'a Topic, a: PartitionId, b: PartitionId) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { Ok(self.bus.faults().merge(topic, a, b).map(drop)?) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            self.publisher.close().await?;
            self.reader.close().await?;
            Ok(())
        })
    }
}

struct BentAdmin {
    bend: Bend,
    bus: MemoryBus,
    journal: Arc<Journal>,
}

impl EventBusAdmin for BentAdmin {
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let known = self.journal.topics.lock().contains_key(topic);
            if known && self.bend == Bend::AnyNumberOfPartitionsAgain {
                return Ok(());
            }
            if known && self.bend == Bend::CreatingTwiceFails {
                return Err(Error::new(ErrorKind::AlreadyExists, "create_topic", "it is there"));
            }
            self.bus.admin().create_topic(topic, partitions).await?;
            self.journal.topics.lock().entry(topic.clone()).or_insert(partitions);
            Ok(())
        })
    }
}
