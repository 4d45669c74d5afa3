//! The suite for admission indexes.

use std::sync::Arc;

use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, IndexCut, PolicyEpoch,
    PolicyRev, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BoxFuture, BusIncarnation, Cut, EbRef, Offset, OffsetKind, PartitionId, Timestamp, Topic};

mod durability;
mod entries;
mod lookups;
mod reservations;
mod scenarios;

pub use scenarios::admission_scenarios;

use crate::outcome::{ensure, ensure_eq, same_list};
use crate::{Failure, Need, Outcome, Pace, Plan, Verdict, random, run};

/// Opens fresh admission indexes of one kind.
pub trait AdmissionFactory: Send + Sync {
    /// Whether the indexes are shared by several gates: what [`AdmissionIndex::is_shared`] answers.
    fn shared(&self) -> bool;

    /// What the factory's indexes can be made to do.
    fn offers(&self) -> AdmissionOffers {
        AdmissionOffers::default()
    }

    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// A new, empty index, apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestAdmissionIndex>>>;
}

/// What the factory's indexes can be made to do beside the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionOffers {
    /// [`TestAdmissionIndex::reopen`] works (default).
    pub reopen: bool,
    /// [`TestAdmissionIndex::crash`] works.
    pub crash: bool,
}

impl Default for AdmissionOffers {
    fn default() -> Self {
        Self { reopen: true, crash: false }
    }
}

/// An open admission index under test.
pub trait TestAdmissionIndex: Send + Sync {
    /// The index, as one gate holds it.
    fn index(&self) -> Arc<dyn AdmissionIndex>;

    /// A shared index as another gate holds it. Only called for factories of shared indexes.
    fn other_gate(&self) -> BoxFuture<'_, Outcome<Arc<dyn AdmissionIndex>>> {
        Box::pin(async {
            Err(Failure::new("the factory says that the index is shared but gives no other gate"))
        })
    }

    /// Closes the index and opens the same data again.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// Loses what a crash of the process (or of the machine, where the index promises as much) may lose, and opens
    /// what is left.
    fn crash(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async { Err(Failure::new("the factory offers crashes but does not implement them")) })
    }

    /// Closes everything and removes what the test has left behind.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

/// Which scenarios run on the factory's indexes.
pub fn admission_plan(factory: &dyn AdmissionFactory) -> Plan {
    Plan::new(admission_scenarios(), |need| lacks(factory, need))
}

fn lacks(factory: &dyn AdmissionFactory, need: Need) -> Option<String> {
    let offer = |has: bool, what: &str| (!has).then(|| format!("the factory does not offer {what}"));
    match need {
        Need::Reopen => offer(factory.offers().reopen, "reopening"),
        Need::Crash => offer(factory.offers().crash, "crashes"),
        Need::SharedIndex => (!factory.shared()).then(|| "the index is for one gate".to_owned()),
        Need::OwnIndex => factory.shared().then(|| "the index is shared".to_owned()),
        _ => Some("it is not for admission indexes".to_owned()),
    }
}

/// Runs one scenario on a fresh index of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_admission_scenario(name: &str, factory: &dyn AdmissionFactory) -> Verdict {
    let scenario = run::find(admission_scenarios(), name);
    let lacks = scenario.needs.iter().find_map(|need| lacks(factory, *need));
    run::on_runtime(lacks, factory.pace().deadline, async {
        let mut case = AdmissionCase {
            open: factory.open_fresh().await?,
            shared: factory.shared(),
            pace: factory.pace(),
            seed: random::seed(),
        };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.open.shutdown().await;
        outcome.and(down)
    })
}

/// A fresh admission index as a scenario sees it.
pub struct AdmissionCase {
    pub(crate) open: Box<dyn TestAdmissionIndex>,
    pub(crate) shared: bool,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
}

impl AdmissionCase {
    pub(crate) fn index(&self) -> Arc<dyn AdmissionIndex> {
        self.open.index()
    }

    /// Reserves keys that must all be fresh.
    pub(crate) async fn reserve_fresh(&self, keys: &[AdmissionKey]) -> Outcome<Vec<ReservationId>> {
        let requests: Vec<_> = keys.iter().map(|k| request(*k)).collect();
        let answers = self.index().reserve(&requests).await?;
        ensure_eq!(answers.len(), keys.len(), "answers to a reservation");
        let mut ids = Vec::new();
        for (answer, key) in answers.into_iter().zip(keys) {
            match answer {
                Reserved::Fresh(id) => ids.push(id),
                other => return Err(Failure::new(format!("{key:?} was to be fresh, and is {other:?}"))),
            }
        }
        Ok(ids)
    }

    /// Reserves and confirms.
    pub(crate) async fn admit(&self, entries: &[AdmissionEntry]) -> Outcome {
        let keys: Vec<_> = entries.iter().map(|e| e.key).collect();
        let ids = self.reserve_fresh(&keys).await?;
        let confirmed =
            ids.into_iter().zip(entries).map(|(id, e)| Confirmation { reservation: id, entry: e.clone() });
        let standing = self.index().confirm(confirmed.collect()).await?;
        same_list("entries that stand in place of new ones", &standing, &[])
    }

    /// The index holds exactly this for the key, whichever way it is asked.
    pub(crate) async fn expect_entry(&self, expected: &AdmissionEntry) -> Outcome {
        let index = self.index();
        let got = index.get(expected.key).await?;
        same_entry("get", got.as_ref(), expected)?;
        let reserved = index.reserve(&[request(expected.key)]).await?;
        match reserved.as_slice() {
            [Reserved::Admitted(got)] => same_entry("reserve", Some(got), expected)?,
            other => return Err(Failure::new(format!("an admitted key answers {other:?} to a reservation"))),
        }
        let found = index.find_event(expected.key.event).await?;
        same_entry("find_event", found.iter().find(|e| e.key == expected.key), expected)
    }

    /// Everything in the index, page by page.
    pub(crate) async fn scan_all(&self, page: usize) -> Outcome<Vec<AdmissionEntry>> {
        let index = self.index();
        let mut all: Vec<AdmissionEntry> = Vec::new();
        loop {
            let after = all.last().map(|e| e.key);
            let got = index.scan(after, page).await?;
            ensure!(got.len() <= page, "a page of {page} entries has {}", got.len());
            let ended = got.len() < page;
            for e in got {
                ensure!(
                    all.last().is_none_or(|last| last.key < e.key),
                    "a scan is not in key order at {:?}",
                    e.key
                );
                all.push(e);
            }
            if ended {
                return Ok(all);
            }
        }
    }
}

pub(crate) fn same_entry(how: &str, got: Option<&AdmissionEntry>, expected: &AdmissionEntry) -> Outcome {
    ensure_eq!(got, Some(expected), "what {how} answers for {:?}", expected.key);
    // Times take no part in the equality of EbRefs, and a receipt repeats them.
    let at = got.map(|e| e.eb_ref.published_at_utc);
    ensure_eq!(at, Some(expected.eb_ref.published_at_utc), "the publish time that {how} answers");
    Ok(())
}

pub(crate) fn topic() -> Topic {
    Topic::new("fp.bus.traffic.v1").expect("the suite's topic name is valid")
}

/// A key whose order is that of (`event`, `dedupe`).
pub(crate) fn key(event: u64, dedupe: u64) -> AdmissionKey {
    let mut hash = [0xa5; 32];
    hash[..8].copy_from_slice(&dedupe.to_be_bytes());
    AdmissionKey { event: event.to_be_bytes(), dedupe: hash }
}

pub(crate) fn dense(n: u64) -> Offset {
    Offset::from_u64(OffsetKind::FileLine, n)
}

pub(crate) fn sparse(digits: &str) -> Offset {
    Offset::parse(OffsetKind::KinesisSequence, digits).expect("the suite's offsets are canonical integers")
}

pub(crate) fn entry_at(key: AdmissionKey, partition: u32, offset: Offset) -> AdmissionEntry {
    let mut payload_hash = key.dedupe;
    payload_hash.reverse();
    AdmissionEntry {
        key,
        payload_hash,
        eb_ref: EbRef {
            topic: topic(),
            partition_id: PartitionId(partition),
            offset,
            published_at_utc: Timestamp::from_micros(1_700_000_000_000_000 + i64::from(key.event[7]))
                .expect("a time in 2023"),
        },
    }
}

/// The `n`-th entry of a log of one partition.
pub(crate) fn entry(n: u64) -> AdmissionEntry {
    entry_at(key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n), 0, dense(n))
}

pub(crate) fn policy(revision: &str) -> PolicyRev {
    PolicyRev {
        policy_id: "ig.policy.v0".to_owned(),
        revision: revision.to_owned(),
        content_digest: "ab".repeat(32),
    }
}

pub(crate) fn epoch(revision: &str, since_micros: i64, offset: u64) -> PolicyEpoch {
    PolicyEpoch {
        policy: policy(revision),
        since: Timestamp::from_micros(since_micros).expect("a time after 1970"),
        cuts: vec![
            (topic(), PartitionId(0), Cut::Next(dense(offset))),
            (topic(), PartitionId(1), Cut::Begin),
        ],
    }
}

pub(crate) fn request(key: AdmissionKey) -> ReserveRequest {
    ReserveRequest {
        key,
        payload_hash: entry_at(key, 0, dense(0)).payload_hash,
        topic: topic(),
        start: vec![(PartitionId(0), Cut::Next(dense(7))), (PartitionId(1), Cut::After(sparse("99")))],
        policy: policy("r1").into(),
    }
}

/// A checkpoint at this offset of the first partition.
pub(crate) fn checkpoint_at(offset: u64) -> IndexCheckpoint {
    let life = BusIncarnation::new("life-1").expect("printable ASCII");
    let cut = |partition, cut, last_crc32c| IndexCut {
        topic: topic(),
        partition_id: PartitionId(partition),
        bus_incarnation: life.clone(),
        cut,
        last_crc32c,
        caught_up_at: last_crc32c.and_then(|crc| Timestamp::from_micros(i64::from(crc))),
    };
    IndexCheckpoint {
        key_version: 1,
        cuts: vec![
            cut(0, Cut::Next(dense(offset)), Some(0xdead_beef)),
            cut(1, Cut::Begin, None),
            cut(2, Cut::After(sparse(&"9".repeat(56))), Some(u32::MAX)),
        ],
    }
}
