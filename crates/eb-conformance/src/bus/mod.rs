//! The suite for buses.

use eb_contract::{Durability, KeyOrder};

mod batches;
mod cancellation;
mod case;
mod closing;
mod digests;
mod follow;
mod harness;
mod limits;
mod order;
mod positions;
mod random_ops;
mod reading;
mod reopening;
mod resharding;
mod retention;
mod roundtrip;
mod scenarios;
mod times;
mod topics;

pub use case::BusCase;
pub(crate) use case::{Acked, same};
pub use harness::{BusFactory, BusOffers, TestBus};
pub(crate) use reading::Reading;
pub use scenarios::bus_scenarios;

use crate::outcome::ensure_eq;
use crate::{Need, Plan, Verdict, random, run};

/// Which scenarios run on the factory's buses.
pub fn bus_plan(factory: &dyn BusFactory) -> Plan {
    Plan::new(bus_scenarios(), |need| lacks(factory, need))
}

fn lacks(factory: &dyn BusFactory, need: Need) -> Option<String> {
    let (caps, offers) = (factory.capabilities(), factory.offers());
    let capability = |has: bool, name: &str| (!has).then(|| format!("capability {name}"));
    let offer = |has: bool, what: &str| (!has).then(|| format!("the factory does not offer {what}"));
    match need {
        Need::Reopen => capability(caps.reopen, "reopen is false"),
        Need::StrictOrder => capability(caps.key_order == KeyOrder::Strict, "key_order is not strict"),
        Need::SeekByTime => capability(caps.seek_by_time, "seek_by_time is false"),
        Need::Retention => {
            capability(caps.retention, "retention is false").or_else(|| offer(offers.trim, "trimming"))
        }
        Need::Resharding => {
            capability(caps.resharding, "resharding is false").or_else(|| offer(offers.reshard, "resharding"))
        }
        Need::DenseOffsets => {
            capability(caps.offset_kind.is_dense(), &format!("offset_kind {} is sparse", caps.offset_kind))
        }
        Need::Immediate => {
            (!factory.pace().immediate).then(|| "the pace says that ACKed records show up later".to_owned())
        }
        Need::CreateTopics => offer(offers.create_topics, "creating topics through the admin"),
        Need::SecondPublisher => offer(offers.second_publisher, "a second publisher"),
        Need::ResetHistory
        | Need::Crash
        | Need::SharedIndex
        | Need::OwnIndex
        | Need::KeepsCheckpoints
        | Need::Transactions => Some("it is for stores".to_owned()),
    }
}

/// Runs one scenario on a fresh bus of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_bus_scenario(name: &str, factory: &dyn BusFactory) -> Verdict {
    let scenario = run::find(bus_scenarios(), name);
    let lacks = scenario.needs.iter().find_map(|need| lacks(factory, *need));
    run::on_runtime(lacks, factory.pace().deadline, async {
        let mut case = BusCase {
            bus: factory.open_fresh().await?,
            caps: factory.capabilities(),
            pace: factory.pace(),
            partitions: factory.partitions(),
            seed: random::seed(),
        };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.bus.shutdown().await;
        outcome.and(down)
    })
}

/// What every backend must declare and list: the body of the test `the_plan_and_the_capabilities_agree`.
///
/// # Errors
/// When the factory's capabilities are not those that its buses declare, or contradict themselves.
pub fn check_bus_plan(factory: &dyn BusFactory) -> Verdict {
    run::on_runtime(None, factory.pace().deadline, async {
        let bus = factory.open_fresh().await?;
        let declared = factory.capabilities();
        ensure_eq!(bus.publisher().capabilities(), &declared, "the publisher's capabilities");
        ensure_eq!(bus.reader().capabilities(), &declared, "the reader's capabilities");
        let outlives = declared.durability != Durability::Process;
        ensure_eq!(
            outlives && !declared.reopen,
            false,
            "durable beyond the process, yet it cannot be reopened"
        );
        let known = (declared.max_envelope_bytes > 0, declared.max_batch_records > 0);
        ensure_eq!(known, (true, true), "limits above zero");
        bus.shutdown().await
    })
}
