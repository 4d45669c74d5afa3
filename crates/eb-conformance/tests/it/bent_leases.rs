//! A store of leases that breaks one promise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eb_conformance::{LeaseFactory, Outcome, TestLeaseStore};
use eb_contract::stores::{
    Claim, Heartbeat, Lease, LeaseInfo, LeaseKey, LeaseStore, Renewal, Reported, WorkReport,
};
use eb_contract::{BoxFuture, ConsumerName, PartitionId, Result, Topic};
use eb_memory::{MemoryClock, MemoryLeases};
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseBend {
    Nothing,
    TwoHolders,
    EpochsStay,
    CountsFromOne,
    EndsEarly,
    NeverEnds,
    ClaimingAgainTakesOver,
    RenewsNothing,
    RenewsAnything,
    AnswersReversed,
    AnyTopicsWorkers,
    WorkersStay,
    LeavingKeepsLeases,
    ReleasesAnybodys,
    ReleasesNothing,
    TakesAnyOwner,
    MixesPartitions,
    ListsBackwards,
    ForgetsOnReopening,
    SecondIsApart,
    ProbingClaims,
    DropsReports,
    ForgetsSilentReports,
    ReportsOutliveTheirLeases,
    ReportsOutliveTheirHolders,
    AnybodyReports,
}

pub(crate) struct BentLeases(pub(crate) LeaseBend);

impl LeaseFactory for BentLeases {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestLeaseStore>>> {
        Box::pin(async { Ok(Box::new(Open(Arc::new(Bent::new(self.0)))) as Box<dyn TestLeaseStore>) })
    }
}

struct Open(Arc<Bent>);

impl TestLeaseStore for Open {
    fn store(&self) -> Arc<dyn LeaseStore> {
        self.0.clone()
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn LeaseStore>>> {
        let apart = self.0.bend == LeaseBend::SecondIsApart;
        let second = if apart { Arc::new(Bent::new(self.0.bend)) } else { self.0.clone() };
        Box::pin(async { Ok(second as Arc<dyn LeaseStore>) })
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome> {
        self.0.inner.clock().advance(match self.0.bend {
            LeaseBend::EndsEarly => time * 3,
            LeaseBend::NeverEnds => Duration::ZERO,
            _ => time,
        });
        Box::pin(async { Ok(()) })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        if self.0.bend == LeaseBend::ForgetsOnReopening {
            self.0 = Arc::new(Bent::new(self.0.bend));
        }
        Box::pin(async { Ok(()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

struct Bent {
    bend: LeaseBend,
    inner: MemoryLeases,
    workers: Mutex<BTreeSet<String>>,
    /// Every report there was, by partition.
    reports: Mutex<BTreeMap<LeaseKey, WorkReport>>,
}

impl Bent {
    fn new(bend: LeaseBend) -> Self {
        let inner = MemoryLeases::with_clock(MemoryClock::manual());
        Self { bend, inner, workers: Mutex::default(), reports: Mutex::default() }
    }

    fn told(&self, lease: Lease) -> Lease {
        match self.bend {
            LeaseBend::EpochsStay => Lease { epoch: 1_700_000_000_000, ..lease },
            LeaseBend::CountsFromOne => Lease { epoch: lease.epoch - 1_500_000_000_000, ..lease },
            _ => lease,
        }
    }

    fn real(&self, lease: &Lease) -> Lease {
        match self.bend {
            LeaseBend::CountsFromOne => Lease { epoch: lease.epoch + 1_500_000_000_000, ..lease.clone() },
            _ => lease.clone(),
        }
    }

    async fn holder(&self, key: &LeaseKey) -> Result<Option<Lease>> {
        let list = self.inner.list(None).await?;
        Ok(list.into_iter().find(|i| i.key == *key).map(|i| i.lease))
    }
}

impl LeaseStore for Bent {
    fn claim<'a>(
        &'a self,
        key: &'a LeaseKey,
        owner: &'a str,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<Claim>> {
        Box::pin(async move {
            let mut key = key.clone();
            let (mut owner, mut time) = (owner.to_owned(), time_to_live);
            match self.bend {
                LeaseBend::MixesPartitions => key.partition_id.0 %= 10,
                LeaseBend::TakesAnyOwner => {
                    owner = if owner.is_empty() { "x".to_owned() } else { owner.chars().take(256).collect() };
                    time = time.clamp(Duration::from_millis(100), Duration::from_secs(3600));
                }
                LeaseBend::ClaimingAgainTakesOver => {
                    if let Some(held) = self.holder(&key).await?.filter(|l| l.owner == owner) {
                        self.inner.release(&key, &held).await?;
                    }
                }
                _ => {}
            }
            Ok(match self.inner.claim(&key, &owner, time).await? {
                Claim::Taken { by, .. } if self.bend == LeaseBend::TwoHolders => {
                    Claim::Held(Lease { owner, epoch: by.epoch })
                }
                Claim::Taken { by, left } => Claim::Taken { by: self.told(by), left },
                Claim::Held(lease) => Claim::Held(self.told(lease)),
            })
        })
    }

    fn heartbeat<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
        time_to_live: Duration,
        held: &'a [Renewal],
    ) -> BoxFuture<'a, Result<Heartbeat>> {
        Box::pin(async move {
            let held: Vec<_> =
                held.iter().map(|r| Renewal { lease: self.real(&r.lease), ..r.clone() }).collect();
            for Renewal { partition_id, report, .. } in &held {
                let key = LeaseKey {
                    consumer: consumer.clone(),
                    topic: topic.clone(),
                    partition_id: *partition_id,
                };
                if let Some(report) = report {
                    self.reports.lock().insert(key, *report);
                } else if self.bend == LeaseBend::ForgetsSilentReports {
                    self.reports.lock().remove(&key);
                }
            }
            let asked = if self.bend == LeaseBend::RenewsNothing { &[][..] } else { &held };
            let any = Topic::new("any").expect("a name");
            let topic = if self.bend == LeaseBend::AnyTopicsWorkers { &any } else { topic };
            let owner = if self.bend == LeaseBend::TakesAnyOwner && owner.is_empty() { "x" } else { owner };
            let mut beat = self.inner.heartbeat(consumer, topic, owner, time_to_live, asked).await?;
            match self.bend {
                LeaseBend::RenewsNothing | LeaseBend::RenewsAnything => {
                    beat.renewed = held.iter().map(|_| Ok(())).collect();
                }
                LeaseBend::AnswersReversed => beat.renewed.reverse(),
                LeaseBend::WorkersStay => {
                    let mut workers = self.workers.lock();
                    workers.extend(beat.workers);
                    beat.workers = workers.iter().cloned().collect();
                }
                _ => {}
            }
            Ok(beat)
        })
    }

    fn release<'a>(&'a self, key: &'a LeaseKey, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut lease = self.real(lease);
            if matches!(self.bend, LeaseBend::ReleasesAnybodys | LeaseBend::EpochsStay)
                && let Some(held) = self.holder(key).await?
            {
                lease = held;
            }
            if self.bend == LeaseBend::ReleasesNothing {
                return Ok(());
            }
            self.inner.release(key, &lease).await
        })
    }

    fn leave<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.bend == LeaseBend::LeavingKeepsLeases {
                return Ok(());
            }
            self.inner.leave(consumer, topic, owner).await
        })
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<LeaseInfo>>> {
        Box::pin(async move {
            let mut list = self.inner.list(consumer).await?;
            if self.bend == LeaseBend::ListsBackwards {
                list.reverse();
            }
            list.iter_mut().for_each(|i| i.lease = self.told(i.lease.clone()));
            for info in &mut list {
                let last = self.reports.lock().get(&info.key).copied();
                let last = last.map(|work| Reported { work, at: self.inner.clock().now() });
                info.reported = match self.bend {
                    LeaseBend::DropsReports => None,
                    LeaseBend::ForgetsSilentReports => last.and(info.reported),
                    LeaseBend::ReportsOutliveTheirLeases if info.left.is_none() => last,
                    LeaseBend::ReportsOutliveTheirHolders if info.left.is_some() => info.reported.or(last),
                    LeaseBend::AnybodyReports if info.reported.is_some() => last,
                    _ => info.reported,
                };
            }
            Ok(list)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.bend == LeaseBend::ProbingClaims {
                let key = LeaseKey {
                    consumer: ConsumerName::new("probe").expect("a name"),
                    topic: Topic::new("probe").expect("a name"),
                    partition_id: PartitionId(0),
                };
                self.inner.claim(&key, "probe", Duration::from_secs(1)).await?;
            }
            Ok(())
        })
    }
}
