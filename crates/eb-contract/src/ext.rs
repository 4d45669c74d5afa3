//! Conveniences over the traits. Nobody implements these.

use futures_core::Stream;
use futures_util::stream;

use crate::{
    BoxFuture, Cursor, EventBusReader, PartitionId, ReadBatch, ReadLimit, ReadState, Record, Result, StartAt,
    Topic, TopicTail,
};

/// Conveniences of every reader.
pub trait EventBusReaderExt: EventBusReader {
    /// Reads one batch of at most `max_records` from `from`, without waiting. Empty stretches of a sparse stream are passed over: a batch
    /// without records means that the head, or the partition's end, was reached. For a loop keep a cursor instead.
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
            loop {
                let batch = cursor.next(ReadLimit::records(max_records)).await?;
                if !batch.records.is_empty() || batch.state != ReadState::More {
                    return Ok(batch);
                }
            }
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use futures_util::future::ready;

    use super::*;
    use crate::{
        Capabilities, Cut, EbRef, EnvelopeRef, Head, Offset, OffsetKind, PartitionKey, Timestamp,
        TopicPartitions,
    };

    /// A sparse stream with one record behind two empty stretches.
    struct Sparse(Capabilities);

    struct Stretches {
        topic: Topic,
        left: VecDeque<ReadBatch>,
    }

    fn batch(records: Vec<Record>, state: ReadState) -> ReadBatch {
        ReadBatch { records, next: Cut::Begin, state }
    }

    fn record(topic: &Topic) -> Record {
        let offset = Offset::from_u64(OffsetKind::KinesisSequence, 7);
        let at = Timestamp::EPOCH;
        Record {
            eb_ref: EbRef {
                topic: topic.clone(),
                partition_id: PartitionId(0),
                offset,
                published_at_utc: at,
            },
            partition_key: PartitionKey::new("k").unwrap(),
            envelope: EnvelopeRef::new("{}").unwrap(),
        }
    }

    impl Cursor for Stretches {
        fn topic(&self) -> &Topic {
            &self.topic
        }

        fn partition_id(&self) -> PartitionId {
            PartitionId(0)
        }

        fn position(&self) -> Cut {
            Cut::Begin
        }

        fn next(&mut self, _: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
            let next = self.left.pop_front().unwrap_or_else(|| batch(Vec::new(), ReadState::CaughtUp));
            ready(Ok(next)).boxed()
        }
    }

    impl EventBusReader for Sparse {
        fn capabilities(&self) -> &Capabilities {
            &self.0
        }

        fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
            ready(Ok(Vec::new())).boxed()
        }

        fn partitions<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
            unreachable!("not asked for")
        }

        fn head<'a>(&'a self, _: &'a Topic, _: PartitionId) -> BoxFuture<'a, Result<Head>> {
            unreachable!("not asked for")
        }

        fn cursor<'a>(
            &'a self,
            topic: &'a Topic,
            _: PartitionId,
            start: StartAt,
        ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
            let empty = || batch(Vec::new(), ReadState::More);
            let left = match start {
                StartAt::Latest => VecDeque::new(),
                _ => [empty(), empty(), batch(vec![record(topic)], ReadState::More)].into(),
            };
            let cursor: Box<dyn Cursor> = Box::new(Stretches { topic: topic.clone(), left });
            ready(Ok(cursor)).boxed()
        }

        fn close(&self) -> BoxFuture<'static, Result<()>> {
            ready(Ok(())).boxed()
        }
    }

    #[test]
    fn an_empty_stretch_of_a_sparse_stream_does_not_read_as_nothing_there() {
        let reader = Sparse(Capabilities::new("sparse", OffsetKind::KinesisSequence));
        let topic = Topic::new("t").unwrap();
        let read = |from| reader.read(&topic, PartitionId(0), from, 1).now_or_never().unwrap().unwrap();
        assert_eq!(read(StartAt::Earliest).records, [record(&topic)]);
        let at_the_head = read(StartAt::Latest);
        assert_eq!((at_the_head.records.len(), at_the_head.state), (0, ReadState::CaughtUp));
    }
}
