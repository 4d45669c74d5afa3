//! What the readers of one bus share: layouts, the pace of each shard, and how far each is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{BusIncarnation, Cut, Offset, PartitionId, Timestamp, Topic};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::{Rate, ReadConfig};
use crate::reader::layouts::Layouts;
use crate::reader::pace::Pace;

/// What all readers of one bus share.
#[derive(Default)]
pub(crate) struct Reads {
    pub(crate) layouts: Layouts,
    /// One entry for each shard that was read or published to.
    shards: Mutex<HashMap<(Topic, PartitionId), Arc<ShardReads>>>,
}

impl Reads {
    pub(crate) fn shard(
        &self,
        config: &ReadConfig,
        topic: &Topic,
        partition: PartitionId,
    ) -> Arc<ShardReads> {
        let mut shards = self.shards.lock();
        shards.entry((topic.clone(), partition)).or_insert_with(|| Arc::new(ShardReads::new(config))).clone()
    }
}

/// What all cursors of one bus share on one shard.
pub(crate) struct ShardReads {
    /// `GetRecords` calls.
    pub(crate) pages: Pace,
    /// `GetShardIterator` calls: as many a second, whatever they bring.
    pub(crate) iterators: Pace,
    known: Mutex<Known>,
    /// Held while the head is looked for, so that many callers look once.
    pub(crate) climb: tokio::sync::Mutex<Climbed>,
}

/// How far the shard is known to go.
#[derive(Default, Clone)]
struct Known {
    retention: Option<Duration>,
    furthest: Option<Furthest>,
}

/// A place in a life of the shard up to which there are records, as far as this bus has seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Furthest {
    pub(crate) life: BusIncarnation,
    /// `Begin` when the shard is known to have been empty.
    pub(crate) cut: Cut,
    /// Everything after `cut` arrived at this time or later.
    pub(crate) unread_since: Timestamp,
    /// When the record before `cut` arrived.
    pub(crate) arrived: Option<Timestamp>,
}

/// What the last look for the head has left behind.
#[derive(Default)]
pub(crate) struct Climbed {
    /// When it began.
    pub(crate) began: Option<Instant>,
    /// An iterator that stands at the furthest place, and when it was given.
    pub(crate) iterator: Option<(Cut, String, Instant)>,
}

impl ShardReads {
    fn new(config: &ReadConfig) -> Self {
        // Asking for an iterator brings no bytes.
        let calls = config.shard_rate.map(|rate| Rate { bytes: f64::MAX, ..rate });
        Self {
            pages: Pace::new(config.shard_rate),
            iterators: Pace::new(calls),
            known: Mutex::default(),
            climb: tokio::sync::Mutex::default(),
        }
    }

    /// How long the stream keeps records, as it last said.
    pub(crate) fn retention(&self) -> Option<Duration> {
        self.known.lock().retention
    }

    pub(crate) fn keeps(&self, retention: Duration) {
        self.known.lock().retention = Some(retention);
    }

    /// There is a record at `offset`, which was read or ACKed: it arrived at about `arrived`, and not before `since`.
    pub(crate) fn saw(&self, life: &BusIncarnation, offset: Offset, since: Timestamp, arrived: Timestamp) {
        self.reached(Furthest {
            life: life.clone(),
            cut: Cut::After(offset),
            unread_since: since,
            arrived: Some(arrived),
        });
    }

    /// The shard goes at least this far.
    pub(crate) fn reached(&self, place: Furthest) {
        let mut known = self.known.lock();
        let further = known.furthest.as_ref().is_none_or(|before| {
            before.life != place.life
                || match place.cut.compare(&before.cut) {
                    Some(order) if order.is_eq() => place.unread_since > before.unread_since,
                    order => order.is_some_and(std::cmp::Ordering::is_gt),
                }
        });
        if further {
            known.furthest = Some(place);
        }
    }

    /// The furthest place known in this life of the shard.
    pub(crate) fn furthest(&self, life: &BusIncarnation) -> Option<Furthest> {
        self.known.lock().furthest.clone().filter(|f| f.life == *life)
    }
}
