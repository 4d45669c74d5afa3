//! Where a cursor starts: each [`StartAt`] resolved to a place, once.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Cut, Error, ErrorKind, Offset, OffsetKind, Result, StartAt, Timestamp};

use crate::config::service;
use crate::reader::fetch::{Fetched, Place};
use crate::reader::head;
use crate::reader::page::{Page, Raw};
use crate::reader::shard::{From, Shard};

/// A place to start from, with what was read on the way to it.
pub(crate) struct Opened {
    pub(crate) place: Place,
    pub(crate) ahead: Option<Fetched>,
    /// Stands at the place.
    pub(crate) iterator: Option<String>,
}

impl Opened {
    fn at(cut: Cut, unread_since: Timestamp, kept_for: Duration) -> Self {
        let place = Place { cut, unread_since: Some(unread_since), kept_for };
        Self { place, ahead: None, iterator: None }
    }
}

/// How far the service's clock may lie ahead of ours; with more it would refuse our signatures.
const SKEW: Duration = Duration::from_secs(300);

/// Resolves a start.
pub(crate) async fn open(shard: &Arc<Shard>, start: StartAt) -> Result<Opened> {
    let fresh = shard.shared.config.read.shards_fresh_for;
    let retention = shard.retention(fresh).await?;
    match start {
        StartAt::Earliest if shard.is_young(retention) => {
            Ok(Opened::at(Cut::Begin, shard.created, retention))
        }
        StartAt::Earliest => {
            let page = shard.horizon_page(shard.shared.config.read.max_records_per_call).await?;
            match page.records.front() {
                Some(first) => from_record(shard, first.offset, first.arrived, page, retention).await,
                None => Ok(Opened::at(Cut::Begin, page.asked_at, retention)),
            }
        }
        StartAt::Latest => {
            let head = head::find(shard).await?;
            Ok(Opened::at(head.cut, head.unread_since, retention))
        }
        StartAt::Timestamp(at) => at_time(shard, at, retention).await,
        StartAt::Cut(cut) => at_cut(shard, cut, None, retention).await,
        StartAt::Resume { cut, caught_up_at } => at_cut(shard, cut, Some(caught_up_at), retention).await,
    }
}

async fn at_cut(
    shard: &Arc<Shard>,
    cut: Cut,
    caught_up_at: Option<Timestamp>,
    retention: Duration,
) -> Result<Opened> {
    if let Some(kind) = cut.offset_kind()
        && kind != OffsetKind::KinesisSequence
    {
        let message =
            format!("the cut is of kind {kind}, the offsets of Kinesis are of kind kinesis_sequence");
        return Err(invalid(shard, message));
    }
    // What was read or ACKed in this process may tell it too.
    let known = shard
        .reads
        .furthest(&shard.life)
        .filter(|f| f.cut.compare(&cut).is_some_and(std::cmp::Ordering::is_le));
    let since = caught_up_at.max(known.map(|f| f.unread_since)).max(Some(shard.created));
    let kept_for = match cut {
        // Nothing of its own shows where it is: the alarm would be false as a rule.
        Cut::Begin | Cut::End => retention,
        // It may have been raised since the cut was stored, and after records had expired.
        Cut::Next(_) | Cut::After(_) => retention.min(service::LEAST_RETENTION),
    };
    if !shard.keeps_since(since, kept_for) {
        let ahead = shard.fetch_checked(&cut).await?;
        let unread_since = ahead.records.front().map(|r| r.arrived);
        let place = Place { cut, unread_since, kept_for: retention };
        return Ok(Opened { place, ahead: Some(ahead), iterator: None });
    }
    let iterator = match cut {
        Cut::Begin | Cut::End => None,
        // Now, so that a number that is none of this shard is told now.
        Cut::Next(_) | Cut::After(_) => Some(shard.start(&cut).await?),
    };
    let place = Place { cut, unread_since: since, kept_for: retention };
    Ok(Opened { place, ahead: None, iterator })
}

/// The first record that arrived at `at` or later; the head if there is none.
async fn at_time(shard: &Arc<Shard>, at: Timestamp, retention: Duration) -> Result<Opened> {
    match look_from(shard, at).await? {
        Look::Found(first, page) => return from_record(shard, first.0, first.1, page, retention).await,
        // All that was there arrived before, and what comes later lies after it.
        Look::Passed(last, seen_at) => return Ok(Opened::at(Cut::After(last), seen_at, retention)),
        Look::Nothing => {}
    }
    let head = head::find(shard).await?;
    // A record may have come between the two looks: it arrived in time, and must not be left behind the head.
    match look_from(shard, at).await? {
        Look::Found(first, page) => from_record(shard, first.0, first.1, page, retention).await,
        Look::Passed(last, seen_at) => Ok(Opened::at(Cut::After(last), seen_at, retention)),
        Look::Nothing => Ok(Opened::at(head.cut, head.unread_since, retention)),
    }
}

enum Look {
    /// The first record at or after the time, and the page that it begins.
    Found((Offset, Timestamp), Page),
    /// There is none, and this is the last one before.
    Passed(Offset, Timestamp),
    Nothing,
}

async fn look_from(shard: &Arc<Shard>, at: Timestamp) -> Result<Look> {
    let limit = shard.shared.config.read.max_records_per_call;
    if at > Timestamp::now().saturating_add(SKEW) {
        return Ok(Look::Nothing);
    }
    // The service counts in milliseconds; what is left of the last one is sorted out here.
    let mut from =
        if at <= shard.created { From::Horizon } else { From::Millis(at.as_micros().div_euclid(1_000)) };
    let mut last: Option<Raw> = None;
    loop {
        let mut page = match shard.first_page(from, limit).await? {
            Ok(page) => page,
            // It lies in the future by the service's clock.
            Err(_) if matches!(from, From::Millis(_)) => return Ok(Look::Nothing),
            Err(e) => return Err(e),
        };
        while page.records.front().is_some_and(|r| r.arrived < at) {
            last = page.records.pop_front();
        }
        if let Some(first) = page.records.front() {
            return Ok(Look::Found((first.offset, first.arrived), page));
        }
        match &last {
            None => return Ok(Look::Nothing),
            Some(last) if page.caught_up || page.next.is_none() => {
                return Ok(Look::Passed(last.offset, page.asked_at.max(last.arrived)));
            }
            Some(last) => from = From::After(last.offset),
        }
    }
}

async fn from_record(
    shard: &Arc<Shard>,
    first: Offset,
    arrived: Timestamp,
    page: Page,
    kept_for: Duration,
) -> Result<Opened> {
    let cut = Cut::Next(first);
    let ahead = shard.finish(&cut, page).await?;
    Ok(Opened { ahead: Some(ahead), ..Opened::at(cut, arrived, kept_for) })
}

pub(crate) fn invalid(shard: &Shard, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "cursor", message).at(shard.place())
}
