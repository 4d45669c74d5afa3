//! A log, read from checkpoints.

use std::sync::Arc;

use eb_contract::{
    BoxFuture, Cursor, Cut, EventBusReader, PartitionId, ReadBatch, ReadLimit, ReadState, Result, StartAt,
    Timestamp, Topic,
};

use super::{Feed, Opened, Source};

pub(crate) struct LogSource {
    reader: Arc<dyn EventBusReader>,
}

impl LogSource {
    pub(crate) fn new(reader: Arc<dyn EventBusReader>) -> Self {
        Self { reader }
    }
}

impl Source for LogSource {
    fn reader(&self) -> &Arc<dyn EventBusReader> {
        &self.reader
    }

    fn open<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        _owner: &'a str,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Opened>> {
        Box::pin(async move {
            let cursor = self.reader.cursor(topic, partition, start).await?;
            let caught_up_at = match start {
                StartAt::Resume { caught_up_at, .. } => Some(caught_up_at),
                _ => None,
            };
            let feed = LogFeed {
                reader: Arc::clone(&self.reader),
                topic: topic.clone(),
                partition,
                cursor,
                caught_up_at,
            };
            Ok(Opened { feed: Box::new(feed), tell: None })
        })
    }
}

struct LogFeed {
    reader: Arc<dyn EventBusReader>,
    topic: Topic,
    partition: PartitionId,
    cursor: Box<dyn Cursor>,
    /// When nothing lay behind the cursor's position, if that is known.
    caught_up_at: Option<Timestamp>,
}

impl Feed for LogFeed {
    fn position(&self) -> Cut {
        self.cursor.position()
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        Box::pin(async move {
            let asked = Timestamp::now();
            let read = self.cursor.next(limit).await?;
            if read.state == ReadState::CaughtUp {
                self.caught_up_at = Some(asked);
            } else if !read.records.is_empty() {
                self.caught_up_at = None;
            }
            Ok(read)
        })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let cut = self.cursor.position();
            let start = self
                .caught_up_at
                .map_or(StartAt::Cut(cut), |caught_up_at| StartAt::Resume { cut, caught_up_at });
            self.cursor = self.reader.cursor(&self.topic, self.partition, start).await?;
            Ok(())
        })
    }
}
