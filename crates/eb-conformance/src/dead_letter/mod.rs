//! The suite for stores of dead letters.

use std::sync::Arc;

use eb_contract::stores::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, DeadReason, FailedAttempt, NewDeadLetter,
};
use eb_contract::{BoxFuture, EbRef, Offset, OffsetKind, PartitionId, Record, Result, Timestamp};

mod listing;
mod model;
mod puts;
mod resolving;
mod scenarios;

pub use scenarios::dead_letter_scenarios;

pub(crate) use crate::checkpoint::{consumer, incarnation, topic};
use crate::events::{envelope, key};
use crate::outcome::ensure_eq;
use crate::{Failure, Need, Outcome, Pace, Plan, Verdict, random, run};

/// Opens fresh stores of dead letters of one kind.
pub trait DeadLetterFactory: Send + Sync {
    /// How patient the suite is.
    fn pace(&self) -> Pace {
        Pace::LOCAL
    }

    /// A new, empty store, apart from all others.
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestDeadLetterStore>>>;
}

/// An open store of dead letters under test.
pub trait TestDeadLetterStore: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn DeadLetterStore>;

    /// Another opening of the same data beside the first, as another process has it.
    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn DeadLetterStore>>>;

    /// Closes the store and opens the same data again.
    fn reopen(&mut self) -> BoxFuture<'_, Outcome>;

    /// Closes everything and removes what the test has left behind.
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome>;
}

/// Which scenarios run on the factory's stores: all.
pub fn dead_letter_plan(_: &dyn DeadLetterFactory) -> Plan {
    Plan::new(dead_letter_scenarios(), lacks)
}

fn lacks(need: Need) -> Option<String> {
    Some(format!("{need:?} is not for stores of dead letters"))
}

/// Runs one scenario on a fresh store of the factory, on a runtime of its own.
///
/// # Panics
/// When there is no scenario of that name.
pub fn run_dead_letter_scenario(name: &str, factory: &dyn DeadLetterFactory) -> Verdict {
    let scenario = run::find(dead_letter_scenarios(), name);
    run::on_runtime(None, factory.pace().deadline, async {
        let open = factory.open_fresh().await?;
        let mut case = DeadLetterCase { open, pace: factory.pace(), seed: random::seed() };
        let outcome = (scenario.run)(&mut case).await;
        let down = case.open.shutdown().await;
        outcome.and(down)
    })
}

/// A fresh store of dead letters as a scenario sees it.
pub struct DeadLetterCase {
    pub(crate) open: Box<dyn TestDeadLetterStore>,
    pub(crate) pace: Pace,
    pub(crate) seed: u64,
}

impl DeadLetterCase {
    pub(crate) fn store(&self) -> Arc<dyn DeadLetterStore> {
        self.open.store()
    }

    /// Puts one letter.
    pub(crate) async fn put(&self, letter: &NewDeadLetter) -> Result<DeadLetterId> {
        let mut answers = self.store().put(std::slice::from_ref(letter)).await;
        let answer = answers.pop();
        answer.filter(|_| answers.is_empty()).unwrap_or_else(|| {
            let message = "one letter must have one answer";
            Err(eb_contract::Error::new(eb_contract::ErrorKind::ProtocolViolation, "put", message))
        })
    }

    /// Everything that the filter lets through, page by page.
    pub(crate) async fn all(&self, filter: &DeadLetterFilter, page: usize) -> Outcome<Vec<DeadLetter>> {
        let mut all: Vec<DeadLetter> = Vec::new();
        loop {
            let after = all.last().map(|l| l.id).or(filter.after);
            let next = self.store().list(&DeadLetterFilter { after, ..filter.clone() }, page).await?;
            if next.len() > page {
                return Err(Failure::new(format!("a page of {page} has {} letters", next.len())));
            }
            let end = next.len() < page;
            all.extend(next);
            if end {
                return Ok(all);
            }
        }
    }

    /// The letter of this name holds what was put, byte for byte.
    pub(crate) async fn expect_whole(&self, id: DeadLetterId, put: &NewDeadLetter) -> Outcome {
        let letter = self.store().get(id).await?;
        ensure_eq!(letter.id, id, "the name of a letter");
        whole(&letter, put)
    }
}

/// The letter holds what was put.
pub(crate) fn whole(letter: &DeadLetter, put: &NewDeadLetter) -> Outcome {
    ensure_eq!(letter.letter, *put, "the letter");
    // Positions compare without their time.
    let (got, expected) = (&letter.letter.record.eb_ref, &put.record.eb_ref);
    ensure_eq!(got.published_at_utc, expected.published_at_utc, "when its record was published");
    ensure_eq!(letter.letter.record.envelope.as_bytes(), put.record.envelope.as_bytes(), "its envelope");
    Ok(())
}

/// A letter about the record at a line of the usual topic, with key `key-<line mod 3>`.
pub(crate) fn letter(line: u64) -> NewDeadLetter {
    let eb_ref = EbRef {
        topic: topic("fp.bus.traffic.v1"),
        partition_id: PartitionId(0),
        offset: Offset::from_u64(OffsetKind::FileLine, line),
        published_at_utc: at(line),
    };
    NewDeadLetter {
        consumer: consumer("scorer"),
        bus_incarnation: incarnation("life-1"),
        record: Record {
            eb_ref,
            partition_key: key(format!("key-{}", line % 3)),
            envelope: envelope(usize::try_from(line).unwrap_or(0)),
        },
        event_id: Some(format!("{line:08x}")),
        event_type: Some("card.payment.authorised".to_owned()),
        reason: DeadReason::AttemptsExhausted,
        attempts: 3,
        failures: vec![FailedAttempt {
            at: at(line),
            errors: vec!["no answer".to_owned(), "refused".to_owned()],
        }],
        parks_key: false,
    }
}

pub(crate) fn at(n: u64) -> Timestamp {
    Timestamp::EPOCH.saturating_add(std::time::Duration::from_micros(1_769_680_800_000_000 + n))
}
