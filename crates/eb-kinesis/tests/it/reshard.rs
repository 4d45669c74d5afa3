//! Shards split and merged on the real engine while many publish and one follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eb_contract::{
    Cut, EbRef, EnvelopeRef, EventBusAdmin, EventBusPublisher, EventBusReader, EventBusReaderExt,
    PartitionId, PartitionKey, PublishRecord, ReadLimit, ReadState, Record, StartAt, Topic,
};
use eb_kinesis::{KinesisBus, KinesisConfig, StreamNames};
use eb_testkit::services::kinesis_url;

use crate::engine::{Engine, own_prefix, patient};

const PUBLISHERS: usize = 16;
const KEYS_EACH: usize = 3;

fn record(key: usize, n: usize) -> PublishRecord {
    let envelope = EnvelopeRef::new(format!("{{\"n\":{n}}}")).unwrap();
    PublishRecord::new(PartitionKey::new(format!("key-{key}")).unwrap(), envelope)
}

/// Publishes to keys of its own, one after the other, until it is told to stop.
async fn publish(
    publisher: Arc<dyn EventBusPublisher>,
    topic: Topic,
    first_key: usize,
    stop: Arc<AtomicBool>,
) -> Vec<EbRef> {
    let mut acked = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        for key in first_key..first_key + KEYS_EACH {
            acked.push(publisher.publish(&topic, record(key, n)).await.unwrap());
        }
        n += 1;
    }
    acked
}

/// What a tail has brought so far.
#[derive(Default)]
struct Followed {
    records: Vec<Record>,
    ended: BTreeSet<PartitionId>,
    /// Partitions in the order in which their first batch came, with those that had ended before.
    begun: BTreeMap<PartitionId, BTreeSet<PartitionId>>,
}

impl Followed {
    fn take(&mut self, partition: PartitionId, records: Vec<Record>, state: &ReadState) {
        self.begun.entry(partition).or_insert_with(|| self.ended.clone());
        self.records.extend(records);
        if matches!(state, ReadState::Closed { .. }) {
            assert!(self.ended.insert(partition), "partition {partition} ended twice");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_parents_come_before_children_while_shards_split_and_merge() {
    let url = kinesis_url().expect("an engine to test with");
    let engine = Engine::at(&url);
    let streams = StreamNames { prefix: own_prefix(), ..StreamNames::default() };
    let config =
        KinesisConfig { streams: streams.clone(), timeouts: patient(), ..KinesisConfig::emulator(&url) };
    let topic = Topic::new("moving").unwrap();
    let stream = streams.stream_of(&topic);
    let bus = KinesisBus::open(config.clone()).await.unwrap();
    bus.admin().create_topic(&topic, 2).await.unwrap();

    let publisher: Arc<dyn EventBusPublisher> = Arc::new(bus.publisher());
    let stop = Arc::new(AtomicBool::new(false));
    let publishing: Vec<_> = (0..PUBLISHERS)
        .map(|p| tokio::spawn(publish(publisher.clone(), topic.clone(), p * KEYS_EACH, stop.clone())))
        .collect();

    // The one who follows has a bus of its own: nothing but the service tells it of the shards.
    let follower = KinesisBus::open(config).await.unwrap().reader();
    let following = {
        let topic = topic.clone();
        let (done, mut is_done) = tokio::sync::oneshot::channel::<BTreeSet<String>>();
        let task = tokio::spawn(async move {
            let limit = ReadLimit::records(200).waiting(Duration::from_millis(50));
            let mut tail = follower.tail_topic(&topic, StartAt::Earliest, limit).await.unwrap();
            let mut followed = Followed::default();
            let mut wanted: Option<BTreeSet<String>> = None;
            loop {
                if wanted.is_none() {
                    wanted = is_done.try_recv().ok();
                }
                if let Some(wanted) = &mut wanted {
                    for r in &followed.records {
                        wanted.remove(&r.eb_ref.to_string());
                    }
                    if wanted.is_empty() {
                        return (followed, follower);
                    }
                }
                let (partition, batch) = tail.next().await.expect("there are open shards").unwrap();
                followed.take(partition, batch.records, &batch.state);
            }
        });
        (task, done)
    };

    engine.split(&stream, 0).await.unwrap();
    engine.split(&stream, 1).await.unwrap();
    engine.merge(&stream, 2, 3).await.unwrap();
    engine.merge(&stream, 6, 4).await.unwrap();
    engine.split(&stream, 7).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut acked = Vec::new();
    for task in publishing {
        acked.extend(task.await.unwrap());
    }
    let refs: BTreeSet<String> = acked.iter().map(ToString::to_string).collect();
    assert_eq!(refs.len(), acked.len(), "a place was ACKed twice");
    following.1.send(refs.clone()).unwrap();
    let (followed, follower) = following.0.await.unwrap();

    // Nothing lost, nothing twice.
    let got: Vec<String> = followed.records.iter().map(|r| r.eb_ref.to_string()).collect();
    let distinct: BTreeSet<_> = got.iter().cloned().collect();
    assert_eq!(distinct.len(), got.len(), "a record came twice");
    assert_eq!(distinct, refs);
    // Order per key, through all the shards that it has moved through.
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for r in &followed.records {
        by_key.entry(r.partition_key.as_str()).or_default().push(crate::read_support::number(r));
    }
    assert_eq!(by_key.len(), PUBLISHERS * KEYS_EACH);
    for (key, numbers) in by_key {
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "the order of {key}");
    }
    // Parents before children, each to its end.
    let listed = follower.partitions(&topic).await.unwrap().partitions;
    assert!(listed.len() >= 8, "{listed:?}");
    for info in &listed {
        if let Some(ended_before) = followed.begun.get(&info.id) {
            let parents: BTreeSet<_> = info.parents.iter().copied().collect();
            assert!(parents.is_subset(ended_before), "{} began before {parents:?} had ended", info.id);
        }
    }
    // Each shard is cut exactly where it was closed: read apart, they hold what was followed, and end.
    for info in listed.iter().filter(|p| p.closed) {
        let mut cursor = follower.cursor(&topic, info.id, Cut::Begin.into()).await.unwrap();
        let mut apart = Vec::new();
        loop {
            let batch = cursor.next(ReadLimit::records(50)).await.unwrap();
            apart.extend(batch.records.iter().map(|r| r.eb_ref.to_string()));
            if let ReadState::Closed { children } = batch.state {
                let named: BTreeSet<_> = children.into_iter().collect();
                let known: BTreeSet<_> =
                    listed.iter().filter(|p| p.parents.contains(&info.id)).map(|p| p.id).collect();
                assert_eq!(named, known, "the children of {}", info.id);
                break;
            }
        }
        let here = |r: &&Record| r.eb_ref.partition_id == info.id;
        let followed: Vec<_> = followed.records.iter().filter(here).map(|r| r.eb_ref.to_string()).collect();
        assert_eq!(apart, followed, "what {} holds", info.id);
    }
    publisher.close().await.unwrap();
    engine.delete_all(&streams.prefix).await.unwrap();
}
