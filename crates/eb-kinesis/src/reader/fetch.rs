//! Reading on from a place: by iterator while nothing after it can have expired, otherwise from the record itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Cut, Error, ErrorKind, Offset, PartitionId, Result, Timestamp};
use tokio::time::{Instant, sleep};

use crate::error;
use crate::reader::page::{Page, Raw};
use crate::reader::shard::{From, Got, Iterator, Shard};

/// A place in a shard, and what is known of what lies after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) cut: Cut,
    /// Everything after the cut arrived at this time or later. `None` where nothing is known.
    pub(crate) unread_since: Option<Timestamp>,
    /// For how long the stream kept its records when nothing after the cut had expired. It may keep them longer by now,
    /// but that brings nothing back.
    pub(crate) kept_for: Duration,
}

/// What lies right after a place.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) records: VecDeque<Raw>,
    /// Where to go on.
    pub(crate) iterator: Option<String>,
    /// Nothing lay behind this at `asked_at`.
    pub(crate) caught_up: bool,
    pub(crate) asked_at: Timestamp,
    /// The same on the clock that only goes forward.
    pub(crate) asked: Instant,
    /// The shard ends here, and these go on from it.
    pub(crate) children: Option<Vec<PartitionId>>,
}

/// How often an iterator is renewed before its expiry is an error.
const RENEWALS: u32 = 3;
/// How often a record that was ACKed a moment ago is looked for, and children of a shard that has just ended.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

impl Shard {
    /// Whether everything that arrived at `since` or later is still there for a good while.
    pub(crate) fn keeps_since(&self, since: Option<Timestamp>, retention: Duration) -> bool {
        let margin = self.shared.config.read.horizon_margin;
        since.is_some_and(|since| Timestamp::now().saturating_since(since).saturating_add(margin) < retention)
    }

    /// Whether nothing of the shard can have expired yet.
    pub(crate) fn is_young(&self, retention: Duration) -> bool {
        self.keeps_since(Some(self.created), retention)
    }

    fn page_limit(&self) -> usize {
        self.shared.config.read.max_records_per_call
    }

    /// What lies right after `place`; possibly nothing, also where there is more. `iterator` stands there, if there is one.
    /// With it comes for how long the stream keeps its records now.
    pub(crate) async fn fetch(
        self: Arc<Self>,
        place: Place,
        iterator: Option<String>,
    ) -> Result<(Fetched, Duration)> {
        let retention = self.retention(self.shared.config.read.shards_fresh_for).await?;
        let kept_for = retention.min(place.kept_for);
        let fetched = if self.is_young(kept_for) || self.keeps_since(place.unread_since, kept_for) {
            let page = self.read_on(&place.cut, iterator, self.page_limit()).await?;
            self.finish(&place.cut, page).await?
        } else {
            self.fetch_checked(&place.cut).await?
        };
        Ok((fetched, retention))
    }

    /// The page behind `cut`, after which nothing has expired unread. `iterator` stands there, if there is one.
    pub(crate) async fn read_on(
        &self,
        cut: &Cut,
        mut iterator: Option<String>,
        limit: usize,
    ) -> Result<Page> {
        let mut renewed = 0;
        loop {
            let it = match iterator.take() {
                Some(iterator) => iterator,
                None => self.start(cut).await?,
            };
            match self.page(&it, limit).await? {
                Got::Page(page) => return Ok(page),
                Got::Expired(e) if renewed == RENEWALS => return Err(e),
                Got::Expired(_) => renewed += 1,
            }
        }
    }

    /// An iterator right after `cut`, after which nothing has expired unread.
    pub(crate) async fn start(&self, cut: &Cut) -> Result<String> {
        let (from, number) = match cut {
            Cut::Begin | Cut::End => (From::Horizon, None),
            Cut::Next(k) => (From::At(*k), Some(*k)),
            Cut::After(k) => (From::After(*k), Some(*k)),
        };
        match (self.iterator(from).await?, number) {
            (Iterator::Given(iterator), _) => Ok(iterator),
            (Iterator::Refused(e), None) => Err(e),
            // The service may have forgotten the number with its record. Then what is left was not read yet.
            (Iterator::Refused(e), Some(k)) => match self.oldest().await? {
                Some(oldest) if oldest <= k => Err(self.unknown_number(&e)),
                _ if self.is_young(self.retention(Duration::MAX).await?) => Err(self.unknown_number(&e)),
                _ => match self.iterator(From::Horizon).await? {
                    Iterator::Given(iterator) => Ok(iterator),
                    Iterator::Refused(e) => Err(e),
                },
            },
        }
    }

    /// The first page with records from an iterator on, or the one that ends at the head or at the shard's end.
    pub(crate) async fn first_page(&self, from: From, limit: usize) -> Result<Result<Page, Error>> {
        let mut renewed = 0;
        'renew: loop {
            let mut iterator = match self.iterator(from).await? {
                Iterator::Given(iterator) => iterator,
                Iterator::Refused(e) => return Ok(Err(e)),
            };
            loop {
                let page = match self.page(&iterator, limit).await? {
                    Got::Page(page) => page,
                    Got::Expired(e) if renewed == RENEWALS => return Err(e),
                    Got::Expired(_) => {
                        renewed += 1;
                        continue 'renew;
                    }
                };
                match page.next {
                    Some(ref next) if page.records.is_empty() && !page.caught_up => iterator.clone_from(next),
                    _ => return Ok(Ok(page)),
                }
            }
        }
    }

    pub(crate) async fn horizon_page(&self, limit: usize) -> Result<Page> {
        self.first_page(From::Horizon, limit).await?
    }

    /// The oldest record left.
    async fn oldest(&self) -> Result<Option<Offset>> {
        Ok(self.horizon_page(1).await?.records.front().map(|r| r.offset))
    }

    /// What lies right after `cut`, read in a way that shows that nothing in between has expired.
    pub(crate) async fn fetch_checked(&self, cut: &Cut) -> Result<Fetched> {
        let k = match cut {
            Cut::Begin | Cut::End => return self.fetch_first().await,
            Cut::Next(k) | Cut::After(k) => *k,
        };
        let mut looks = 0;
        loop {
            looks += 1;
            // At least its own record and the next.
            let answer = self.first_page(From::At(k), self.page_limit().max(2)).await?;
            if let Ok(mut page) = answer {
                // An engine may begin a record too early, which shows as well that nothing from there on has expired.
                let shown = page.records.front().is_some_and(|r| r.offset <= k);
                if shown {
                    page.records.drain(..not_after(cut, &page));
                    // Its own record may fill a page by itself.
                    if page.records.is_empty() && !page.caught_up && page.next.is_some() {
                        page = self.read_on(cut, page.next, self.page_limit()).await?;
                    }
                    return self.finish(cut, page).await;
                }
                match self.oldest().await? {
                    // Only what is older than this has expired.
                    Some(oldest) if oldest <= k => return self.finish(cut, page).await,
                    // It may be so new that it cannot be read yet.
                    None if looks < LOOKS => sleep(BETWEEN_LOOKS).await,
                    oldest => return Err(error::out_of_range(self.place(), oldest)),
                }
            } else if let Err(e) = answer {
                return Err(match self.oldest().await? {
                    Some(oldest) if oldest <= k => self.unknown_number(&e),
                    oldest => error::out_of_range(self.place(), oldest),
                });
            }
        }
    }

    /// From the first record that the shard ever had, if that can be shown.
    async fn fetch_first(&self) -> Result<Fetched> {
        let page = self.horizon_page(self.page_limit()).await?;
        // The service lists a parent until retention has passed since it ended, which was when this shard began.
        let layouts = &self.shared.reads.layouts;
        let layout =
            layouts.get(&self.shared.client, "read", &self.topic, &self.stream, Duration::ZERO).await?;
        if self.parents.iter().any(|parent| layout.shard(*parent).is_some()) {
            self.finish(&Cut::Begin, page).await
        } else {
            Err(error::out_of_range(self.place(), page.records.front().map(|r| r.offset)))
        }
    }

    /// Drops what does not lie after `cut`, and asks for children at the shard's end.
    ///
    /// Engines are known to bring the record of an `AFTER` again, and the one before that of an `AT`. What lies further back
    /// may also be of another life of the stream, so that is asked.
    pub(crate) async fn finish(&self, cut: &Cut, mut page: Page) -> Result<Fetched> {
        let before = not_after(cut, &page);
        if page.records.iter().take(before).any(|r| cut.offset() != Some(&r.offset)) {
            self.check_life().await?;
        }
        page.records.drain(..before);
        let children = match page.next {
            Some(_) => None,
            None if page.children.is_empty() => Some(self.children().await?),
            None => Some(page.children),
        };
        Ok(Fetched {
            records: page.records,
            iterator: page.next,
            caught_up: page.caught_up,
            asked_at: page.asked_at,
            asked: page.asked,
            children,
        })
    }

    /// The shards that go on from this one, which has ended.
    pub(crate) async fn children(&self) -> Result<Vec<PartitionId>> {
        let layouts = &self.shared.reads.layouts;
        for look in 0..LOOKS {
            if look > 0 {
                sleep(BETWEEN_LOOKS).await;
            }
            let layout =
                layouts.get(&self.shared.client, "read", &self.topic, &self.stream, Duration::ZERO).await?;
            let children = layout.children(self.partition);
            if !children.is_empty() {
                return Ok(children);
            }
        }
        let message = "the shard has ended, and its children are not listed yet";
        Err(Error::new(ErrorKind::Unavailable, "read", message).at(self.place()))
    }

    fn unknown_number(&self, refused: &Error) -> Error {
        let message = format!("the shard has no record of this number: {}", refused.message());
        Error::new(ErrorKind::InvalidInput, "read", message)
            .at(self.place())
            .advise("check which stream and partition the position is of")
    }
}

/// How many records at the page's front do not lie after the cut.
fn not_after(cut: &Cut, page: &Page) -> usize {
    page.records.iter().take_while(|r| cut.is_before(&r.offset) != Some(true)).count()
}
