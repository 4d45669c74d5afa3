//! Partitions that end and have children.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eb_contract::{
    Cut, EventBusReaderExt, PartitionId, PartitionInfo, ReadLimit, ReadState, Record, StartAt, Timestamp,
    Topic,
};
use tokio::time::Instant;

use crate::bus::order::{numbers_by_key, rises};
use crate::bus::{Acked, BusCase, Reading, same};
use crate::events::record;
use crate::outcome::{ensure, ensure_eq};
use crate::{Failure, Outcome};

const KEYS: usize = 12;

async fn children_of(case: &BusCase, topic: &Topic, parent: PartitionId) -> Outcome<Vec<PartitionInfo>> {
    let all = case.reader().partitions(topic).await?.partitions;
    let parent_info = all.iter().find(|p| p.id == parent);
    ensure!(
        parent_info.is_some_and(|p| p.closed),
        "partition {parent} was resharded and is not listed as closed"
    );
    Ok(all.into_iter().filter(|p| p.parents.contains(&parent)).collect())
}

/// Publishes `rounds` records of each key, numbered on from `first`.
async fn publish_rounds(case: &BusCase, topic: &Topic, first: usize, rounds: usize) -> Outcome<Vec<Acked>> {
    let mut acked = Vec::new();
    for n in first..first + rounds {
        let batch = (0..KEYS).map(|k| record(format!("k{k}"), n)).collect();
        acked.extend(case.publish_batch(topic, batch).await?);
    }
    Ok(acked)
}

pub(crate) async fn a_split_partition_ends_and_names_its_children(case: &mut BusCase) -> Outcome {
    let topic = case.topic("split").await?;
    let before = publish_rounds(case, &topic, 0, 4).await?;
    let parent = PartitionId(0);
    let of_parent: Vec<_> = before.iter().filter(|a| a.at.partition_id == parent).cloned().collect();
    let mut following = Reading::open(case, &topic, parent, StartAt::Earliest).await?;
    following.take(of_parent.len()).await?;
    case.bus.split(&topic, parent).await?;
    let children = children_of(case, &topic, parent).await?;
    ensure_eq!(children.len(), 2, "children of a split partition");
    ensure!(children.iter().all(|c| !c.closed), "a child that is closed from the start");

    // Who followed learns of the end, and so does who reads it later, again and again.
    let mut later = Reading::open(case, &topic, parent, StartAt::Earliest).await?;
    later.take(of_parent.len()).await?;
    let ids: BTreeSet<_> = children.iter().map(|c| c.id).collect();
    for reading in [&mut following, &mut later] {
        for _ in 0..2 {
            let batch = reading.step(ReadLimit::default().waiting(case.pace.visible_within)).await?;
            ensure!(batch.records.is_empty(), "a record after the last one of a closed partition");
            let ReadState::Closed { children } = batch.state else {
                return Err(Failure::new(format!("a split partition read to its end is {:?}", batch.state)));
            };
            ensure_eq!(children.into_iter().collect::<BTreeSet<_>>(), ids, "the children named at the end");
        }
    }
    let mut at_end = Reading::open(case, &topic, parent, Cut::End).await?;
    let batch = at_end.step(ReadLimit::default()).await?;
    ensure!(matches!(batch.state, ReadState::Closed { .. }), "reading on from the end is {:?}", batch.state);

    let after = publish_rounds(case, &topic, 4, 4).await?;
    let strayed = after.iter().find(|a| a.at.partition_id == parent);
    ensure!(strayed.is_none(), "a closed partition took a record: {:?}", strayed.map(|a| &a.at));
    let all: Vec<_> = before.into_iter().chain(after).collect();
    case.expect_topic(&topic, &all).await
}

pub(crate) async fn a_topic_tail_reads_parents_before_children(case: &mut BusCase) -> Outcome {
    let topic = case.topic("lineage").await?;
    let reader = case.reader();
    let limit = ReadLimit::records(5).waiting(Duration::from_millis(100));
    let mut live = reader.tail_topic(&topic, StartAt::Earliest, limit).await?;
    let mut acked = publish_rounds(case, &topic, 0, 4).await?;
    case.bus.split(&topic, PartitionId(0)).await?;
    acked.extend(publish_rounds(case, &topic, 4, 4).await?);
    let halves = children_of(case, &topic, PartitionId(0)).await?;
    ensure_eq!(halves.len(), 2, "children of a split partition");
    case.bus.merge(&topic, halves[0].id, halves[1].id).await?;
    acked.extend(publish_rounds(case, &topic, 8, 4).await?);

    let listed = reader.partitions(&topic).await?.partitions;
    let parents: BTreeMap<_, _> = listed.into_iter().map(|p| (p.id, p.parents)).collect();
    // One tail that has seen it all happen, and one that comes late.
    let mut late = reader.tail_topic(&topic, StartAt::Earliest, limit).await?;
    for tail in [&mut live, &mut late] {
        let mut got: Vec<Record> = Vec::new();
        let mut ended = BTreeSet::new();
        let deadline = Instant::now() + case.pace.visible_within;
        while got.len() < acked.len() {
            ensure!(Instant::now() < deadline, "only {} of {} records came", got.len(), acked.len());
            let turn = tail.next().await.ok_or_else(|| Failure::new("the tail ended on open partitions"))?;
            let (partition, batch) = turn?;
            let unread = parents.get(&partition).into_iter().flatten().find(|p| !ended.contains(*p));
            ensure!(
                unread.is_none(),
                "partition {partition} was read before its parent {unread:?} had ended"
            );
            if matches!(batch.state, ReadState::Closed { .. }) {
                ended.insert(partition);
            }
            got.extend(batch.records);
        }
        for (key, numbers) in numbers_by_key(&got)? {
            ensure_eq!(numbers, (0..12).collect::<Vec<_>>(), "what came of {key}, through split and merge");
        }
        for a in &acked {
            let found = got.iter().find(|r| r.eb_ref == a.at);
            same(found.ok_or_else(|| Failure::new(format!("{} never came", a.at)))?, a)?;
        }
    }
    Ok(())
}

pub(crate) async fn a_topic_tail_from_a_time_gives_nothing_older_behind_a_split(
    case: &mut BusCase,
) -> Outcome {
    let topic = case.topic("since").await?;
    let reader = case.reader();
    let limit = ReadLimit::records(5).waiting(Duration::from_millis(100));
    let mut acked = publish_rounds(case, &topic, 0, 3).await?;
    case.bus.split(&topic, PartitionId(0)).await?;
    acked.extend(publish_rounds(case, &topic, 3, 6).await?);
    let halves = children_of(case, &topic, PartitionId(0)).await?;
    ensure_eq!(halves.len(), 2, "children of a split partition");

    // By partition, in order, with the times that readers are told.
    let mut logs: BTreeMap<PartitionId, Vec<Record>> = BTreeMap::new();
    for a in &acked {
        logs.entry(a.at.partition_id).or_default();
    }
    for (partition, log) in &mut logs {
        let count = acked.iter().filter(|a| a.at.partition_id == *partition).count();
        *log = Reading::open(case, &topic, *partition, StartAt::Earliest).await?.take(count).await?;
    }
    let in_child = logs.iter().find(|(p, _)| halves.iter().any(|c| c.id == **p)).map(|(_, log)| log);
    let middle = in_child.and_then(|log| log.get(log.len() / 2));
    let since = middle.ok_or_else(|| Failure::new("no child took a record"))?.eb_ref.published_at_utc;
    let end = logs.values().flatten().map(|r| r.eb_ref.published_at_utc).max().unwrap_or(since);

    // From the middle of a child; from behind everything there is; from a time that has not come.
    let past = end.saturating_add(Duration::from_micros(1));
    let mut tails = Vec::new();
    for since in [since, past, Timestamp::MAX] {
        let before: BTreeSet<_> = logs
            .values()
            .flat_map(|log| log.iter().take_while(|r| r.eb_ref.published_at_utc < since))
            .map(|r| r.eb_ref.to_string())
            .collect();
        tails.push((before, reader.tail_topic(&topic, StartAt::Timestamp(since), limit).await?));
    }
    acked.extend(publish_rounds(case, &topic, 9, 3).await?);
    case.bus.merge(&topic, halves[0].id, halves[1].id).await?;
    acked.extend(publish_rounds(case, &topic, 12, 3).await?);
    for (before, mut tail) in tails {
        let mut due: BTreeSet<_> =
            acked.iter().map(|a| a.at.to_string()).filter(|at| !before.contains(at)).collect();
        let deadline = Instant::now() + case.pace.visible_within;
        while !due.is_empty() {
            ensure!(Instant::now() < deadline, "{} records from a time on did not come: {due:?}", due.len());
            let turn = tail.next().await.ok_or_else(|| Failure::new("the tail ended on open partitions"))?;
            for record in turn?.1.records {
                let at = record.eb_ref.to_string();
                ensure!(due.remove(&at), "{at} is older than the tail's start, or came twice");
            }
        }
    }
    Ok(())
}

pub(crate) async fn publishing_goes_on_through_split_and_merge(case: &mut BusCase) -> Outcome {
    const EACH: usize = 40;
    let topic = case.topic("busy").await?;
    let mut tasks = Vec::new();
    for task in 0..8 {
        let (publisher, topic) = (case.publisher(), topic.clone());
        tasks.push(tokio::spawn(async move {
            let mut acked = Vec::new();
            for n in 0..EACH {
                let record = record(format!("k{task}"), n);
                acked.push(Acked { at: publisher.publish(&topic, record.clone()).await?, record });
                tokio::task::yield_now().await;
            }
            Outcome::Ok(acked)
        }));
    }
    case.bus.split(&topic, PartitionId(0)).await?;
    let halves = children_of(case, &topic, PartitionId(0)).await?;
    ensure_eq!(halves.len(), 2, "children of a split partition");
    case.bus.merge(&topic, halves[0].id, halves[1].id).await?;
    let mut acked = Vec::new();
    for task in tasks {
        acked.extend(task.await??);
    }
    case.expect_topic(&topic, &acked).await?;
    let reader = case.reader();
    let limit = ReadLimit::default().waiting(Duration::from_millis(100));
    let mut tail = reader.tail_topic(&topic, StartAt::Earliest, limit).await?;
    let mut got: Vec<Record> = Vec::new();
    while got.len() < acked.len() {
        let turn = tail.next().await.ok_or_else(|| Failure::new("the tail ended on open partitions"))?;
        got.extend(turn?.1.records);
    }
    for (key, numbers) in numbers_by_key(&got)? {
        ensure!(rises(&numbers) && numbers.len() == EACH, "the order of {key} through it all: {numbers:?}");
    }
    Ok(())
}
