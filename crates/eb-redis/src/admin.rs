//! Making and trimming topics.

use std::sync::Arc;

use eb_contract::{
    BoxFuture, Cut, Error, ErrorKind, EventBusAdmin, Offset, OffsetKind, PartitionId, Result, Topic,
};
use redis::Cmd;
use uuid::Uuid;

use crate::bus::Shared;
use crate::{error, reply, topics};

const CREATE: &str = "create_topic";
const TRIM: &str = "trim";

/// The most partitions of a topic: one call makes all of their streams at once.
const MAX_PARTITIONS: u32 = 4096;

/// Makes and trims topics.
pub struct RedisAdmin {
    shared: Arc<Shared>,
}

impl RedisAdmin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn create(&self, topic: &Topic, partitions: u32) -> Result<()> {
        if partitions == 0 || partitions > MAX_PARTITIONS {
            let message = format!("{partitions} partitions asked for, it must be 1 to {MAX_PARTITIONS}");
            return Err(Error::new(ErrorKind::InvalidInput, CREATE, message).at(topic));
        }
        let keys = &self.shared.keys;
        let session = self.shared.writes.session(CREATE).await?;
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg(&session.scripts.create).arg(2 + partitions);
        cmd.arg(keys.topics()).arg(keys.topic(topic));
        for n in 0..partitions {
            cmd.arg(keys.stream(topic, PartitionId(n)));
        }
        cmd.arg(topic.as_str()).arg(partitions).arg(format!("redis-{}", Uuid::new_v4().simple()));
        let answer = session.script(CREATE, &cmd).await.map_err(|e| e.at(topic))?;
        let mut words = reply::array(CREATE, answer).map_err(|e| e.at(topic))?.into_iter();
        let mut word = || words.next().map_or(Ok(String::new()), |word| reply::text(CREATE, word));
        let (said, what) = (word()?, word()?);
        match said.as_str() {
            "ok" => Ok(()),
            "exists" => {
                let message = format!("it exists with {what} partitions, not {partitions}");
                Err(Error::new(ErrorKind::AlreadyExists, CREATE, message)
                    .at(topic)
                    .advise("a topic keeps the number it was made with"))
            }
            "missing" => {
                Err(error::facts_missing(CREATE, format!("the topic is there, its stream {what} is gone"))
                    .at(topic))
            }
            "stray" => {
                let message = format!("the stream {what} has entries, and there is no such topic");
                Err(Error::new(ErrorKind::AlreadyExists, CREATE, message)
                    .at(topic)
                    .advise("move or delete it, or use another prefix"))
            }
            other => Err(error::violation(CREATE, format!("the script answered {other:?}")).at(topic)),
        }
    }

    /// Deletes the records of a partition that lie before a cut, durably, and tells readers up to where: a reader below
    /// is out of range, exactly. Returns how many went.
    ///
    /// Dropping the future leaves it done or not done.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for a cut of another kind. Where the outcome is unknown, trimming again is fine.
    pub async fn trim(&self, topic: &Topic, partition: PartitionId, before: &Cut) -> Result<u64> {
        let place = error::place(topic, partition);
        let kind = before.offset_kind().unwrap_or(OffsetKind::RedisStreamId);
        let id = match before {
            _ if kind != OffsetKind::RedisStreamId => None,
            Cut::Begin => return Ok(0),
            Cut::Next(id) => Some(*id),
            Cut::After(id) => successor(id),
            Cut::End => None,
        };
        let id = id.ok_or_else(|| {
            let message = format!("the cut `{before}` is no place in a stream of Redis");
            Error::new(ErrorKind::InvalidInput, TRIM, message).at(&place)
        })?;
        let keys = &self.shared.keys;
        let session = self.shared.writes.session(TRIM).await?;
        let described = topics::describe(TRIM, &session, keys, topic).await?;
        described.has(TRIM, topic, partition)?;
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg(&session.scripts.trim).arg(2);
        cmd.arg(keys.stream(topic, partition)).arg(keys.topic(topic));
        cmd.arg(described.incarnation.as_str()).arg(id.to_string()).arg(partition.0);
        let answer = session.script(TRIM, &cmd).await.map_err(|e| e.at(&place))?;
        let [said, count] = reply::items(TRIM, answer).map_err(|e| e.at(&place))?;
        match reply::text(TRIM, said)?.as_str() {
            "ok" => reply::number(TRIM, count),
            _ => Err(error::facts_missing(TRIM, "the topic was deleted and made anew").at(&place)),
        }
    }
}

fn successor(id: &Offset) -> Option<Offset> {
    let (ms, seq) = id.as_redis()?;
    match seq.checked_add(1) {
        Some(seq) => Some(Offset::redis(ms, seq)),
        None => ms.checked_add(1).map(|ms| Offset::redis(ms, 0)),
    }
}

impl EventBusAdmin for RedisAdmin {
    /// Makes a topic by one script, which is applied whole or not at all: 1 to 4,096 partitions.
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.create(topic, partitions))
    }
}
