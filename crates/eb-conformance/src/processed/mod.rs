//! The suite for stores of marks.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use eb_contract::stores::{
    Checkpoint, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, EventIdentity, Lease, Mark,
    MarkScope, NewDeadLetter, ProcessedStore, Progress, Seen,
};
use eb_contract::{BoxFuture, Cut, Offset, OffsetKind, PartitionId, Result, Timestamp};

mod events;
mod fencing;
mod forgetting;
mod marks;
mod model;
mod scenarios;
mod transactions;

pub use scenarios::processed_scenarios;

pub(crate) use crate::checkpoint::{consumer, incarnation, lease, next, topic};
use crate::outcome::ensure_eq;
use crate::{Failure, Need, Outcome, Pace, Plan, Verdict, random, run};

/// Opens fresh stores of marks of one kind.
pub trait ProcessedFactory: Send + Sync {
    /// What the factory's stores can be made to do.
    fn offers(&self) -> ProcessedOffers {
        ProcessedOffers::default()
    }

    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// A new, empty store, apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestProcessedStore>>>;
}

/// What the factory's stores can be made to do beside the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessedOffers {
    /// The store keeps checkpoints, and [`TestProcessedStore::checkpoints`] shows them.
    pub checkpoints: bool,
    /// [`TestProcessedStore::begin`] and [`TestProcessedStore::effects`] work.
    pub transactions: bool,
}

/// An open store of marks under test.
pub trait TestProcessedStore: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn ProcessedStore>;

    /// Another opening of the same data beside the first, as another process has it.
    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn ProcessedStore>>>;

    /// The checkpoints that the store keeps, if it does.
    fn checkpoints(&self) -> Option<Arc<dyn CheckpointStore>> {
        None
    }

    /// The dead letters that its transactions put and resolve, if it has any.
    fn dead_letters(&self) -> Option<Arc<dyn DeadLetterStore>> {
        None
    }

    /// Opens a transaction.
    fn begin(&self) -> BoxFuture<'_, Outcome<Box<dyn TestTransaction>>> {
        Box::pin(async { Err(Failure::new("the factory offers transactions but does not implement them")) })
    }

    /// The effects of all transactions that were committed, sorted.
    fn effects(&self) -> BoxFuture<'_, Outcome<Vec<String>>> {
        Box::pin(async { Err(Failure::new("the factory offers transactions but does not show effects")) })
    }

    /// Lets time pass: by moving the clock on that marks are dated by, or what is stored, back.
    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome>;

    /// The time of that clock.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Closes the store and opens the same data again.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// Closes everything and removes what the test has left behind.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

/// An open transaction, and an effect that a handler might have in it. Dropping it rolls it back.
pub trait TestTransaction: Send {
    /// Writes something that [`TestProcessedStore::effects`] shows once it is committed.
    fn write<'a>(&'a mut self, effect: &'a str) -> BoxFuture<'a, Outcome>;

    /// As [`eb_contract::stores::TransactionalStore::save`].
    fn save(&mut self) -> BoxFuture<'_, Result<()>>;

    /// As [`eb_contract::stores::TransactionalStore::undo`].
    fn undo(&mut self) -> BoxFuture<'_, Result<()>>;

    /// As [`eb_contract::stores::TransactionalStore::bury`].
    fn bury<'a>(&'a mut self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Result<()>>;

    /// As [`eb_contract::stores::TransactionalStore::resolve_and_commit`].
    fn resolve<'a>(
        self: Box<Self>,
        id: DeadLetterId,
        of: (&'a MarkScope, &'a Mark),
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>>;

    /// As [`eb_contract::stores::TransactionalStore::record_and_commit`].
    fn commit<'a>(self: Box<Self>, step: &'a Progress, lease: &'a Lease)
    -> BoxFuture<'a, Result<Checkpoint>>;
}

/// Which scenarios run on the factory's stores.
pub fn processed_plan(factory: &dyn ProcessedFactory) -> Plan {
    Plan::new(processed_scenarios(), |need| lacks(factory, need))
}

fn lacks(factory: &dyn ProcessedFactory, need: Need) -> Option<String> {
    let offer = |has: bool, what: &str| (!has).then(|| format!("the factory does not offer {what}"));
    match need {
        Need::KeepsCheckpoints => offer(factory.offers().checkpoints, "checkpoints in the same store"),
        Need::Transactions => offer(factory.offers().transactions, "transactions"),
        _ => Some("it is not for stores of marks".to_owned()),
    }
}

/// Runs one scenario on a fresh store of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_processed_scenario(name: &str, factory: &dyn ProcessedFactory) -> Verdict {
    let scenario = run::find(processed_scenarios(), name);
    let lacks = scenario.needs.iter().find_map(|need| lacks(factory, *need));
    run::on_runtime(lacks, factory.pace().deadline, async {
        let open = factory.open_fresh().await?;
        let mut case = ProcessedCase { open, pace: factory.pace(), seed: random::seed() };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.open.shutdown().await;
        outcome.and(down)
    })
}

/// A fresh store of marks as a scenario sees it.
pub struct ProcessedCase {
    pub(crate) open: Box<dyn TestProcessedStore>,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
}

impl ProcessedCase {
    pub(crate) fn store(&self) -> Arc<dyn ProcessedStore> {
        self.open.store()
    }

    /// Records a step that must be taken, and makes the line that the next step starts from.
    pub(crate) async fn step(&self, line: &mut Line, marks: Vec<Mark>, cut: Cut) -> Outcome {
        let step = line.step(marks, cut);
        let stored = self.store().record(&step, &line.lease).await?;
        line.recorded(&step, stored)
    }

    pub(crate) async fn seen(&self, line: &Line, records: &[Mark]) -> Result<Vec<Seen>> {
        self.store().seen(&line.scope(), records, false).await
    }

    pub(crate) async fn seen_by_event(&self, line: &Line, records: &[Mark]) -> Result<Vec<Seen>> {
        self.store().seen(&line.scope(), records, true).await
    }

    /// What the store keeps of these records, by place alone.
    pub(crate) async fn expect_marked(
        &self,
        line: &Line,
        records: &[Mark],
        marked: bool,
        what: &str,
    ) -> Outcome {
        let expected = if marked { Seen::Here } else { Seen::No };
        let seen = self.seen(line, records).await?;
        ensure_eq!(seen, vec![expected; records.len()], "{what}: what is known of the records");
        Ok(())
    }
}

/// One partition's consumer: where it stands, and under which lease.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) stored: Checkpoint,
    pub(crate) lease: Lease,
}

impl Line {
    /// At the beginning of a partition of the usual topic.
    pub(crate) fn new(partition: u32) -> Self {
        let stored = crate::checkpoint::fresh(partition, Cut::Begin);
        Self { stored, lease: lease("worker", 1) }
    }

    pub(crate) fn scope(&self) -> MarkScope {
        MarkScope {
            subscriber: self.stored.consumer.clone(),
            bus_incarnation: self.stored.bus_incarnation.clone(),
            topic: self.stored.topic.clone(),
            partition_id: self.stored.partition_id,
        }
    }

    pub(crate) fn step(&self, marks: Vec<Mark>, cut: Cut) -> Progress {
        let checkpoint = Checkpoint { cut, lease: None, committed_at: None, ..self.stored.clone() };
        Progress { marks, checkpoint, committed: self.stored.cut }
    }

    /// Where it stands after the step: where the store keeps no checkpoints, as if another store had taken it.
    pub(crate) fn recorded(&mut self, step: &Progress, stored: Option<Checkpoint>) -> Outcome {
        match stored {
            Some(stored) => {
                ensure_eq!(stored.cut, step.checkpoint.cut, "the cut of the checkpoint as stored");
                ensure_eq!(
                    stored.version,
                    step.checkpoint.version + 1,
                    "the version of the checkpoint as stored"
                );
                self.stored = stored;
            }
            None => {
                let version = step.checkpoint.version + 1;
                self.stored = Checkpoint { version, ..step.checkpoint.clone() };
            }
        }
        Ok(())
    }
}

/// An event, different for different `n`.
pub(crate) fn event(n: u64) -> EventIdentity {
    let mut dedupe = [0xa5; 32];
    dedupe[12..20].copy_from_slice(&n.to_be_bytes());
    EventIdentity { dedupe, event_id: ByteString::from(format!("event \"{n}\" \u{1F980}")) }
}

/// The record at a line, with an event of its own.
pub(crate) fn mark(line: u64) -> Mark {
    mark_of(line, line)
}

/// The record at a line, with this event.
pub(crate) fn mark_of(line: u64, event_number: u64) -> Mark {
    Mark { offset: Offset::from_u64(OffsetKind::FileLine, line), event: Some(event(event_number)) }
}

pub(crate) fn marks(lines: impl IntoIterator<Item = u64>) -> Vec<Mark> {
    lines.into_iter().map(mark).collect()
}

/// What the second guard answers of a copy.
pub(crate) fn copy_at(partition: u32, line: u64) -> Seen {
    Seen::Copy { partition_id: PartitionId(partition), offset: Offset::from_u64(OffsetKind::FileLine, line) }
}
