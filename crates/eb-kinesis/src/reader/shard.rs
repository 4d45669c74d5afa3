//! The calls that read one shard: paced, tried again where that changes nothing, classified.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::get_records::GetRecordsError;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_types::DateTime;
use eb_contract::{BusIncarnation, Error, ErrorKind, Offset, PartitionId, Result, Retry, Timestamp, Topic};
use tokio::time::{Instant, sleep};

use crate::bus::Shared;
use crate::error;
use crate::reader::page::Page;
use crate::reader::reads::ShardReads;

/// One shard of one life of a stream, as a cursor or [`head`](super::head) reads it.
pub(crate) struct Shard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) topic: Topic,
    pub(crate) stream: String,
    pub(crate) partition: PartitionId,
    pub(crate) shard_id: String,
    /// The partitions that it goes on from, whether they are still there or not.
    pub(crate) parents: Vec<PartitionId>,
    pub(crate) life: BusIncarnation,
    /// When the stream was created: nothing in it can be older.
    pub(crate) created: Timestamp,
    /// What all cursors of the bus share on this shard.
    pub(crate) reads: Arc<ShardReads>,
}

/// Where an iterator starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum From {
    Horizon,
    At(Offset),
    After(Offset),
    /// The first record that arrived at or after this millisecond.
    Millis(i64),
}

/// What came of asking for an iterator.
pub(crate) enum Iterator {
    Given(String),
    /// The service does not know the sequence number, or says that the time lies in the future.
    Refused(Error),
}

/// What came of asking for a page.
pub(crate) enum Got {
    Page(Page),
    /// The iterator has expired, or the service does not know it any more (an emulator was started anew).
    Expired(Error),
}

/// How often a call that failed for another reason than throttling is made again.
const REPEATS: u32 = 2;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Shard {
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// How long the stream keeps records; an error when it is not the stream any more that it was.
    ///
    /// That is asked at most every `shards_fresh_for`. Where it cannot be asked at the moment the answer from before
    /// counts on: the reads themselves tell whether the service is there.
    pub(crate) async fn retention(&self, max_age: Duration) -> Result<Duration> {
        let layouts = &self.shared.reads.layouts;
        let asked =
            layouts.retention_of(&self.shared.client, &self.topic, &self.stream, &self.life, max_age).await;
        match asked {
            Err(e) if e.is_retryable() => match self.reads.retention() {
                Some(retention) => Ok(retention),
                None => Err(e),
            },
            Ok(retention) => {
                self.reads.keeps(retention);
                Ok(retention)
            }
            Err(e) => Err(e),
        }
    }

    /// The same, asked now.
    pub(crate) async fn check_life(&self) -> Result<Duration> {
        self.retention(Duration::ZERO).await
    }

    /// An iterator.
    pub(crate) async fn iterator(&self, from: From) -> Result<Iterator> {
        let number = |o: Offset| Some(o.to_string());
        let (kind, number, at) = match from {
            From::Horizon => (ShardIteratorType::TrimHorizon, None, None),
            From::At(o) => (ShardIteratorType::AtSequenceNumber, number(o), None),
            From::After(o) => (ShardIteratorType::AfterSequenceNumber, number(o), None),
            From::Millis(ms) => (ShardIteratorType::AtTimestamp, None, Some(DateTime::from_millis(ms))),
        };
        let mut patience = Patience::new(self);
        loop {
            self.reads.iterators.turn().await;
            let request = self
                .shared
                .client
                .get_shard_iterator()
                .stream_name(&self.stream)
                .shard_id(&self.shard_id)
                .shard_iterator_type(kind.clone())
                .set_starting_sequence_number(number.clone())
                .set_timestamp(at);
            let e = match request.send().await {
                Ok(answer) => {
                    return answer
                        .shard_iterator
                        .map(Iterator::Given)
                        .ok_or_else(|| error::violation("read", self.place(), "the answer has no iterator"));
                }
                Err(e) => e,
            };
            let refused = e.as_service_error().is_some_and(|e| {
                // AWS refuses an unknown number as an argument; other engines say that it is not found.
                e.is_invalid_argument_exception() || (e.is_resource_not_found_exception() && number.is_some())
            });
            let e = error::reading("read", self.place(), &e);
            if refused && from != From::Horizon {
                // What is not found may also be the stream.
                self.check_life().await?;
                return Ok(Iterator::Refused(e));
            }
            patience.after(e, &self.reads.iterators).await?;
        }
    }

    /// A page of at most `limit` records.
    pub(crate) async fn page(&self, iterator: &str, limit: usize) -> Result<Got> {
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut patience = Patience::new(self);
        loop {
            self.reads.pages.turn().await;
            let asked = (Timestamp::now(), Instant::now());
            let request = self.shared.client.get_records().shard_iterator(iterator).limit(most);
            let e = match request.send().await {
                Ok(answer) => {
                    let page = Page::read(self, answer, limit, asked)?;
                    self.reads.pages.brought(page.bytes());
                    if let Some(last) = page.records.back() {
                        self.reads.saw(&self.life, last.offset, last.arrived, last.arrived);
                    }
                    return Ok(Got::Page(page));
                }
                Err(e) => e,
            };
            let service = e.as_service_error();
            let expired = service.is_some_and(GetRecordsError::is_expired_iterator_exception);
            let unknown = service
                .is_some_and(|e| e.is_resource_not_found_exception() || e.is_invalid_argument_exception());
            let e = error::reading("read", self.place(), &e);
            if unknown {
                // What is not found may also be the stream.
                self.check_life().await?;
            }
            if expired || unknown {
                return Ok(Got::Expired(e));
            }
            patience.after(e, &self.reads.pages).await?;
        }
    }
}

/// How long a call that changes nothing is made again.
struct Patience<'a> {
    shard: &'a Shard,
    since: Instant,
    pause: Duration,
    failed: u32,
}

impl<'a> Patience<'a> {
    fn new(shard: &'a Shard) -> Self {
        Self { shard, since: Instant::now(), pause: FIRST_PAUSE, failed: 0 }
    }

    /// Waits before the next attempt, or gives the error back when there has been enough of them.
    async fn after(&mut self, e: Error, pace: &crate::reader::pace::Pace) -> Result<()> {
        let throttled = matches!(e.kind(), ErrorKind::Throttled { .. });
        self.failed += u32::from(!throttled);
        let worth_it = match e.retry() {
            Retry::Later | Retry::After(_) => {
                self.failed <= REPEATS && self.since.elapsed() < self.shard.shared.config.read.retry_for
            }
            Retry::Never | Retry::AfterReopen => false,
        };
        if !worth_it {
            return Err(e);
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        if throttled {
            // Whoever reads the shard is throttled as well, so that all of them wait.
            pace.throttled(pause);
        } else {
            sleep(pause).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use eb_testkit::kinesis_fake::KinesisFake;
    use futures_util::FutureExt;

    use super::*;
    use crate::reader::Calls;
    use crate::{KinesisBus, KinesisConfig};

    #[tokio::test]
    async fn a_retention_that_has_changed_is_not_forgotten_between_two_looks() {
        let fake = KinesisFake::start().await.unwrap();
        fake.create_stream("facts", 1);
        let bus = KinesisBus::open(KinesisConfig::emulator(&fake.endpoint_url())).await.unwrap();
        let topic = Topic::new("facts").unwrap();
        let (shard, _) = Calls::of(&bus.reader()).shard("read", &topic, PartitionId(0)).await.unwrap();
        let (day, week) = (Duration::from_secs(24 * 3_600), Duration::from_secs(7 * 24 * 3_600));
        assert_eq!(shard.check_life().await.unwrap(), day);
        let raise = shard.shared.client.increase_stream_retention_period().stream_name("facts");
        raise.retention_period_hours(7 * 24).send().await.unwrap();
        assert_eq!(shard.retention(day).await.unwrap(), day, "it was not asked");
        assert_eq!(shard.check_life().await.unwrap(), week);
        assert_eq!(shard.retention(day).await.unwrap(), week);
    }

    #[tokio::test]
    async fn who_reads_a_throttled_shard_waits_with_the_one_who_was_told() {
        let fake = KinesisFake::start().await.unwrap();
        fake.create_stream("facts", 1);
        let bus = KinesisBus::open(KinesisConfig::emulator(&fake.endpoint_url())).await.unwrap();
        let (one, topic) = (bus.reader(), Topic::new("facts").unwrap());
        let (shard, _) = Calls::of(&one).shard("read", &topic, PartitionId(0)).await.unwrap();
        let (other, _) = Calls::of(&bus.reader()).shard("read", &topic, PartitionId(0)).await.unwrap();
        tokio::time::pause();
        let mut patience = Patience::new(&shard);
        let mut told = async |kind| {
            let began = Instant::now();
            let told = patience.after(Error::new(kind, "read", "told"), &shard.reads.pages);
            told.now_or_never().expect("the wait is everybody's").unwrap();
            other.reads.pages.turn().await;
            began.elapsed()
        };
        for pause in [FIRST_PAUSE, FIRST_PAUSE * 2] {
            let waited = told(ErrorKind::Throttled { after: None }).await;
            assert!(waited >= pause && waited < pause + FIRST_PAUSE, "{waited:?}");
        }
        // Asking for iterators is another matter, and so is a failure of one call.
        other.reads.iterators.turn().await;
        let (failed, mut alone) = (Error::new(ErrorKind::Unavailable, "read", "told"), Patience::new(&shard));
        let mut waits = Box::pin(alone.after(failed, &shard.reads.pages));
        assert!((&mut waits).now_or_never().is_none());
        let began = Instant::now();
        other.reads.pages.turn().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
