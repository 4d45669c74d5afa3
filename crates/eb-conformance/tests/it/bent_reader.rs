//! The broken reader.

use std::sync::Arc;

use eb_contract::{
    BoxFuture, Capabilities, Cursor, Cut, ErrorKind, EventBusReader, EventBusReaderExt, Head, Offset,
    PartitionId, Result, StartAt, Timestamp, Topic, TopicPartitions,
};
use eb_memory::{MemoryBus, MemoryReader};

use crate::bent_bus::Bend;
use crate::bent_cursor::BentCursor;

pub(crate) struct BentReader {
    bend: Bend,
    capabilities: Capabilities,
    bus: MemoryBus,
    inner: Arc<MemoryReader>,
}

impl BentReader {
    pub(crate) fn new(bend: Bend, capabilities: Capabilities, bus: MemoryBus) -> Self {
        Self { bend, capabilities, inner: Arc::new(bus.reader()), bus }
    }

    /// The start that is used instead of the one asked for.
    async fn bend_start(&self, topic: &Topic, partition: PartitionId, start: StartAt) -> StartAt {
        let moved = |o: Option<Offset>| o.map_or(start, |o| StartAt::Cut(Cut::Next(o)));
        match (self.bend, start) {
            (Bend::ResumeSkipsOne, StartAt::Cut(Cut::Next(o))) => moved(o.successor()),
            (Bend::ResumeRepeatsOne, StartAt::Cut(Cut::Next(o))) => moved(o.predecessor()),
            (Bend::AfterRedelivers, StartAt::Cut(Cut::After(o))) => StartAt::Cut(Cut::Next(o)),
            (Bend::ComparesOffsetsAsText, StartAt::Cut(Cut::Next(o))) => {
                let all = self.bus.reader().read_to_head(topic, partition, StartAt::Earliest).await;
                let first = all.unwrap_or_default().into_iter().map(|r| r.eb_ref.offset);
                moved(first.into_iter().find(|first| first.to_string() >= o.to_string()))
            }
            (Bend::LatestIsEarliest, StartAt::Latest) => StartAt::Earliest,
            (Bend::EarliestIsLatest, StartAt::Earliest) => StartAt::Latest,
            (Bend::TimeIsIgnored, StartAt::Timestamp(_)) => StartAt::Earliest,
            (Bend::TimeIsExclusive, StartAt::Timestamp(at)) => {
                StartAt::Timestamp(Timestamp::from_micros(at.as_micros() + 1).unwrap_or(at))
            }
            (Bend::AnyKindOfCut, StartAt::Cut(c))
                if c.offset_kind().is_some_and(|k| k != self.capabilities.offset_kind) =>
            {
                StartAt::Earliest
            }
            _ => start,
        }
    }
}

impl EventBusReader for BentReader {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        Box::pin(async {
            let mut topics = self.inner.topics().await?;
            if self.bend == Bend::TopicsUnsorted {
                topics.reverse();
            }
            Ok(topics)
        })
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>> {
        Box::pin(async move {
            let mut described = self.inner.partitions(topic).await?;
            if self.bend == Bend::ParentsHidden {
                described.partitions.iter_mut().for_each(|p| p.parents.clear());
            }
            Ok(described)
        })
    }

    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>> {
        Box::pin(async move {
            let head = self.inner.head(topic, partition).await;
            match (self.bend, head) {
                (Bend::MissingTopicIsEmpty, Err(e)) if *e.kind() == ErrorKind::NotFound => {
                    Ok(Head { cut: Cut::Begin, last: None, last_published_at: None })
                }
                (Bend::HeadLags, Ok(head)) => {
                    let last = head.last;
                    Ok(Head { cut: last.map_or(head.cut, Cut::Next), ..head })
                }
                (_, head) => head,
            }
        })
    }

    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(async move {
            let start = self.bend_start(topic, partition, start).await;
            // A reader whose closing nobody told its cursors of.
            let deaf = matches!(self.bend, Bend::ReadsAfterClose | Bend::CloseLeavesReadsWaiting);
            let other = self.bus.reader();
            let reader = if deaf { &other } else { &*self.inner };
            let asked = if self.bend == Bend::MissingPartitionIsFirst { PartitionId(0) } else { partition };
            let mut opened = reader.cursor(topic, asked, start).await;
            if let Err(e) = &opened
                && matches!(e.kind(), ErrorKind::OutOfRange { .. })
            {
                if self.bend == Bend::JumpsSilently {
                    opened = self.inner.cursor(topic, partition, StartAt::Earliest).await;
                } else if self.bend == Bend::OldestUnnamed {
                    return Err(eb_contract::Error::new(
                        ErrorKind::OutOfRange { oldest: None },
                        "cursor",
                        "gone",
                    ));
                }
            }
            Ok(Box::new(BentCursor::new(self.bend, opened?, self.bus.reopen(), partition)) as Box<dyn Cursor>)
        })
    }

    fn close(&self) -> BoxFuture<'static, Result<()>> {
        self.inner.close()
    }
}
