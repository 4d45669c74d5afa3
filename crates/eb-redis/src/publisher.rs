//! The writing side; the crate's documentation tells under *Publishing* what it promises.

mod append;
mod door;
mod lane;
mod pending;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use eb_contract::{
    BoxFuture, Capabilities, EbRef, Effect, Error, ErrorKind, EventBusPublisher, PublishRecord, Result, Topic,
};
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::door::Door;
use self::pending::{Batch, Budget, Pending, Reply};
use crate::bus::Shared;
#[cfg(doc)]
use crate::config::PublishConfig;
use crate::link::now_unavailable;
use crate::{error, topics};

const OP: &str = "publish";

/// Publishes to a bus on Redis; see [`RedisBus::publisher`](crate::RedisBus::publisher). Clones are the same publisher.
///
/// Place in line, order per key, what each failure leaves behind and what dropping does are told in the crate's
/// documentation under *Publishing*.
#[derive(Clone)]
pub struct RedisPublisher {
    session: Arc<Session>,
}

impl fmt::Debug for RedisPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPublisher").finish_non_exhaustive()
    }
}

/// The life of a publisher.
struct Session {
    shared: Arc<Shared>,
    budget: Arc<Budget>,
    topics: RwLock<Topics>,
}

#[derive(Default)]
struct Topics {
    closed: bool,
    open: HashMap<Topic, Arc<Door>>,
}

impl Session {
    /// The door of a topic, made by the first call.
    fn door(&self, op: &'static str, topic: &Topic) -> Result<Arc<Door>> {
        {
            let topics = self.topics.read();
            if topics.closed {
                return Err(error::closed(op).at(topic));
            }
            if let Some(door) = topics.open.get(topic) {
                return Ok(door.clone());
            }
        }
        let mut topics = self.topics.write();
        // Under the same lock as close sets it, so that close misses no door.
        if topics.closed {
            return Err(error::closed(op).at(topic));
        }
        let make = || Arc::new(Door::new(self.shared.clone(), self.budget.clone(), topic.clone()));
        Ok(topics.open.entry(topic.clone()).or_insert_with(make).clone())
    }

    fn check(&self, topic: &Topic, record: &PublishRecord) -> Result<()> {
        let (size, limit) = (record.envelope.len(), self.shared.capabilities.max_envelope_bytes);
        if size > limit {
            let message = format!("the envelope has {size} bytes, the limit is {limit}");
            return Err(Error::new(ErrorKind::TooLarge { size, limit }, OP, message).at(topic));
        }
        Ok(())
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> Result<oneshot::Receiver<Result<EbRef>>> {
        let door = self.door(OP, topic)?;
        self.check(topic, &record)?;
        let (reply, answered) = oneshot::channel();
        door.enter([Pending::new(record, Reply::One(reply), Instant::now())])?;
        Ok(answered)
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
        let door = match self.door(OP, topic) {
            Ok(door) => door,
            Err(error) => return same(error),
        };
        let mut failed = HashSet::new();
        let answers: Vec<Option<Result<EbRef>>> = records
            .iter()
            .map(|record| {
                if failed.contains(&record.partition_key) {
                    return Some(Err(pending::not_attempted(topic)));
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
        let now = Instant::now();
        let (batch, answered) = Batch::new(answers);
        let pending: Vec<Pending> = records
            .into_iter()
            .enumerate()
            .filter(|(index, _)| open[*index])
            .map(|(index, record)| Pending::new(record, Reply::Part(batch.clone(), index), now))
            .collect();
        match door.enter(pending) {
            Ok(()) => Batched::Later(count, answered),
            Err(error) => same(error),
        }
    }

    /// Refuses further calls and lets each line come to its end.
    fn begin_close(&self) -> Vec<Arc<Door>> {
        let mut topics = self.topics.write();
        topics.closed = true;
        topics.open.values().inspect(|door| door.close()).cloned().collect()
    }

    async fn probe(&self, topic: &Topic) -> Result<()> {
        const OP: &str = "probe";
        if self.topics.read().closed {
            return Err(error::closed(OP).at(topic));
        }
        self.shared.marks.check_topic(OP, topic)?;
        let session = self.shared.writes.session(OP).await?;
        let server = session.ask(OP).await?;
        server.usable(OP)?;
        if !self.shared.config.accept_weaker_ack {
            server.demand_durable(OP).map_err(|e| now_unavailable(&e).at(&self.shared.config.url))?;
        }
        topics::describe(OP, &session, &self.shared.keys, topic).await.map(drop)
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

impl RedisPublisher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let budget = Arc::new(Budget::new(shared.config.publish.max_buffered_bytes));
        Self { session: Arc::new(Session { shared, budget, topics: RwLock::default() }) }
    }
}

/// Only a task that was torn down with its runtime leaves a record unanswered.
fn gone() -> Error {
    Error::new(ErrorKind::Closed, OP, "the publisher's task has ended").with_effect(Effect::Unknown)
}

impl EventBusPublisher for RedisPublisher {
    fn capabilities(&self) -> &Capabilities {
        &self.session.shared.capabilities
    }

    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>> {
        match self.session.publish(topic, record) {
            Ok(answered) => Box::pin(async move { answered.await.unwrap_or_else(|_| Err(gone())) }),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Publishes several records. Those of one partition may travel in several groups, each with its own outcome.
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

    /// Asks the server for its settings and for the topic.
    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>> {
        let (session, topic) = (self.session.clone(), topic.clone());
        Box::pin(async move { session.probe(&topic).await })
    }

    /// Takes [`give_up_after`](PublishConfig::give_up_after) and an answer's timeout at most.
    fn close(&self) -> BoxFuture<'static, Result<()>> {
        let doors = self.session.begin_close();
        Box::pin(async move {
            let mut outcome = Ok(());
            for door in doors {
                outcome = outcome.and(door.ended().await);
            }
            outcome
        })
    }
}
