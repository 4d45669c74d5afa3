//! The checkpoint suite, and what only a database can be asked.

use std::sync::Arc;

use eb_checkpoint_pg::PgCheckpointStore;
use eb_conformance::{CheckpointFactory, CheckpointOffers, Outcome, ResetEntry, TestCheckpointStore};
use eb_contract::stores::CheckpointStore;
use eb_contract::{BoxFuture, ConsumerName, PartitionId, Topic};

use crate::support::Schema;

struct Stores;

impl CheckpointFactory for Stores {
    fn offers(&self) -> CheckpointOffers {
        CheckpointOffers { reopen: true, reset_history: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestCheckpointStore>>> {
        Box::pin(async {
            let schema = Schema::new();
            let store = PgCheckpointStore::open(&schema.config()).await?;
            Ok(Box::new(Open { schema, store }) as Box<dyn TestCheckpointStore>)
        })
    }
}

struct Open {
    schema: Schema,
    store: PgCheckpointStore,
}

impl TestCheckpointStore for Open {
    fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.store.clone())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.store.close();
            self.store = PgCheckpointStore::open(&self.schema.config()).await?;
            Ok(())
        })
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
        Box::pin(async move {
            self.store.close();
            Ok(())
        })
    }
}

eb_conformance::checkpoint_store_suite!(Stores);
