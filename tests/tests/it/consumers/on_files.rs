//! The file bus with embedded stores beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eb_contract::stores::{CheckpointStore, DeadLetterFilter, DeadLetterStore};
use eb_contract::{ConsumerName, EventBusPublisher, EventBusReader, Offset, PublishRecord};
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore, FilePublisher};
use eb_store_local::EmbeddedDeadLetters;
use eb_system_tests::consumers::CONSUMER;
use eb_system_tests::topic;
use eb_testkit::Budget;

use super::{
    PARTITIONS, World, appended, at_least_once, deadly_until_the_budget_ends, until_the_budget_ends,
};

/// A file bus and who publishes to it.
pub(super) struct Log {
    pub(super) dir: tempfile::TempDir,
    // It lives as long as the publisher, whose writer threads use it.
    pub(super) runtime: tokio::runtime::Runtime,
    publisher: FilePublisher,
}

impl Log {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bus = FileBus::open(FileBusConfig::new(dir.path())).unwrap();
        bus.create_topic(&topic(), PARTITIONS).unwrap();
        let publisher = bus.publisher();
        Self { dir, runtime, publisher }
    }

    pub(super) fn publish(&self, records: Vec<PublishRecord>) {
        for answer in self.runtime.block_on(self.publisher.publish_batch(&topic(), records)) {
            answer.unwrap();
        }
    }

    pub(super) fn close(&self) {
        self.runtime.block_on(self.publisher.close()).unwrap();
    }

    /// Whether the checkpoints of the consumer lie at the heads.
    pub(super) fn is_behind(&self, checkpoints: &dyn CheckpointStore) -> bool {
        self.runtime.block_on(async {
            let reader = FileBus::open(FileBusConfig::new(self.dir.path())).unwrap().reader();
            let name = ConsumerName::new(CONSUMER).unwrap();
            for p in reader.partitions(&topic()).await.unwrap().partitions {
                let Some(last) = reader.head(&topic(), p.id).await.unwrap().last else { continue };
                let stored = checkpoints.load(&name, &topic(), p.id).await.unwrap();
                let at = stored.and_then(|c| c.cut.offset().and_then(Offset::as_u64));
                if at != last.as_u64().map(|n| n + 1) {
                    return true;
                }
            }
            false
        })
    }
}

struct OnFiles(Log);

impl World for OnFiles {
    fn publish(&mut self, records: Vec<PublishRecord>) {
        self.0.publish(records);
    }

    fn arguments(&self) -> Vec<String> {
        vec!["files".to_owned()]
    }

    fn root(&self) -> &Path {
        self.0.dir.path()
    }

    fn effects(&self) -> BTreeMap<String, Vec<u64>> {
        appended(self.root())
    }

    fn finished(&self) -> bool {
        !self.0.is_behind(&FileCheckpointStore::open(self.root()))
    }

    fn close(&mut self) {
        self.0.close();
    }
}

#[test]
fn every_event_of_killed_consumers_has_its_effect_in_order_and_again_only_within_the_bound() {
    until_the_budget_ends(Budget::new(1, Duration::from_secs(15), 40), || OnFiles(Log::new()), at_least_once);
}

/// The events of the letters beside the bus.
pub(super) fn letters(runtime: &tokio::runtime::Runtime, root: &Path) -> Vec<String> {
    let store = EmbeddedDeadLetters::open(root.join("consumers"));
    let all = DeadLetterFilter { resolved_too: true, ..DeadLetterFilter::default() };
    let letters = runtime.block_on(store.list(&all, 1000)).unwrap();
    letters.into_iter().filter_map(|l| l.letter.event_id).collect()
}

#[test]
fn an_event_that_aborts_its_process_is_given_up_and_those_that_were_killed_beside_it_are_not() {
    deadly_until_the_budget_ends(
        || OnFiles(Log::new()),
        |world| letters(&world.0.runtime, world.root()),
        at_least_once,
    );
}
