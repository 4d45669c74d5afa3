//! The suites for the stores of a consumer.

use std::sync::Arc;
use std::time::Duration;

use eb_checkpoint_pg::{PgDeadLetters, PgLeases, PgProcessed, PgTransaction};
use eb_conformance::{
    DeadLetterFactory, LeaseFactory, Outcome, Pace, ProcessedFactory, ProcessedOffers, TestDeadLetterStore,
    TestLeaseStore, TestProcessedStore, TestTransaction,
};
use eb_contract::stores::{
    Checkpoint, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, Lease, LeaseStore, Mark,
    MarkScope, NewDeadLetter, ProcessedStore, Progress, TransactionalStore,
};
use eb_contract::{BoxFuture, Result};

use crate::support::Schema;

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Outcome<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

/// Moves what is stored back by this time.
fn back(schema: &Schema, columns: &[(&str, &str)], time: Duration) {
    for (table, column) in columns {
        schema.sql(&format!(
            "UPDATE {table} SET {column} = {column} - interval '{} microseconds'",
            time.as_micros()
        ));
    }
}

struct Leases;

impl LeaseFactory for Leases {
    fn pace(&self) -> Pace {
        Pace { operations: 60, ..Pace::LOCAL }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestLeaseStore>>> {
        Box::pin(async {
            let schema = Schema::new();
            let store = PgLeases::open(&schema.config()).await?;
            Ok(Box::new(OpenLeases { schema, store }) as Box<dyn TestLeaseStore>)
        })
    }
}

struct OpenLeases {
    schema: Schema,
    store: PgLeases,
}

impl TestLeaseStore for OpenLeases {
    fn store(&self) -> Arc<dyn LeaseStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn LeaseStore>>> {
        Box::pin(async { Ok(Arc::new(PgLeases::open(&self.schema.config()).await?) as Arc<dyn LeaseStore>) })
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        back(&self.schema, &[("consumer_leases", "ends_at"), ("consumer_members", "ends_at")], time);
        done(())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.store.close();
            self.store = PgLeases::open(&self.schema.config()).await?;
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        self.store.close();
        done(())
    }
}

struct Marks;

impl ProcessedFactory for Marks {
    fn offers(&self) -> ProcessedOffers {
        ProcessedOffers { checkpoints: true, transactions: true }
    }

    fn pace(&self) -> Pace {
        Pace { operations: 60, ..Pace::LOCAL }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestProcessedStore>>> {
        Box::pin(async {
            let schema = Schema::new();
            let store = PgProcessed::open(&schema.config()).await?;
            schema.sql("CREATE TABLE effects (effect text)");
            Ok(Box::new(OpenMarks { schema, store }) as Box<dyn TestProcessedStore>)
        })
    }
}

struct OpenMarks {
    schema: Schema,
    store: PgProcessed,
}

impl TestProcessedStore for OpenMarks {
    fn store(&self) -> Arc<dyn ProcessedStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn ProcessedStore>>> {
        Box::pin(async {
            Ok(Arc::new(PgProcessed::open(&self.schema.config()).await?) as Arc<dyn ProcessedStore>)
        })
    }

    fn checkpoints(&self) -> Option<Arc<dyn CheckpointStore>> {
        Some(Arc::new(self.store.checkpoints().clone()))
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetterStore>> {
        Some(self.store.dead_letters())
    }

    fn begin(&self) -> BoxFuture<'_, Outcome<Box<dyn TestTransaction>>> {
        Box::pin(async {
            let open = Some(self.store.begin().await?);
            let table = format!("{}.effects", self.schema.name());
            Ok(Box::new(Open { store: self.store.clone(), table, open }) as Box<dyn TestTransaction>)
        })
    }

    fn effects(&self) -> BoxFuture<'_, Outcome<Vec<String>>> {
        done(self.schema.sql("SELECT effect FROM effects ORDER BY effect COLLATE \"C\""))
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        back(&self.schema, &[("processed_events", "processed_at")], time);
        done(())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.store.close();
            self.store = PgProcessed::open(&self.schema.config()).await?;
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        self.store.close();
        done(())
    }
}

struct Open {
    store: PgProcessed,
    table: String,
    open: Option<PgTransaction>,
}

impl Open {
    fn open(&mut self) -> &mut PgTransaction {
        self.open.as_mut().expect("only the commit takes it")
    }
}

impl TestTransaction for Open {
    fn write<'a>(&'a mut self, effect: &'a str) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let sql = format!("INSERT INTO {} VALUES ($1)", self.table);
            self.open().client()?.execute(&sql, &[&effect]).await?;
            Ok(())
        })
    }

    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let store = self.store.clone();
            store.save(self.open()).await
        })
    }

    fn undo(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let store = self.store.clone();
            store.undo(self.open()).await
        })
    }

    fn bury<'a>(&'a mut self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let store = self.store.clone();
            store.bury(self.open(), letters).await
        })
    }

    fn resolve<'a>(
        mut self: Box<Self>,
        id: DeadLetterId,
        of: (&'a MarkScope, &'a Mark),
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        Box::pin(async move {
            let open = self.open.take().expect("only the commit takes it");
            self.store.resolve_and_commit(open, id, of, reason).await
        })
    }

    fn commit<'a>(
        mut self: Box<Self>,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(async move {
            let open = self.open.take().expect("only the commit takes it");
            self.store.record_and_commit(open, step, lease).await
        })
    }
}

struct Letters;

impl DeadLetterFactory for Letters {
    fn pace(&self) -> Pace {
        Pace { operations: 60, ..Pace::LOCAL }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestDeadLetterStore>>> {
        Box::pin(async {
            let schema = Schema::new();
            let store = PgDeadLetters::open(&schema.config()).await?;
            Ok(Box::new(OpenLetters { schema, store }) as Box<dyn TestDeadLetterStore>)
        })
    }
}

struct OpenLetters {
    schema: Schema,
    store: PgDeadLetters,
}

impl TestDeadLetterStore for OpenLetters {
    fn store(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn DeadLetterStore>>> {
        Box::pin(async {
            Ok(Arc::new(PgDeadLetters::open(&self.schema.config()).await?) as Arc<dyn DeadLetterStore>)
        })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.store.close();
            self.store = PgDeadLetters::open(&self.schema.config()).await?;
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        self.store.close();
        done(())
    }
}

mod leases {
    eb_conformance::lease_store_suite!(super::Leases);
}

mod marks {
    eb_conformance::processed_store_suite!(super::Marks);
}

mod dead_letters {
    eb_conformance::dead_letter_store_suite!(super::Letters);
}
