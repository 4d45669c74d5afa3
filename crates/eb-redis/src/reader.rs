//! The reading side; the crate's documentation tells under *Reading* what it promises.

mod cursor;
mod moment;
mod waits;

use std::fmt;
use std::sync::Arc;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, EventBusReader, Head, PartitionId, PartitionInfo, Result, StartAt,
    Topic, TopicPartitions,
};
use tokio::sync::watch;

use self::cursor::RedisCursor;
pub(crate) use self::moment::{Stream, wait_start};
pub(crate) use self::waits::Waits;
use crate::bus::Shared;
use crate::topics;
use crate::{error, reply};

/// Reads from a bus on Redis; see [`RedisBus::reader`](crate::RedisBus::reader). Dropping its futures, and those of its
/// cursors, changes nothing.
pub struct RedisReader {
    life: Arc<Life>,
}

impl fmt::Debug for RedisReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReader").finish_non_exhaustive()
    }
}

/// The life of a reader, shared with its cursors.
struct Life {
    shared: Arc<Shared>,
    waits: Waits,
    closed: watch::Sender<bool>,
}

impl Life {
    /// Does `work` unless the reader is closed, or until it is.
    async fn unless_closed<T>(&self, op: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as `self`, so this comes only with the closing.
            _ = closed.wait_for(|closed| *closed) => Err(error::closed(op)),
            done = work => done,
        }
    }
}

impl RedisReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let waits = Waits::new(&shared.config.read);
        Self { life: Arc::new(Life { shared, waits, closed: watch::Sender::new(false) }) }
    }

    /// The stream of a partition that is there.
    async fn stream(&self, op: &'static str, topic: &Topic, partition: PartitionId) -> Result<Stream> {
        let shared = &self.life.shared;
        let session = shared.reads.session(op).await?;
        let described = topics::describe(op, &session, &shared.keys, topic).await?;
        described.has(op, topic, partition)?;
        Ok(Stream::new(shared, topic, partition, described.incarnation))
    }
}

impl EventBusReader for RedisReader {
    fn capabilities(&self) -> &Capabilities {
        &self.life.shared.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        const OP: &str = "topics";
        let shared = &self.life.shared;
        Box::pin(self.life.unless_closed(OP, async {
            topics::list(OP, &*shared.reads.session(OP).await?, &shared.keys).await
        }))
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        const OP: &str = "partitions";
        let shared = &self.life.shared;
        Box::pin(self.life.unless_closed(OP, async move {
            let session = shared.reads.session(OP).await?;
            let described = topics::describe(OP, &session, &shared.keys, topic).await?;
            let info = |n| {
                let id = PartitionId(n);
                PartitionInfo { native_id: Some(shared.keys.stream(topic, id)), ..PartitionInfo::open(id) }
            };
            let partitions = (0..described.partitions).map(info).collect();
            Ok(TopicPartitions { incarnation: described.incarnation, partitions })
        }))
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        const OP: &str = "head";
        Box::pin(self.life.unless_closed(OP, async move {
            let stream = self.stream(OP, topic, partition).await?;
            let info = stream.look(OP, None).await?.0.stream;
            Ok(Head {
                cut: moment::head_cut(&info),
                last: info.last,
                last_published_at: info.last.map(|id| reply::time_of(&id)),
            })
        }))
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        const OP: &str = "cursor";
        Box::pin(self.life.unless_closed(OP, async move {
            let stream = self.stream(OP, topic, partition).await?;
            let position: Cut = stream.resolve(OP, start).await?;
            Ok(Box::new(RedisCursor::new(self.life.clone(), stream, position)) as Box<dyn Cursor>)
        }))
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.life.closed.send_replace(true);
        self.life.waits.close();
        Box::pin(std::future::ready(Ok(())))
    }
}
