//! Conveniences over the traits. Nobody implements these.

use futures_core::Stream;
use futures_util::stream;

use crate::{
    BoxFuture, Cursor, EventBusReader, PartitionId, ReadBatch, ReadLimit, ReadState, Record, Result, StartAt,
    Topic, TopicTail,
};

/// Conveniences of every reader.
pub trait EventBusReaderExt: EventBusReader {
    /// Reads one batch of at most `max_records` from `from`, without waiting. For a loop keep a cursor instead.
    ///
    /// # Errors
    /// As [`EventBusReader::cursor`] and [`Cursor::next`].
    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        from: StartAt,
        max_records: usize,
    ) -> BoxFuture<'a, Result<ReadBatch>> {
        Box::pin(async move {
            let mut cursor = self.cursor(topic, partition, from).await?;
            cursor.next(ReadLimit::records(max_records)).await
        })
    }

    /// Reads everything from `from` to the head as it is when it is reached.
    ///
    /// The whole stretch is held in memory: for inspection and tests.
    ///
    /// # Errors
    /// As [`EventBusReader::cursor`] and [`Cursor::next`].
    fn read_to_head<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        from: StartAt,
    ) -> BoxFuture<'a, Result<Vec<Record>>> {
        Box::pin(async move {
            let mut cursor = self.cursor(topic, partition, from).await?;
            let mut all = Vec::new();
            loop {
                let batch = cursor.next(ReadLimit::default()).await?;
                all.extend(batch.records);
                if batch.state != ReadState::More {
                    return Ok(all);
                }
            }
        })
    }

    /// Follows one partition as a stream of batches that waits at the head (up to `limit.wait` a turn, yielding an
    /// empty batch then, so that a consumer can do its housekeeping) and ends when the partition is closed.
    ///
    /// # Errors
    /// As [`EventBusReader::cursor`]; the stream's items as [`Cursor::next`], after which it ends.
    fn tail<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<stream::BoxStream<'static, Result<ReadBatch>>>> {
        Box::pin(async move {
            let cursor = self.cursor(topic, partition, start).await?;
            let stream: std::pin::Pin<Box<dyn Stream<Item = Result<ReadBatch>> + Send>> =
                Box::pin(stream::unfold(Some(cursor), move |cursor| follow(cursor, limit)));
            Ok(stream)
        })
    }

    /// Follows all partitions of a topic, parents before children through resharding.
    ///
    /// # Errors
    /// As [`EventBusReader::partitions`] and [`EventBusReader::cursor`].
    fn tail_topic<'a>(
        &'a self,
        topic: &'a Topic,
        start: StartAt,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<TopicTail<'a, Self>>> {
        Box::pin(TopicTail::open(self, topic, start, limit))
    }
}

impl<R: EventBusReader + ?Sized> EventBusReaderExt for R {}

type FollowState = Option<Box<dyn Cursor>>;

async fn follow(cursor: FollowState, limit: ReadLimit) -> Option<(Result<ReadBatch>, FollowState)> {
    let mut cursor = cursor?;
    match cursor.next(limit).await {
        Ok(batch) => {
            let ended = matches!(batch.state, ReadState::Closed { .. });
            Some((Ok(batch), (!ended).then_some(cursor)))
        }
        Err(e) => Some((Err(e), None)),
    }
}
