//! The buses that a platform moves between, and what can be done to their servers.
//!
//! | | Redis | Kinesis |
//! |---|---|---|
//! | gone | the server is killed, and started again with its append-only file | the line to the engine is cut: the engine (`kinesis-local`) keeps its streams in memory and would lose them, or the last second of them |
//! | halted | SIGSTOP: connections stand, nothing answers; what was sent is worked off when it goes on | the same |
//! | slow | halted and let go on, many times | the same |

use std::path::PathBuf;

use eb_contract::{EventBusAdmin as _, EventBusPublisher, EventBusReader, PublishRecord, Topic};
use eb_file::{FileBus, FileBusConfig};
use eb_kinesis::{KinesisBus, KinesisConfig, StreamNames};
use eb_redis::{RedisBus, RedisConfig, RedisUrl};
use eb_testkit::services::{KinesisLocal, KinesisLocalOptions, Paused, Redis, RedisOptions, Signal};

use super::wire::Wire;

pub(super) enum Bus {
    /// In this folder. Nothing is ever done to them here.
    Files(PathBuf),
    Redis(Redis),
    Kinesis(KinesisLocal, Wire),
}

impl Bus {
    pub(super) fn redis() -> Self {
        Self::Redis(Redis::start(&RedisOptions::default()).expect("a Redis to test with"))
    }

    pub(super) fn kinesis() -> Self {
        let environment = vec![("CREATE_STREAM_DURATION".to_owned(), "50ms".to_owned())];
        let options = KinesisLocalOptions { environment, ..KinesisLocalOptions::default() };
        let engine = KinesisLocal::start(&options).expect("a Kinesis engine to test with");
        let wire = Wire::to(engine.port());
        Self::Kinesis(engine, wire)
    }

    /// How a profile names it.
    pub(super) fn settings(&self) -> String {
        match self {
            Self::Files(root) => format!("{{kind: file, root: \"{}\"}}", root.display()),
            Self::Redis(server) => format!(
                "{{kind: redis, redis: {{url: \"{}\", connect_timeout_ms: 400, answer_timeout_ms: 1500, publish: {{give_up_after_ms: 1500}}}}}}",
                server.url()
            ),
            Self::Kinesis(_, wire) => format!(
                "{{kind: kinesis, kinesis: {{endpoint_url: \"http://127.0.0.1:{}\", connect_timeout_ms: 400, attempt_timeout_ms: 1500, publish: {{give_up_after_ms: 1500}}, read: {{idle_poll_ms: 100, retry_for_ms: 1000}}}}}}",
                wire.port()
            ),
        }
    }

    /// Nobody reaches it any more. What it has ACKed it still has when it is back.
    pub(super) fn go(&mut self) {
        match self {
            Self::Files(_) => unreachable!("files are always there"),
            Self::Redis(server) => server.stop(Signal::Kill).unwrap(),
            Self::Kinesis(_, wire) => wire.cut(),
        }
    }

    pub(super) fn come_back(&mut self) {
        match self {
            Self::Files(_) => {}
            Self::Redis(server) => server.restart().unwrap(),
            Self::Kinesis(_, wire) => wire.mend(),
        }
    }

    /// Halts it until the answer is dropped.
    pub(super) fn halt(&self) -> Paused {
        match self {
            Self::Files(_) => unreachable!("files are always there"),
            Self::Redis(server) => server.pause().unwrap(),
            Self::Kinesis(engine, _) => engine.pause().unwrap(),
        }
    }

    pub(super) async fn reader(&self) -> Box<dyn EventBusReader> {
        match self {
            Self::Files(root) => Box::new(FileBus::open(FileBusConfig::new(root.clone())).unwrap().reader()),
            Self::Redis(server) => Box::new(redis(server).await.reader()),
            Self::Kinesis(engine, _) => {
                let bus = KinesisBus::open(KinesisConfig::emulator(&engine.url())).await.unwrap();
                Box::new(bus.reader())
            }
        }
    }

    /// Somebody else's record.
    pub(super) async fn intrude(&self, topic: &Topic, record: PublishRecord) {
        match self {
            Self::Redis(server) => redis(server).await.publisher().publish(topic, record).await.map(drop),
            _ => unreachable!("no test needs it"),
        }
        .unwrap();
    }

    /// What is put into a topic from now on is ACKed and lies elsewhere, in a stream that nobody reads: as behind a proxy or a name that leads to
    /// the wrong place.
    pub(super) async fn lead_astray(&self, topic: &Topic, partitions: u32) {
        let Self::Kinesis(engine, wire) = self else { unreachable!("only names of streams lead astray") };
        let astray = topic.as_str().replace("traffic", "nowhere");
        let named = [(topic.clone(), astray.clone())].into();
        let streams = StreamNames { named, ..StreamNames::default() };
        let config = KinesisConfig { streams, ..KinesisConfig::emulator(&engine.url()) };
        KinesisBus::open(config).await.unwrap().admin().create_topic(topic, partitions).await.unwrap();
        wire.lead_astray(topic.as_str(), &astray);
    }
}

async fn redis(server: &Redis) -> RedisBus {
    RedisBus::open(RedisConfig::new(RedisUrl::parse(&server.url()).unwrap())).await.unwrap()
}
