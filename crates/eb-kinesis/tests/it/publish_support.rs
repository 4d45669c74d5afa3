//! A publisher before a scripted fake of the service.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use eb_contract::{
    EbRef, Effect, EnvelopeRef, Error, EventBusPublisher, PartitionKey, PublishRecord, Result, Topic,
};
use eb_kinesis::{KinesisBus, KinesisConfig, KinesisPublisher, PublishConfig};
use eb_testkit::kinesis_fake::KinesisFake;
use eb_testkit::services::free_port;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::engine::patient;

/// A fake with one stream, and a publisher before it.
pub(crate) struct Stage {
    pub(crate) fake: KinesisFake,
    pub(crate) publisher: KinesisPublisher,
    pub(crate) topic: Topic,
}

pub(crate) const STREAM: &str = "orders";

impl Stage {
    pub(crate) async fn new(shards: u32) -> Self {
        Self::with(shards, |_| {}).await
    }

    pub(crate) async fn with(shards: u32, change: impl FnOnce(&mut PublishConfig)) -> Self {
        let fake = KinesisFake::start().await.unwrap();
        fake.create_stream(STREAM, shards);
        let mut config = config(&fake.endpoint_url());
        change(&mut config.publish);
        let publisher = KinesisBus::open(config).await.unwrap().publisher();
        Self { fake, publisher, topic: topic() }
    }

    /// Opens the topic, so that only `PutRecords` is asked from here on.
    pub(crate) async fn warm(self) -> Self {
        self.publish("warm", 0).await.unwrap();
        self
    }

    pub(crate) async fn publish(&self, key: &str, n: usize) -> Result<EbRef> {
        self.publisher.publish(&self.topic, record(key, n)).await
    }

    pub(crate) async fn batch(&self, keys: &[&str]) -> Vec<Result<EbRef>> {
        let records = keys.iter().enumerate().map(|(n, key)| record(key, n + 1)).collect();
        self.publisher.publish_batch(&self.topic, records).await
    }

    /// The numbers of the stored records, by key, in the order in which they lie there.
    pub(crate) fn stored(&self) -> BTreeMap<String, Vec<usize>> {
        let mut stored: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for r in self.fake.records(STREAM) {
            stored.entry(r.entry.partition_key.clone()).or_default().push(number(&r.entry.data));
        }
        stored
    }

    pub(crate) fn numbers_of(&self, key: &str) -> Vec<usize> {
        self.stored().remove(key).unwrap_or_default()
    }

    /// Whether this record is stored exactly there.
    pub(crate) fn expect_at(&self, at: &EbRef, key: &str, n: usize) {
        let shard = format!("shardId-{:012}", at.partition_id.0);
        let offset = at.offset.to_string();
        let found = self.fake.records(STREAM).into_iter().any(|r| {
            r.shard_id == shard
                && r.sequence_number.as_str() == offset
                && r.entry.partition_key == key
                && number(&r.entry.data) == n
        });
        assert!(found, "{key} {n} is ACKed at {at} and is not there");
    }

    pub(crate) fn calls(&self) -> usize {
        self.fake.requests_of(eb_testkit::kinesis_fake::Op::PutRecords).len()
    }
}

pub(crate) fn config(url: &str) -> KinesisConfig {
    KinesisConfig { timeouts: patient(), ..KinesisConfig::emulator(url) }
}

pub(crate) fn topic() -> Topic {
    Topic::new(STREAM).unwrap()
}

pub(crate) fn record(key: &str, n: usize) -> PublishRecord {
    let envelope = EnvelopeRef::new(format!("{{\"n\":{n}}}")).unwrap();
    PublishRecord::new(PartitionKey::new(key.to_owned()).unwrap(), envelope)
}

pub(crate) fn number(data: &[u8]) -> usize {
    std::str::from_utf8(&data[5..data.len() - 1]).unwrap().parse().unwrap()
}

/// A port of its own before a server, which refuses connections while it is shut.
pub(crate) struct Door {
    to: SocketAddr,
    at: SocketAddr,
    open: Option<tokio::task::JoinHandle<()>>,
}

impl Door {
    /// A door that is shut.
    pub(crate) fn to(to: SocketAddr) -> Self {
        Self { to, at: (Ipv4Addr::LOCALHOST, free_port().unwrap()).into(), open: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    pub(crate) async fn open(&mut self) {
        let (listener, to) = (TcpListener::bind(self.at).await.unwrap(), self.to);
        self.open = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    // How a connection ends is for its two sides to find out.
                    drop(copy_bidirectional(&mut client, &mut server).await);
                });
            }
        }));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.abort();
        }
    }
}

/// Kind and effect of an answer: `ok` for an ACK.
pub(crate) fn told(answer: &Result<EbRef>) -> (&'static str, Option<Effect>) {
    match answer {
        Ok(_) => ("ok", None),
        Err(e) => (e.kind().code(), Some(e.effect())),
    }
}

/// What a record answers that was stored nowhere, and may be.
pub(crate) const UNKNOWN: Option<Effect> = Some(Effect::Unknown);
pub(crate) const NONE: Option<Effect> = Some(Effect::None);

pub(crate) fn rises(numbers: &[usize]) -> bool {
    numbers.windows(2).all(|w| w[0] < w[1])
}

pub(crate) fn error_of(answer: Result<EbRef>) -> Error {
    answer.expect_err("it must fail")
}
