//! The reading side. The crate's docs say how; a file here does one part of it.
//!
//! | file | holds |
//! |---|---|
//! | `cursor.rs` | the cursor: what was fetched and not handed out yet |
//! | `open.rs` | a start resolved to a place |
//! | `fetch.rs` | reading on from a place, with or without proof that nothing has expired in between |
//! | `head.rs` | where a shard ends |
//! | `shard.rs` | the calls, paced and tried again |
//! | `page.rs` | what a call brought |
//! | `pace.rs` | calls and bytes a second |
//! | `layouts.rs`, `reads.rs` | what all readers of a bus remember |
//! | `task.rs` | calls in tasks of their own |

mod cursor;
mod fetch;
mod head;
mod layouts;
mod open;
mod pace;
mod page;
mod reads;
mod shard;
mod task;

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, Error, ErrorKind, EventBusReader, Head, PartitionId, Result,
    StartAt, Timestamp, Topic, TopicPartitions,
};
use futures_util::FutureExt;
use tokio::sync::watch;

pub(crate) use self::reads::Reads;

use crate::bus::Shared;
use crate::error;
use crate::reader::cursor::KinesisCursor;
use crate::reader::shard::Shard;
use crate::reader::task::Task;
use crate::shards::Layout;

/// Reads from a [`KinesisBus`](crate::KinesisBus). Its futures must be polled on a tokio runtime with its clock enabled;
/// dropping them changes nothing.
pub struct KinesisReader {
    shared: Arc<Shared>,
    closed: watch::Sender<bool>,
}

impl KinesisReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, closed: watch::Sender::new(false) }
    }

    /// Runs a call unless the reader is closed, or until it is.
    async fn open<T, F>(&self, op: &'static str, call: impl FnOnce(Calls) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut closed = self.closed.subscribe();
        if *closed.borrow() {
            return Err(error::closed(op));
        }
        let mut task = Task::start(call(Calls { shared: self.shared.clone(), closed: closed.clone() }));
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(error::closed(op)),
            answer = task.answer(op) => answer,
        }
    }
}

/// The calls of a reader.
pub(crate) struct Calls {
    shared: Arc<Shared>,
    closed: watch::Receiver<bool>,
}

impl Calls {
    #[cfg(test)]
    pub(crate) fn of(reader: &KinesisReader) -> Self {
        Self { shared: reader.shared.clone(), closed: reader.closed.subscribe() }
    }

    async fn layout(&self, op: &'static str, topic: &Topic, max_age: Duration) -> Result<Arc<Layout>> {
        let stream = self.shared.config.streams.stream_of(topic);
        self.shared.reads.layouts.get(&self.shared.client, op, topic, &stream, max_age).await
    }

    async fn list_topics(&self) -> Result<Vec<Topic>> {
        const OP: &str = "topics";
        let mut topics = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let request = self.shared.client.list_streams().set_next_token(token.take());
            let page = request.send().await.map_err(|e| error::reading(OP, "the account", &e))?;
            topics.extend(page.stream_names().iter().filter_map(|s| self.shared.config.streams.topic_of(s)));
            token = page.next_token().filter(|t| !t.is_empty()).map(str::to_owned);
            if token.is_none() {
                if page.has_more_streams() {
                    let message = "there are more streams, and no token to ask for them";
                    return Err(error::violation(OP, "the account", message));
                }
                break;
            }
        }
        topics.sort();
        topics.dedup();
        Ok(topics)
    }

    async fn describe(&self, topic: &Topic) -> Result<TopicPartitions> {
        Ok(self.layout("partitions", topic, Duration::ZERO).await?.describe())
    }

    /// The shard, with the layout that has it.
    async fn shard(
        &self,
        op: &'static str,
        topic: &Topic,
        partition: PartitionId,
    ) -> Result<(Arc<Shard>, Arc<Layout>)> {
        let mut layout = self.layout(op, topic, self.shared.config.read.shards_fresh_for).await?;
        if layout.shard(partition).is_none() {
            layout = self.layout(op, topic, Duration::ZERO).await?;
        }
        let Some(info) = layout.shard(partition) else {
            let message = "the stream has no such shard, or its records have all expired";
            return Err(Error::new(ErrorKind::NotFound, op, message).at(format_args!("{topic}/{partition}")));
        };
        let shard = Shard {
            shared: self.shared.clone(),
            topic: topic.clone(),
            stream: self.shared.config.streams.stream_of(topic),
            partition,
            shard_id: info.shard_id.clone(),
            parents: info.parents.clone(),
            life: layout.incarnation.clone(),
            created: layout.created,
            reads: self.shared.reads.shard(&self.shared.config.read, topic, partition),
        };
        Ok((Arc::new(shard), layout))
    }

    async fn find_head(&self, topic: &Topic, partition: PartitionId) -> Result<Head> {
        let (shard, layout) = self.shard("head", topic, partition).await?;
        let found = head::find(&shard).await?;
        // A record that has expired is none any more; the cut behind it stays.
        let now = Timestamp::now();
        let there = found.arrived.is_some_and(|at| now.saturating_since(at) < layout.retention);
        Ok(Head {
            cut: found.cut,
            last: found.cut.offset().copied().filter(|_| there),
            last_published_at: found.arrived.filter(|_| there),
        })
    }

    async fn make_cursor(
        &self,
        topic: &Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> Result<Box<dyn Cursor>> {
        let (shard, _) = self.shard("cursor", topic, partition).await?;
        let closed = self.closed.clone();
        if !matches!(start.cut(), Some(Cut::End)) {
            let opened = open::open(&shard, start).await?;
            return Ok(Box::new(KinesisCursor::new(shard, closed, opened)));
        }
        let layout = self.layout("cursor", topic, Duration::ZERO).await?;
        if !layout.shard(partition).is_some_and(|s| s.closed) {
            return Err(open::invalid(&shard, "the partition is open and has no end yet"));
        }
        let children = shard.children().await?;
        Ok(Box::new(KinesisCursor::at_end(shard, closed, children)))
    }
}

impl EventBusReader for KinesisReader {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.open("topics", |calls| async move { calls.list_topics().await }).boxed()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        let of = topic.clone();
        self.open("partitions", |calls| async move { calls.describe(&of).await }).boxed()
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        let of = topic.clone();
        self.open("head", move |calls| async move { calls.find_head(&of, partition).await }).boxed()
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        let of = topic.clone();
        self.open("cursor", move |calls| async move { calls.make_cursor(&of, partition, start).await })
            .boxed()
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.send_replace(true);
        std::future::ready(Ok(())).boxed()
    }
}
