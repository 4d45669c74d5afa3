//! The suites that every bus and every checkpoint store passes.

use std::path::PathBuf;
use std::sync::Arc;

use eb_conformance::{
    BusFactory, CheckpointFactory, CheckpointOffers, Outcome, ResetEntry, TestBus, TestCheckpointStore,
};
use eb_contract::stores::CheckpointStore;
use eb_contract::{
    BoxFuture, Capabilities, ConsumerName, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId,
    Topic,
};
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore};
use tempfile::TempDir;

/// Buses in fresh folders.
#[derive(Clone, Copy)]
struct Buses {
    partitions: u32,
    /// Their readers share nothing with the publisher but the folder, as in another process.
    apart: bool,
    /// Bytes of blank lines that the publisher keeps ahead of its records.
    preallocate: u64,
}

const PLAIN: Buses = Buses { partitions: 1, apart: false, preallocate: 0 };
/// So little that records are often longer than what is left of it.
const PADDED: Buses = Buses { preallocate: 3_000, ..PLAIN };

impl BusFactory for Buses {
    fn capabilities(&self) -> Capabilities {
        let dir = tempfile::tempdir().unwrap();
        let bus = FileBus::open(FileBusConfig::new(dir.path())).unwrap();
        bus.publisher().capabilities().clone()
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn pace(&self) -> eb_conformance::Pace {
        // In another process an ACKed record shows once the watermark is written, a moment after its ACK.
        eb_conformance::Pace { immediate: !self.apart, ..eb_conformance::Pace::LOCAL }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestBus>>> {
        Box::pin(async {
            let dir = tempfile::tempdir()?;
            let open = OpenBus::new(dir.path().join("bus"), *self)?;
            Ok(Box::new(InFolder { open, how: *self, dir }) as Box<dyn TestBus>)
        })
    }
}

struct InFolder {
    open: OpenBus,
    how: Buses,
    dir: TempDir,
}

struct OpenBus {
    bus: FileBus,
    publisher: Arc<dyn EventBusPublisher>,
    reader: Arc<dyn EventBusReader>,
}

impl OpenBus {
    fn new(root: PathBuf, how: Buses) -> eb_contract::Result<Self> {
        let mut config = FileBusConfig::new(&root);
        config.preallocate_bytes = how.preallocate;
        let bus = FileBus::open(config)?;
        let reading = if how.apart { FileBus::open(FileBusConfig::new(root))? } else { bus.clone() };
        Ok(Self { publisher: Arc::new(bus.publisher()), reader: Arc::new(reading.reader()), bus })
    }
}

impl TestBus for InFolder {
    fn publisher(&self) -> Arc<dyn EventBusPublisher> {
        self.open.publisher.clone()
    }

    fn reader(&self) -> Arc<dyn EventBusReader> {
        self.open.reader.clone()
    }

    fn admin(&self) -> Arc<dyn EventBusAdmin> {
        Arc::new(self.open.bus.admin())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.open.publisher.close().await?;
            self.open.reader.close().await?;
            self.open = OpenBus::new(self.dir.path().join("bus"), self.how)?;
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async move { Ok(self.open.publisher.close().await?) })
    }
}

mod one_partition {
    eb_conformance::bus_suite!(super::PLAIN);
}

mod three_partitions {
    eb_conformance::bus_suite!(super::Buses { partitions: 3, ..super::PLAIN });
}

mod read_as_by_another_process {
    eb_conformance::bus_suite!(super::Buses { partitions: 2, apart: true, ..super::PLAIN });
}

mod padded {
    eb_conformance::bus_suite!(super::PADDED);
}

mod padded_and_read_as_by_another_process {
    eb_conformance::bus_suite!(super::Buses { partitions: 2, apart: true, ..super::PADDED });
}

struct Stores;

impl CheckpointFactory for Stores {
    fn offers(&self) -> CheckpointOffers {
        CheckpointOffers { reopen: true, reset_history: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestCheckpointStore>>> {
        Box::pin(async {
            let dir = tempfile::tempdir()?;
            let store = FileCheckpointStore::open(dir.path());
            Ok(Box::new(StoreInFolder { store, dir }) as Box<dyn TestCheckpointStore>)
        })
    }
}

struct StoreInFolder {
    store: FileCheckpointStore,
    dir: TempDir,
}

impl TestCheckpointStore for StoreInFolder {
    fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.store.clone())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.store = FileCheckpointStore::open(self.dir.path());
        Box::pin(async { Ok(()) })
    }

    fn reset_history<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Outcome<Vec<ResetEntry>>> {
        Box::pin(async move {
            let history = self.store.history(consumer, topic, partition).await?;
            Ok(history.into_iter().map(|reset| (reset.from, reset.reason)).collect())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

mod checkpoint_files {
    eb_conformance::checkpoint_store_suite!(super::Stores);
}
