//! A log, read from checkpoints.

use std::sync::Arc;

use eb_contract::{
    BoxFuture, Cursor, Cut, EventBusReader, PartitionId, ReadBatch, ReadLimit, Result, StartAt, Topic,
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
            Ok(Opened { feed: Box::new(LogFeed(cursor)), tell: None })
        })
    }
}

struct LogFeed(Box<dyn Cursor>);

impl Feed for LogFeed {
    fn position(&self) -> Cut {
        self.0.position()
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        self.0.next(limit)
    }
}
