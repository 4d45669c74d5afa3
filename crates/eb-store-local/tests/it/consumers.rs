//! The suites for the stores of a consumer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eb_conformance::{
    DeadLetterFactory, LeaseFactory, Outcome, ProcessedFactory, TestDeadLetterStore, TestLeaseStore,
    TestProcessedStore,
};
use eb_contract::stores::{DeadLetterStore, LeaseStore, ProcessedStore};
use eb_contract::{BoxFuture, Timestamp};
use eb_disk::RealDisk;
use eb_store_local::{Clock, EmbeddedDeadLetters, EmbeddedLeases, EmbeddedProcessed, Host, MarksConfig};
use parking_lot::Mutex;
use tempfile::TempDir;

/// The machine's clocks, moved on by a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shifted(Arc<Mutex<Duration>>);

impl Shifted {
    pub(crate) fn pass(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

impl Clock for Shifted {
    fn uptime(&self) -> Duration {
        eb_disk::boot::uptime() + *self.0.lock()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(*self.0.lock())
    }
}

pub(crate) fn host(clock: &Shifted) -> Host {
    Host { disk: Arc::new(RealDisk), clock: Arc::new(clock.clone()) }
}

fn fresh() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Outcome<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

struct Leases;

impl LeaseFactory for Leases {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestLeaseStore>>> {
        let (dir, clock) = (fresh(), Shifted::default());
        let store = EmbeddedLeases::open_on(dir.path(), host(&clock));
        done(Box::new(OpenLeases { dir, clock, store }) as Box<dyn TestLeaseStore>)
    }
}

struct OpenLeases {
    dir: TempDir,
    clock: Shifted,
    store: EmbeddedLeases,
}

impl TestLeaseStore for OpenLeases {
    fn store(&self) -> Arc<dyn LeaseStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn LeaseStore>>> {
        done(Arc::new(EmbeddedLeases::open_on(self.dir.path(), host(&self.clock))) as Arc<dyn LeaseStore>)
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        self.clock.pass(time);
        done(())
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.store = EmbeddedLeases::open_on(self.dir.path(), host(&self.clock));
        done(())
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        done(())
    }
}

/// With segments of this many bytes.
struct Marks(u64);

impl ProcessedFactory for Marks {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestProcessedStore>>> {
        let (dir, clock) = (fresh(), Shifted::default());
        let store = open_marks(dir.path(), self.0, &clock);
        done(Box::new(OpenMarks { dir, clock, store, segment_bytes: self.0 }) as Box<dyn TestProcessedStore>)
    }
}

struct OpenMarks {
    dir: TempDir,
    clock: Shifted,
    store: EmbeddedProcessed,
    segment_bytes: u64,
}

fn open_marks(dir: &Path, segment_bytes: u64, clock: &Shifted) -> EmbeddedProcessed {
    EmbeddedProcessed::open_on(&MarksConfig::new(dir).with_segment_bytes(segment_bytes), host(clock))
}

impl TestProcessedStore for OpenMarks {
    fn store(&self) -> Arc<dyn ProcessedStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn ProcessedStore>>> {
        done(Arc::new(open_marks(self.dir.path(), self.segment_bytes, &self.clock)) as Arc<dyn ProcessedStore>)
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        self.clock.pass(time);
        done(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.store = open_marks(self.dir.path(), self.segment_bytes, &self.clock);
        done(())
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        done(())
    }
}

struct Letters;

impl DeadLetterFactory for Letters {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestDeadLetterStore>>> {
        let dir = fresh();
        let store = EmbeddedDeadLetters::open(dir.path());
        done(Box::new(OpenLetters { dir, store }) as Box<dyn TestDeadLetterStore>)
    }
}

struct OpenLetters {
    dir: TempDir,
    store: EmbeddedDeadLetters,
}

impl TestDeadLetterStore for OpenLetters {
    fn store(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(self.store.clone())
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn DeadLetterStore>>> {
        done(Arc::new(EmbeddedDeadLetters::open(self.dir.path())) as Arc<dyn DeadLetterStore>)
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        self.store = EmbeddedDeadLetters::open(self.dir.path());
        done(())
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        done(())
    }
}

mod dead_letters {
    eb_conformance::dead_letter_store_suite!(super::Letters);
}

mod leases {
    eb_conformance::lease_store_suite!(super::Leases);
}

mod marks {
    eb_conformance::processed_store_suite!(super::Marks(4 << 20));
}

mod marks_in_small_segments {
    eb_conformance::processed_store_suite!(super::Marks(1));
}
