//! An admission index of its own that breaks one promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_conformance::{AdmissionFactory, AdmissionOffers, Outcome, TestAdmissionIndex};
use eb_contract::stores::{
    AdmissionEntry, AdmissionIndex, AdmissionKey, Confirmation, IndexCheckpoint, OpenReservation,
    PolicyEpoch, PolicyRev, ReservationId, ReserveRequest, Reserved,
};
use eb_contract::{BoxFuture, Error, ErrorKind, Result, Timestamp, Topic};
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexBend {
    Nothing,
    LastCopyWins,
    ComparesOffsetsAsText,
    LowestOffsetOfAnyPartition,
    LowestOffsetOfAPartition,
    TellsNobodyWhatStands,
    ForgetsPublishTimes,
    LookUpsReserve,
    ReleasedKeysStayTaken,
    AnswersReversed,
    FindsTheFirstOfAnEvent,
    ScanRepeatsTheLast,
    ScanSkipsOne,
    CheckpointAheadOfEntries,
    ForgetsOnReopening,
    PoliciesRepeat,
    PoliciesOnceEach,
    PoliciesLostInACrash,
    AnswersAfterClose,
    ConfirmedOnlyAtCheckpoint,
    KeysShareTheirFirstBytes,
    OwnReservationsStayOpen,
    CountsNothing,
    FirstCheckpointStays,
}

pub(crate) struct BentIndexes(pub(crate) IndexBend);

impl AdmissionFactory for BentIndexes {
    fn shared(&self) -> bool {
        false
    }

    fn offers(&self) -> AdmissionOffers {
        AdmissionOffers { reopen: true, crash: true }
    }

    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestAdmissionIndex>>> {
        Box::pin(async {
            let index = BentIndex { bend: self.0, data: Mutex::default(), closed: AtomicBool::new(false) };
            Ok(Box::new(Open(Arc::new(index))) as Box<dyn TestAdmissionIndex>)
        })
    }
}

struct Open(Arc<BentIndex>);

impl Open {
    fn become_next(&mut self, data: Data) {
        let bend = self.0.bend;
        self.0 = Arc::new(BentIndex { bend, data: Mutex::new(data), closed: AtomicBool::new(false) });
    }
}

impl TestAdmissionIndex for Open {
    fn index(&self) -> Arc<dyn AdmissionIndex> {
        self.0.clone()
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        Box::pin(async {
            self.0.close().await?;
            let now = self.0.data.lock().clone();
            let stored = now.stored.clone().map(|s| *s).unwrap_or_default();
            let next = if self.0.bend == IndexBend::ForgetsOnReopening { stored } else { now };
            self.become_next(next);
            Ok(())
        })
    }

    fn crash(&mut self) -> BoxFuture<'_, Outcome> {
        let now = self.0.data.lock().clone();
        let mut left = now.stored.clone().map(|s| *s).unwrap_or_default();
        match self.0.bend {
            IndexBend::CheckpointAheadOfEntries => left.entries.clear(),
            IndexBend::PoliciesLostInACrash => {}
            _ => left.policies = now.policies,
        }
        left.stored = Some(Box::new(left.clone()));
        self.become_next(left);
        Box::pin(async { Ok(()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Clone, Default)]
struct Data {
    entries: BTreeMap<AdmissionKey, AdmissionEntry>,
    unseen: Vec<AdmissionEntry>,
    taken: Vec<AdmissionKey>,
    reserved: BTreeMap<u64, AdmissionKey>,
    checkpoint: Option<IndexCheckpoint>,
    policies: Vec<PolicyEpoch>,
    /// What the last checkpoint has made durable.
    stored: Option<Box<Data>>,
}

struct BentIndex {
    bend: IndexBend,
    data: Mutex<Data>,
    closed: AtomicBool,
}

impl BentIndex {
    fn with<'a, T: Send + 'a>(&'a self, work: impl FnOnce(&mut Data) -> T) -> BoxFuture<'a, Result<T>> {
        let open = !self.closed.load(Ordering::Relaxed) || self.bend == IndexBend::AnswersAfterClose;
        let answer = if open {
            Ok(work(&mut self.data.lock()))
        } else {
            Err(Error::new(ErrorKind::Closed, "index", "closed"))
        };
        Box::pin(std::future::ready(answer))
    }

    fn kept_key(&self, key: AdmissionKey) -> AdmissionKey {
        match self.bend {
            IndexBend::KeysShareTheirFirstBytes => {
                let mut event = key.event;
                event[7] = 0;
                AdmissionKey { event, ..key }
            }
            _ => key,
        }
    }

    /// Gives back what stands in its place.
    fn put(&self, data: &mut Data, mut entry: AdmissionEntry) -> Option<AdmissionEntry> {
        if self.bend == IndexBend::ForgetsPublishTimes {
            entry.eb_ref.published_at_utc = Timestamp::EPOCH;
        }
        let key = self.kept_key(entry.key);
        let wins = data.entries.get(&key).is_none_or(|known| {
            let same = known.eb_ref.partition_id == entry.eb_ref.partition_id;
            let (old, new) = (known.eb_ref.offset, entry.eb_ref.offset);
            match self.bend {
                IndexBend::LastCopyWins => true,
                IndexBend::ComparesOffsetsAsText => same && new.to_string() < old.to_string(),
                IndexBend::LowestOffsetOfAnyPartition => new < old,
                IndexBend::LowestOffsetOfAPartition => same && new < old,
                _ => false,
            }
        });
        if wins {
            data.entries.insert(key, entry);
            return None;
        }
        let told = self.bend != IndexBend::TellsNobodyWhatStands;
        data.entries.get(&key).filter(|standing| told && **standing != entry).cloned()
    }
}

impl AdmissionIndex for BentIndex {
    fn is_shared(&self) -> bool {
        false
    }

    fn lease(&self) -> Option<std::time::Duration> {
        None
    }

    fn max_lag(&self) -> u64 {
        1000
    }

    fn reserve<'a>(&'a self, requests: &'a [ReserveRequest]) -> BoxFuture<'a, Result<Vec<Reserved>>> {
        self.with(|data| {
            let mut answers = Vec::new();
            for request in requests {
                let id = data.reserved.len() as u64 + 1;
                answers.push(match data.entries.get(&self.kept_key(request.key)) {
                    Some(entry) => Reserved::Admitted(entry.clone()),
                    None if data.taken.contains(&request.key) => Reserved::InFlight {
                        owner: "nobody".to_owned(),
                        lease_left: std::time::Duration::from_secs(1),
                    },
                    None => {
                        data.reserved.insert(id, request.key);
                        Reserved::Fresh(ReservationId(id))
                    }
                });
            }
            if self.bend == IndexBend::AnswersReversed {
                answers.reverse();
            }
            answers
        })
    }

    fn confirm(&self, confirmed: Vec<Confirmation>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.with(|data| {
            if self.bend == IndexBend::ConfirmedOnlyAtCheckpoint {
                data.unseen.extend(confirmed.into_iter().map(|c| c.entry));
                return Vec::new();
            }
            confirmed.into_iter().filter_map(|c| self.put(data, c.entry)).collect()
        })
    }

    fn renew(&self, _: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        self.with(|_| ())
    }

    fn give_up(&self, _: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        self.with(|_| ())
    }

    fn release(&self, reservations: Vec<ReservationId>) -> BoxFuture<'_, Result<()>> {
        self.with(|data| {
            if self.bend == IndexBend::ReleasedKeysStayTaken {
                let keys: Vec<_> =
                    reservations.iter().filter_map(|id| data.reserved.get(&id.0).copied()).collect();
                data.taken.extend(keys);
            }
        })
    }

    fn apply(&self, entries: Vec<AdmissionEntry>) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.with(|data| entries.into_iter().filter_map(|e| self.put(data, e)).collect())
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<IndexCheckpoint>>> {
        self.with(|data| data.checkpoint.clone())
    }

    fn commit_checkpoint(&self, checkpoint: IndexCheckpoint) -> BoxFuture<'_, Result<()>> {
        self.with(|data| {
            for e in std::mem::take(&mut data.unseen) {
                self.put(data, e);
            }
            if data.checkpoint.is_none() || self.bend != IndexBend::FirstCheckpointStays {
                data.checkpoint = Some(checkpoint);
            }
            data.stored = None;
            data.stored = Some(Box::new(data.clone()));
        })
    }

    fn get(&self, key: AdmissionKey) -> BoxFuture<'_, Result<Option<AdmissionEntry>>> {
        self.with(|data| {
            if self.bend == IndexBend::LookUpsReserve {
                data.taken.push(key);
            }
            data.entries.get(&self.kept_key(key)).cloned()
        })
    }

    fn find_event(&self, event: [u8; 8]) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        let first = self.bend == IndexBend::FindsTheFirstOfAnEvent;
        let event = self.kept_key(AdmissionKey { event, dedupe: [0; 32] }).event;
        self.with(move |data| {
            let found = data.entries.iter().filter(|(k, _)| k.event == event).map(|(_, e)| e.clone());
            found.take(if first { 1 } else { usize::MAX }).collect()
        })
    }

    fn scan(&self, after: Option<AdmissionKey>, max: usize) -> BoxFuture<'_, Result<Vec<AdmissionEntry>>> {
        self.with(|data| {
            let rest = data.entries.values().filter(|e| match self.bend {
                IndexBend::ScanRepeatsTheLast => after.is_none_or(|after| e.key >= after),
                _ => after.is_none_or(|after| e.key > after),
            });
            let skip = usize::from(self.bend == IndexBend::ScanSkipsOne && after.is_some());
            rest.skip(skip).take(max).cloned().collect()
        })
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<OpenReservation>>> {
        self.with(|data| {
            let keys = data.reserved.iter().filter(|_| self.bend == IndexBend::OwnReservationsStayOpen);
            let open = |(id, key): (&u64, &AdmissionKey)| OpenReservation {
                reservation: ReservationId(*id),
                request: ReserveRequest {
                    key: *key,
                    payload_hash: [0; 32],
                    topic: Topic::new("t").expect("a name"),
                    start: Vec::new(),
                    policy: Arc::new(PolicyRev {
                        policy_id: String::new(),
                        revision: String::new(),
                        content_digest: String::new(),
                    }),
                },
                owner: "me".to_owned(),
                reserved_at: Timestamp::EPOCH,
                renewed_at: Timestamp::EPOCH,
            };
            keys.map(open).collect()
        })
    }

    fn record_policy(&self, epoch: PolicyEpoch) -> BoxFuture<'_, Result<()>> {
        self.with(|data| {
            let known = match self.bend {
                IndexBend::PoliciesRepeat => false,
                IndexBend::PoliciesOnceEach => data.policies.iter().any(|p| p.policy == epoch.policy),
                _ => data.policies.last().is_some_and(|p| p.policy == epoch.policy),
            };
            if !known {
                data.policies.push(epoch);
            }
        })
    }

    fn policy_history(&self) -> BoxFuture<'_, Result<Vec<PolicyEpoch>>> {
        self.with(|data| data.policies.clone())
    }

    fn approximate_len(&self) -> u64 {
        let len = self.data.lock().entries.len() as u64;
        if self.bend == IndexBend::CountsNothing { 0 } else { len }
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        self.with(|_| ())
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.closed.store(true, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }
}
