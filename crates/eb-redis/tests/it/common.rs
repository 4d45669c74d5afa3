//! Servers, buses and records for the tests.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eb_contract::{
    EbRef, EnvelopeRef, EventBusReader, PartitionId, PartitionKey, PublishRecord, ReadLimit, ReadState,
    Record, StartAt, Topic,
};
use eb_redis::{RedisBus, RedisConfig, RedisUrl, Timeouts};
use eb_testkit::services::{Redis, RedisOptions, RedisWire, Signal, redis_url};

/// The port of the server that tests share who do nothing to it; each has a prefix of its own.
pub(crate) fn shared_port() -> u16 {
    let url = redis_url().expect("a Redis to test with");
    url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("the shared address ends in a port")
}

/// A connection to it.
pub(crate) fn shared_wire() -> RedisWire {
    RedisWire::connect(shared_port()).unwrap()
}

/// A prefix that no other test has, whichever process it runs in.
pub(crate) fn own_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A server that is there is waited for, however busy the machine is; one that is not says so at once.
pub(crate) fn config(port: u16) -> RedisConfig {
    let url = RedisUrl::parse(&format!("redis://127.0.0.1:{port}")).unwrap();
    RedisConfig { timeouts: patient(), ..RedisConfig::new(url) }
}

pub(crate) fn patient() -> Timeouts {
    Timeouts { connect: PATIENCE, answer: PATIENCE, ..Timeouts::default() }
}

/// A bus of its own on the shared server.
pub(crate) async fn own_bus() -> (RedisBus, String) {
    let prefix = own_prefix();
    let config = RedisConfig { prefix: prefix.clone(), ..config(shared_port()) };
    (RedisBus::open(config).await.unwrap(), prefix)
}

pub(crate) fn server(settings: &[(&str, &str)]) -> Redis {
    let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Redis::start(&RedisOptions { settings, ..RedisOptions::default() }).unwrap()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(crate) fn record(key: &str, n: usize) -> PublishRecord {
    let envelope = EnvelopeRef::new(format!(r#"{{"n":{n},"key":"{key}"}}"#)).unwrap();
    PublishRecord::new(PartitionKey::new(key.to_owned()).unwrap(), envelope)
}

/// The number in an envelope of [`record`].
pub(crate) fn number(envelope: &EnvelopeRef) -> usize {
    let text = std::str::from_utf8(envelope.as_bytes()).unwrap();
    let digits = text.strip_prefix(r#"{"n":"#).unwrap();
    digits.split(',').next().unwrap().parse().unwrap()
}

/// Everything in a partition.
pub(crate) async fn read_all(reader: &dyn EventBusReader, topic: &Topic, partition: u32) -> Vec<Record> {
    let mut cursor = reader.cursor(topic, PartitionId(partition), StartAt::Earliest).await.unwrap();
    let mut all = Vec::new();
    loop {
        let batch = cursor.next(ReadLimit::default()).await.unwrap();
        all.extend(batch.records);
        if batch.state == ReadState::CaughtUp {
            return all;
        }
    }
}

/// Each ACK names the record that is read there.
pub(crate) fn expect_acked(log: &[Record], acked: &[(EbRef, PublishRecord)]) {
    let at: std::collections::HashMap<_, _> = log.iter().map(|r| (&r.eb_ref, r)).collect();
    assert_eq!(at.len(), log.len(), "no two records share a place");
    for (eb_ref, record) in acked {
        let found = at.get(eb_ref).unwrap_or_else(|| panic!("ACKed and not there: {eb_ref}"));
        assert_eq!(found.envelope, record.envelope, "{eb_ref}");
        assert_eq!(found.partition_key, record.partition_key, "{eb_ref}");
    }
}

/// The numbers of each key rise, where each was published once in order; a record of unknown outcome is there or not.
pub(crate) fn expect_order(log: &[Record]) {
    let mut last: std::collections::HashMap<&PartitionKey, usize> = std::collections::HashMap::new();
    for record in log {
        let n = number(&record.envelope);
        if let Some(before) = last.insert(&record.partition_key, n) {
            assert!(before < n, "{}: {n} behind {before} at {}", record.partition_key, record.eb_ref);
        }
    }
}

/// Longer than anything here takes that comes at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a server, does something to its data, and starts it again, while the runtime goes on and sees what breaks.
pub(crate) async fn killed_and_restarted(mut server: Redis, between: fn(&Path)) -> Redis {
    tokio::task::spawn_blocking(move || {
        server.stop(Signal::Kill).unwrap();
        between(&server.data());
        server.restart().unwrap();
        server
    })
    .await
    .unwrap()
}
