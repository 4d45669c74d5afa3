//! Where records come from: one small face over a log with checkpoints and over the groups of a service.

mod group;
mod log;

use std::sync::Arc;

use eb_contract::{
    BoxFuture, Cut, EbRef, EventBusReader, PartitionId, ReadBatch, ReadLimit, Result, StartAt, Topic,
};

pub(crate) use group::GroupSource;
pub(crate) use log::LogSource;

/// A way to consume partitions.
pub(crate) trait Source: Send + Sync + 'static {
    /// The bus itself: its partitions and heads.
    fn reader(&self) -> &Arc<dyn EventBusReader>;

    /// Opens a partition. `start` is where a log is read from; a group knows its own place. The caller holds the lease, if there are any.
    fn open<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        owner: &'a str,
        start: StartAt,
    ) -> BoxFuture<'a, Result<Opened>>;
}

/// An open partition.
pub(crate) struct Opened {
    pub(crate) feed: Box<dyn Feed>,
    /// For sources that want to be told of every record that is done.
    pub(crate) tell: Option<Arc<dyn Tell>>,
}

/// The records of a partition, one batch after the other.
pub(crate) trait Feed: Send {
    /// The cut before what comes next.
    fn position(&self) -> Cut;

    /// As [`Cursor::next`](eb_contract::Cursor::next). Dropping the future loses nothing.
    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>>;

    /// Opens the source anew where this stands. Dropping the future, or an error, leaves it as it was.
    fn reopen(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// Tells a source what became of its records.
pub(crate) trait Tell: Send + Sync {
    /// They are done.
    fn done<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>>;

    /// They are still being worked on.
    fn keep<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>>;
}
