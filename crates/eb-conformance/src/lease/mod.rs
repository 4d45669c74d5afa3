//! The suite for stores of leases.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{Claim, Heartbeat, Lease, LeaseInfo, LeaseKey, LeaseStore, Renewal, Reported};
use eb_contract::{BoxFuture, PartitionId, Result};

mod claims;
mod heartbeats;
mod races;
mod reports;
mod scenarios;

pub use scenarios::lease_scenarios;

pub(crate) use crate::checkpoint::{consumer, lease, topic};
use crate::outcome::brief;
use crate::{Failure, Need, Outcome, Pace, Plan, Verdict, random, run};

/// Opens fresh stores of leases of one kind.
pub trait LeaseFactory: Send + Sync {
    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// A new, empty store, apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestLeaseStore>>>;
}

/// An open store of leases under test.
pub trait TestLeaseStore: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn LeaseStore>;

    /// Another opening of the same data beside the first, as another process has it.
    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn LeaseStore>>>;

    /// Lets time pass for the leases, by moving the clock on that they end by (or what is stored, back).
    fn pass(&self, time: Duration) -> BoxFuture<'_, Outcome>;

    /// Closes the store and opens the same data again.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// Closes everything and removes what the test has left behind.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

/// Which scenarios run on the factory's stores: all.
pub fn lease_plan(_: &dyn LeaseFactory) -> Plan {
    Plan::new(lease_scenarios(), lacks)
}

fn lacks(need: Need) -> Option<String> {
    Some(format!("{need:?} is not for stores of leases"))
}

/// Runs one scenario on a fresh store of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_lease_scenario(name: &str, factory: &dyn LeaseFactory) -> Verdict {
    let scenario = run::find(lease_scenarios(), name);
    run::on_runtime(None, factory.pace().deadline, async {
        let open = factory.open_fresh().await?;
        let mut case = LeaseCase { open, pace: factory.pace(), seed: random::seed() };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.open.shutdown().await;
        outcome.and(down)
    })
}

/// A fresh store of leases as a scenario sees it.
pub struct LeaseCase {
    pub(crate) open: Box<dyn TestLeaseStore>,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
}

/// How long the suite's leases last unless they say otherwise. Long enough that real time never ends one by itself.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

impl LeaseCase {
    pub(crate) fn store(&self) -> Arc<dyn LeaseStore> {
        self.open.store()
    }

    pub(crate) async fn claim(&self, key: &LeaseKey, owner: &str) -> Result<Claim> {
        self.store().claim(key, owner, MINUTE).await
    }

    /// Claims what must be free.
    pub(crate) async fn hold(&self, key: &LeaseKey, owner: &str) -> Outcome<Lease> {
        match self.claim(key, owner).await? {
            Claim::Held(lease) if lease.owner == owner => Ok(lease),
            other => Err(Failure::new(format!("{owner} should hold it, the answer is {}", brief(&other)))),
        }
    }

    /// Claims what another must hold; how long that one has left.
    pub(crate) async fn taken(&self, key: &LeaseKey, owner: &str, by: &Lease) -> Outcome<Duration> {
        match self.claim(key, owner).await? {
            Claim::Taken { by: holder, left } if holder == *by => Ok(left),
            other => Err(Failure::new(format!("{by:?} holds it, {owner} was told {}", brief(&other)))),
        }
    }

    /// A heartbeat of a worker of the usual consumer and topic.
    pub(crate) async fn beat(&self, owner: &str, held: &[(PartitionId, Lease)]) -> Result<Heartbeat> {
        self.renew(owner, &silent(held)).await
    }

    /// The same with reports.
    pub(crate) async fn renew(&self, owner: &str, held: &[Renewal]) -> Result<Heartbeat> {
        self.store().heartbeat(&consumer("scorer"), &topic("fp.bus.traffic.v1"), owner, MINUTE, held).await
    }

    /// What is reported of a partition.
    pub(crate) async fn reported(&self, of: &LeaseKey) -> Result<Option<Reported>> {
        let list = self.store().list(Some(&of.consumer)).await?;
        Ok(list.into_iter().find(|info: &LeaseInfo| info.key == *of).and_then(|info| info.reported))
    }
}

/// Renewals without a report.
pub(crate) fn silent(held: &[(PartitionId, Lease)]) -> Vec<Renewal> {
    let renewal = |(partition_id, lease): &(PartitionId, Lease)| Renewal {
        partition_id: *partition_id,
        lease: lease.clone(),
        report: None,
    };
    held.iter().map(renewal).collect()
}

/// A partition of the usual topic, as the usual consumer reads it.
pub(crate) fn key(partition: u32) -> LeaseKey {
    LeaseKey {
        consumer: consumer("scorer"),
        topic: topic("fp.bus.traffic.v1"),
        partition_id: PartitionId(partition),
    }
}

/// The seconds of a duration, for times that real time adds a little to.
pub(crate) fn about(left: Duration, expected: Duration) -> bool {
    left <= expected && left + Duration::from_secs(20) > expected
}
