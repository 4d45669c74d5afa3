//! The writing side; the crate's documentation tells under *Publishing* what it promises.

mod call;
mod dispatch;
mod intake;
mod lanes;
#[cfg(test)]
mod law_tests;
mod pace;
mod reply;
mod scheduler;
mod seen;
mod stats;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::StreamStatus;
use eb_contract::{
    BoxFuture, Capabilities, EbRef, Effect, Error, ErrorKind, EventBusPublisher, PublishRecord, Result, Topic,
};
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::dispatch::Ended;
use self::intake::{Intake, Pending};
use self::reply::{Batch, Reply};
use self::stats::Counters;
pub use self::stats::PublishStats;
use crate::bus::Shared;
#[cfg(doc)]
use crate::config::{Ordering, PublishConfig};
use crate::{error, shards};

const OP: &str = "publish";

/// How long a good answer to [`probe`](EventBusPublisher::probe) stands: the service allows 20 such questions a second
/// to a whole account.
const PROBE_FRESH: Duration = Duration::from_secs(1);

/// Publishes to a bus on Kinesis; see [`KinesisBus::publisher`](crate::KinesisBus::publisher). Clones are the same
/// publisher.
///
/// Records are coalesced into `PutRecords` calls. Place in line, order per key, what each failure leaves behind and what
/// dropping does are told in the crate's documentation under *Publishing*.
#[derive(Clone)]
pub struct KinesisPublisher {
    session: Arc<Session>,
}

impl fmt::Debug for KinesisPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisPublisher").finish_non_exhaustive()
    }
}

/// The life of a publisher.
struct Session {
    shared: Arc<Shared>,
    topics: RwLock<Topics>,
    probed: RwLock<HashMap<Topic, Instant>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Topics {
    closed: bool,
    open: HashMap<Topic, (Arc<Intake>, Ended)>,
}

impl Session {
    /// The door of a topic; its task is started by the first call.
    fn intake(&self, topic: &Topic) -> Result<Arc<Intake>> {
        {
            let topics = self.topics.read();
            if topics.closed {
                return Err(error::closed(OP).at(topic));
            }
            if let Some((intake, _)) = topics.open.get(topic) {
                return Ok(intake.clone());
            }
        }
        let mut topics = self.topics.write();
        // Under the same lock as close sets it, so that close misses no topic.
        if topics.closed {
            return Err(error::closed(OP).at(topic));
        }
        let start = || {
            let limit = self.shared.config.publish.max_buffered_bytes;
            let intake = Arc::new(Intake::new(topic.clone(), limit));
            let ended =
                dispatch::start(self.shared.clone(), topic.clone(), intake.clone(), self.counters.clone());
            (intake, ended)
        };
        Ok(topics.open.entry(topic.clone()).or_insert_with(start).0.clone())
    }

    fn check(&self, topic: &Topic, record: &PublishRecord) -> Result<()> {
        let (size, limit) = (record.envelope.len(), self.shared.capabilities.max_envelope_bytes);
        if size > limit {
            let message = format!("the envelope has {size} bytes, the limit is {limit}");
            return Err(Error::new(ErrorKind::TooLarge { size, limit }, OP, message).at(topic));
        }
        // The service refuses the whole call for it, and with it the records of others.
        let key = record.partition_key.as_str();
        if let Some(most) = self.shared.capabilities.max_key_utf16
            && key.len() > most
            && key.encode_utf16().count() > most
        {
            let message = format!("the partition key has more than {most} UTF-16 units");
            return Err(Error::new(ErrorKind::InvalidInput, OP, message).at(topic));
        }
        Ok(())
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> Result<oneshot::Receiver<Result<EbRef>>> {
        let intake = self.intake(topic)?;
        self.check(topic, &record)?;
        let (reply, answered) = oneshot::channel();
        let pending = Pending::new(record, Reply::One(reply), Instant::now());
        intake.enter(|entering| entering.push(pending))?;
        Ok(answered)
    }

    /// Refuses further calls and lets each topic's task come to its end.
    fn begin_close(&self) -> Vec<(Topic, Ended)> {
        let mut topics = self.topics.write();
        topics.closed = true;
        let ends = topics.open.iter().map(|(topic, (intake, ended))| {
            intake.close();
            (topic.clone(), ended.clone())
        });
        ends.collect()
    }

    fn publish_batch(&self, topic: &Topic, records: Vec<PublishRecord>) -> Batched {
        let count = records.len();
        let same = |error: Error| Batched::Now(vec![Err(error); count]);
        let limit = self.shared.capabilities.max_batch_records;
        if count > limit {
            let message = format!("the batch has {count} records, the limit is {limit}");
            let error = Error::new(ErrorKind::TooLarge { size: count, limit }, OP, message);
            return same(error.at(topic).advise("publish it in parts"));
        }
        let intake = match self.intake(topic) {
            Ok(intake) => intake,
            Err(error) => return same(error),
        };
        let now = Instant::now();
        let mut failed = HashSet::new();
        let answers: Vec<Option<Result<EbRef>>> = records
            .iter()
            .map(|record| {
                if failed.contains(&record.partition_key) {
                    let message = "an earlier record of this key and batch failed";
                    return Some(Err(Error::new(ErrorKind::NotAttempted, OP, message).at(topic)));
                }
                let refused = self.check(topic, record).err()?;
                failed.insert(record.partition_key.clone());
                Some(Err(refused))
            })
            .collect();
        let open: Vec<bool> = answers.iter().map(Option::is_none).collect();
        if !open.contains(&true) {
            return Batched::Now(answers.into_iter().flatten().collect());
        }
        let (batch, answered) = Batch::new(answers);
        let pending: Vec<Pending> = records
            .into_iter()
            .enumerate()
            .filter(|(index, _)| open[*index])
            .map(|(index, record)| Pending::new(record, Reply::Part(batch.clone(), index), now))
            .collect();
        match intake.enter(|entering| entering.extend(pending)) {
            Ok(()) => Batched::Later(count, answered),
            Err(error) => same(error),
        }
    }

    async fn probe(&self, topic: &Topic) -> Result<()> {
        const OP: &str = "probe";
        if self.topics.read().closed {
            return Err(error::closed(OP).at(topic));
        }
        let fresh = |at: &Instant| at.elapsed() < PROBE_FRESH;
        if self.probed.read().get(topic).is_some_and(fresh) {
            return Ok(());
        }
        let stream = self.shared.config.streams.stream_of(topic);
        let summary = shards::summary(&self.shared.client, OP, topic, &stream).await?;
        match summary.status {
            StreamStatus::Active | StreamStatus::Updating => {
                let mut probed = self.probed.write();
                probed.retain(|_, at| fresh(at));
                probed.insert(topic.clone(), Instant::now());
                Ok(())
            }
            other => {
                let message = format!("the stream is {}", other.as_str());
                Err(Error::new(ErrorKind::Unavailable, OP, message).at(topic))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.begin_close();
    }
}

/// A batch that was answered at once, or that will be.
enum Batched {
    Now(Vec<Result<EbRef>>),
    Later(usize, oneshot::Receiver<Vec<Result<EbRef>>>),
}

impl KinesisPublisher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let session = Session {
            shared,
            topics: RwLock::default(),
            probed: RwLock::default(),
            counters: Arc::default(),
        };
        Self { session: Arc::new(session) }
    }

    /// What has been sent so far, for metrics and benchmarks.
    #[must_use]
    pub fn stats(&self) -> PublishStats {
        self.session.counters.snapshot()
    }
}

/// Only a task that was torn down without its destructors, or that panicked, leaves a record unanswered.
fn gone() -> Error {
    Error::new(ErrorKind::Closed, OP, "the publisher's task has ended").with_effect(Effect::Unknown)
}

impl EventBusPublisher for KinesisPublisher {
    fn capabilities(&self) -> &Capabilities {
        &self.session.shared.capabilities
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        match self.session.publish(topic, record) {
            Ok(answered) => Box::pin(async move { answered.await.unwrap_or_else(|_| Err(gone())) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Publishes several records. They need not travel in one call: each has its own outcome.
    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>> {
        match self.session.publish_batch(topic, records) {
            Batched::Now(answers) => Box::pin(std::future::ready(answers)),
            Batched::Later(count, answered) => {
                Box::pin(async move { answered.await.unwrap_or_else(|_| vec![Err(gone()); count]) })
            }
        }
    }

    /// Asks the service whether the stream is there and takes records. A good answer stands for a second.
    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        let (session, topic) = (self.session.clone(), topic.clone());
        Box::pin(async move { session.probe(&topic).await })
    }

    /// Takes as long as the service takes records, and `give_up_after` and a call's timeout at most where it takes none.
    /// Dropping the future changes nothing: the publisher is closed, and what was called for is finished.
    fn close(&self) -> BoxFuture<'static, Result<()>> {
        let ends = self.session.begin_close();
        Box::pin(async move {
            let mut outcome = Ok(());
            for (topic, mut end) in ends {
                let ended = match end.wait_for(Option::is_some).await {
                    Ok(ended) => ended.clone().unwrap_or(Ok(())),
                    Err(_) => Err(gone()),
                };
                let failed = |e: Error| {
                    Error::new(
                        e.kind().clone(),
                        "close",
                        format!("not all could be written: {}", e.message()),
                    )
                    .at(&topic)
                    .with_effect(e.effect())
                };
                outcome = outcome.and(ended.map_err(failed));
            }
            outcome
        })
    }
}

#[cfg(test)]
mod tests {
    use eb_contract::{EnvelopeRef, PartitionId, PartitionKey, Timestamp};
    use eb_testkit::kinesis_fake::{Gate, KinesisFake, Op, Reaction};

    use super::*;
    use crate::{KinesisBus, KinesisConfig};

    /// While an answer is on its way others publish behind its records, and who starts there must not think them younger.
    #[tokio::test]
    async fn what_lies_behind_an_acked_record_may_be_as_old_as_its_call() {
        let fake = KinesisFake::start().await.unwrap();
        fake.create_stream("facts", 1);
        let bus = KinesisBus::open(KinesisConfig::emulator(&fake.endpoint_url())).await.unwrap();
        let (publisher, topic) = (bus.publisher(), Topic::new("facts").unwrap());
        let gate = Gate::new();
        fake.script(Op::PutRecords, [Reaction::plain().hold_answer(&gate)]);
        let envelope = EnvelopeRef::new("{}").unwrap();
        let acked = publisher.publish(&topic, PublishRecord::new(PartitionKey::new("k").unwrap(), envelope));
        gate.reached(1).await;
        let stored = Timestamp::now();
        gate.open();
        let acked = acked.await.unwrap();
        assert!(acked.published_at_utc >= stored);
        let shared = &publisher.session.shared;
        let life = shards::summary(&shared.client, OP, &topic, "facts").await.unwrap().incarnation;
        let known = shared.reads.shard(&shared.config.read, &topic, PartitionId(0)).furthest(&life).unwrap();
        assert_eq!(known.cut.offset(), Some(&acked.offset));
        assert!(known.unread_since <= stored, "{} is later than {stored}", known.unread_since);
    }
}
