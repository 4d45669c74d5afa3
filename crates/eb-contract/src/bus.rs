//! The traits of a bus: publish, read, administer.

use crate::{
    BoxFuture, BusIncarnation, Capabilities, Cut, EbRef, Offset, PartitionId, PublishRecord, ReadBatch,
    ReadLimit, Result, StartAt, Timestamp, Topic,
};

/// The writing side of a bus.
///
/// # Order and cancellation
/// A record's place among this publisher's calls is fixed when the method is *called*, before the returned future is
/// first polled. Dropping a future does not withdraw its records: they may be appended all the same, unobserved.
/// A publisher waits by keeping the future pending; where even waiting would grow without bound it answers
/// [`ErrorKind::Throttled`](crate::ErrorKind::Throttled) with no effect.
///
/// Awaiting one future never needs another to be polled.
pub trait EventBusPublisher: Send + Sync + 'static {
    /// What this backend promises.
    fn capabilities(&self) -> &Capabilities;

    /// Publishes one record: the hot path.
    ///
    /// # Errors
    /// Classified as in [`Error`](crate::Error); `effect` says whether the record may be in the log all the same.
    fn publish(&self, topic: &Topic, record: PublishRecord) -> BoxFuture<'static, Result<EbRef>>;

    /// Publishes several records of one topic and answers each, positionally: the result has as many entries as
    /// `records`. Records of one key keep their order; once one fails for good, later ones of its key answer
    /// [`ErrorKind::NotAttempted`](crate::ErrorKind::NotAttempted). An empty batch answers an empty vector.
    fn publish_batch(
        &self,
        topic: &Topic,
        records: Vec<PublishRecord>,
    ) -> BoxFuture<'static, Vec<Result<EbRef>>>;

    /// Checks that a publish could succeed now, without publishing; for health.
    ///
    /// # Errors
    /// Why a publish would fail. Dropping the future leaves nothing behind.
    fn probe(&self, topic: &Topic) -> BoxFuture<'static, Result<()>>;

    /// Finishes what was called before, then refuses all further calls with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed). Closing twice is fine. Dropping the future leaves the
    /// publisher closing.
    ///
    /// # Errors
    /// When something that was in flight could not be finished; each such record's own future says so too.
    fn close(&self) -> BoxFuture<'static, Result<()>>;
}

/// The reading side of a bus. Calls change nothing, so dropping a future leaves nothing behind.
pub trait EventBusReader: Send + Sync + 'static {
    /// What this backend promises.
    fn capabilities(&self) -> &Capabilities;

    /// The topics there are, sorted by name.
    ///
    /// # Errors
    /// When the backend cannot tell.
    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>>;

    /// The partitions of a topic, with those that are closed but still readable, sorted by number.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic that does not exist.
    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicPartitions>>;

    /// Where the partition ends now: everything ACKed before the call lies before it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic or partition that does not exist.
    fn head<'a>(&'a self, topic: &'a Topic, partition: PartitionId) -> BoxFuture<'a, Result<Head>>;

    /// A cursor that starts at `start`, resolved now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic or partition that does not exist,
    /// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange) for a cut below the retention horizon,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a cut of another offset kind.
    fn cursor<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>>;

    /// Refuses all further calls, also of its cursors, with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    ///
    /// # Errors
    /// When what the reader holds could not be given back.
    fn close(&self) -> BoxFuture<'static, Result<()>>;
}

/// A place in a partition that moves forward.
pub trait Cursor: Send {
    /// The topic it reads.
    fn topic(&self) -> &Topic;

    /// The partition it reads.
    fn partition_id(&self) -> PartitionId;

    /// Where the next read starts.
    fn position(&self) -> Cut;

    /// Reads on. Only records that are durable are handed out.
    ///
    /// Dropping the future leaves the cursor where it was or lets the next call bring what this one would have
    /// brought: nothing is skipped and nothing comes twice.
    ///
    /// # Errors
    /// A failed read is an error, never an empty batch. The cursor stays where it was and may be asked again where
    /// the error allows a retry.
    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>>;
}

/// Making and describing topics. Where topics are provisioned elsewhere (a cloud account) a backend may answer
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
pub trait EventBusAdmin: Send + Sync + 'static {
    /// Makes a topic with this many partitions (at least 1), durably, and waits until it can be used. Asking again
    /// for what already exists with the same number is fine. After a crash or a dropped future it exists whole or
    /// not at all, or the same call completes it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when it has another number of partitions.
    fn create_topic<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<()>>;
}

/// The partitions of a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicPartitions {
    /// Which life of the topic this is.
    pub incarnation: BusIncarnation,
    /// Sorted by number.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub id: PartitionId,
    /// What the backend itself calls it, where that differs (a shard id).
    pub native_id: Option<String>,
    /// The partitions it goes on from; empty for original ones, and for those whose parents are gone.
    pub parents: Vec<PartitionId>,
    /// Whether it takes no more records.
    pub closed: bool,
}

impl PartitionInfo {
    /// An open partition without parents.
    #[must_use]
    pub fn open(id: PartitionId) -> Self {
        Self { id, native_id: None, parents: Vec::new(), closed: false }
    }
}

/// Where a partition ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// The cut behind the last record: [`Cut::Begin`] for a partition that never had one and cannot know its first
    /// offset.
    pub cut: Cut,
    /// The last record's offset; `None` when there is none.
    pub last: Option<Offset>,
    /// When the last record was published, where the backend knows it without reading it.
    pub last_published_at: Option<Timestamp>,
}
