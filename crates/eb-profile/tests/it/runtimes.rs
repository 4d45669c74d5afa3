//! A file bus opened from a profile publishes on every kind of runtime, also where blocking is not allowed.

use eb_contract::{
    EnvelopeRef, EventBusReaderExt as _, PartitionId, PartitionKey, PublishRecord, StartAt, Topic,
};
use eb_profile::{Env, Platform, Purpose};

async fn publish_three() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::only([("EB_RUNS", folder.path().to_str().unwrap())]);
    let platform = Platform::open_with("local", Purpose::Writing, &env).await.unwrap();
    let topic = Topic::new("fp.bus.traffic.v1").unwrap();
    let key = PartitionKey::new("m-1").unwrap();
    for n in 0..3 {
        let envelope = EnvelopeRef::new(format!("{{\"n\":{n}}}")).unwrap();
        let acked =
            platform.publisher().publish(&topic, PublishRecord::new(key.clone(), envelope)).await.unwrap();
        assert_eq!(acked.offset.as_u64(), Some(n));
    }
    let read = platform.reader().read_to_head(&topic, PartitionId(0), StartAt::Earliest).await.unwrap();
    assert_eq!(read.len(), 3);
    platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_publisher_on_a_multi_thread_runtime() {
    tokio::spawn(publish_three()).await.unwrap();
}

#[tokio::test]
async fn a_lone_publisher_on_a_current_thread_runtime() {
    publish_three().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_publisher_in_a_local_set_where_blocking_in_place_panics() {
    tokio::task::LocalSet::new().run_until(publish_three()).await;
}
