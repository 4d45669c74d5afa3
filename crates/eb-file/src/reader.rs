//! The reading handle: what topics there are, how far they go, and cursors.

use std::fmt;
use std::sync::Arc;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, Error, ErrorKind, EventBusReader, Head, Offset, OffsetKind,
    PartitionId, PartitionInfo, Result, StartAt, Topic, TopicPartitions,
};

use crate::block::BlockPool;
use crate::bus::{BusShared, TopicState};
use crate::closing::Closing;
use crate::cursor::{FileCursor, Opened};
use crate::horizon::{View, Watched, fault_error};
use crate::offload::offload;
use crate::seek::Seek;

/// Reads a file bus; see [`FileBus::reader`](crate::FileBus::reader).
///
/// Reads run beside a writer, in this process or another: they see what is synced, and nothing else. Nothing is locked, but for the moment in which
/// the first reader after a writer's death makes that writer's last lines durable.
///
/// Works on any runtime: what may wait for the disk runs on the bus's own I/O threads, and what is in the page cache already is read in place.
pub struct FileReader {
    shared: Arc<BusShared>,
    closing: Arc<Closing>,
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader").field("root", &self.shared.layout.root()).finish_non_exhaustive()
    }
}

impl FileReader {
    pub(crate) fn new(shared: Arc<BusShared>) -> Self {
        Self { shared, closing: Arc::default() }
    }

    async fn topic(&self, op: &'static str, topic: &Topic) -> Result<Arc<TopicState>> {
        self.closing.check(op)?;
        if let Some(known) = self.shared.known_topic(topic) {
            return Ok(known);
        }
        let (shared, topic) = (self.shared.clone(), topic.clone());
        offload(op, move || shared.topic(op, &topic)).await
    }

    async fn look(&self, op: &'static str, topic: &Topic, partition: PartitionId) -> Result<(Watched, View)> {
        let state = self.topic(op, topic).await?;
        let partition = state.partition(op, partition)?.clone();
        let watched = Watched { shared: self.shared.clone(), meta: state.meta.clone(), partition };
        let view = match watched.look_ready(op)? {
            Some(view) => view,
            None => {
                let watched = watched.clone();
                offload(op, move || watched.look(op)).await?
            }
        };
        self.closing.check(op)?;
        Ok((watched, view))
    }

    async fn open_cursor(
        &self,
        topic: &Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> Result<Box<dyn Cursor>> {
        const OP: &str = "cursor";
        if let Some(cut) = &start.cut() {
            self.closing.check(OP)?;
            check_cut(topic, partition, cut)?;
        }
        let (watched, view) = self.look(OP, topic, partition).await?;
        let end = view.1.end;
        let pool = Arc::new(BlockPool::default());
        let opened =
            |view, cut, next, byte, block| Opened { view, cut, next, byte, block, pool: pool.clone() };
        let at_end = |view| opened(view, next_cut(end.next), end.next, Some(end.bytes), None);
        let opened = match start {
            StartAt::Earliest
            | StartAt::Cut(Cut::Begin | Cut::End)
            | StartAt::Resume { cut: Cut::Begin | Cut::End, .. } => {
                opened(view, Cut::Begin, 0, Some(0), None)
            }
            StartAt::Latest => {
                whole(OP, &watched, &view)?;
                at_end(view)
            }
            StartAt::Timestamp(time) => {
                whole(OP, &watched, &view)?;
                if end.last_time.is_none_or(|last| last < time) {
                    at_end(view)
                } else {
                    let seek = Seek { watched: watched.clone(), view: view.clone(), pool: pool.clone() };
                    match seek.run(OP, move |seeker| seeker.time(time)).await? {
                        Some(found) => {
                            let start = found.start;
                            opened(
                                view,
                                next_cut(start.offset),
                                start.offset,
                                Some(start.byte),
                                Some(found.block),
                            )
                        }
                        None => at_end(view),
                    }
                }
            }
            // No record of a file log expires, so when the consumer was at the head says nothing new.
            StartAt::Cut(cut @ (Cut::Next(offset) | Cut::After(offset)))
            | StartAt::Resume { cut: cut @ (Cut::Next(offset) | Cut::After(offset)), .. } => {
                let next = offset.as_u64().unwrap_or_default() + u64::from(matches!(cut, Cut::After(_)));
                // A line behind the end is looked for once it is there, any other at the first read.
                let byte = match next {
                    0 => Some(0),
                    n if n == end.next => Some(end.bytes),
                    _ => None,
                };
                opened(view, next_cut(next), next, byte, None)
            }
        };
        Ok(Box::new(FileCursor::new(watched, self.closing.clone(), opened)))
    }
}

impl EventBusReader for FileReader {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        Box::pin(async {
            self.closing.check("topics")?;
            let shared = self.shared.clone();
            offload("topics", move || shared.layout.topics(&*shared.disk)).await
        })
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        Box::pin(async {
            let state = self.topic("partitions", topic).await?;
            let partitions =
                (0..state.meta.partitions).map(|n| PartitionInfo::open(PartitionId(n))).collect();
            Ok(TopicPartitions { incarnation: state.incarnation.clone(), partitions })
        })
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        Box::pin(async move {
            let (watched, view) = self.look("head", topic, partition).await?;
            whole("head", &watched, &view)?;
            let end = view.1.end;
            let last = end.next.checked_sub(1).map(offset);
            Ok(Head { cut: next_cut(end.next), last, last_published_at: end.last_time })
        })
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(self.open_cursor(topic, partition, start))
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.closing.close();
        Box::pin(std::future::ready(Ok(())))
    }
}

fn offset(n: u64) -> Offset {
    Offset::from_u64(OffsetKind::FileLine, n)
}

fn next_cut(n: u64) -> Cut {
    Cut::Next(offset(n))
}

/// Refuses what depends on the end of a log that cannot be read to its end.
fn whole(op: &'static str, watched: &Watched, view: &View) -> Result<()> {
    match &view.1.fault {
        Some(fault) => Err(fault_error(op, &watched.partition.files.log, fault)),
        None => Ok(()),
    }
}

fn check_cut(topic: &Topic, partition: PartitionId, cut: &Cut) -> Result<()> {
    let what = match (cut, cut.offset_kind()) {
        (Cut::End, _) => "a file partition stays open and has no end".to_owned(),
        (_, Some(kind)) if kind != OffsetKind::FileLine => {
            format!("the cut is of kind {kind}, this bus's offsets are of kind {}", OffsetKind::FileLine)
        }
        (Cut::After(last), _) if last.successor().is_none() => format!("no record can come after {last}"),
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidInput, "cursor", what).at(format_args!("{topic}/{partition}")))
}
