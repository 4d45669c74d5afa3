//! The suite for checkpoint stores.

use std::sync::Arc;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{BoxFuture, BusIncarnation, ConsumerName, Cut, Offset, OffsetKind, PartitionId, Topic};

mod commits;
mod fencing;
mod listing;
mod resets;
mod scenarios;

pub use scenarios::checkpoint_scenarios;

use crate::outcome::ensure_eq;
use crate::{Failure, Need, Outcome, Pace, Plan, Verdict, random, run};

/// Opens fresh checkpoint stores of one kind.
pub trait CheckpointFactory: Send + Sync {
    /// What the factory's stores can be made to do.
    fn offers(&self) -> CheckpointOffers {
        CheckpointOffers::default()
    }

    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// A new, empty store, apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestCheckpointStore>>>;
}

/// What the factory's stores can be made to do beside the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointOffers {
    /// [`TestCheckpointStore::reopen`] works (default).
    pub reopen: bool,
    /// [`TestCheckpointStore::reset_history`] works.
    pub reset_history: bool,
}

impl Default for CheckpointOffers {
    fn default() -> Self {
        Self { reopen: true, reset_history: false }
    }
}

/// What a reset left for the record: where the checkpoint stood, and why it was moved.
pub type ResetEntry = (Option<Cut>, String);

/// An open checkpoint store under test.
pub trait TestCheckpointStore: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn CheckpointStore>;

    /// Closes the store and opens the same data again.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// The resets of a checkpoint, oldest first.
    fn reset_history<'a>(
        &'a self,
        _: &'a ConsumerName,
        _: &'a Topic,
        _: PartitionId,
    ) -> BoxFuture<'a, Outcome<Vec<ResetEntry>>> {
        Box::pin(async {
            Err(Failure::new("the factory offers the history of resets but does not implement it"))
        })
    }

    /// Closes everything and removes what the test has left behind.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

/// Which scenarios run on the factory's stores.
pub fn checkpoint_plan(factory: &dyn CheckpointFactory) -> Plan {
    Plan::new(checkpoint_scenarios(), |need| lacks(factory, need))
}

fn lacks(factory: &dyn CheckpointFactory, need: Need) -> Option<String> {
    let offer = |has: bool, what: &str| (!has).then(|| format!("the factory does not offer {what}"));
    match need {
        Need::Reopen => offer(factory.offers().reopen, "reopening"),
        Need::ResetHistory => offer(factory.offers().reset_history, "the history of resets"),
        _ => Some("it is not for checkpoint stores".to_owned()),
    }
}

/// Runs one scenario on a fresh store of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_checkpoint_scenario(name: &str, factory: &dyn CheckpointFactory) -> Verdict {
    let scenario = run::find(checkpoint_scenarios(), name);
    let lacks = scenario.needs.iter().find_map(|need| lacks(factory, *need));
    run::on_runtime(lacks, factory.pace().deadline, async {
        let mut case =
            CheckpointCase { open: factory.open_fresh().await?, pace: factory.pace(), seed: random::seed() };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.open.shutdown().await;
        outcome.and(down)
    })
}

/// A fresh checkpoint store as a scenario sees it.
pub struct CheckpointCase {
    pub(crate) open: Box<dyn TestCheckpointStore>,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
}

impl CheckpointCase {
    pub(crate) fn store(&self) -> Arc<dyn CheckpointStore> {
        self.open.store()
    }

    /// Commits one checkpoint under the usual lease.
    pub(crate) async fn commit(&self, checkpoint: &Checkpoint) -> eb_contract::Result<Checkpoint> {
        self.commit_as(checkpoint, &lease("worker", 1)).await
    }

    pub(crate) async fn commit_as(
        &self,
        checkpoint: &Checkpoint,
        lease: &Lease,
    ) -> eb_contract::Result<Checkpoint> {
        let mut answers = self.store().commit(std::slice::from_ref(checkpoint), lease).await;
        let answer = answers.pop();
        answer.filter(|_| answers.is_empty()).unwrap_or_else(|| {
            let message = "a commit of one checkpoint must have one answer";
            Err(eb_contract::Error::new(eb_contract::ErrorKind::ProtocolViolation, "commit", message))
        })
    }

    pub(crate) async fn load(&self, like: &Checkpoint) -> Outcome<Option<Checkpoint>> {
        Ok(self.store().load(&like.consumer, &like.topic, like.partition_id).await?)
    }

    /// What is stored is this.
    pub(crate) async fn expect_stored(&self, expected: &Checkpoint) -> Outcome {
        let stored = self.load(expected).await?;
        ensure_eq!(stored.as_ref(), Some(expected), "what is stored");
        // Cuts also compare equal in another form; what a consumer is given must be of its own kind.
        let kinds = (stored.and_then(|s| s.cut.offset_kind()), expected.cut.offset_kind());
        ensure_eq!(kinds.0, kinds.1, "the offset kind of the stored cut");
        Ok(())
    }
}

pub(crate) fn consumer(name: &str) -> ConsumerName {
    ConsumerName::new(name).expect("the suite's consumer names are valid")
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).expect("the suite's topic names are valid")
}

pub(crate) fn incarnation(id: &str) -> BusIncarnation {
    BusIncarnation::new(id).expect("the suite's incarnations are printable ASCII")
}

pub(crate) fn lease(owner: &str, epoch: u64) -> Lease {
    Lease { owner: owner.to_owned(), epoch }
}

/// The cut before this dense offset.
pub(crate) fn next(n: u64) -> Cut {
    Cut::Next(Offset::from_u64(OffsetKind::FileLine, n))
}

/// The cut after this sparse offset.
pub(crate) fn after(digits: &str) -> Cut {
    let offset = Offset::parse(OffsetKind::KinesisSequence, digits);
    Cut::After(offset.expect("the suite's offsets are canonical integers"))
}

/// A checkpoint that has not been committed yet.
pub(crate) fn fresh(partition: u32, cut: Cut) -> Checkpoint {
    Checkpoint {
        consumer: consumer("scorer"),
        topic: topic("fp.bus.traffic.v1"),
        partition_id: PartitionId(partition),
        cut,
        caught_up_at: None,
        version: 0,
        bus_incarnation: incarnation("life-1"),
        lease: None,
        committed_at: None,
    }
}

pub(crate) fn reset_of(like: &Checkpoint, cut: Cut, reason: &str) -> ResetRequest {
    ResetRequest {
        consumer: like.consumer.clone(),
        topic: like.topic.clone(),
        partition_id: like.partition_id,
        cut,
        bus_incarnation: like.bus_incarnation.clone(),
        reason: reason.to_owned(),
    }
}
