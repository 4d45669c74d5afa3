//! Dead letters: records that a consumer could not handle, kept with everything that is known about why.
//!
//! A dead letter is durable before its record counts as done at the source. If it cannot be written, the record stays
//! undone. The envelope is kept byte for byte, so a dead letter outlives the retention of the log.

use serde::{Deserialize, Serialize};

use crate::{
    BoxFuture, BusIncarnation, ConsumerName, EbRef, Error, ErrorKind, PartitionKey, Record, Result,
    Timestamp, Topic,
};

/// Names a dead letter within its store; rises with every new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeadLetterId(pub u64);

/// One attempt's failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// When it failed.
    pub at: Timestamp,
    /// The error and its causes, outermost first; each cut to 2,000 characters, 16 at most.
    pub errors: Vec<String>,
}

/// Why a record was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadReason {
    /// The handler said that it will never succeed.
    Permanent,
    /// Every attempt that the policy allows failed.
    AttemptsExhausted,
    /// The envelope or its payload could not be decoded.
    Undecodable,
    /// An earlier record of its key is a dead letter that parks the key, so this one was not tried.
    KeyParked,
}

/// A record to be put among the dead letters.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDeadLetter {
    /// Who could not handle it.
    pub consumer: ConsumerName,
    /// The life of the bus that its position belongs to.
    pub bus_incarnation: BusIncarnation,
    /// The record: position, key, envelope.
    pub record: Record,
    /// The envelope's `event_id` and `event_type`, where it has them.
    pub event_id: Option<String>,
    /// As above.
    pub event_type: Option<String>,
    /// Why.
    pub reason: DeadReason,
    /// How often the handler was called for it.
    pub attempts: u32,
    /// The last failures, oldest first, 16 at most.
    pub failures: Vec<FailedAttempt>,
    /// Later records of its key are not handled but put behind it, until it is resolved.
    pub parks_key: bool,
}

impl FailedAttempt {
    /// The most errors of a chain that are kept.
    pub const MAX_ERRORS: usize = 16;
    /// The most characters of each.
    pub const MAX_CHARS: usize = 2_000;

    /// What a failure leaves for people to read: the error's text and those of its causes, within the limits.
    #[must_use]
    pub fn of(at: Timestamp, error: &(dyn std::error::Error + 'static)) -> Self {
        let chain = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string);
        Self::from_texts(at, chain)
    }

    /// The same from texts, outermost first.
    #[must_use]
    pub fn from_texts(at: Timestamp, texts: impl IntoIterator<Item = String>) -> Self {
        let cut = |mut text: String| {
            if let Some((end, _)) = text.char_indices().nth(Self::MAX_CHARS) {
                text.truncate(end);
            }
            text
        };
        Self { at, errors: texts.into_iter().take(Self::MAX_ERRORS).map(cut).collect() }
    }
}

impl NewDeadLetter {
    /// The most failures that are kept.
    pub const MAX_FAILURES: usize = 16;
    /// The most characters of event id and event type.
    pub const MAX_NAME_CHARS: usize = 256;

    /// Whether it is within the limits that every store takes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] naming what is too long.
    pub fn check(&self) -> Result<()> {
        let long = |text: &str, most: usize| text.chars().nth(most).is_some();
        let name = |n: &Option<String>| n.as_ref().is_some_and(|n| long(n, Self::MAX_NAME_CHARS));
        let refused = if name(&self.event_id) || name(&self.event_type) {
            "an event id or type of more than 256 characters"
        } else if self.failures.len() > Self::MAX_FAILURES {
            "more than 16 failures"
        } else if self.failures.iter().any(|f| f.errors.len() > FailedAttempt::MAX_ERRORS) {
            "a failure with more than 16 errors"
        } else if self.failures.iter().flat_map(|f| &f.errors).any(|e| long(e, FailedAttempt::MAX_CHARS)) {
            "an error of more than 2,000 characters"
        } else {
            return Ok(());
        };
        let message = format!("a dead letter cannot hold {refused}");
        Err(Error::new(ErrorKind::InvalidInput, "put dead letter", message).at(&self.record.eb_ref))
    }
}

/// Refuses a resolution without a reason, or with too long a one; for implementations.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_resolution(reason: &str) -> Result<()> {
    let message = if reason.trim().is_empty() {
        "a resolution needs a reason"
    } else if reason.chars().nth(1024).is_some() {
        "a reason has at most 1,024 characters"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidInput, "resolve dead letter", message))
}

/// A dead letter as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its name.
    pub id: DeadLetterId,
    /// What was put.
    pub letter: NewDeadLetter,
    /// When.
    pub put_at: Timestamp,
    /// What became of it; `None` while it is open.
    pub resolved: Option<Resolved>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// How.
    pub how: Resolution,
    /// When; filled in by the store.
    pub at: Timestamp,
    /// Why or by whom, for the record; not empty, at most 1,024 characters.
    pub reason: String,
}

/// How a dead letter was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Its handler was called again, and succeeded.
    Handled,
    /// It was dropped on purpose.
    Dropped,
}

/// Which dead letters are asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterFilter {
    /// Of one consumer.
    pub consumer: Option<ConsumerName>,
    /// Of one topic.
    pub topic: Option<Topic>,
    /// Of one key.
    pub partition_key: Option<PartitionKey>,
    /// Also those that are resolved.
    pub resolved_too: bool,
    /// Only those behind this one: the last of the page before.
    pub after: Option<DeadLetterId>,
}

/// Durable dead letters.
pub trait DeadLetterStore: Send + Sync + 'static {
    /// Puts dead letters, each durable before its `Ok`, positionally. One for the same consumer, incarnation and position
    /// that is open already stays as it is, and its name is answered: putting again after an unknown outcome is safe. Where only
    /// resolved ones are there, the record has failed anew (after a reset, say), and a new letter is put: it must not hide
    /// behind one that nobody looks at any more.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for one beyond the limits ([`NewDeadLetter::check`]).
    /// When it may not have been kept: the source must not be told that its record is done. Dropping the future leaves each put
    /// or not.
    fn put<'a>(&'a self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Vec<Result<DeadLetterId>>>;

    /// A page of dead letters by rising id, at most `max`.
    ///
    /// # Errors
    /// When any of them cannot be read.
    fn list<'a>(&'a self, filter: &'a DeadLetterFilter, max: usize)
    -> BoxFuture<'a, Result<Vec<DeadLetter>>>;

    /// One dead letter, resolved or not.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    fn get(&self, id: DeadLetterId) -> BoxFuture<'_, Result<DeadLetter>>;

    /// Resolves an open dead letter, durably. It stays in the store as history.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none,
    /// [`ErrorKind::AlreadyExists`] when it is resolved already,
    /// [`ErrorKind::InvalidInput`] without a reason.
    fn resolve<'a>(
        &'a self,
        id: DeadLetterId,
        how: Resolution,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>>;

    /// The keys of a topic that open dead letters park, sorted: their records go behind them.
    ///
    /// # Errors
    /// When the store cannot tell: then nothing of the topic may be handled.
    fn parked_keys<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Vec<PartitionKey>>>;

    /// The open dead letters of these records, positionally; `None` for a record that has none. What a worker asks that takes a partition
    /// over: a letter may have been put right before its predecessor died, and its record is handled once more.
    ///
    /// # Errors
    /// When the store cannot tell: never `None` then. Dropping the future leaves nothing behind.
    fn open_of<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        incarnation: &'a BusIncarnation,
        records: &'a [EbRef],
    ) -> BoxFuture<'a, Result<Vec<Option<DeadLetterId>>>>;

    /// How many open dead letters there are, of one consumer or of all.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn count_open<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<u64>>;

    /// Checks that a dead letter could be put now, without putting; for health.
    ///
    /// # Errors
    /// Why it would fail.
    fn probe(&self) -> BoxFuture<'_, Result<()>>;
}
