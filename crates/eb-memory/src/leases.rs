//! The reference store of leases.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{
    Claim, Heartbeat, Lease, LeaseInfo, LeaseKey, LeaseStore, Renewal, Reported, check_lease_request,
    check_owner, first_epoch,
};
use eb_contract::{BoxFuture, ConsumerName, Error, ErrorKind, Result, Timestamp, Topic};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;

use crate::MemoryClock;

/// Leases in memory: they live as long as any clone of the store, and clones share them, as workers of several processes share
/// a database.
///
/// Time is a [`MemoryClock`]'s, so a test ends leases by moving it on. Calls are done when they return their future;
/// dropping it changes nothing.
#[derive(Clone, Default)]
pub struct MemoryLeases {
    clock: MemoryClock,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    leases: BTreeMap<LeaseKey, Held>,
    /// By consumer, topic and worker: until when it counts as alive.
    workers: BTreeMap<(ConsumerName, Topic, String), Duration>,
    outage: Option<Error>,
}

struct Held {
    lease: Lease,
    /// On the clock; `None` when it was released.
    end: Option<Duration>,
    /// The holder's last report.
    reported: Option<Reported>,
}

impl Held {
    fn left(&self, now: Duration) -> Option<Duration> {
        self.end.and_then(|end| end.checked_sub(now)).filter(|left| !left.is_zero())
    }

    fn extend(&mut self, end: Duration) {
        self.end = self.end.max(Some(end));
    }
}

impl MemoryLeases {
    /// No leases yet, by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No leases yet, by this clock.
    #[must_use]
    pub fn with_clock(clock: MemoryClock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// The clock that leases end by.
    #[must_use]
    pub fn clock(&self) -> &MemoryClock {
        &self.clock
    }

    /// From now on every call answers `error`, until [`MemoryLeases::recover`]: for tests and drills.
    pub fn outage(&self, error: Error) {
        self.state.lock().outage = Some(error);
    }

    /// Ends an outage.
    pub fn recover(&self) {
        self.state.lock().outage = None;
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, Duration) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        match &state.outage {
            Some(outage) => Err(outage.clone()),
            None => work(&mut state, self.clock.passed()),
        }
    }

    fn claim_now(&self, key: &LeaseKey, owner: &str, time_to_live: Duration) -> Result<Claim> {
        check_lease_request("claim lease", owner, time_to_live)?;
        self.with(|state, now| {
            let end = now + time_to_live;
            let epoch = match state.leases.get_mut(key) {
                None => first_epoch(self.clock.now()),
                Some(held) => match held.left(now) {
                    Some(_) if held.lease.owner == owner => {
                        held.extend(end);
                        return Ok(Claim::Held(held.lease.clone()));
                    }
                    Some(left) => return Ok(Claim::Taken { by: held.lease.clone(), left }),
                    None => held.lease.epoch.checked_add(1).ok_or_else(|| no_epoch_left(key))?,
                },
            };
            let lease = Lease { owner: owner.to_owned(), epoch };
            let held = Held { lease: lease.clone(), end: Some(end), reported: None };
            state.leases.insert(key.clone(), held);
            Ok(Claim::Held(lease))
        })
    }
}

fn no_epoch_left(key: &LeaseKey) -> Error {
    Error::new(ErrorKind::ProtocolViolation, "claim lease", "there is no epoch left above the last one")
        .at(place(key))
}

fn place(key: &LeaseKey) -> String {
    format!("{} {}/{}", key.consumer, key.topic, key.partition_id)
}

fn ended(key: &LeaseKey, lease: &Lease) -> Error {
    let message = format!("the lease of `{}` with epoch {} has ended", lease.owner, lease.epoch);
    Error::new(ErrorKind::Fenced, "renew lease", message).at(place(key)).advise("claim it anew")
}

impl State {
    fn heartbeat(
        &mut self,
        (now, at): (Duration, Timestamp),
        end: Duration,
        (consumer, topic, owner): (&ConsumerName, &Topic, &str),
        held: &[Renewal],
    ) -> Heartbeat {
        self.workers.retain(|_, end| *end > now);
        let me = self.workers.entry((consumer.clone(), topic.clone(), owner.to_owned())).or_default();
        *me = end.max(*me);
        let renewed = held.iter().map(|Renewal { partition_id, lease, report }| {
            let key =
                LeaseKey { consumer: consumer.clone(), topic: topic.clone(), partition_id: *partition_id };
            match self.leases.get_mut(&key) {
                Some(h) if h.lease == *lease && lease.owner == owner && h.left(now).is_some() => {
                    h.extend(end);
                    h.reported = report.map(|work| Reported { work, at }).or(h.reported);
                    Ok(())
                }
                _ => Err(ended(&key, lease)),
            }
        });
        let renewed = renewed.collect();
        let of_this = self.workers.keys().filter(|(c, t, _)| c == consumer && t == topic);
        Heartbeat { workers: of_this.map(|(_, _, worker)| worker.clone()).collect(), renewed }
    }
}

impl LeaseStore for MemoryLeases {
    fn claim<'a>(
        &'a self,
        key: &'a LeaseKey,
        owner: &'a str,
        time_to_live: Duration,
    ) -> BoxFuture<'a, Result<Claim>> {
        ready(self.claim_now(key, owner, time_to_live)).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
        time_to_live: Duration,
        held: &'a [Renewal],
    ) -> BoxFuture<'a, Result<Heartbeat>> {
        let answer = check_lease_request("heartbeat", owner, time_to_live).and_then(|()| {
            self.with(|state, now| {
                let at = self.clock.now();
                Ok(state.heartbeat((now, at), now + time_to_live, (consumer, topic, owner), held))
            })
        });
        ready(answer).boxed()
    }

    fn release<'a>(&'a self, key: &'a LeaseKey, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        let answer = self.with(|state, _| {
            if let Some(held) = state.leases.get_mut(key).filter(|held| held.lease == *lease) {
                held.end = None;
            }
            Ok(())
        });
        ready(answer).boxed()
    }

    fn leave<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
        owner: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        let answer = check_owner("leave", owner).and_then(|()| {
            self.with(|state, _| {
                state.workers.remove(&(consumer.clone(), topic.clone(), owner.to_owned()));
                for (key, held) in &mut state.leases {
                    if key.consumer == *consumer && key.topic == *topic && held.lease.owner == owner {
                        held.end = None;
                    }
                }
                Ok(())
            })
        });
        ready(answer).boxed()
    }

    fn list<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<Vec<LeaseInfo>>> {
        let list = self.with(|state, now| {
            let wanted = state.leases.iter().filter(|(key, _)| consumer.is_none_or(|c| key.consumer == *c));
            let info = |(key, held): (&LeaseKey, &Held)| LeaseInfo {
                key: key.clone(),
                lease: held.lease.clone(),
                left: held.left(now),
                reported: held.reported.filter(|_| held.left(now).is_some()),
            };
            Ok(wanted.map(info).collect())
        });
        ready(list).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        ready(self.with(|_, _| Ok(()))).boxed()
    }
}
