//! The suites for the stores of a consumer.

use std::sync::Arc;
use std::time::Duration;

use eb_conformance::{
    DeadLetterFactory, LeaseFactory, Outcome, ProcessedFactory, ProcessedOffers, TestDeadLetterStore,
    TestLeaseStore, TestProcessedStore, TestTransaction,
};
use eb_contract::stores::{
    Checkpoint, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, Lease, LeaseStore, Mark,
    MarkScope, NewDeadLetter, ProcessedStore, Progress, TransactionalStore,
};
use eb_contract::{BoxFuture, Result, Timestamp};
use eb_memory::{
    MemoryCheckpointStore, MemoryClock, MemoryDeadLetters, MemoryLeases, MemoryProcessed, MemoryTransaction,
    MemoryTransactions,
};

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Outcome<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

struct Leases;

impl LeaseFactory for Leases {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestLeaseStore>>> {
        done(Box::new(OpenLeases(MemoryLeases::with_clock(MemoryClock::manual()))) as Box<dyn TestLeaseStore>)
    }
}

struct OpenLeases(MemoryLeases);

impl TestLeaseStore for OpenLeases {
    fn store(&self) -> Arc<dyn LeaseStore> {
        Arc::new(self.0.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn LeaseStore>>> {
        done(self.store())
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        self.0.clock().advance(time);
        done(())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.0 = self.0.clone();
        done(())
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        done(())
    }
}

struct Marks {
    transactional: bool,
}

impl ProcessedFactory for Marks {
    fn offers(&self) -> ProcessedOffers {
        ProcessedOffers { checkpoints: self.transactional, transactions: self.transactional }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestProcessedStore>>> {
        let clock = MemoryClock::manual();
        let marks = MemoryProcessed::with_clock(clock.clone());
        let checkpoints = MemoryCheckpointStore::new();
        let letters = MemoryDeadLetters::with_clock(clock.clone());
        let whole = MemoryTransactions::new(marks.clone(), checkpoints.clone(), letters);
        let transactional = self.transactional;
        done(Box::new(OpenMarks { clock, marks, checkpoints, whole, transactional })
            as Box<dyn TestProcessedStore>)
    }
}

struct OpenMarks {
    clock: MemoryClock,
    marks: MemoryProcessed,
    checkpoints: MemoryCheckpointStore,
    whole: MemoryTransactions,
    transactional: bool,
}

impl TestProcessedStore for OpenMarks {
    fn store(&self) -> Arc<dyn ProcessedStore> {
        if self.transactional { Arc::new(self.whole.clone()) } else { Arc::new(self.marks.clone()) }
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn ProcessedStore>>> {
        done(self.store())
    }

    fn checkpoints(&self) -> Option<Arc<dyn CheckpointStore>> {
        self.transactional.then(|| Arc::new(self.checkpoints.clone()) as Arc<dyn CheckpointStore>)
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetterStore>> {
        Some(self.whole.dead_letters())
    }

    fn begin(&self) -> BoxFuture<'_, Outcome<Box<dyn TestTransaction>>> {
        Box::pin(async {
            let open = Some(self.whole.begin().await?);
            Ok(Box::new(Open { store: self.whole.clone(), open }) as Box<dyn TestTransaction>)
        })
    }

    fn effects(&self) -> BoxFuture<'_, Outcome<Vec<String>>> {
        let mut effects = self.whole.effects();
        effects.sort();
        done(effects)
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        self.clock.advance(time);
        done(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        (self.marks, self.whole) = (self.marks.clone(), self.whole.clone());
        done(())
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        done(())
    }
}

struct Open {
    store: MemoryTransactions,
    open: Option<MemoryTransaction>,
}

impl Open {
    fn open(&mut self) -> &mut MemoryTransaction {
        self.open.as_mut().expect("only the commit takes it")
    }
}

impl TestTransaction for Open {
    fn write<'a>(&'a mut self, effect: &'a str) -> BoxFuture<'a, Outcome> {
        self.open().write(effect);
        done(())
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
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestDeadLetterStore>>> {
        done(Box::new(OpenLetters(MemoryDeadLetters::new())) as Box<dyn TestDeadLetterStore>)
    }
}

struct OpenLetters(MemoryDeadLetters);

impl TestDeadLetterStore for OpenLetters {
    fn store(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(self.0.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn DeadLetterStore>>> {
        done(self.store())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.0 = self.0.clone();
        done(())
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        done(())
    }
}

mod leases {
    eb_conformance::lease_store_suite!(super::Leases);
}

mod marks {
    eb_conformance::processed_store_suite!(super::Marks { transactional: false });
}

mod marks_in_transactions {
    eb_conformance::processed_store_suite!(super::Marks { transactional: true });
}

mod dead_letters {
    eb_conformance::dead_letter_store_suite!(super::Letters);
}
