//! The groups of a service.
//!
//! With an order per key the caller holds the partition's lease, so whatever other members have pending was left by workers that have gone or gave
//! up: it is taken over at once, and then everything pending is read from the oldest on before anything new. Without an order several members are
//! active, and only what nobody has worked on for [`GroupSource::claim_idle`] is taken over, again and again.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{
    BoxFuture, ConsumerName, Cut, Delivery, DeliveryLimit, EbRef, EventBusGroups, EventBusReader,
    GroupMember, PartitionId, ReadBatch, ReadLimit, ReadState, Result, StartAt, Topic,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Feed, Opened, Source, Tell};

pub(crate) struct GroupSource {
    pub(crate) groups: Arc<dyn EventBusGroups>,
    pub(crate) reader: Arc<dyn EventBusReader>,
    pub(crate) group: ConsumerName,
    pub(crate) in_order: bool,
    /// After what time a record that another member has pending is taken from it. Without an order only.
    pub(crate) claim_idle: Duration,
}

impl Source for GroupSource {
    fn reader(&self) -> &Arc<dyn EventBusReader> {
        &self.reader
    }

    fn open<'a>(
        &'a self,
        topic: &'a Topic,
        partition: PartitionId,
        owner: &'a str,
        _start: StartAt,
    ) -> BoxFuture<'a, Result<Opened>> {
        Box::pin(async move {
            let place = Place {
                groups: Arc::clone(&self.groups),
                group: self.group.clone(),
                topic: topic.clone(),
                partition,
                owner: owner.to_owned(),
            };
            let member = place.join().await?;
            let told = Arc::new(Mutex::new(Arc::clone(&member)));
            let feed = GroupFeed {
                place,
                member,
                told: Arc::clone(&told),
                last: None,
                in_order: self.in_order,
                claim_idle: self.claim_idle,
                phase: if self.in_order { Phase::TakeOver } else { Phase::Pending(None) },
                position: Cut::Begin,
                claim_at: Instant::now(),
            };
            Ok(Opened { feed: Box::new(feed), tell: Some(Arc::new(GroupTell(told))) })
        })
    }
}

/// How far the feed of a group has got.
enum Phase {
    /// Taking over what others left; none of it is handed on yet, for it comes again among the pending ones, in order.
    TakeOver,
    /// Reading what is pending, behind this one.
    Pending(Option<EbRef>),
    New,
}

/// Which group, where, and as whom.
struct Place {
    groups: Arc<dyn EventBusGroups>,
    group: ConsumerName,
    topic: Topic,
    partition: PartitionId,
    owner: String,
}

impl Place {
    async fn join(&self) -> Result<Arc<dyn GroupMember>> {
        self.groups.join(&self.group, &self.topic, self.partition, &self.owner).await.map(Arc::from)
    }
}

/// The member as whom records are acknowledged.
type Told = Arc<Mutex<Arc<dyn GroupMember>>>;

struct GroupFeed {
    place: Place,
    member: Arc<dyn GroupMember>,
    told: Told,
    /// The furthest record that was handed on.
    last: Option<EbRef>,
    in_order: bool,
    claim_idle: Duration,
    phase: Phase,
    position: Cut,
    /// When to look for idle records again.
    claim_at: Instant,
}

impl GroupFeed {
    fn batch(&mut self, deliveries: Vec<Delivery>, state: ReadState) -> ReadBatch {
        let records: Vec<_> = deliveries.into_iter().map(|d| d.record).collect();
        if let Some(last) = records.last() {
            self.position = Cut::past(last.eb_ref.offset);
            let further = |before: &EbRef| last.eb_ref.offset > before.offset;
            if self.last.as_ref().is_none_or(further) {
                self.last = Some(last.eb_ref.clone());
            }
        }
        ReadBatch { records, next: self.position, state }
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<ReadBatch> {
        let now = DeliveryLimit { max_records: limit.max_records, wait: Duration::ZERO };
        loop {
            match &mut self.phase {
                Phase::TakeOver => {
                    // A zero idle time: whoever has them no longer holds the lease.
                    if self.member.claim(Duration::ZERO, now).await?.is_empty() {
                        self.phase = Phase::Pending(None);
                    }
                }
                Phase::Pending(after) => {
                    let deliveries = self.member.pending(after.as_ref(), now).await?;
                    match deliveries.last() {
                        Some(last) => *after = Some(last.record.eb_ref.clone()),
                        None => {
                            self.phase = Phase::New;
                            continue;
                        }
                    }
                    return Ok(self.batch(deliveries, ReadState::More));
                }
                Phase::New => {
                    if !self.in_order && Instant::now() >= self.claim_at {
                        let deliveries = self.member.claim(self.claim_idle, now).await?;
                        if !deliveries.is_empty() {
                            return Ok(self.batch(deliveries, ReadState::More));
                        }
                        self.claim_at = Instant::now() + self.claim_idle / 2;
                    }
                    let limit = DeliveryLimit { max_records: limit.max_records, wait: limit.wait };
                    let deliveries = self.member.next(limit).await?;
                    let state = if deliveries.is_empty() { ReadState::CaughtUp } else { ReadState::More };
                    return Ok(self.batch(deliveries, state));
                }
            }
        }
    }
}

impl Feed for GroupFeed {
    fn position(&self) -> Cut {
        self.position
    }

    fn next(&mut self, limit: ReadLimit) -> BoxFuture<'_, Result<ReadBatch>> {
        Box::pin(self.read(limit))
    }

    fn reopen(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.member = self.place.join().await?;
            *self.told.lock() = Arc::clone(&self.member);
            if matches!(self.phase, Phase::New) {
                // What an answer that was lost has handed out lies behind everything that was handed on.
                self.phase = Phase::Pending(self.last.clone());
            }
            Ok(())
        })
    }
}

struct GroupTell(Told);

impl Tell for GroupTell {
    fn done<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>> {
        let member = Arc::clone(&*self.0.lock());
        Box::pin(async move { member.acknowledge(records).await.map(drop) })
    }

    fn keep<'a>(&'a self, records: &'a [EbRef]) -> BoxFuture<'a, Result<()>> {
        let member = Arc::clone(&*self.0.lock());
        Box::pin(async move { member.keep(records).await })
    }
}
