//! A store of dead letters that breaks one promise.

use std::sync::Arc;

use eb_conformance::{DeadLetterFactory, Outcome, TestDeadLetterStore};
use eb_contract::stores::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, NewDeadLetter, Resolution,
};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, EbRef, EnvelopeRef, Error, ErrorKind, PartitionKey, Result,
    Topic,
};
use eb_memory::MemoryDeadLetters;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LettersBend {
    Nothing,
    StripsSpaces,
    ForgetsFailures,
    ForgetsTimes,
    TrimsKeys,
    MixesConsumers,
    MixesIncarnations,
    ResolvedOnesHide,
    NeverTheSame,
    AnswersReversed,
    StopsAtTheFirstRefusal,
    TakesAnySize,
    ForgetsOnReopening,
    SecondIsApart,
    PagesRepeat,
    IgnoresTheConsumer,
    IgnoresTheKey,
    ListsResolved,
    CountsResolved,
    ParksAllKeys,
    ParksForEver,
    ResolvesTwice,
    NeedsNoReason,
    UnknownIsTheFirst,
    ProbingFails,
    NumbersFall,
    FindsLeftOverOnes,
    FindsInAnyOrder,
}

pub(crate) struct BentLetters(pub(crate) LettersBend);

impl DeadLetterFactory for BentLetters {
    fn open_fresh(&self) -> BoxFuture<'_, Outcome<Box<dyn TestDeadLetterStore>>> {
        let store = Arc::new(Bent { bend: self.0, inner: MemoryDeadLetters::new() });
        Box::pin(async { Ok(Box::new(Open(store)) as Box<dyn TestDeadLetterStore>) })
    }
}

struct Open(Arc<Bent>);

impl TestDeadLetterStore for Open {
    fn store(&self) -> Arc<dyn DeadLetterStore> {
        self.0.clone()
    }

    fn second(&self) -> BoxFuture<'_, Outcome<Arc<dyn DeadLetterStore>>> {
        let apart = self.0.bend == LettersBend::SecondIsApart;
        let inner = if apart { MemoryDeadLetters::new() } else { self.0.inner.clone() };
        let second = Arc::new(Bent { bend: self.0.bend, inner });
        Box::pin(async { Ok(second as Arc<dyn DeadLetterStore>) })
    }

    fn reopen(&mut self) -> BoxFuture<'_, Outcome> {
        if self.0.bend == LettersBend::ForgetsOnReopening {
            self.0 = Arc::new(Bent { bend: self.0.bend, inner: MemoryDeadLetters::new() });
        }
        Box::pin(async { Ok(()) })
    }

    fn shutdown(self: Box<Self>) -> BoxFuture<'static, Outcome> {
        Box::pin(async { Ok(()) })
    }
}

struct Bent {
    bend: LettersBend,
    inner: MemoryDeadLetters,
}

impl Bent {
    fn bent(&self, new: &NewDeadLetter) -> NewDeadLetter {
        let mut new = new.clone();
        match self.bend {
            LettersBend::StripsSpaces => {
                let text = String::from_utf8_lossy(new.record.envelope.as_bytes()).replace(' ', "");
                new.record.envelope = EnvelopeRef::from_stored(text.into_bytes().into());
            }
            LettersBend::ForgetsFailures => new.failures.clear(),
            LettersBend::ForgetsTimes => new.record.eb_ref.published_at_utc = eb_contract::Timestamp::EPOCH,
            LettersBend::TrimsKeys => {
                let key = new.record.partition_key.as_str().trim().to_owned();
                new.record.partition_key = PartitionKey::new(key).unwrap_or(new.record.partition_key);
            }
            LettersBend::MixesConsumers => new.consumer = ConsumerName::new("any").expect("a name"),
            LettersBend::MixesIncarnations => {
                new.bus_incarnation = BusIncarnation::new("any").expect("printable");
            }
            LettersBend::TakesAnySize => {
                new.failures.truncate(16);
                new.event_id = new.event_id.map(|id| id.chars().take(256).collect());
                new.event_type = new.event_type.map(|id| id.chars().take(256).collect());
                for failure in &mut new.failures {
                    failure.errors.truncate(16);
                    failure.errors.iter_mut().for_each(|e| *e = e.chars().take(2_000).collect());
                }
            }
            _ => {}
        }
        new
    }

    async fn all(&self) -> Result<Vec<DeadLetter>> {
        let filter = DeadLetterFilter { resolved_too: true, ..DeadLetterFilter::default() };
        self.inner.list(&filter, usize::MAX).await
    }

    fn told(&self, id: DeadLetterId) -> DeadLetterId {
        if self.bend == LettersBend::NumbersFall { DeadLetterId(1_000_000 - id.0) } else { id }
    }

    async fn put_one(&self, new: &NewDeadLetter) -> Result<DeadLetterId> {
        let mut new = self.bent(new);
        if self.bend == LettersBend::ResolvedOnesHide {
            let same = |l: &&DeadLetter| {
                l.letter.record.eb_ref == new.record.eb_ref
                    && l.letter.consumer == new.consumer
                    && l.resolved.is_some()
            };
            if let Some(there) = self.all().await?.iter().find(same) {
                return Ok(there.id);
            }
        }
        if self.bend == LettersBend::NeverTheSame {
            let life = format!("{}-{}", new.bus_incarnation, self.all().await?.len());
            new.bus_incarnation = BusIncarnation::new(&life).unwrap_or(new.bus_incarnation);
        }
        self.inner.put(&[new]).await.pop().expect("one letter, one answer").map(|id| self.told(id))
    }
}

impl DeadLetterStore for Bent {
    fn put<'a>(&'a self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Vec<Result<DeadLetterId>>> {
        Box::pin(async move {
            if self.bend == LettersBend::StopsAtTheFirstRefusal && letters.iter().any(|l| l.check().is_err())
            {
                let refused = Error::new(ErrorKind::InvalidInput, "put", "one of them is too large");
                return letters.iter().map(|_| Err(refused.clone())).collect();
            }
            let mut answers = Vec::new();
            for letter in letters {
                answers.push(self.put_one(letter).await);
            }
            if self.bend == LettersBend::AnswersReversed {
                answers.reverse();
            }
            answers
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>>> {
        Box::pin(async move {
            let mut filter = filter.clone();
            match self.bend {
                LettersBend::PagesRepeat => filter.after = filter.after.map(|a| DeadLetterId(a.0 - 1)),
                LettersBend::IgnoresTheConsumer => filter.consumer = None,
                LettersBend::IgnoresTheKey => filter.partition_key = None,
                LettersBend::ListsResolved => filter.resolved_too = true,
                _ => {}
            }
            let page = self.inner.list(&filter, max).await?;
            if self.bend == LettersBend::PagesRepeat && filter.after.is_some() && page.len() <= 1 {
                return Ok(Vec::new());
            }
            Ok(page)
        })
    }

    fn get(&self, id: DeadLetterId) -> BoxFuture<'_, Result<DeadLetter>> {
        Box::pin(async move {
            match self.inner.get(self.told(id)).await {
                Err(_) if self.bend == LettersBend::UnknownIsTheFirst => {
                    self.inner.get(DeadLetterId(1)).await
                }
                answer => answer.map(|l| DeadLetter { id, ..l }),
            }
        })
    }

    fn resolve<'a>(
        &'a self,
        id: DeadLetterId,
        how: Resolution,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        Box::pin(async move {
            let short: String = reason.chars().take(1024).collect();
            let reason = match self.bend {
                LettersBend::NeedsNoReason if reason.trim().is_empty() => "none",
                LettersBend::NeedsNoReason => &short,
                _ => reason,
            };
            match self.inner.resolve(self.told(id), how, reason).await {
                Err(e)
                    if self.bend == LettersBend::ResolvesTwice && *e.kind() == ErrorKind::AlreadyExists =>
                {
                    self.inner.get(id).await
                }
                answer => answer.map(|l| DeadLetter { id, ..l }),
            }
        })
    }

    fn parked_keys<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Vec<PartitionKey>>> {
        Box::pin(async move {
            if !matches!(self.bend, LettersBend::ParksAllKeys | LettersBend::ParksForEver) {
                return self.inner.parked_keys(consumer, topic).await;
            }
            let every = self.bend == LettersBend::ParksAllKeys;
            let all = self.all().await?;
            let fits = |l: &&DeadLetter| {
                l.letter.consumer == *consumer
                    && l.letter.record.eb_ref.topic == *topic
                    && if every { l.resolved.is_none() } else { l.letter.parks_key }
            };
            let mut keys: Vec<_> =
                all.iter().filter(fits).map(|l| l.letter.record.partition_key.clone()).collect();
            keys.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            keys.dedup();
            Ok(keys)
        })
    }

    fn open_of<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        incarnation: &'a BusIncarnation,
        records: &'a [EbRef],
    ) -> BoxFuture<'a, Result<Vec<Option<DeadLetterId>>>> {
        Box::pin(async move {
            let mut open = self.inner.open_of(consumer, incarnation, records).await?;
            match self.bend {
                LettersBend::FindsLeftOverOnes => {
                    for (record, open) in records.iter().zip(&mut open) {
                        let all = self.all().await?;
                        *open = all.iter().find(|l| l.letter.record.eb_ref == *record).map(|l| l.id);
                    }
                }
                LettersBend::FindsInAnyOrder => open.sort_unstable(),
                _ => {}
            }
            Ok(open)
        })
    }

    fn count_open<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            if self.bend == LettersBend::CountsResolved {
                let all = self.all().await?;
                let of = |l: &&DeadLetter| consumer.is_none_or(|c| l.letter.consumer == *c);
                return Ok(all.iter().filter(of).count() as u64);
            }
            self.inner.count_open(consumer).await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.bend == LettersBend::ProbingFails {
                return Err(Error::new(ErrorKind::Unavailable, "probe", "it is not there"));
            }
            Ok(())
        })
    }
}
