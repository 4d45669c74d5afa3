//! The checkpoint suite, in both ways that a commit of several may go.

use std::sync::Arc;

use eb_conformance::{CheckpointFactory, CheckpointOffers, Outcome, ResetEntry, TestCheckpointStore};
use eb_contract::stores::CheckpointStore;
use eb_contract::{BoxFuture, ConsumerName, PartitionId, Topic};
use eb_memory::{CommitMode, MemoryCheckpointStore};

struct Stores(CommitMode);

impl CheckpointFactory for Stores {
    fn offers(&self) -> CheckpointOffers {
        CheckpointOffers { reopen: true, reset_history: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestCheckpointStore>>> {
        Box::pin(async {
            Ok(Box::new(Open(MemoryCheckpointStore::with_mode(self.0))) as Box<dyn TestCheckpointStore>)
        })
    }
}

struct Open(MemoryCheckpointStore);

impl TestCheckpointStore for Open {
    fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.0.clone())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.0 = self.0.clone();
        Box::pin(async { Ok(()) })
    }

    fn reset_history<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Outcome<Vec<ResetEntry>>> {
        let history = self.0.history(consumer, topic, partition);
        Box::pin(async { Ok(history.into_iter().map(|reset| (reset.from, reset.reason)).collect()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

mod each_alone {
    eb_conformance::checkpoint_store_suite!(super::Stores(eb_memory::CommitMode::EachAlone));
}

mod all_or_none {
    eb_conformance::checkpoint_store_suite!(super::Stores(eb_memory::CommitMode::AllOrNone));
}
