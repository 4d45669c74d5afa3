//! Writing dead letters: until it has worked, their records are not done.

use std::sync::Arc;

use eb_contract::stores::{DeadLetterId, NewDeadLetter};
use eb_contract::{BoxFuture, Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::context::{Context, Patience};
use crate::partition::{Partition, Seq};
use crate::status::PartitionBoard;

/// How many letters are written at once.
pub(super) const LETTERS: usize = 64;

pub(crate) type Answers = (Vec<(Seq, NewDeadLetter)>, Vec<Result<DeadLetterId>>);

/// A letter is durable.
pub(super) fn tell(ctx: &Context, letter: &NewDeadLetter) {
    tracing::warn!(
        consumer = %ctx.consumer, place = %letter.record.eb_ref, reason = ?letter.reason,
        attempts = letter.attempts, "a dead letter"
    );
    ctx.metrics.dead.increment(1);
}

pub(crate) struct Burial {
    pub(crate) putting: Option<BoxFuture<'static, Answers>>,
    /// After a failure: when to try again.
    again: Option<Instant>,
    patience: Patience,
}

impl Burial {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self { putting: None, again: None, patience: Patience::new(&ctx.commit) }
    }

    pub(crate) fn start(&mut self, ctx: &Arc<Context>, partition: &mut Partition, now: Instant) {
        if self.putting.is_some()
            || self.again.is_some_and(|at| at > now)
            || !partition.has_letters_to_write()
        {
            return;
        }
        self.again = None;
        let (seqs, letters): (Vec<Seq>, Vec<NewDeadLetter>) =
            partition.take_letters(LETTERS).into_iter().unzip();
        let ctx = Arc::clone(ctx);
        self.putting = Some(Box::pin(async move {
            let answers = ctx.stores.dead_letters.put(&letters).await;
            (seqs.into_iter().zip(letters).collect(), answers)
        }));
    }

    /// When to look again.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.again
    }

    pub(crate) fn put(
        &mut self,
        ctx: &Context,
        partition: &mut Partition,
        board: &PartitionBoard,
        (letters, answers): Answers,
    ) {
        self.putting = None;
        let mut failed = None;
        let mut answers = answers.into_iter();
        for (seq, letter) in letters {
            let silent = || {
                Err(Error::new(ErrorKind::ProtocolViolation, "put dead letter", "the store did not answer"))
            };
            match answers.next().unwrap_or_else(silent) {
                Ok(_) => {
                    tell(ctx, &letter);
                    partition.letter_kept(seq, &letter);
                }
                Err(error) => {
                    ctx.metrics.store_failed("dead_letter", &error);
                    partition.letter_refused(seq, letter);
                    failed = Some(error);
                }
            }
        }
        match failed {
            None => {
                self.patience.reset();
                board.well("dead letters");
            }
            Some(error) => {
                board.trouble("dead letters", &error);
                self.again = Some(Instant::now() + self.patience.delay());
            }
        }
    }
}
