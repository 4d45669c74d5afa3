//! A checkpoint store that breaks one promise.

use std::collections::HashMap;
use std::sync::Arc;

use eb_conformance::{CheckpointFactory, CheckpointOffers, Outcome, ResetEntry, TestCheckpointStore};
use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, Cut, Error, ErrorKind, PartitionId, Result, Timestamp, Topic,
};
use eb_memory::{CommitMode, MemoryCheckpointStore};
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreBend {
    Nothing,
    IgnoresVersions,
    GoesBack,
    ComparesCutsAsText,
    IgnoresEpochs,
    AnyOwnerOfAnEpoch,
    SameCutKeepsTheVersion,
    CaughtUpAtGoesBack,
    ForgetsOnReopening,
    ForgetsTheFenceOnReopening,
    ResetsWithoutAReason,
    ResetKeepsCaughtUpAt,
    ListsEverybody,
    ListsPartitionsAsText,
    MixesPartitions,
    JoinsNames,
    IgnoresIncarnations,
    AnswersReversed,
    CommitsHalfOfABatch,
    HistoryWithoutReasons,
    UnknownIsAtTheBeginning,
    AnyFirstVersion,
}

pub(crate) struct BentStores(pub(crate) StoreBend);

impl CheckpointFactory for BentStores {
    fn offers(&self) -> CheckpointOffers {
        CheckpointOffers { reopen: true, reset_history: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestCheckpointStore>>> {
        Box::pin(async {
            let store =
                BentStore { bend: self.0, inner: MemoryCheckpointStore::new(), told: Mutex::default() };
            Ok(Box::new(Open(Arc::new(store))) as Box<dyn TestCheckpointStore>)
        })
    }
}

struct Open(Arc<BentStore>);

impl TestCheckpointStore for Open {
    fn store(&self) -> Arc<dyn CheckpointStore> {
        self.0.clone()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            let (bend, mut inner) = (self.0.bend, self.0.inner.clone());
            if bend == StoreBend::ForgetsOnReopening {
                inner = MemoryCheckpointStore::new();
            } else if bend == StoreBend::ForgetsTheFenceOnReopening {
                let kept = inner.list(None).await?;
                inner = MemoryCheckpointStore::new();
                for c in kept {
                    inner.reset(&reset_to(&c, c.cut, "moved")).await?;
                }
            }
            self.0 = Arc::new(BentStore { bend, inner, told: Mutex::default() });
            Ok(())
        })
    }

    fn reset_history<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Outcome<Vec<ResetEntry>>> {
        let history = self.0.inner.history(consumer, topic, partition);
        let silent = self.0.bend == StoreBend::HistoryWithoutReasons;
        let entry = move |reason: String| if silent { String::new() } else { reason };
        Box::pin(async move { Ok(history.into_iter().map(|h| (h.from, entry(h.reason))).collect()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

fn reset_to(c: &Checkpoint, cut: Cut, reason: &str) -> ResetRequest {
    ResetRequest {
        consumer: c.consumer.clone(),
        topic: c.topic.clone(),
        partition_id: c.partition_id,
        cut,
        bus_incarnation: c.bus_incarnation.clone(),
        reason: reason.to_owned(),
    }
}

type Place = (ConsumerName, Topic, PartitionId);

struct BentStore {
    bend: StoreBend,
    inner: MemoryCheckpointStore,
    /// The `caught_up_at` that was told last.
    told: Mutex<HashMap<Place, Option<Timestamp>>>,
}

impl BentStore {
    /// Where a checkpoint is really kept.
    fn place(&self, consumer: &ConsumerName, topic: &Topic, partition: PartitionId) -> Place {
        match self.bend {
            StoreBend::MixesPartitions => (consumer.clone(), topic.clone(), PartitionId(partition.0 % 10)),
            StoreBend::JoinsNames => {
                let joined = Topic::new(&format!("{consumer}.{topic}")).unwrap_or_else(|_| topic.clone());
                (ConsumerName::new("all").expect("a name"), joined, partition)
            }
            _ => (consumer.clone(), topic.clone(), partition),
        }
    }

    async fn commit_one(&self, c: &Checkpoint, lease: &Lease) -> Result<Checkpoint> {
        let (consumer, topic, partition_id) = self.place(&c.consumer, &c.topic, c.partition_id);
        let stored = self.inner.load(&consumer, &topic, partition_id).await?;
        let mut wanted = Checkpoint { consumer, topic, partition_id, ..c.clone() };
        let mut lease = lease.clone();
        if let Some(stored) = &stored {
            match self.bend {
                StoreBend::IgnoresVersions => wanted.version = stored.version,
                StoreBend::IgnoresIncarnations => wanted.bus_incarnation = stored.bus_incarnation.clone(),
                StoreBend::SameCutKeepsTheVersion if stored.cut == c.cut => return Ok(stored.clone()),
                StoreBend::ComparesCutsAsText if c.cut.to_string() < stored.cut.to_string() => {
                    let kind = ErrorKind::BackwardCommit { current: stored.cut };
                    return Err(Error::new(kind, "commit", "it goes back"));
                }
                _ => {}
            }
        }
        match self.bend {
            StoreBend::AnyFirstVersion if stored.is_none() => wanted.version = 0,
            StoreBend::IgnoresEpochs => lease = Lease { owner: "any".to_owned(), epoch: 0 },
            StoreBend::AnyOwnerOfAnEpoch => lease.owner = "any".to_owned(),
            _ => {}
        }
        let mut answers = self.inner.commit(std::slice::from_ref(&wanted), &lease).await;
        let mut answer = answers.pop().expect("one answer");
        if matches!(self.bend, StoreBend::GoesBack | StoreBend::ComparesCutsAsText)
            && answer.as_ref().is_err_and(|e| e.kind().code() == "backward_commit")
        {
            answer = self.inner.reset(&reset_to(&wanted, wanted.cut, "went back")).await;
        }
        self.told.lock().insert(self.place(&c.consumer, &c.topic, c.partition_id), c.caught_up_at);
        answer.map(|stored| {
            let stored = Checkpoint { consumer: c.consumer.clone(), topic: c.topic.clone(), ..stored };
            self.as_told(Checkpoint { partition_id: c.partition_id, ..stored })
        })
    }

    fn as_told(&self, c: Checkpoint) -> Checkpoint {
        let told = self.told.lock().get(&self.place(&c.consumer, &c.topic, c.partition_id)).copied();
        match (self.bend, told) {
            (StoreBend::CaughtUpAtGoesBack, Some(at)) => Checkpoint { caught_up_at: at, ..c },
            (StoreBend::ResetKeepsCaughtUpAt, Some(at)) => {
                Checkpoint { caught_up_at: c.caught_up_at.max(at), ..c }
            }
            _ => c,
        }
    }
}

impl CheckpointStore for BentStore {
    fn load<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        Box::pin(async move {
            let place = self.place(consumer, topic, partition);
            let mut stored = self.inner.load(&place.0, &place.1, place.2).await?;
            if self.bend == StoreBend::UnknownIsAtTheBeginning && stored.is_none() {
                stored = Some(Checkpoint {
                    consumer: consumer.clone(),
                    topic: topic.clone(),
                    partition_id: partition,
                    cut: Cut::Begin,
                    caught_up_at: None,
                    version: 0,
                    bus_incarnation: BusIncarnation::new("none").expect("printable"),
                    lease: None,
                    committed_at: None,
                });
            }
            Ok(stored.map(|c| {
                let c = Checkpoint { consumer: consumer.clone(), topic: topic.clone(), ..c };
                self.as_told(Checkpoint { partition_id: partition, ..c })
            }))
        })
    }

    fn commit<'a>(
        &'a self,
        checkpoints: &'a [Checkpoint],
        lease: &'a Lease,
    ) -> BoxFuture<'a, Vec<Result<Checkpoint>>> {
        Box::pin(async move {
            let mut answers = Vec::new();
            let mut refused = false;
            for c in checkpoints {
                let answer = if refused && self.bend == StoreBend::CommitsHalfOfABatch {
                    Err(Error::new(ErrorKind::NotAttempted, "commit", "an earlier one was refused"))
                } else {
                    self.commit_one(c, lease).await
                };
                refused |= answer.is_err();
                answers.push(answer);
            }
            if self.bend == StoreBend::AnswersReversed {
                answers.reverse();
            }
            answers
        })
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<Checkpoint>>> {
        Box::pin(async move {
            let everybody = self.bend == StoreBend::ListsEverybody;
            let mut list = self.inner.list(consumer.filter(|_| !everybody)).await?;
            if self.bend == StoreBend::ListsPartitionsAsText {
                list.sort_by_key(|c| (c.consumer.clone(), c.topic.clone(), c.partition_id.to_string()));
            }
            Ok(list)
        })
    }

    fn reset<'a>(&'a self, request: &'a ResetRequest) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(async move {
            let mut request = request.clone();
            if self.bend == StoreBend::ResetsWithoutAReason && request.reason.is_empty() {
                request.reason = "none given".to_owned();
            }
            Ok(self.as_told(self.inner.reset(&request).await?))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.probe()
    }
}

#[test]
fn a_store_that_commits_all_or_none_passes_where_one_that_does_half_fails() {
    // The suite takes either of the two ways that the contract allows, and nothing between them.
    struct Transactional;
    impl CheckpointFactory for Transactional {
        fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestCheckpointStore>>> {
            Box::pin(async {
                let inner = MemoryCheckpointStore::with_mode(CommitMode::AllOrNone);
                Ok(Box::new(Whole(inner)) as Box<dyn TestCheckpointStore>)
            })
        }
    }
    struct Whole(MemoryCheckpointStore);
    impl TestCheckpointStore for Whole {
        fn store(&self) -> Arc<dyn CheckpointStore> {
            Arc::new(self.0.clone())
        }
        fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
            Box::pin(async { Ok(()) })
        }
        fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
            Box::pin(async { Ok(()) })
        }
    }
    let scenario = "one_refused_checkpoint_never_harms_the_others";
    let verdict = eb_conformance::run_checkpoint_scenario(scenario, &Transactional);
    assert!(matches!(verdict, eb_conformance::Verdict::Passed), "{verdict:?}");
}
