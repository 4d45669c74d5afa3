//! A store of marks that breaks one promise.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eb_conformance::{Outcome, ProcessedFactory, ProcessedOffers, TestProcessedStore, TestTransaction};
use eb_contract::stores::{
    Checkpoint, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, Lease, Mark, MarkScope,
    NewDeadLetter, ProcessedStore, Progress, Resolution, Seen, TransactionalStore,
};
use eb_contract::{BoxFuture, BusIncarnation, ConsumerName, Cut, PartitionId, Result, Timestamp};
use eb_memory::{
    MemoryCheckpointStore, MemoryClock, MemoryDeadLetters, MemoryProcessed, MemoryTransaction,
    MemoryTransactions,
};
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarksBend {
    Nothing,
    SeesAll,
    SeesNothing,
    SeesBelowTheHighest,
    DropsAtTheStepsOwnCut,
    AnyIncarnation,
    MixesPartitions,
    AnswersReversed,
    ForgetsOnReopening,
    ForgetsFencesOnReopening,
    SecondIsApart,
    CopiesInOnePartitionAlone,
    OwnCopies,
    CopiesWithoutBeingAsked,
    ComparesEventIds,
    IgnoresLeases,
    FencesEveryPartition,
    TakesAnyKind,
    TakesAnyOwner,
    ForgetsWithoutLimit,
    ForgetsEverybodys,
    ForgetsWhatIsPending,
    ForgetsFromNothing,
    ForgetsFromAnyKind,
    CommitsNoCheckpoint,
    MarksBeforeChecking,
    UndoesEverything,
    EffectsAtOnce,
    LastEventStands,
    RefusesEmptySteps,
    HalfOfAStep,
    ProbingForgets,
    TakesAnyVersion,
    LettersAtOnce,
    LettersNever,
    RetriesMarkNothing,
    RetriesResolveAlone,
    RetriesNeedNoOpenLetter,
    DroppedRetriesResolve,
}

pub(crate) struct BentMarks(pub(crate) MarksBend);

impl ProcessedFactory for BentMarks {
    fn offers(&self) -> ProcessedOffers {
        ProcessedOffers { checkpoints: true, transactions: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestProcessedStore>>> {
        Box::pin(async { Ok(Box::new(Open(Arc::new(Bent::new(self.0)))) as Box<dyn TestProcessedStore>) })
    }
}

struct Open(Arc<Bent>);

struct Bent {
    bend: MarksBend,
    clock: MemoryClock,
    marks: MemoryProcessed,
    checkpoints: MemoryCheckpointStore,
    whole: MemoryTransactions,
    /// Effects that did not wait for their commit.
    early: Mutex<Vec<String>>,
    cuts: Mutex<HashMap<MarkScope, Cut>>,
    highest: Mutex<HashMap<MarkScope, eb_contract::Offset>>,
    fence: Mutex<u64>,
}

impl Bent {
    fn new(bend: MarksBend) -> Self {
        let clock = MemoryClock::manual();
        let marks = MemoryProcessed::with_clock(clock.clone());
        Self::over(bend, clock, marks, MemoryCheckpointStore::new())
    }

    fn over(
        bend: MarksBend,
        clock: MemoryClock,
        marks: MemoryProcessed,
        checkpoints: MemoryCheckpointStore,
    ) -> Self {
        let letters = MemoryDeadLetters::new();
        let whole = MemoryTransactions::new(marks.clone(), checkpoints.clone(), letters);
        Self {
            bend,
            clock,
            marks,
            checkpoints,
            whole,
            early: Mutex::default(),
            cuts: Mutex::default(),
            highest: Mutex::default(),
            fence: Mutex::default(),
        }
    }

    /// The scope that is really meant.
    fn scope(&self, scope: &MarkScope) -> MarkScope {
        let mut scope = scope.clone();
        match self.bend {
            MarksBend::AnyIncarnation => {
                scope.bus_incarnation = BusIncarnation::new("any").expect("printable");
            }
            MarksBend::MixesPartitions => scope.partition_id.0 %= 10,
            _ => {}
        }
        scope
    }

    fn mark(&self, mark: &Mark) -> Mark {
        let mut mark = mark.clone();
        if self.bend == MarksBend::ComparesEventIds
            && let Some(e) = &mut mark.event
        {
            e.dedupe = [0; 32];
            for (to, from) in e.dedupe.iter_mut().zip(e.event_id.bytes()) {
                *to = from;
            }
        }
        mark
    }

    fn step(&self, step: &Progress) -> Progress {
        let c = &step.checkpoint;
        let scope = self.scope(&scope_of(c));
        let checkpoint = Checkpoint {
            bus_incarnation: scope.bus_incarnation,
            partition_id: scope.partition_id,
            ..c.clone()
        };
        Progress { marks: step.marks.iter().map(|m| self.mark(m)).collect(), checkpoint, ..step.clone() }
    }

    async fn before(&self, step: &Progress, lease: &Lease) -> Result<(Progress, Lease)> {
        let (mut step, mut lease) = (self.step(step), lease.clone());
        let scope = scope_of(&step.checkpoint);
        match self.bend {
            MarksBend::IgnoresLeases => lease = Lease { owner: "any".to_owned(), epoch: 1 },
            MarksBend::TakesAnyOwner => lease.owner = "any".to_owned(),
            MarksBend::FencesEveryPartition => {
                let mut fence = self.fence.lock();
                *fence = lease.epoch.max(*fence);
                if lease.epoch < *fence {
                    let kind = eb_contract::ErrorKind::Fenced;
                    return Err(eb_contract::Error::new(kind, "record", "another epoch"));
                }
            }
            MarksBend::TakesAnyKind => {
                let kind = step.marks.first().map(|m| m.offset.kind());
                step.marks.retain(|m| Some(m.offset.kind()) == kind);
            }
            MarksBend::RefusesEmptySteps if step.marks.is_empty() => {
                let kind = eb_contract::ErrorKind::InvalidInput;
                return Err(eb_contract::Error::new(kind, "record", "nothing to record"));
            }
            // One after the other, each a poll apart, between which it may be dropped.
            MarksBend::HalfOfAStep => {
                for mark in &step.marks {
                    self.marks.mark(&scope, std::slice::from_ref(mark)).await?;
                    tokio::task::yield_now().await;
                }
            }
            MarksBend::TakesAnyVersion => {
                let c = &mut step.checkpoint;
                let stored = self.checkpoints.load(&c.consumer, &c.topic, c.partition_id).await?;
                c.version = stored.map_or(0, |s| s.version);
            }
            MarksBend::MarksBeforeChecking => self.marks.mark(&scope, &step.marks).await?,
            MarksBend::LastEventStands => {
                for mark in &step.marks {
                    let next = mark.offset.successor().map_or(Cut::End, Cut::Next);
                    let behind: Vec<Mark> = self
                        .marks
                        .marks(&scope)
                        .into_iter()
                        .map(|(m, _)| m)
                        .filter(|m| next.is_before(&m.offset) == Some(true))
                        .collect();
                    self.marks.forget_from(&scope, &Cut::Next(mark.offset)).await?;
                    self.marks.mark(&scope, &behind).await?;
                }
            }
            _ => {}
        }
        self.cuts.lock().insert(scope.clone(), step.checkpoint.cut);
        for mark in &step.marks {
            let mut highest = self.highest.lock();
            let of = highest.entry(scope.clone()).or_insert(mark.offset);
            if mark.offset > *of {
                *of = mark.offset;
            }
        }
        Ok((step, lease))
    }

    fn told(&self, of: &Progress, stored: Checkpoint) -> Checkpoint {
        let c = &of.checkpoint;
        Checkpoint { bus_incarnation: c.bus_incarnation.clone(), partition_id: c.partition_id, ..stored }
    }
}

fn scope_of(c: &Checkpoint) -> MarkScope {
    MarkScope {
        subscriber: c.consumer.clone(),
        bus_incarnation: c.bus_incarnation.clone(),
        topic: c.topic.clone(),
        partition_id: c.partition_id,
    }
}

impl TestProcessedStore for Open {
    fn store(&self) -> Arc<dyn ProcessedStore> {
        self.0.clone()
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn ProcessedStore>>> {
        let apart = self.0.bend == MarksBend::SecondIsApart;
        let second = if apart { Arc::new(Bent::new(self.0.bend)) } else { self.0.clone() };
        Box::pin(async { Ok(second as Arc<dyn ProcessedStore>) })
    }

    fn checkpoints(&self) -> Option<Arc<dyn CheckpointStore>> {
        let none = self.0.bend == MarksBend::CommitsNoCheckpoint;
        Some(if none { Arc::new(MemoryCheckpointStore::new()) } else { Arc::new(self.0.checkpoints.clone()) })
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetterStore>> {
        Some(self.0.whole.dead_letters())
    }

    fn begin(&self) -> BoxFuture<'_, Outcome<Box<dyn TestTransaction>>> {
        Box::pin(async {
            let open = Some(self.0.whole.begin().await?);
            Ok(Box::new(OpenTransaction { bent: self.0.clone(), open }) as Box<dyn TestTransaction>)
        })
    }

    fn effects(&self) -> BoxFuture<'_, Outcome<Vec<String>>> {
        let mut effects = self.0.whole.effects();
        effects.extend(self.0.early.lock().iter().cloned());
        effects.sort();
        Box::pin(async { Ok(effects) })
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        self.0.clock.advance(time);
        Box::pin(async { Ok(()) })
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            let old = &self.0;
            let clock = old.clock.clone();
            match old.bend {
                MarksBend::ForgetsOnReopening => {
                    let marks = MemoryProcessed::with_clock(clock.clone());
                    self.0 = Arc::new(Bent::over(old.bend, clock, marks, old.checkpoints.clone()));
                }
                MarksBend::ForgetsFencesOnReopening => {
                    let checkpoints = MemoryCheckpointStore::new();
                    let marks = MemoryProcessed::with_clock(clock.clone());
                    for c in old.checkpoints.list(None).await? {
                        for (mark, _) in old.marks.marks(&scope_of(&c)) {
                            marks.mark(&scope_of(&c), &[mark]).await?;
                        }
                        for _ in 0..c.version {
                            let reset = eb_contract::stores::ResetRequest {
                                consumer: c.consumer.clone(),
                                topic: c.topic.clone(),
                                partition_id: c.partition_id,
                                cut: c.cut,
                                bus_incarnation: c.bus_incarnation.clone(),
                                reason: "reopened".to_owned(),
                            };
                            checkpoints.reset(&reset).await?;
                        }
                    }
                    self.0 = Arc::new(Bent::over(old.bend, clock, marks, checkpoints));
                }
                _ => {}
            }
            Ok(())
        })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

impl ProcessedStore for Bent {
    fn keeps_checkpoints(&self) -> bool {
        self.bend != MarksBend::CommitsNoCheckpoint
    }

    fn seen<'a>(
        &'a self,
        scope: &'a MarkScope,
        records: &'a [Mark],
        by_event: bool,
    ) -> BoxFuture<'a, Result<Vec<Seen>>> {
        Box::pin(async move {
            let scope = self.scope(scope);
            let records: Vec<Mark> = records.iter().map(|m| self.mark(m)).collect();
            let by_event = by_event || self.bend == MarksBend::CopiesWithoutBeingAsked;
            let mut seen = self.whole.seen(&scope, &records, by_event).await?;
            for (record, seen) in records.iter().zip(&mut seen) {
                match (self.bend, &seen) {
                    (MarksBend::SeesAll, _) => *seen = Seen::Here,
                    (MarksBend::SeesNothing, _) => *seen = Seen::No,
                    (MarksBend::SeesBelowTheHighest, _)
                        if self.highest.lock().get(&scope).is_some_and(|h| record.offset <= *h) =>
                    {
                        *seen = Seen::Here;
                    }
                    (MarksBend::DropsAtTheStepsOwnCut, Seen::Here)
                        if self
                            .cuts
                            .lock()
                            .get(&scope)
                            .is_some_and(|c| c.is_before(&record.offset) == Some(false)) =>
                    {
                        *seen = Seen::No;
                    }
                    (MarksBend::CopiesInOnePartitionAlone, Seen::Copy { partition_id, .. })
                        if *partition_id != scope.partition_id =>
                    {
                        *seen = Seen::No;
                    }
                    (MarksBend::OwnCopies, Seen::Here) if by_event => {
                        *seen = Seen::Copy { partition_id: scope.partition_id, offset: record.offset };
                    }
                    _ => {}
                }
            }
            if self.bend == MarksBend::AnswersReversed {
                seen.reverse();
            }
            Ok(seen)
        })
    }

    fn record<'a>(
        &'a self,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Option<Checkpoint>>> {
        Box::pin(async move {
            let (real, lease) = self.before(step, lease).await?;
            if self.bend == MarksBend::CommitsNoCheckpoint {
                return self.marks.record(&real, &lease).await;
            }
            Ok(self.whole.record(&real, &lease).await?.map(|stored| self.told(step, stored)))
        })
    }

    fn mark<'a>(&'a self, scope: &'a MarkScope, marks: &'a [Mark]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.whole.mark(&self.scope(scope), marks).await })
    }

    fn forget_before<'a>(
        &'a self,
        subscriber: &'a ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            match self.bend {
                MarksBend::ForgetsWithoutLimit => {
                    self.whole.forget_before(subscriber, before, usize::MAX).await
                }
                MarksBend::ForgetsEverybodys => {
                    let other = ConsumerName::new("scorer2").expect("a name");
                    self.whole.forget_before(&other, before, limit).await?;
                    self.whole.forget_before(subscriber, before, limit).await
                }
                MarksBend::ForgetsWhatIsPending => {
                    let scope = MarkScope {
                        subscriber: subscriber.clone(),
                        bus_incarnation: BusIncarnation::new("life-1").expect("printable"),
                        topic: eb_contract::Topic::new("fp.bus.traffic.v1").expect("a name"),
                        partition_id: PartitionId(0),
                    };
                    self.whole.forget_from(&scope, &Cut::Begin).await
                }
                _ => self.whole.forget_before(subscriber, before, limit).await,
            }
        })
    }

    fn forget_from<'a>(&'a self, scope: &'a MarkScope, from: &'a Cut) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            match self.bend {
                MarksBend::ForgetsFromNothing => Ok(0),
                MarksBend::ForgetsFromAnyKind => {
                    self.whole.forget_from(&self.scope(scope), &Cut::Begin).await
                }
                _ => self.whole.forget_from(&self.scope(scope), from).await,
            }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.bend == MarksBend::ProbingForgets {
                for c in self.checkpoints.list(None).await? {
                    self.marks.forget_from(&scope_of(&c), &Cut::Begin).await?;
                }
            }
            self.whole.probe().await
        })
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if self.bent.bend == MarksBend::DroppedRetriesResolve && self.open.is_some() {
            let letters = self.bent.whole.dead_letters();
            let filter = eb_contract::stores::DeadLetterFilter::default();
            let all = letters.list(&filter, 10);
            let all = futures_util::FutureExt::now_or_never(all).expect("memory answers at once");
            for letter in all.expect("nothing fails") {
                let resolved = letters.resolve(letter.id, Resolution::Handled, "dropped");
                drop(futures_util::FutureExt::now_or_never(resolved));
            }
        }
    }
}

struct OpenTransaction {
    bent: Arc<Bent>,
    open: Option<MemoryTransaction>,
}

impl OpenTransaction {
    fn open(&mut self) -> &mut MemoryTransaction {
        self.open.as_mut().expect("only the commit takes it")
    }
}

impl TestTransaction for OpenTransaction {
    fn write<'a>(&'a mut self, effect: &'a str) -> BoxFuture<'a, Outcome> {
        if self.bent.bend == MarksBend::EffectsAtOnce {
            self.bent.early.lock().push(effect.to_owned());
        } else {
            self.open().write(effect);
        }
        Box::pin(async { Ok(()) })
    }

    fn save(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let bent = self.bent.clone();
            if bent.bend == MarksBend::UndoesEverything { Ok(()) } else { bent.whole.save(self.open()).await }
        })
    }

    fn undo(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let bent = self.bent.clone();
            bent.whole.undo(self.open()).await
        })
    }

    fn bury<'a>(&'a mut self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let bent = self.bent.clone();
            match bent.bend {
                MarksBend::LettersNever => Ok(()),
                MarksBend::LettersAtOnce => {
                    let put = bent.whole.dead_letters().put(letters).await;
                    put.into_iter().try_for_each(|answer| answer.map(drop))
                }
                _ => bent.whole.bury(self.open(), letters).await,
            }
        })
    }

    fn resolve<'a>(
        mut self: Box<Self>,
        id: DeadLetterId,
        (scope, mark): (&'a MarkScope, &'a Mark),
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        Box::pin(async move {
            let bent = self.bent.clone();
            let open = self.open.take().expect("only the commit takes it");
            let letters = bent.whole.dead_letters();
            match bent.bend {
                MarksBend::RetriesResolveAlone => letters.resolve(id, Resolution::Handled, reason).await,
                MarksBend::RetriesMarkNothing => {
                    let resolved = bent.whole.resolve_and_commit(open, id, (scope, mark), reason).await;
                    bent.marks.forget_from(scope, &Cut::Begin).await?;
                    resolved
                }
                MarksBend::RetriesNeedNoOpenLetter => {
                    let resolved = bent.whole.resolve_and_commit(open, id, (scope, mark), reason).await;
                    if resolved.is_err() {
                        // The effect comes about, whoever was first.
                        bent.early.lock().push(reason.to_owned());
                    }
                    resolved
                }
                _ => bent.whole.resolve_and_commit(open, id, (scope, mark), reason).await,
            }
        })
    }

    fn commit<'a>(
        mut self: Box<Self>,
        step: &'a Progress,
        lease: &'a Lease,
    ) -> BoxFuture<'a, Result<Checkpoint>> {
        Box::pin(async move {
            let open = self.open.take().expect("only the commit takes it");
            let (real, lease) = self.bent.before(step, lease).await?;
            Ok(self.bent.told(step, self.bent.whole.record_and_commit(open, &real, &lease).await?))
        })
    }
}
