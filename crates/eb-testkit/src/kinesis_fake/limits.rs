//! What the service refuses for size or rate.

use std::time::Duration;

/// The limits in force. The defaults are the service's documented ones (late 2025), but for the rates, which are off:
/// a test that is not about throttling should not meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one `PutRecords` call.
    pub put_records: usize,
    /// Bytes of one `PutRecords` call: data and partition keys of all entries.
    pub put_bytes: usize,
    /// Bytes of one record, data and partition key, in streams created from now on. The service's default is 1 MiB;
    /// streams can be set to as much as 10 MiB.
    pub record_bytes: usize,
    /// Records of one `GetRecords` page.
    pub get_records: usize,
    /// Bytes of one `GetRecords` page; a page holds at least one record.
    pub get_bytes: usize,
    /// What one shard accepts, or `None` for no limit.
    pub write_rate: Option<WriteRate>,
    /// What one shard hands out through `GetRecords`, or `None` for no limit.
    pub read_rate: Option<ReadRate>,
    /// How long a shard iterator lives.
    pub iterator_life: Duration,
    /// How long a pagination token lives.
    pub token_life: Duration,
    /// Items of one page of `ListShards`, `ListStreams` and `DescribeStream`, whatever the caller asks for.
    pub list_page: usize,
    /// Open shards of all streams together.
    pub open_shards: usize,
    /// What happens to a read below the trim horizon.
    pub below_horizon: BelowHorizon,
    /// How many times a stream is described before a change of it has settled (`CREATING`, `UPDATING` and `DELETING`
    /// until then). 0 settles at once.
    pub settles_after: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            put_records: 500,
            put_bytes: 10 << 20,
            record_bytes: 1 << 20,
            get_records: 10_000,
            get_bytes: 10 << 20,
            write_rate: None,
            read_rate: None,
            iterator_life: Duration::from_secs(300),
            token_life: Duration::from_secs(300),
            list_page: 1_000,
            open_shards: 5_000,
            below_horizon: BelowHorizon::Jump,
            settles_after: 0,
        }
    }
}

/// What happens to a read whose position retention has taken. The documentation does not say; clients of the service
/// report all of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BelowHorizon {
    /// It goes on at the oldest record left, without a word.
    #[default]
    Jump,
    /// It gets this many empty pages, a retention period behind the tip, and then goes on at the oldest record left.
    EmptyPages(u32),
    /// `GetShardIterator` refuses the sequence number with `InvalidArgumentException`; an iterator that was given
    /// before jumps.
    Refuse,
}

/// A shard's write rate; a second's worth may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRate {
    /// Records per second.
    pub records: u32,
    /// Bytes per second, partition keys included.
    pub bytes: u32,
}

impl Default for WriteRate {
    /// 1,000 records and 1 MB.
    fn default() -> Self {
        Self { records: 1_000, bytes: 1_000_000 }
    }
}

/// A shard's rate for `GetRecords`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRate {
    /// Calls per second.
    pub calls: u32,
    /// Bytes per second. A call may return more than that; calls are then refused until the rate has caught up (10 MB
    /// block the shard for five seconds).
    pub bytes: u32,
}

impl Default for ReadRate {
    /// 5 calls and 2 MB.
    fn default() -> Self {
        Self { calls: 5, bytes: 2_000_000 }
    }
}

/// Tokens that refill with the fake's clock, holding a second's worth at most.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Thousandths of a token that are used up; refilling brings it down to 0.
    used: i64,
    at: i64,
}

impl Bucket {
    fn refill(&mut self, rate: u32, now: i64) {
        // rate per second is rate thousandths per millisecond.
        self.used = (self.used - now.saturating_sub(self.at).max(0).saturating_mul(i64::from(rate))).max(0);
        self.at = now;
    }

    /// Whether `n` fit beside what is used.
    pub(super) fn fits(&mut self, n: usize, rate: u32, now: i64) -> bool {
        self.refill(rate, now);
        self.used + thousandths(n) <= i64::from(rate) * 1_000
    }

    /// Whether the next call may come although it does not know yet how much it will take: while there is no debt.
    pub(super) fn is_open(&mut self, rate: u32, now: i64) -> bool {
        self.refill(rate, now);
        self.used < i64::from(rate) * 1_000
    }

    pub(super) fn take(&mut self, n: usize) {
        self.used += thousandths(n);
    }
}

fn thousandths(n: usize) -> i64 {
    i64::try_from(n).map_or(i64::MAX / 4, |n| n.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_second_and_pays_its_debt() {
        let mut calls = Bucket::default();
        for _ in 0..5 {
            assert!(calls.fits(1, 5, 0));
            calls.take(1);
        }
        assert!(!calls.fits(1, 5, 199));
        assert!(calls.fits(1, 5, 200));

        let mut bytes = Bucket::default();
        assert!(bytes.is_open(2_000_000, 0));
        bytes.take(10_000_000);
        assert!(!bytes.is_open(2_000_000, 4_000));
        assert!(bytes.is_open(2_000_000, 4_001));
    }
}
