//! Following all partitions of a topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::{
    BoxFuture, Cursor, Cut, EventBusReader, PartitionId, ReadBatch, ReadLimit, ReadState, Result, StartAt,
    Topic,
};

/// Reads all partitions of a topic side by side, and through resharding each child only after all of its parents
/// have been read to their end: from its beginning, or, where the tail starts from a time and the child was there
/// already, from that time, too.
///
/// Batches of different partitions come in no particular order among each other; within a partition in order.
/// A batch is tied to its partition by the returned [`PartitionId`].
pub struct TopicTail<'a, R: EventBusReader + ?Sized> {
    reader: &'a R,
    topic: &'a Topic,
    limit: ReadLimit,
    /// One pending read per open cursor. A partition's cursor lives inside its future, so that dropping
    /// [`TopicTail::next`] half-way loses nothing.
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    /// Cursors whose next read is not under way yet.
    idle: VecDeque<Box<dyn Cursor>>,
    ended: BTreeSet<PartitionId>,
    /// Children seen whose parents are not all read to their end, with those parents.
    waiting: BTreeMap<PartitionId, Vec<PartitionId>>,
    /// Where those of them start that were there when the tail was opened from a time. Opened then and there, since a time
    /// past the head means the head as it is at that moment.
    placed: BTreeMap<PartitionId, Box<dyn Cursor>>,
}

type Read = (Box<dyn Cursor>, Result<ReadBatch>);

impl<'a, R: EventBusReader + ?Sized> TopicTail<'a, R> {
    pub(crate) async fn open(
        reader: &'a R,
        topic: &'a Topic,
        start: StartAt,
        limit: ReadLimit,
    ) -> Result<TopicTail<'a, R>> {
        let known = reader.partitions(topic).await?.partitions;
        let mut tail = Self {
            reader,
            topic,
            limit,
            reads: FuturesUnordered::new(),
            idle: VecDeque::new(),
            ended: BTreeSet::new(),
            waiting: BTreeMap::new(),
            placed: BTreeMap::new(),
        };
        let ids: BTreeSet<_> = known.iter().map(|p| p.id).collect();
        for partition in &known {
            let parents: Vec<_> = partition.parents.iter().copied().filter(|p| ids.contains(p)).collect();
            let from_now = matches!(start, StartAt::Latest);
            if from_now && partition.closed {
                tail.ended.insert(partition.id);
            } else if parents.is_empty() || from_now {
                let cursor = reader.cursor(topic, partition.id, start).await?;
                tail.idle.push_back(cursor);
            } else {
                if matches!(start, StartAt::Timestamp(_)) {
                    tail.placed.insert(partition.id, reader.cursor(topic, partition.id, start).await?);
                }
                tail.waiting.insert(partition.id, parents);
            }
        }
        Ok(tail)
    }

    /// The next batch of any partition; `None` when all are closed and read to their end. With a `wait` in the
    /// limit an empty batch comes from a partition that had nothing in that time; without one, from each that is
    /// caught up: the caller decides when it has seen enough.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`Cursor::next`]. The partition that failed is read again at the next call.
    pub async fn next(&mut self) -> Option<Result<(PartitionId, ReadBatch)>> {
        loop {
            if let Err(e) = self.start_children().await {
                return Some(Err(e));
            }
            while let Some(mut cursor) = self.idle.pop_front() {
                let limit = self.limit;
                self.reads.push(Box::pin(async move {
                    let read = cursor.next(limit).await;
                    (cursor, read)
                }));
            }
            let (cursor, read) = match self.reads.next().await {
                Some(read) => read,
                None if self.waiting.is_empty() => return None,
                None => {
                    // Parents that the listing named but that were never read (they expired meanwhile) hold nobody up.
                    let all: Vec<_> = self.waiting.values().flatten().copied().collect();
                    self.ended.extend(all);
                    continue;
                }
            };
            let partition = cursor.partition_id();
            let batch = match read {
                Ok(batch) => batch,
                Err(e) => {
                    self.idle.push_back(cursor);
                    return Some(Err(e));
                }
            };
            if let ReadState::Closed { children } = &batch.state {
                self.ended.insert(partition);
                for child in children {
                    if !self.ended.contains(child) {
                        self.waiting.entry(*child).or_default().push(partition);
                    }
                }
            } else {
                self.idle.push_back(cursor);
            }
            return Some(Ok((partition, batch)));
        }
    }

    /// Opens the children whose parents are all at their end.
    async fn start_children(&mut self) -> Result<()> {
        let ready: Vec<_> = self.waiting.keys().copied().filter(|child| self.may_start(*child)).collect();
        if ready.is_empty() {
            return Ok(());
        }
        // A merged child is announced by each of its parents: ask who they are before starting it.
        let listed = self.reader.partitions(self.topic).await?.partitions;
        for child in ready {
            let info = listed.iter().find(|p| p.id == child);
            let open_parents: Vec<_> = info
                .map(|p| p.parents.clone())
                .unwrap_or_default()
                .into_iter()
                .filter(|p| !self.ended.contains(p) && listed.iter().any(|l| l.id == *p))
                .collect();
            if open_parents.is_empty() {
                let cursor = match self.placed.remove(&child) {
                    Some(cursor) => cursor,
                    None => self.reader.cursor(self.topic, child, StartAt::Cut(Cut::Begin)).await?,
                };
                self.waiting.remove(&child);
                self.idle.push_back(cursor);
            } else {
                self.waiting.insert(child, open_parents);
            }
        }
        Ok(())
    }

    fn may_start(&self, child: PartitionId) -> bool {
        self.waiting.get(&child).is_some_and(|parents| parents.iter().all(|p| self.ended.contains(p)))
    }
}
