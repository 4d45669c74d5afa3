//! Opening: the index against its log, and what it lacks.
//!
//! 1. The index's checkpoint is checked against the log, partition by partition: the same life of the bus, nothing
//!    ahead of the log, the last record before the cut unchanged. An index that fails is not a view of this log, and
//!    the gate refuses to open, naming what is missing or different.
//! 2. Every topic-partition of the policy's streams, and of those that the checkpoint names, is read from its cut to
//!    its head (from its beginning where there is no cut), and what is found is applied to the index.
//! 3. The checkpoint is committed at the heads, so that the next open reads little.
//!
//! Only then does the gate admit. A crash at any point leaves the former checkpoint, and the same reads again.
//!
//! With a shared index, reading starts at the oldest cut of any open reservation, so what a crashed gate published
//! without telling is found. A partition that a reservation does not name came after it (its shard was split or merged)
//! and is read from its beginning. Reservations of which the log holds nothing are left to [`takeover`](crate::takeover).

use std::collections::{BTreeMap, BTreeSet};

use eb_contract::stores::{AdmissionIndex, IndexCheckpoint, IndexCut, OpenReservation};
use eb_contract::{
    Cut, Error, ErrorKind, EventBusReader, EventBusReaderExt, Offset, PartitionId, Result, StartAt,
    Timestamp, Topic, TopicPartitions,
};

use crate::progress::{KEY_VERSION, record_crc32c, sort_cuts};
use crate::scan::{Start, TopicScan, oldest};

const OP: &str = "open gate";

/// Brings the index up to the log. Gives back the checkpoint that now holds, and how many records were read.
pub(crate) async fn recover(
    reader: &dyn EventBusReader,
    index: &dyn AdmissionIndex,
    streams: &[Topic],
) -> Result<(IndexCheckpoint, u64)> {
    let stored = index.checkpoint().await?;
    if let Some(stored) = &stored
        && stored.key_version != KEY_VERSION
    {
        return Err(Error::new(
            ErrorKind::WrongVersion,
            OP,
            format!(
                "the index holds dedupe keys of version {}, this program makes {KEY_VERSION}",
                stored.key_version
            ),
        )
        .advise("move the index away and open again: it is rebuilt from the log"));
    }
    let cuts = stored.as_ref().map(|s| s.cuts.clone()).unwrap_or_default();
    let mut topics: BTreeSet<Topic> = streams.iter().cloned().collect();
    topics.extend(cuts.iter().map(|c| c.topic.clone()));
    let reserved = reservations(index).await?;
    let mut now = Vec::new();
    let mut read = 0;
    for topic in &topics {
        let of_topic: Vec<&IndexCut> = cuts.iter().filter(|c| c.topic == *topic).collect();
        let listed = match reader.partitions(topic).await {
            Ok(listed) => listed,
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                return Err(missing(topic, &of_topic, error));
            }
            Err(error) => return Err(error),
        };
        let standing = verify(reader, topic, &listed, &of_topic).await?;
        let from = standing.iter().map(|(id, cut)| (*id, Start { cut: cut.cut, since: cut.caught_up_at }));
        let mut from: BTreeMap<PartitionId, Start> = from.collect();
        if let Some(reserved) = reserved.get(topic) {
            reserved.lower(&mut from);
        }
        read += read_on(reader, index, topic, &listed, from, standing, &mut now).await?;
    }
    if stored.is_none() && read > 0 && reader.capabilities().retention {
        tracing::warn!(
            records = read,
            "the index was empty and has been filled from streams that expire: events that have expired would be admitted again"
        );
    }
    sort_cuts(&mut now);
    let checkpoint = IndexCheckpoint { key_version: KEY_VERSION, cuts: now };
    if stored.as_ref() != Some(&checkpoint) {
        index.commit_checkpoint(checkpoint.clone()).await?;
    }
    Ok((checkpoint, read))
}

/// Where to look, in one topic, for what crashed gates have reserved.
struct Reserved {
    /// Of the partitions that all reservations name, cuts at or before those of each.
    cuts: BTreeMap<PartitionId, Cut>,
    /// When the oldest was made.
    since: Timestamp,
}

impl Reserved {
    /// Makes the read start early enough for the reservations too.
    fn lower(&self, from: &mut BTreeMap<PartitionId, Start>) {
        from.retain(|partition, start| {
            let Some(cut) = self.cuts.get(partition) else { return false };
            if cut.compare(&start.cut).is_some_and(std::cmp::Ordering::is_lt) {
                start.cut = *cut;
            }
            start.since = start.since.map(|since| since.min(self.since));
            true
        });
    }
}

/// What crashed gates have reserved, by topic.
async fn reservations(index: &dyn AdmissionIndex) -> Result<BTreeMap<Topic, Reserved>> {
    let mut by_topic: BTreeMap<Topic, Vec<OpenReservation>> = BTreeMap::new();
    if index.is_shared() {
        for open in index.open_reservations().await? {
            by_topic.entry(open.request.topic.clone()).or_default().push(open);
        }
    }
    let reserved = |open: Vec<OpenReservation>| Reserved {
        since: open.iter().map(|r| r.reserved_at).min().unwrap_or(Timestamp::EPOCH),
        cuts: oldest(open.into_iter().map(|r| r.request.start.into_iter().collect())),
    };
    Ok(by_topic.into_iter().map(|(topic, open)| (topic, reserved(open))).collect())
}

fn missing(topic: &Topic, cuts: &[&IndexCut], error: Error) -> Error {
    if cuts.iter().all(|c| matches!(c.cut, Cut::Begin)) {
        return Error::new(ErrorKind::NotFound, OP, "the stream does not exist")
            .at(topic)
            .with_source(error)
            .advise("create the topic, then open the gate");
    }
    let held: Vec<_> = cuts.iter().map(|c| format!("partition {} up to {}", c.partition_id, c.cut)).collect();
    Error::new(
        ErrorKind::FactsMissing,
        OP,
        format!("the index holds {}, but the log has no such topic", held.join(", ")),
    )
    .at(topic)
    .with_source(error)
    .advise("bring the log back; the index alone proves nothing")
}

/// Checks the cuts of a topic against its log. Gives back those that still mean something.
async fn verify<'c>(
    reader: &dyn EventBusReader,
    topic: &Topic,
    listed: &TopicPartitions,
    cuts: &[&'c IndexCut],
) -> Result<BTreeMap<PartitionId, &'c IndexCut>> {
    let mut standing = BTreeMap::new();
    for cut in cuts {
        let place = format!("{topic}/{}", cut.partition_id);
        if cut.bus_incarnation != listed.incarnation {
            return Err(Error::new(
                ErrorKind::WrongIncarnation,
                OP,
                format!(
                    "the index belongs to life {} of the topic, the log to {}",
                    cut.bus_incarnation, listed.incarnation
                ),
            )
            .at(place)
            .advise("open the index's own log, or move the index away so that it is rebuilt from this one"));
        }
        let Some(partition) = listed.partitions.iter().find(|p| p.id == cut.partition_id) else {
            if reader.capabilities().retention {
                // Resharded long ago, and all that it held has expired.
                continue;
            }
            return Err(facts_missing(
                &place,
                format!("the index holds records up to {}, but the log has no such partition", cut.cut),
            ));
        };
        match cut.cut {
            Cut::Begin => {}
            Cut::End if partition.closed => {}
            Cut::End => {
                return Err(facts_missing(
                    &place,
                    "the index knows the partition as closed, the log does not".to_owned(),
                ));
            }
            Cut::Next(offset) => {
                within(reader, topic, cut, &place).await?;
                if let Some(last) = offset.predecessor() {
                    unchanged(reader, topic, cut, last, &place).await?;
                }
            }
            Cut::After(last) => {
                within(reader, topic, cut, &place).await?;
                unchanged(reader, topic, cut, last, &place).await?;
            }
        }
        standing.insert(cut.partition_id, *cut);
    }
    Ok(standing)
}

fn facts_missing(place: &str, what: String) -> Error {
    Error::new(ErrorKind::FactsMissing, OP, what).at(place).advise(
        "bring the whole log back; if its facts are lost for good, move the index away and open again",
    )
}

/// Nothing of the index lies ahead of the log.
async fn within(reader: &dyn EventBusReader, topic: &Topic, cut: &IndexCut, place: &str) -> Result<()> {
    let head = reader.head(topic, cut.partition_id).await?;
    let ahead = match cut.cut.compare(&head.cut) {
        Some(order) => order.is_gt(),
        None => {
            let what =
                format!("the index's cut {} and the log's head {} are of different kinds", cut.cut, head.cut);
            return Err(Error::new(ErrorKind::WrongIncarnation, OP, what).at(place));
        }
    };
    if !ahead || (head.last.is_none() && reader.capabilities().retention) {
        return Ok(());
    }
    Err(facts_missing(
        place,
        format!(
            "the index holds records up to {}, but the log ends at {}: the records between are missing",
            cut.cut, head.cut
        ),
    ))
}

/// The last record before the cut is the one that the index has seen there.
async fn unchanged(
    reader: &dyn EventBusReader,
    topic: &Topic,
    cut: &IndexCut,
    last: Offset,
    place: &str,
) -> Result<()> {
    let Some(expected) = cut.last_crc32c else { return Ok(()) };
    let read = reader.read(topic, cut.partition_id, StartAt::Cut(Cut::Next(last)), 1).await;
    let batch = match read {
        Ok(batch) => batch,
        // Nothing to compare with: the horizon has passed it.
        Err(error)
            if matches!(error.kind(), ErrorKind::OutOfRange { .. }) && reader.capabilities().retention =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let found = batch.records.first().filter(|r| r.eb_ref.offset == last);
    match found.map(|r| record_crc32c(&r.partition_key, &r.envelope)) {
        Some(crc) if crc == expected => Ok(()),
        Some(crc) => Err(facts_missing(
            place,
            format!(
                "the record at {last} has CRC32C {crc:08x}, the index was made from one with {expected:08x}: it is a view of another log"
            ),
        )),
        None => Err(facts_missing(
            place,
            format!("the index was made from a record at {last} that the log does not hold"),
        )),
    }
}

/// Reads a topic from its cuts to its heads into the index, and notes where each partition then stands.
async fn read_on(
    reader: &dyn EventBusReader,
    index: &dyn AdmissionIndex,
    topic: &Topic,
    listed: &TopicPartitions,
    from: BTreeMap<PartitionId, Start>,
    standing: BTreeMap<PartitionId, &IndexCut>,
    now: &mut Vec<IndexCut>,
) -> Result<u64> {
    let mut stands: BTreeMap<PartitionId, Stand> =
        listed.partitions.iter().map(|p| (p.id, Stand::default())).collect();
    for (id, cut) in standing {
        let IndexCut { cut, last_crc32c, caught_up_at, .. } = cut.clone();
        stands.insert(id, Stand { cut, last_crc32c, caught_up_at });
    }
    let mut read = 0;
    let mut scan = TopicScan::open(reader, topic, from).await?;
    while let Some(scanned) = scan.next().await? {
        read += scanned.entries.len() as u64;
        if !scanned.entries.is_empty() {
            index.apply(scanned.entries).await?;
        }
        let crc = scanned.last.as_ref().map(|(key, envelope)| record_crc32c(key, envelope));
        let stand = stands.entry(scanned.partition).or_default();
        // An earlier reservation may have made the read start before the cut.
        let order = scanned.next.compare(&stand.cut);
        if order.is_none_or(std::cmp::Ordering::is_gt) {
            stand.cut = scanned.next;
            stand.last_crc32c = crc.or(stand.last_crc32c.filter(|_| scanned.last.is_none()));
        }
        if order.is_none_or(std::cmp::Ordering::is_ge) {
            // A log that forgets nothing has no use for it.
            stand.caught_up_at = scanned.caught_up_at.filter(|_| reader.capabilities().retention);
        }
    }
    now.extend(stands.into_iter().map(|(partition_id, stand)| IndexCut {
        topic: topic.clone(),
        partition_id,
        bus_incarnation: listed.incarnation.clone(),
        cut: stand.cut,
        last_crc32c: stand.last_crc32c.filter(|_| matches!(stand.cut, Cut::Next(_) | Cut::After(_))),
        caught_up_at: stand.caught_up_at,
    }));
    Ok(read)
}

/// Where a partition stands.
struct Stand {
    cut: Cut,
    last_crc32c: Option<u32>,
    caught_up_at: Option<Timestamp>,
}

impl Default for Stand {
    fn default() -> Self {
        Self { cut: Cut::Begin, last_crc32c: None, caught_up_at: None }
    }
}
