//! The writing side.
//!
//! A *door* is an open publisher of the active primary together with the lease under which it may be used. A call goes
//! through the door at once, which fixes its place; where there is no door, or its lease has run out, it waits in one line with
//! everything that is called after it. A task of the publisher keeps the door: it opens the primary's publisher when an epoch begins, lets
//! the line in, in order, and shuts the door when the epoch ends.

mod door;
mod line;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use eb_contract::{
    BoxFuture, Capabilities, EbRef, Effect, Error, ErrorKind, EventBusPublisher, PartitionId, PartitionKey,
    PublishRecord, Result, Topic,
};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::door::keep_door;
use self::line::Line;
use crate::bus::Running;
use crate::error::{closed, held, no_topic};
use crate::hold::{Holds, InFlight, Undecided, key_hash};
use crate::latency::Whose;
use crate::resolve::resolve;
use crate::shared::{Lease, Shared};
use crate::state::{MOST, Side};

const OP: &str = "publish";

type Answers = Vec<Result<EbRef>>;

/// Publishes to whichever bus is primary; see the [crate](crate)'s documentation.
///
/// # Cancellation
/// Dropping a future does not withdraw its records, whether they wait in line or are under way.
pub struct RolloutPublisher {
    core: Arc<Core>,
    _running: Arc<Running>,
}

struct Core {
    shared: Arc<Shared>,
    door: RwLock<Option<Arc<Door>>>,
    line: Mutex<Line>,
    /// As many as are in line.
    waiting: AtomicUsize,
    closed: AtomicBool,
    holds: Holds,
    /// Wakes the task.
    wake: Notify,
    /// How it ended, once it has.
    done: watch::Sender<Option<Result<()>>>,
}

struct Door {
    lease: Arc<Lease>,
    side: Side,
    publisher: Arc<dyn EventBusPublisher>,
    undecided: Arc<Undecided>,
}

impl RolloutPublisher {
    pub(crate) fn new(shared: Arc<Shared>, running: Arc<Running>) -> Self {
        let core = Arc::new(Core {
            shared,
            door: RwLock::default(),
            line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            holds: Holds::default(),
            wake: Notify::new(),
            done: watch::Sender::new(None),
        });
        tokio::spawn(keep_door(core.clone()));
        Self { core, _running: running }
    }
}

impl Drop for RolloutPublisher {
    fn drop(&mut self) {
        // What is in line is still let in; then the task gives the primary's publisher back.
        self.core.closed.store(true, Ordering::Release);
        self.core.wake.notify_one();
    }
}

impl Door {
    /// What a topic's partitions are numbered from; `None` for a topic that is not in the chain.
    fn base(&self, topic: &Topic) -> Option<u32> {
        let state = &self.lease.state;
        if state.is_implicit() {
            return Some(0);
        }
        let segment = u32::try_from(state.active_segment(topic)?).ok()?;
        Some(segment * MOST)
    }
}

impl Core {
    /// The door, if whoever comes now may go through.
    fn open_door(&self, now: Instant) -> Option<Arc<Door>> {
        if self.waiting.load(Ordering::Acquire) > 0 || self.closed.load(Ordering::Acquire) {
            return None;
        }
        self.door.read().as_ref().filter(|door| door.lease.is_valid(now)).cloned()
    }

    /// Why the rollout does not take a record that the primary alone might.
    fn refusal(&self, topic: &Topic, record: &PublishRecord) -> Option<Error> {
        let caps = &self.shared.capabilities;
        let (size, limit) = (record.envelope.len(), caps.max_envelope_bytes);
        if size > limit {
            let what = format!("the envelope has {size} bytes, the limit of both buses is {limit}");
            return Some(Error::new(ErrorKind::TooLarge { size, limit }, OP, what).at(topic));
        }
        let most = caps.max_key_utf16?;
        // A character has at most as many UTF-16 units as UTF-8 bytes.
        let key = record.partition_key.as_str();
        if key.len() <= most || key.encode_utf16().count() <= most {
            return None;
        }
        let what = format!("the key has more than {most} UTF-16 units, the limit of both buses");
        Some(Error::new(ErrorKind::InvalidInput, OP, what).at(topic))
    }
}

fn refuse(count: usize, error: &Error) -> Answers {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Through the door: the primary's publish is called here, before anything is awaited.
fn send_one(
    core: &Arc<Core>,
    door: Arc<Door>,
    base: u32,
    topic: &Topic,
    record: PublishRecord,
    started: Instant,
) -> BoxFuture<'static, Result<EbRef>> {
    if let Some(error) = core.refusal(topic, &record) {
        return ready(Err(error)).boxed();
    }
    let key = key_hash(topic, &record.partition_key);
    if core.holds.holds(&door.lease.state, topic, key) {
        return ready(Err(held(topic))).boxed();
    }
    let in_flight = InFlight::new(&door.undecided, key);
    let publishing = door.publisher.publish(topic, record);
    let shared = core.shared.clone();
    Box::pin(async move {
        let answer = publishing.await;
        let now = Instant::now();
        match answer {
            Ok(at) => {
                in_flight.decided();
                shared.latencies.record(door.side, Whose::Callers, now.saturating_duration_since(started));
                shared.side(door.side).outage.is_over();
                released(&shared, &door, base, at, now).await
            }
            Err(error) => {
                if error.effect() == Effect::Unknown {
                    shared.latencies.record(
                        door.side,
                        Whose::Callers,
                        now.saturating_duration_since(started),
                    );
                }
                Err(failed(&shared, &door, error, in_flight))
            }
        }
    })
}

/// The ACK as the rollout gives it.
async fn released(shared: &Shared, door: &Door, base: u32, mut at: EbRef, now: Instant) -> Result<EbRef> {
    if door.lease.is_valid(now) && at.partition_id.0 < MOST {
        at.partition_id = PartitionId(base + at.partition_id.0);
        return Ok(at);
    }
    resolve(shared, door.lease.state.epoch, at).await
}

/// The primary's error as the rollout gives it.
fn failed(shared: &Shared, door: &Door, error: Error, in_flight: InFlight) -> Error {
    shared.side(door.side).outage.failed(&error);
    if error.effect() == Effect::Unknown {
        // Dropped undecided.
        drop(in_flight);
        return error;
    }
    in_flight.decided();
    let ended = shared.lease().state.epoch != door.lease.state.epoch;
    if matches!(error.kind(), ErrorKind::Closed) && ended {
        return crate::error::unavailable(OP, "the bus was switched").with_source(error);
    }
    error
}

/// As [`send_one`], for several.
fn send_all(
    core: &Arc<Core>,
    door: Arc<Door>,
    base: u32,
    topic: &Topic,
    records: Vec<PublishRecord>,
) -> BoxFuture<'static, Answers> {
    let (count, limit) = (records.len(), core.shared.capabilities.max_batch_records);
    if count > limit {
        let what = format!("the batch has {count} records, the limit of both buses is {limit}");
        let error = Error::new(ErrorKind::TooLarge { size: count, limit }, OP, what).at(topic);
        return ready(refuse(count, &error.advise("publish it in parts"))).boxed();
    }
    let mut failed_keys: HashSet<PartitionKey> = HashSet::new();
    let mut answers: Vec<Option<Result<EbRef>>> = Vec::with_capacity(count);
    let mut sent = Vec::with_capacity(count);
    let mut in_flight = Vec::with_capacity(count);
    for record in records {
        if failed_keys.contains(&record.partition_key) {
            let what = "an earlier record of this key failed";
            answers.push(Some(Err(Error::new(ErrorKind::NotAttempted, OP, what).at(topic))));
            continue;
        }
        let key = key_hash(topic, &record.partition_key);
        let refusal = core
            .refusal(topic, &record)
            .or_else(|| core.holds.holds(&door.lease.state, topic, key).then(|| held(topic)));
        if let Some(error) = refusal {
            failed_keys.insert(record.partition_key);
            answers.push(Some(Err(error)));
        } else {
            in_flight.push(InFlight::new(&door.undecided, key));
            sent.push(record);
            answers.push(None);
        }
    }
    let started = Instant::now();
    let publishing = door.publisher.publish_batch(topic, sent);
    let shared = core.shared.clone();
    Box::pin(async move {
        let of_bus = publishing.await;
        let now = Instant::now();
        if of_bus
            .iter()
            .any(|answer| answer.as_ref().map_or_else(|e| e.effect() == Effect::Unknown, |_| true))
        {
            shared.latencies.record(door.side, Whose::Callers, now.saturating_duration_since(started));
        }
        let mut of_bus = of_bus.into_iter().zip(in_flight);
        let mut all = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = match answer {
                Some(known) => known,
                None => match of_bus.next() {
                    Some((Ok(at), in_flight)) => {
                        in_flight.decided();
                        shared.side(door.side).outage.is_over();
                        released(&shared, &door, base, at, now).await
                    }
                    Some((Err(error), in_flight)) => Err(failed(&shared, &door, error, in_flight)),
                    None => {
                        let what = "the bus gave fewer answers than there were records";
                        let error = Error::new(ErrorKind::ProtocolViolation, OP, what);
                        Err(error.with_effect(Effect::Unknown))
                    }
                },
            };
            all.push(answer);
        }
        all
    })
}

impl EventBusPublisher for RolloutPublisher {
    fn capabilities(&self) -> &Capabilities {
        &self.core.shared.capabilities
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        let now = Instant::now();
        if let Some(door) = self.core.open_door(now)
            && let Some(base) = door.base(topic)
        {
            return send_one(&self.core, door, base, topic, record, now);
        }
        let lined_up = self.core.line_up(topic, vec![record]);
        lined_up.map(|mut one| one.pop().expect("a call of one record has one answer")).boxed()
    }

    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        if records.is_empty() {
            return ready(Vec::new()).boxed();
        }
        if let Some(door) = self.core.open_door(Instant::now())
            && let Some(base) = door.base(topic)
        {
            return send_all(&self.core, door, base, topic, records);
        }
        self.core.line_up(topic, records)
    }

    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        let (core, topic) = (self.core.clone(), topic.clone());
        Box::pin(async move {
            let deadline = Instant::now() + core.shared.config.max_wait;
            loop {
                if core.closed.load(Ordering::Acquire) {
                    return Err(closed("probe"));
                }
                let asked = Instant::now();
                if let Some(door) = core.open_door(asked) {
                    if door.base(&topic).is_some() {
                        return door.publisher.probe(&topic).await;
                    }
                    let lease = core.shared.refresh_since(asked).await?;
                    if lease.state.is_active() && lease.state.active_segment(&topic).is_none() {
                        return Err(no_topic("probe", &topic));
                    }
                }
                if asked >= deadline {
                    let why = core.line.lock().why.clone();
                    return Err(why.unwrap_or_else(|| crate::error::no_lease("probe")));
                }
                core.wake.notify_one();
                tokio::time::sleep(core.shared.lease().length() / 20).await;
            }
        })
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        {
            // Under the lock of the line, so that every call before this one is in it or through the door.
            let _line = self.core.line.lock();
            self.core.closed.store(true, Ordering::Release);
        }
        self.core.wake.notify_one();
        let mut done = self.core.done.subscribe();
        Box::pin(async move {
            loop {
                if let Some(done) = &*done.borrow_and_update() {
                    return done.clone();
                }
                if done.changed().await.is_err() {
                    return Err(closed("close"));
                }
            }
        })
    }
}
