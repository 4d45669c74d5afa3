//! A model of the service, the scheduler before it, and what must hold of both when all is answered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use eb_contract::{
    EbRef, Effect, EnvelopeRef, Error, ErrorKind, Offset, OffsetKind, PartitionId, PartitionKey,
    PublishRecord, Result, Timestamp, Topic, key_hash,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{Ordering, PublishConfig, Rate};
use crate::publisher::call::{Answer, Outcome};
use crate::publisher::intake::Pending;
use crate::publisher::reply::{Batch, Reply};
use crate::publisher::scheduler::{CallId, Scheduler};
use crate::shards::{Layout, ShardInfo};

pub(super) const GIVE_UP: Duration = Duration::from_secs(5);

/// What the service does with one entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Store,
    Throttle,
    FailInside { stored: bool },
    Deny,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Entries fare as told, in turn, and are taken in the reverse order or not.
    Entries {
        fates: Vec<Fate>,
        reversed: bool,
    },
    /// The entries whose turn it is are stored, now or when the call lands at last, and no answer comes.
    Lost {
        stores: Vec<bool>,
        lands_late: bool,
    },
    Unreachable,
    ThrottledWhole,
    DeniedWhole,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Publish {
        key: u8,
    },
    Batch {
        keys: Vec<u8>,
    },
    /// The call that is n-th in flight ends; some keys are published before its answers are given out.
    End {
        nth: usize,
        fault: Option<Fault>,
        meanwhile: Vec<u8>,
    },
    Wait {
        millis: u64,
    },
    /// Lost calls land.
    Land,
    /// Shard n is split and the publisher learns of it, or does not.
    Split {
        nth: usize,
        told: bool,
    },
}

enum Waiting {
    One(usize, oneshot::Receiver<Result<EbRef>>),
    Batch(Vec<usize>, oneshot::Receiver<Vec<Result<EbRef>>>),
}

pub(super) struct Called {
    key: PartitionKey,
    batch: Option<usize>,
    /// On the clock of events.
    called: usize,
    pub(super) answered: Option<(usize, Result<EbRef>)>,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    strict: bool,
    limits: PublishConfig,
    pub(super) now: Instant,
    /// Counts calls and answers.
    event: usize,
    pub(super) records: Vec<Called>,
    batches: usize,
    waiting: Vec<Waiting>,
    pub(super) in_flight: Vec<(CallId, Vec<PublishRecord>)>,
    late: Vec<PublishRecord>,
    shards: Vec<ShardInfo>,
    pub(super) log: Vec<(usize, PartitionId, Offset)>,
    next_number: u64,
}

pub(super) fn layout(shards: &[ShardInfo]) -> Layout {
    Layout {
        incarnation: eb_contract::BusIncarnation::new("one").unwrap(),
        retention: Duration::from_secs(86_400),
        created: Timestamp::EPOCH,
        record_limit: None,
        shards: shards.to_vec(),
    }
}

pub(super) fn even_shards(n: u32) -> Vec<ShardInfo> {
    let width = u128::MAX / u128::from(n);
    let shard = |i: u32| ShardInfo {
        partition: PartitionId(i),
        shard_id: format!("shardId-{i:012}"),
        parents: Vec::new(),
        hashes: (u128::from(i) * width, if i + 1 == n { u128::MAX } else { u128::from(i + 1) * width - 1 }),
        closed: false,
    };
    (0..n).map(shard).collect()
}

fn id_of(record: &PublishRecord) -> usize {
    let text = std::str::from_utf8(record.envelope.as_bytes()).unwrap();
    text[5..text.len() - 1].parse().unwrap()
}

impl World {
    pub(super) fn new(strict: bool, shards: u32, rate: Option<Rate>) -> Self {
        let limits = PublishConfig {
            ordering: if strict { Ordering::Strict } else { Ordering::Batched },
            max_records_per_call: 4,
            calls_in_flight: 3,
            shard_rate: rate,
            give_up_after: GIVE_UP,
            ..PublishConfig::default()
        };
        let now = Instant::now();
        let mut scheduler = Scheduler::new(Topic::new("t").unwrap(), limits.clone(), now, 7);
        let shards = even_shards(shards);
        scheduler.shape(&layout(&shards), false, now);
        Self {
            scheduler,
            strict,
            limits,
            now,
            event: 0,
            records: Vec::new(),
            batches: 0,
            waiting: Vec::new(),
            in_flight: Vec::new(),
            late: Vec::new(),
            shards,
            log: Vec::new(),
            next_number: 0,
        }
    }

    fn call(&mut self, key: u8, batch: Option<usize>) -> (usize, PublishRecord) {
        let key = PartitionKey::new(format!("key-{key}")).unwrap();
        let id = self.records.len();
        self.event += 1;
        self.records.push(Called { key: key.clone(), batch, called: self.event, answered: None });
        (id, PublishRecord::new(key, EnvelopeRef::new(format!("{{\"n\":{id}}}")).unwrap()))
    }

    fn enter(&mut self, record: PublishRecord, reply: Reply) {
        let mut pending = Pending::new(record, reply, self.now);
        self.next_number += 1;
        pending.number = self.next_number;
        self.scheduler.enqueue(pending);
    }

    pub(super) fn publish(&mut self, key: u8) {
        let (id, record) = self.call(key, None);
        let (reply, answered) = oneshot::channel();
        self.waiting.push(Waiting::One(id, answered));
        self.enter(record, Reply::One(reply));
    }

    pub(super) fn publish_batch(&mut self, keys: &[u8]) {
        self.batches += 1;
        let calls: Vec<_> = keys.iter().map(|key| self.call(*key, Some(self.batches))).collect();
        let (batch, answered) = Batch::new(vec![None; keys.len()]);
        self.waiting.push(Waiting::Batch(calls.iter().map(|c| c.0).collect(), answered));
        for (index, (_, record)) in calls.into_iter().enumerate() {
            self.enter(record, Reply::Part(batch.clone(), index));
        }
    }

    pub(super) fn start_calls(&mut self) {
        while let Some((call, records)) = self.scheduler.next_call(self.now) {
            assert!(!records.is_empty() && records.len() <= self.limits.max_records_per_call);
            self.in_flight.push((call, records));
            assert!(self.in_flight.len() <= self.limits.calls_in_flight);
            if self.strict {
                let mut keys = HashSet::new();
                let all = self.in_flight.iter().flat_map(|(_, records)| records);
                all.for_each(|r| {
                    assert!(keys.insert(r.partition_key.clone()), "one record of a key in flight");
                });
            }
        }
    }

    pub(super) fn store(&mut self, record: &PublishRecord) -> (PartitionId, Offset) {
        let hash = key_hash(&record.partition_key);
        let owner = self.shards.iter().find(|s| !s.closed && (s.hashes.0..=s.hashes.1).contains(&hash));
        let partition = owner.unwrap().partition;
        let offset =
            Offset::parse(OffsetKind::KinesisSequence, &format!("{}000", self.log.len() + 1)).unwrap();
        self.log.push((id_of(record), partition, offset));
        (partition, offset)
    }

    pub(super) fn end(&mut self, nth: usize, fault: Option<&Fault>) {
        if self.in_flight.is_empty() {
            return;
        }
        let (call, records) = self.in_flight.remove(nth % self.in_flight.len());
        let error = |kind| Error::new(kind, "publish", "scripted");
        let throttled = || error(ErrorKind::Throttled { after: None });
        let answer = match fault {
            None => self.answer_each(&records, &[], false),
            Some(Fault::Entries { fates, reversed }) => self.answer_each(&records, fates, *reversed),
            Some(Fault::Lost { stores, lands_late }) => {
                for (record, _) in records.iter().zip(stores.iter().cycle()).filter(|(_, stores)| **stores) {
                    if *lands_late {
                        self.late.push(record.clone());
                    } else {
                        self.store(record);
                    }
                }
                Answer::All(Outcome::Lost(error(ErrorKind::Timeout).with_effect(Effect::Unknown)))
            }
            Some(Fault::Unreachable) => Answer::Unreachable(error(ErrorKind::Unavailable)),
            Some(Fault::ThrottledWhole) => Answer::All(Outcome::Refused(throttled())),
            Some(Fault::DeniedWhole) => Answer::All(Outcome::Failed(error(ErrorKind::InvalidInput))),
        };
        self.scheduler.answered(call, answer, self.now);
    }

    fn answer_each(&mut self, records: &[PublishRecord], fates: &[Fate], reversed: bool) -> Answer {
        let mut order: Vec<usize> = (0..records.len()).collect();
        if reversed {
            order.reverse();
        }
        let mut outcomes: Vec<Option<Outcome>> = vec![None; records.len()];
        let error = |kind| Error::new(kind, "publish", "scripted");
        for index in order {
            let fate = fates.get(index % fates.len().max(1)).copied().unwrap_or(Fate::Store);
            outcomes[index] = Some(match fate {
                Fate::Store => {
                    let (partition, offset) = self.store(&records[index]);
                    Outcome::Stored(partition, offset)
                }
                Fate::Throttle => Outcome::Refused(error(ErrorKind::Throttled { after: None })),
                Fate::FailInside { stored } => {
                    if stored {
                        self.store(&records[index]);
                    }
                    Outcome::Doubtful(error(ErrorKind::Unavailable).with_effect(Effect::Unknown))
                }
                Fate::Deny => Outcome::Failed(error(ErrorKind::InvalidInput)),
            });
        }
        Answer::Each(Timestamp::EPOCH, outcomes.into_iter().flatten().collect())
    }

    fn land(&mut self) {
        for record in std::mem::take(&mut self.late) {
            self.store(&record);
        }
    }

    fn split(&mut self, nth: usize, told: bool) {
        let open: Vec<usize> = (0..self.shards.len()).filter(|i| !self.shards[*i].closed).collect();
        let parent = open[nth % open.len()];
        self.shards[parent].closed = true;
        let (low, high) = self.shards[parent].hashes;
        let middle = low + (high - low) / 2;
        for hashes in [(low, middle), (middle + 1, high)] {
            let partition = PartitionId(self.shards.len() as u32);
            let parents = vec![self.shards[parent].partition];
            let shard_id = format!("shardId-{:012}", partition.0);
            self.shards.push(ShardInfo { partition, shard_id, parents, hashes, closed: false });
        }
        if told {
            self.scheduler.shape(&layout(&self.shards), false, self.now);
        }
    }

    pub(super) fn give_answers(&mut self) {
        for settled in self.scheduler.take_settled() {
            settled.reply.answer(settled.result);
        }
        self.scheduler.answers_given();
        self.event += 1;
        let event = self.event;
        let records = &mut self.records;
        let mut note = |id: usize, answer| {
            assert!(records[id].answered.is_none(), "record {id} is answered once");
            records[id].answered = Some((event, answer));
        };
        self.waiting.retain_mut(|waiting| match waiting {
            Waiting::One(id, answered) => match answered.try_recv() {
                Ok(answer) => {
                    note(*id, answer);
                    false
                }
                Err(e) => {
                    assert_eq!(e, oneshot::error::TryRecvError::Empty, "record {id} was dropped unanswered");
                    true
                }
            },
            Waiting::Batch(ids, answered) => match answered.try_recv() {
                Ok(answers) => {
                    assert_eq!(ids.len(), answers.len());
                    ids.iter().zip(answers).for_each(|(id, answer)| note(*id, answer));
                    false
                }
                Err(e) => {
                    assert_eq!(e, oneshot::error::TryRecvError::Empty);
                    true
                }
            },
        });
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { key } => self.publish(*key),
            Step::Batch { keys } => self.publish_batch(keys),
            Step::End { nth, fault, meanwhile } => {
                self.end(*nth, fault.as_ref());
                meanwhile.iter().for_each(|key| self.publish(*key));
                self.give_answers();
            }
            Step::Wait { millis } => self.now += Duration::from_millis(*millis),
            Step::Land => self.land(),
            Step::Split { nth, told } => self.split(*nth, *told),
        }
        self.start_calls();
        self.give_answers();
    }

    /// No more faults: everything must come to its answer.
    pub(super) fn finish(&mut self) {
        let limit = self.now + Duration::from_secs(600);
        loop {
            self.start_calls();
            self.give_answers();
            if !self.in_flight.is_empty() {
                self.end(0, None);
                self.give_answers();
            } else if self.scheduler.is_idle() {
                break;
            } else {
                let wake = self.scheduler.wake_at(self.now).expect("what is ready has a time to go");
                self.now = wake.max(self.now + Duration::from_nanos(1));
            }
            assert!(self.now < limit, "everything is answered some time");
        }
        self.land();
        assert!(self.waiting.is_empty() && self.records.iter().all(|r| r.answered.is_some()));
    }

    pub(super) fn check(&self) {
        let mut first: HashMap<usize, usize> = HashMap::new();
        for (at, (id, ..)) in self.log.iter().enumerate() {
            first.entry(*id).or_insert(at);
        }
        let mut by_key: BTreeMap<&PartitionKey, Vec<usize>> = BTreeMap::new();
        for (id, record) in self.records.iter().enumerate() {
            by_key.entry(&record.key).or_default().push(id);
            let (_, answer) = record.answered.as_ref().unwrap();
            match answer {
                Ok(at) => {
                    let stored = self.log.contains(&(id, at.partition_id, at.offset));
                    assert!(stored, "record {id} is ACKed at {at} and not there");
                }
                Err(e) if e.effect() == Effect::None => {
                    assert!(!first.contains_key(&id), "record {id} is in the log though: {e}");
                }
                Err(_) => {}
            }
        }
        if !self.strict {
            return;
        }
        for ids in by_key.values() {
            for (i, earlier) in ids.iter().enumerate() {
                let (known, answer) = self.records[*earlier].answered.as_ref().unwrap();
                for later in &ids[i + 1..] {
                    if let (Some(a), Some(b)) = (first.get(earlier), first.get(later)) {
                        // Whoever publishes the key again after an unknown outcome may overtake it.
                        let told = answer.as_ref().is_err_and(|e| e.effect() == Effect::Unknown)
                            && self.records[*later].called > *known;
                        assert!(a < b || told, "record {later} has overtaken {earlier}");
                    }
                    let (e, l) = (&self.records[*earlier], &self.records[*later]);
                    if e.batch.is_some() && e.batch == l.batch && answer.is_err() {
                        let after = l.answered.as_ref().unwrap().1.as_ref().unwrap_err();
                        assert_eq!(
                            after.kind(),
                            &ErrorKind::NotAttempted,
                            "{later} after {earlier}: {after}"
                        );
                    }
                }
            }
        }
    }
}
