//! Where a shard ends.
//!
//! No call tells the last sequence number. It is found by reading forward from a place that is known to exist until the
//! service says that nothing lies behind it:
//! - from the furthest record that this bus has read or has had ACKed: in a process that publishes or follows, one
//!   `GetShardIterator` and one `GetRecords` call (the latter alone while the shard is idle);
//! - otherwise from the horizon, whose first page says how far behind the newest record it lies: with a jump by time to
//!   two seconds before that, two calls of each kind;
//! - where that is not so (the service measures from now, and the shard was idle since), jumping back further and further
//!   and then halving the time: about twenty calls of each kind for 24 hours, four seconds at the service's rates.
//!
//! A jump never decides anything by itself: the end counts once a forward read from a record before it has reached it.

use std::time::Duration;

use eb_contract::{Cut, Offset, Result, Timestamp};
use tokio::time::Instant;

use crate::reader::page::Page;
use crate::reader::reads::{Climbed, Furthest};
use crate::reader::shard::{From, Shard};

/// Records of one call: enough for what a shard takes in a second.
const PAGE: usize = 1_000;
/// Iterators live for five minutes.
const ITERATOR_LIFE: Duration = Duration::from_secs(240);
/// What lies this near behind is read, not jumped over.
const NEAR_MS: i64 = 10_000;
/// How far the second jump goes back; each later one eight times as far.
const FIRST_STEP_MS: i64 = 16_000;

/// The end of a shard, found now: everything that was ACKed before the call lies before `cut`, and everything after it
/// arrived at `unread_since` or later.
pub(crate) async fn find(shard: &Shard) -> Result<Furthest> {
    let called = Instant::now();
    let mut climbed = shard.reads.climb.lock().await;
    if climbed.began.is_some_and(|began| began >= called)
        && let Some(found) = shard.reads.furthest(&shard.life)
    {
        return Ok(found);
    }
    let began = Instant::now();
    let asked_at = Timestamp::now();
    let known = shard.reads.furthest(&shard.life);
    let mut climb = match known {
        Some(known) => from_known(shard, known, &mut climbed).await?,
        None => Climb::new(None, shard.horizon_page(PAGE).await?),
    };
    while !climb.is_done() {
        climb.on(shard).await?;
    }
    let (cut, arrived) = (climb.cut(), climb.last.map(|(_, at)| at));
    let iterator = climb.page.next.map(|iterator| (cut, iterator, began));
    let found = Furthest { life: shard.life.clone(), cut, unread_since: asked_at, arrived };
    shard.reads.reached(found.clone());
    *climbed = Climbed { began: Some(began), iterator };
    // Others may have seen further meanwhile.
    Ok(shard.reads.furthest(&shard.life).unwrap_or(found))
}

/// The first page behind the furthest place known.
async fn from_known(shard: &Shard, known: Furthest, climbed: &mut Climbed) -> Result<Climb> {
    let last = known.cut.offset().copied().zip(known.arrived);
    let kept = climbed.iterator.take();
    let kept = kept.filter(|(cut, _, given)| *cut == known.cut && given.elapsed() < ITERATOR_LIFE);
    let page = shard.read_on(&known.cut, kept.map(|(_, iterator, _)| iterator), PAGE).await?;
    Ok(Climb::new(last, page))
}

/// A climb from a record towards the end.
struct Climb {
    /// The last record that was seen, and when it arrived.
    last: Option<(Offset, Timestamp)>,
    /// The page behind it.
    page: Page,
    /// In milliseconds: nothing had arrived at this time or later.
    empty_from: Option<i64>,
    /// How far the next jump goes back.
    step: i64,
}

impl Climb {
    fn new(last: Option<(Offset, Timestamp)>, page: Page) -> Self {
        let mut climb = Self { last, page, empty_from: None, step: FIRST_STEP_MS };
        climb.note();
        climb
    }

    fn note(&mut self) {
        if let Some(last) = self.page.records.back()
            // An engine may bring the start record again.
            && self.last.is_none_or(|(before, _)| last.offset > before)
        {
            self.last = Some((last.offset, last.arrived));
        }
    }

    fn is_done(&self) -> bool {
        self.page.caught_up || self.page.next.is_none()
    }

    /// The cut behind what was seen.
    fn cut(&self) -> Cut {
        self.last.map_or(Cut::Begin, |(offset, _)| Cut::After(offset))
    }

    /// One step nearer to the end.
    async fn on(&mut self, shard: &Shard) -> Result<()> {
        let Some(target) = self.target(shard) else {
            let next = self.page.next.take();
            self.page = shard.read_on(&self.cut(), next, PAGE).await?;
            self.note();
            return Ok(());
        };
        match shard.first_page(From::Millis(target), PAGE).await? {
            Ok(page) if !page.records.is_empty() => {
                self.page = page;
                self.note();
            }
            // Nothing since then; or it lies in the future by the service's clock, where nothing is either.
            Ok(_) | Err(_) => {
                self.empty_from = Some(target);
                self.step = self.step.saturating_mul(8);
            }
        }
        Ok(())
    }

    /// The time to jump to, in milliseconds; `None` where reading on is as well.
    fn target(&self, shard: &Shard) -> Option<i64> {
        let now = Timestamp::now().as_micros() / 1_000;
        let behind = self.page.behind.filter(|ms| *ms > NEAR_MS)?;
        let low = match self.last {
            Some((_, at)) => at.as_micros() / 1_000,
            None => now.saturating_sub(behind).max(shard.created.as_micros() / 1_000),
        };
        let target = match self.empty_from {
            None => low.saturating_add(behind).min(now) - 2_000,
            Some(high) => (high - self.step).max(low.midpoint(high)),
        };
        let far = self.empty_from.is_none_or(|high| high - low > NEAR_MS);
        (far && target > low).then_some(target)
    }
}
