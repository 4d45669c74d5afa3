//! Consumer groups of a service: it hands out records and remembers who has which, until each is acknowledged.
//!
//! The other way to consume a topic is a reader with checkpoints. A group's place is kept by the service itself, as a
//! list of pending records; there is no cut to commit, and a crash leaves records pending that someone takes over.

use std::time::Duration;

use crate::{BoxFuture, BusIncarnation, ConsumerName, EbRef, PartitionId, Record, Result, Topic};

/// A record that a group handed to one of its members, who now answers for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The record.
    pub record: Record,
    /// How often the group has handed it out, this time included.
    pub deliveries: u64,
}

/// What a member asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLimit {
    /// The most records; 0 counts as 1.
    pub max_records: usize,
    /// How long to wait for a first one. Zero answers at once.
    pub wait: Duration,
}

/// A service that keeps groups.
pub trait EventBusGroups: Send + Sync + 'static {
    /// Joins a group on one partition as `member` (1 to 256 characters), making the group at the partition's beginning where there
    /// is none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a topic or partition that does not exist.
    fn join<'a>(
        &'a self,
        group: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
        member: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn GroupMember>>>;

    /// The groups on one partition, sorted; those whose names are no [`ConsumerName`] are left out.
    ///
    /// # Errors
    /// When the service cannot tell.
    fn groups<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Vec<ConsumerName>>>;

    /// What a group has on one partition; `None` where there is no such group.
    ///
    /// # Errors
    /// When the service cannot tell.
    fn backlog<'a>(
        &'a self,
        group: &'a ConsumerName,
        topic: &'a Topic,
        partition: PartitionId,
    ) -> BoxFuture<'a, Result<Option<GroupBacklog>>>;
}

/// What a group has yet to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBacklog {
    /// Records handed out and not acknowledged.
    pub pending: u64,
    /// Of these, how many were handed out more than once.
    pub redelivered: u64,
    /// Records never handed out, where the service can tell.
    pub undelivered: Option<u64>,
    /// The members that hold pending records, with how many, sorted.
    pub members: Vec<(String, u64)>,
}

/// A member of a group, on one partition.
///
/// Order: records come in the log's order while a partition has one active member; with several at once there is no order,
/// also not of one key.
pub trait GroupMember: Send + Sync {
    /// The life of the topic that its positions belong to.
    fn incarnation(&self) -> &BusIncarnation;

    /// The member's own records that it was handed before and has not acknowledged, from the oldest on, behind `after`: what a
    /// restarted member reads first. Empty when there are no more.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange) when a pending record is no longer in the log: it was lost to the consumer, and says so.
    /// Dropping the future leaves everything pending.
    fn pending<'a>(
        &'a self,
        after: Option<&'a EbRef>,
        limit: DeliveryLimit,
    ) -> BoxFuture<'a, Result<Vec<Delivery>>>;

    /// Takes over records that other members were handed at least `idle` ago and have not acknowledged, oldest first. Empty when there
    /// are no more.
    ///
    /// # Errors
    /// As [`GroupMember::pending`]. Dropping the future may leave records taken over: [`GroupMember::pending`] brings them.
    fn claim(&self, idle: Duration, limit: DeliveryLimit) -> BoxFuture<'_, Result<Vec<Delivery>>>;

    /// Records that nobody was handed before.
    ///
    /// # Errors
    /// A failed read is an error, never an empty answer. Dropping the future, or losing the answer, may leave records handed
    /// out unseen: [`GroupMember::pending`] brings them.
    fn next(&self, limit: DeliveryLimit) -> BoxFuture<'_, Result<Vec<Delivery>>>;

    /// Acknowledges records: they are done for the group, durably as far as the service promises, and answers how many were
    /// pending. Again is fine.
    ///
    /// # Errors
    /// When it may not have been done: the records may then be handed out again.
    fn acknowledge<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<u64>>;

    /// Says that the member still works on records, so that nobody claims them as idle.
    ///
    /// # Errors
    /// When the service cannot be told.
    fn keep<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>>;
}
