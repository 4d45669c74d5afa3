//! A bus that takes one writer process only: its writer's part is over when its epoch is, and the mirror's worker of another process
//! takes it over, and gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eb_contract::{
    BoxFuture, Capabilities, EbRef, EventBusAdmin, EventBusPublisher, EventBusReader, PublishRecord, Result,
    Topic,
};
use eb_file::{FileBus, FileBusConfig};
use eb_memory::{MemoryBus, MemoryRegisterStore};
use eb_rollout::{Phase, PublisherFactory, RolloutBus, RolloutConfig, RolloutParts, SideBus};

use crate::support::{event, quick, read_chain, side, topic};

/// As one process opens it: with locks of its own.
pub(crate) fn file_side(root: &std::path::Path) -> SideBus {
    let bus = FileBus::open(FileBusConfig { create: true, ..FileBusConfig::new(root) }).unwrap();
    let of = bus.clone();
    let publisher: PublisherFactory =
        Arc::new(move || -> BoxFuture<'static, Result<Arc<dyn EventBusPublisher>>> {
            let publisher: Arc<dyn EventBusPublisher> = Arc::new(of.publisher());
            Box::pin(async move { Ok(publisher) })
        });
    let (reader, admin) = (Arc::new(bus.reader()), Arc::new(bus.admin()));
    SideBus { name: "file".to_owned(), reader, admin, publisher, shows_within: Duration::ZERO }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_writer_of_a_file_bus_changes_with_the_epoch_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, registers) = (Arc::new(MemoryBus::new()), MemoryRegisterStore::new());
    let parts = || RolloutParts {
        old: file_side(folder.path()),
        new: side("memory", &memory),
        registers: Arc::new(registers.clone()),
    };
    let config = RolloutConfig { lease: Duration::from_millis(100), ..quick() };
    let worker = RolloutBus::open(parts(), config.clone()).await.unwrap();
    let writer = RolloutBus::open(parts(), RolloutConfig { workers: false, ..config }).await.unwrap();
    worker.admin().create_topic(&topic(), 1).await.unwrap();
    let publisher = writer.publisher();
    let mut n = 0;
    let mut places = Vec::new();
    let steps = [
        Phase::DualWrite,
        Phase::NewPrimary,
        Phase::Baseline,
        Phase::DualWrite,
        Phase::NewPrimary,
        Phase::NewOnly,
        Phase::Baseline,
    ];
    for to in steps {
        let now = worker.control().status().await.unwrap().state.phase;
        if to > now {
            worker.control().advance("forward").await.unwrap();
        } else {
            worker.control().rollback(to, "back").await.unwrap();
        }
        for _ in 0..20 {
            // A lock that is just being given up is worth another try.
            let at = loop {
                match publisher.publish(&topic(), event("k", n)).await {
                    Ok(at) => break at,
                    Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                    Err(error) => panic!("{to}: {error}"),
                }
            };
            places.push(at);
            n += 1;
        }
        if to.is_mirrored() {
            // In reverse the worker writes to the files.
            let wanted = worker.control().status().await.unwrap().state.mirror_run;
            loop {
                let status = worker.control().status().await.unwrap();
                if status.mirror.is_some_and(|m| m.run == wanted && m.copied > 0) {
                    break;
                }
                publisher.publish(&topic(), event("other", n)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    let read = read_chain(&writer.reader(), &topic()).await;
    let of_key: Vec<_> =
        read.iter().filter(|r| r.partition_key.as_str() == "k").map(|r| r.eb_ref.clone()).collect();
    assert_eq!(of_key, places);
    publisher.close().await.unwrap();
    worker.control().close().await;
    let head = FileBus::open(FileBusConfig::new(folder.path())).unwrap().reader();
    assert!(head.head(&topic(), eb_contract::PartitionId(0)).await.unwrap().last.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_mirrored_to_a_bus_of_one_writer_leaves_it_to_whoever_publishes() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, registers) = (Arc::new(MemoryBus::new()), MemoryRegisterStore::new());
    let parts = || RolloutParts {
        old: file_side(folder.path()),
        new: side("memory", &memory),
        registers: Arc::new(registers.clone()),
    };
    let config = RolloutConfig { lease: Duration::from_millis(100), ..quick() };
    // Its copies are still under way when everybody has switched.
    let mut slow = parts();
    let (files, calls) = (slow.old.publisher.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    slow.old.publisher = Arc::new(move || {
        let (opening, calls) = (files(), counted.clone());
        Box::pin(async move { Ok(Arc::new(Slow(opening.await?, calls)) as Arc<dyn EventBusPublisher>) })
    });
    let worker = RolloutBus::open(slow, config.clone()).await.unwrap();
    let writer = RolloutBus::open(parts(), RolloutConfig { workers: false, ..config }).await.unwrap();
    // It may publish, and does not.
    let idle = worker.publisher();
    worker.admin().create_topic(&topic(), 1).await.unwrap();
    let publisher = writer.publisher();
    for round in 0..3 {
        crate::support::advance_to(&worker, Phase::NewPrimary).await;
        crate::support::publish(&publisher, "k", round).await;
        let before = calls.load(Ordering::SeqCst);
        while calls.load(Ordering::SeqCst) == before {
            crate::support::publish(&publisher, "other", round).await;
        }
        worker.control().rollback(Phase::Baseline, "back").await.unwrap();
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        while let Err(error) = publisher.publish(&topic(), event("back", round)).await {
            // A lock that is just being given up is worth another try.
            assert!(error.is_retryable() && tokio::time::Instant::now() < until, "{round}: {error}");
        }
    }
    idle.close().await.unwrap();
    worker.control().close().await;
}

/// A publisher that takes its time.
struct Slow(Arc<dyn EventBusPublisher>, Arc<AtomicUsize>);

impl EventBusPublisher for Slow {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let publishing = self.0.publish(topic, record);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            publishing.await
        })
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let publishing = self.0.publish_batch(topic, records);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            publishing.await
        })
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        self.0.probe(topic)
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.0.close()
    }
}
