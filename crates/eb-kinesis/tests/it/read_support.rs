//! A reader before a scripted fake of the service.

use std::time::Duration;

use eb_contract::{
    Cursor, Cut, EventBusReader, Offset, OffsetKind, PartitionId, ReadBatch, ReadLimit, ReadState, Record,
    StartAt, Timestamp, Topic,
};
use eb_kinesis::{KinesisBus, KinesisConfig, KinesisReader, ReadConfig};
use eb_testkit::kinesis_fake::{KinesisFake, Op, StoredRecord};

pub(crate) const STREAM: &str = "facts";
pub(crate) const P0: PartitionId = PartitionId(0);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A fake with one stream, and readers before it.
pub(crate) struct Scene {
    pub(crate) fake: KinesisFake,
    pub(crate) topic: Topic,
    pub(crate) config: KinesisConfig,
}

impl Scene {
    pub(crate) async fn new(shards: u32) -> Self {
        Self::at(None, shards).await
    }

    /// A stream that was created this long ago; the fake's clock stands there until it is moved.
    pub(crate) async fn since(ago: Duration, shards: u32) -> Self {
        Self::at(Some(ago), shards).await
    }

    async fn at(ago: Option<Duration>, shards: u32) -> Self {
        let fake = KinesisFake::start().await.unwrap();
        if let Some(ago) = ago {
            fake.freeze_clock(fake.now_millis() - i64::try_from(ago.as_millis()).unwrap());
        }
        fake.create_stream(STREAM, shards);
        let mut config = KinesisConfig::emulator(&fake.endpoint_url());
        config.timeouts = crate::engine::patient();
        config.read.idle_poll = Duration::from_millis(5);
        config.read.shards_fresh_for = Duration::ZERO;
        Self { fake, topic: Topic::new(STREAM).unwrap(), config }
    }

    pub(crate) fn reading(mut self, change: impl FnOnce(&mut ReadConfig)) -> Self {
        change(&mut self.config.read);
        self
    }

    /// A reader that knows nothing yet.
    pub(crate) async fn reader(&self) -> KinesisReader {
        KinesisBus::open(self.config.clone()).await.unwrap().reader()
    }

    pub(crate) async fn cursor(&self, start: impl Into<StartAt>) -> Box<dyn Cursor> {
        self.reader().await.cursor(&self.topic, P0, start.into()).await.unwrap()
    }

    /// Stores the records `from..to` of one key.
    pub(crate) fn put(&self, from: usize, to: usize) -> Vec<StoredRecord> {
        (from..to).map(|n| self.fake.put(STREAM, "k", format!("{{\"n\":{n}}}"))).collect()
    }

    /// Stores them an hour apart.
    pub(crate) fn put_hourly(&self, from: usize, to: usize) -> Vec<StoredRecord> {
        let stored = (from..to).map(|n| {
            let record = self.put(n, n + 1).remove(0);
            self.fake.advance(HOUR);
            record
        });
        stored.collect()
    }

    pub(crate) fn gets(&self) -> usize {
        self.fake.requests_of(Op::GetRecords).len()
    }

    pub(crate) fn iterators(&self) -> usize {
        self.fake.requests_of(Op::GetShardIterator).len()
    }
}

pub(crate) fn offset(record: &StoredRecord) -> Offset {
    Offset::parse(OffsetKind::KinesisSequence, record.sequence_number.as_str()).unwrap()
}

pub(crate) fn after(record: &StoredRecord) -> Cut {
    Cut::After(offset(record))
}

pub(crate) fn next(record: &StoredRecord) -> Cut {
    Cut::Next(offset(record))
}

pub(crate) fn number(record: &Record) -> usize {
    let text = record.envelope.as_str().unwrap();
    text[5..text.len() - 1].parse().unwrap()
}

pub(crate) fn numbers(records: &[Record]) -> Vec<usize> {
    records.iter().map(number).collect()
}

pub(crate) fn patient() -> ReadLimit {
    ReadLimit::default().waiting(Duration::from_secs(30))
}

/// All that comes until the head or the end, and how it ended.
pub(crate) async fn rest(cursor: &mut dyn Cursor) -> (Vec<usize>, ReadState) {
    let mut all = Vec::new();
    loop {
        let ReadBatch { records, state, .. } = cursor.next(ReadLimit::default()).await.unwrap();
        all.extend(numbers(&records));
        if state != ReadState::More {
            return (all, state);
        }
    }
}

pub(crate) fn ago(duration: Duration) -> Timestamp {
    let micros = i64::try_from(duration.as_micros()).unwrap();
    Timestamp::from_micros(Timestamp::now().as_micros() - micros).unwrap()
}
