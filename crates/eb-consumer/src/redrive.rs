//! Calling the handler again for dead letters.
//!
//! A handler on its own is called, and then the letter is resolved: a crash in between leaves it open, with the effect. A handler within a
//! transaction has its writes and the letter's end committed as one: of any number that try the same letter at once, however they end, one
//! has an effect. Its record needs no lease for that: it was marked when the letter was put, in one transaction, so no worker handles it.

use std::collections::BTreeSet;
use std::sync::Arc;

use eb_contract::stores::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, MarkScope, Resolution, TransactionalStore,
};
use eb_contract::{BoxFuture, Effect, Error, ErrorKind, PartitionKey, Result, Topic};

use crate::consumer::EventConsumer;
use crate::item::Item;
use crate::lane::tx::TxLanes;
use crate::partition::{Outcome, deadly};
use crate::routes::{Call, Plain, Route, Routes, run};

/// What became of a dead letter that was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// Its handler succeeded; it is resolved.
    Handled,
    /// Its handler failed, with these errors, outermost first; it stays as it is.
    Failed(Vec<String>),
    /// It was not tried: an earlier one of its key, which parks the key, is still open.
    Behind(DeadLetterId),
    /// Its handler succeeded, but somebody else had resolved it by then. Within a transaction this attempt has no effect.
    Elsewhere,
}

/// Calls a handler for a letter, and resolves it.
pub(crate) trait Redrive: Send + Sync {
    fn redrive<'a>(
        &'a self,
        letters: &'a dyn DeadLetterStore,
        letter: &'a DeadLetter,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Retried>>;
}

impl Redrive for Routes<Plain> {
    fn redrive<'a>(
        &'a self,
        letters: &'a dyn DeadLetterStore,
        letter: &'a DeadLetter,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Retried>> {
        Box::pin(async move {
            let (handler, call) = match prepare(self, letter) {
                Ok(prepared) => prepared,
                Err(why) => return Ok(Retried::Failed(vec![why])),
            };
            match failure(run(async move { handler(call).await }).await.1) {
                None => {
                    let resolved = letters.resolve(letter.id, Resolution::Handled, reason).await;
                    judge(letters, letter.id, reason, resolved).await
                }
                Some(errors) => Ok(Retried::Failed(errors)),
            }
        })
    }
}

impl<S: TransactionalStore> Redrive for TxLanes<S> {
    fn redrive<'a>(
        &'a self,
        letters: &'a dyn DeadLetterStore,
        letter: &'a DeadLetter,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Retried>> {
        Box::pin(async move {
            let (handler, call) = match prepare(&self.routes, letter) {
                Ok(prepared) => prepared,
                Err(why) => return Ok(Retried::Failed(vec![why])),
            };
            let new = &letter.letter;
            let scope = MarkScope {
                subscriber: new.consumer.clone(),
                bus_incarnation: new.bus_incarnation.clone(),
                topic: new.record.eb_ref.topic.clone(),
                partition_id: new.record.eb_ref.partition_id,
            };
            let mark = call.item.mark();
            let mut transaction = self.store.begin().await?;
            match failure(run(async { handler(call, &mut transaction).await }).await.1) {
                None => {
                    let of = (&scope, &mark);
                    let resolved = self.store.resolve_and_commit(transaction, letter.id, of, reason).await;
                    judge(letters, letter.id, reason, resolved).await
                }
                // Dropped with what the handler wrote.
                Some(errors) => Ok(Retried::Failed(errors)),
            }
        })
    }
}

/// Why a call has failed, if it has.
fn failure(outcome: Outcome) -> Option<Vec<String>> {
    match outcome {
        Outcome::Handled | Outcome::Skipped => None,
        Outcome::Never(_, errors) | Outcome::Later(errors) => Some(errors),
        Outcome::Deadly(deaths) => Some(vec![deadly(deaths)]),
    }
}

/// What the end of a letter means; where the answer was lost, the letter tells.
async fn judge(
    letters: &dyn DeadLetterStore,
    id: DeadLetterId,
    reason: &str,
    resolved: Result<DeadLetter>,
) -> Result<Retried> {
    let error = match resolved {
        Ok(_) => return Ok(Retried::Handled),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists) => return Ok(Retried::Elsewhere),
        Err(error) => error,
    };
    if error.effect() == Effect::Unknown
        && let Some(end) = letters.get(id).await?.resolved
        && (end.how, end.reason.as_str()) == (Resolution::Handled, reason)
    {
        return Ok(Retried::Handled);
    }
    Err(error)
}

/// How many letters are listed at once.
const PAGE: usize = 200;

impl EventConsumer {
    /// Tries dead letters of this consumer again, oldest first, once each, one after the other; `tell` hears of each. The letters that park
    /// a key are tried in their order, and when one fails, those behind it are not. Once the last of them is resolved,
    /// running workers handle the key again, within a few seconds.
    ///
    /// The consumer need not be running, and may be. Effects of handlers on their own are at least once: a crash between the handler's success and
    /// the resolution leaves the letter open, and so does dropping the future. Handlers within transactions have their effect with the letter's end,
    /// once, however often and by whomever it is tried.
    ///
    /// # Errors
    /// When the store fails: with [`Effect::Unknown`] it may have been resolved, and trying again is safe within transactions.
    pub async fn retry_dead_letters(
        &self,
        filter: &DeadLetterFilter,
        reason: &str,
        mut tell: impl FnMut(&DeadLetter, &Retried) + Send,
    ) -> Result<()> {
        let mut filter =
            DeadLetterFilter { consumer: Some(self.name.clone()), resolved_too: false, ..filter.clone() };
        let mut stuck = BTreeSet::new();
        loop {
            let page = self.stores.dead_letters.list(&filter, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            filter.after = Some(last.id);
            for letter in page {
                let retried = self.retry_one(&letter, reason, &mut stuck).await?;
                tell(&letter, &retried);
            }
        }
    }

    /// Tries one dead letter again.
    ///
    /// # Errors
    /// As [`EventConsumer::retry_dead_letters`]; [`ErrorKind::NotFound`] when there is none of this consumer with this name,
    /// [`ErrorKind::AlreadyExists`] when it is resolved.
    pub async fn retry_dead_letter(&self, id: DeadLetterId, reason: &str) -> Result<(DeadLetter, Retried)> {
        let letter = self.stores.dead_letters.get(id).await?;
        if letter.letter.consumer != self.name {
            let what =
                format!("dead letter {} is of `{}`, not of `{}`", id.0, letter.letter.consumer, self.name);
            return Err(Error::new(ErrorKind::NotFound, "retry dead letter", what));
        }
        if let Some(resolved) = &letter.resolved {
            let what = format!("dead letter {} was resolved at {} ({:?})", id.0, resolved.at, resolved.how);
            return Err(Error::new(ErrorKind::AlreadyExists, "retry dead letter", what));
        }
        let retried = self.retry_one(&letter, reason, &mut BTreeSet::new()).await?;
        Ok((letter, retried))
    }

    async fn retry_one(
        &self,
        letter: &DeadLetter,
        reason: &str,
        stuck: &mut BTreeSet<(Topic, PartitionKey)>,
    ) -> Result<Retried> {
        let record = &letter.letter.record;
        let line = (record.eb_ref.topic.clone(), record.partition_key.clone());
        if letter.letter.parks_key
            && let Some(first) = self.first_of(&line).await?
            && (first < letter.id || stuck.contains(&line))
        {
            return Ok(Retried::Behind(first));
        }
        let retried = self.redrive.redrive(&*self.stores.dead_letters, letter, reason).await?;
        if matches!(retried, Retried::Failed(_)) {
            stuck.insert(line);
        }
        Ok(retried)
    }

    /// The oldest open letter that parks a key.
    async fn first_of(&self, (topic, key): &(Topic, PartitionKey)) -> Result<Option<DeadLetterId>> {
        let mut filter = DeadLetterFilter {
            consumer: Some(self.name.clone()),
            topic: Some(topic.clone()),
            partition_key: Some(key.clone()),
            ..DeadLetterFilter::default()
        };
        loop {
            let page = self.stores.dead_letters.list(&filter, PAGE).await?;
            let Some(last) = page.last() else { return Ok(None) };
            if let Some(first) = page.iter().find(|l| l.letter.parks_key) {
                return Ok(Some(first.id));
            }
            filter.after = Some(last.id);
        }
    }
}

/// The handler of a letter's event, and the call; or why there is none.
fn prepare<H: Clone>(routes: &Routes<H>, letter: &DeadLetter) -> std::result::Result<(H, Call), String> {
    let item = Arc::new(Item::read(letter.letter.record.clone()));
    let event_type = item.content.as_ref().map_err(Clone::clone)?.event_type.clone();
    let Route::To(handler) = routes.find(&event_type) else {
        return Err(format!("no handler for events of type `{event_type}`"));
    };
    Ok((handler.clone(), Call { item, attempt: letter.letter.attempts.saturating_add(1), hold: None }))
}
