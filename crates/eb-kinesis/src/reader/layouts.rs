//! What streams look like, remembered for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use eb_contract::{BusIncarnation, Error, ErrorKind, Result, Topic};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::shards::{self, Layout};

/// The layouts of one bus's streams, for all its readers.
#[derive(Default)]
pub(crate) struct Layouts {
    /// One entry for each topic that was found: the account's streams bound them.
    topics: Mutex<HashMap<Topic, Arc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    /// Held while the service is asked, so that many cursors ask once.
    known: tokio::sync::Mutex<Option<Known>>,
    /// When whether it is alive was last asked in vain, and why.
    failed: Mutex<Option<(Instant, Error)>>,
}

/// A failed question is not asked again for this long: reading goes on without its answer.
const NOT_AGAIN_FOR: Duration = Duration::from_secs(5);

struct Known {
    layout: Arc<Layout>,
    looked_at: Instant,
    /// When the stream was last seen to be the same one; later than `looked_at` or equal.
    alive_at: Instant,
}

impl Layouts {
    fn entry(&self, topic: &Topic) -> Arc<Entry> {
        self.topics.lock().entry(topic.clone()).or_default().clone()
    }

    fn forget(&self, topic: &Topic) {
        self.topics.lock().remove(topic);
    }

    /// The topic's layout, at most this old. Dropping the future leaves what was known before.
    pub(crate) async fn get(
        &self,
        client: &Client,
        op: &'static str,
        topic: &Topic,
        stream: &str,
        max_age: Duration,
    ) -> Result<Arc<Layout>> {
        let entry = self.entry(topic);
        let called = Instant::now();
        let mut known = entry.known.lock().await;
        if let Some(known) = &*known
            // Also one that was asked for while this call waited its turn.
            && (known.looked_at >= called || known.looked_at.elapsed() < max_age)
        {
            return Ok(known.layout.clone());
        }
        let asked = Instant::now();
        match shards::look(client, op, topic, stream).await {
            Ok(layout) => {
                let layout = Arc::new(layout);
                *known = Some(Known { layout: layout.clone(), looked_at: asked, alive_at: asked });
                Ok(layout)
            }
            Err(e) => {
                if matches!(e.kind(), ErrorKind::NotFound) {
                    *known = None;
                    drop(known);
                    self.forget(topic);
                }
                Err(e)
            }
        }
    }

    /// How long the stream keeps records, once it is clear that it still is `life`, as of at most `max_age` ago.
    ///
    /// # Errors
    /// [`ErrorKind::WrongIncarnation`] for a stream that was deleted and made anew, [`ErrorKind::NotFound`] for one that
    /// was deleted.
    pub(crate) async fn retention_of(
        &self,
        client: &Client,
        topic: &Topic,
        stream: &str,
        life: &BusIncarnation,
        max_age: Duration,
    ) -> Result<Duration> {
        let entry = self.entry(topic);
        let called = Instant::now();
        let mut known = entry.known.lock().await;
        if let Some(known) = &*known
            && (known.alive_at >= called || known.alive_at.elapsed() < max_age)
            && known.layout.incarnation == *life
        {
            return Ok(known.layout.retention);
        }
        if let Some((at, e)) = &*entry.failed.lock()
            && at.elapsed() < NOT_AGAIN_FOR.min(max_age)
        {
            return Err(e.clone());
        }
        let asked = Instant::now();
        let summary = match shards::summary(client, "read", topic, stream).await {
            Ok(summary) => summary,
            Err(e) => {
                *entry.failed.lock() = Some((Instant::now(), e.clone()));
                return Err(e);
            }
        };
        if summary.incarnation != *life {
            *known = None;
            return Err(another_life(topic));
        }
        if let Some(known) = &mut *known
            && known.layout.incarnation == *life
        {
            known.alive_at = asked;
            if known.layout.retention != summary.retention {
                let layout = Layout { retention: summary.retention, ..Layout::clone(&known.layout) };
                known.layout = Arc::new(layout);
            }
        } else {
            *known = None;
        }
        Ok(summary.retention)
    }
}

fn another_life(topic: &Topic) -> Error {
    let message = "the stream was deleted and made anew since this cursor was opened";
    Error::new(ErrorKind::WrongIncarnation, "read", message)
        .at(topic)
        .advise("find out what became of its records, and reset the checkpoints")
}
