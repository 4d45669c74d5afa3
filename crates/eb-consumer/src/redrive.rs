//! Calling the handler again for dead letters.

use std::collections::BTreeSet;
use std::sync::Arc;

use eb_contract::stores::{DeadLetter, DeadLetterFilter, DeadLetterId, Resolution};
use eb_contract::{Error, ErrorKind, PartitionKey, Result, Topic};

use crate::consumer::EventConsumer;
use crate::item::Item;
use crate::partition::Outcome;
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
}

/// How many letters are listed at once.
const PAGE: usize = 200;

impl EventConsumer {
    /// Tries dead letters of this consumer again, oldest first, once each, one after the other; `tell` hears of each. The letters that park
    /// a key are tried in their order, and when one fails, those behind it are not. Once the last of them is resolved,
    /// running workers handle the key again, within a few seconds.
    ///
    /// The consumer need not be running, and may be. Effects are at least once: a crash between the handler's success and the resolution leaves the
    /// letter open. Dropping the future leaves the one that is being tried open, too.
    ///
    /// # Errors
    /// When the store fails, and [`ErrorKind::Unsupported`] for a consumer whose handlers work within transactions: their transactions commit
    /// with a partition's checkpoint, which only the holder of its lease may move.
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
        let Some(routes) = &self.plain else {
            let what = "handlers within transactions cannot be called without the lease of a partition";
            return Err(Error::new(ErrorKind::Unsupported, "retry dead letter", what)
                .advise("retry with a consumer of the same name whose handlers work on their own"));
        };
        let record = &letter.letter.record;
        let line = (record.eb_ref.topic.clone(), record.partition_key.clone());
        if letter.letter.parks_key
            && let Some(first) = self.first_of(&line).await?
            && (first < letter.id || stuck.contains(&line))
        {
            return Ok(Retried::Behind(first));
        }
        match call(routes, letter).await {
            Outcome::Handled | Outcome::Skipped => {
                self.stores.dead_letters.resolve(letter.id, Resolution::Handled, reason).await?;
                Ok(Retried::Handled)
            }
            Outcome::Never(_, errors) | Outcome::Later(errors) => {
                stuck.insert(line);
                Ok(Retried::Failed(errors))
            }
        }
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

async fn call(routes: &Routes<Plain>, letter: &DeadLetter) -> Outcome {
    let item = Arc::new(Item::read(letter.letter.record.clone()));
    let event_type = match &item.content {
        Ok(content) => content.event_type.clone(),
        Err(why) => return Outcome::Later(vec![why.clone()]),
    };
    let Route::To(handler) = routes.find(&event_type) else {
        return Outcome::Later(vec![format!("no handler for events of type `{event_type}`")]);
    };
    let call = Call { item, attempt: letter.letter.attempts.saturating_add(1) };
    run(async move { handler(call).await }).await.1
}
