//! Checkpoints as rows.

use std::time::SystemTime;

use eb_contract::stores::{Checkpoint, Lease};
use eb_contract::{BusIncarnation, ConsumerName, PartitionId, Result, Topic};
use tokio_postgres::Row;

use crate::position::{corrupt, cut};
use crate::text::unescape;
use crate::time::from_system;

/// What identifies a checkpoint, in the order of lists.
pub(super) type Key = (ConsumerName, Topic, PartitionId);

pub(super) fn key(c: &Checkpoint) -> Key {
    (c.consumer.clone(), c.topic.clone(), c.partition_id)
}

/// Reads a row of [`Sql`](super::sql::Sql)'s columns.
pub(super) fn checkpoint(op: &'static str, place: &str, row: &Row) -> Result<Checkpoint> {
    let (consumer, topic): (&str, &str) = (row.get(0), row.get(1));
    let place = format!("{place} checkpoint {consumer} {topic}/{}", row.get::<_, i64>(2));
    let place = place.as_str();
    let damaged = |what: &str| corrupt(op, place, what);
    let (owner, epoch): (Option<&str>, Option<&str>) = (row.get(9), row.get(10));
    let lease = match (owner, epoch) {
        (Some(owner), Some(epoch)) => Some(Lease {
            owner: unescape(owner).ok_or_else(|| damaged("a lease owner"))?,
            epoch: epoch.parse().map_err(|_| damaged("a lease epoch"))?,
        }),
        _ => None,
    };
    let caught_up_at: Option<SystemTime> = row.get(6);
    Ok(Checkpoint {
        consumer: ConsumerName::new(consumer).map_err(|_| damaged("a consumer name"))?,
        topic: Topic::new(topic).map_err(|_| damaged("a topic name"))?,
        partition_id: PartitionId(
            u32::try_from(row.get::<_, i64>(2)).map_err(|_| damaged("a partition number"))?,
        ),
        cut: cut(op, place, row.get(3), row.get(4), row.get(5))?,
        caught_up_at: caught_up_at.map(|at| from_system(op, place, at)).transpose()?,
        version: u64::try_from(row.get::<_, i64>(7)).map_err(|_| damaged("a version"))?,
        bus_incarnation: BusIncarnation::new(row.get(8)).map_err(|_| damaged("an incarnation"))?,
        lease,
        committed_at: Some(from_system(op, place, row.get(11))?),
    })
}
