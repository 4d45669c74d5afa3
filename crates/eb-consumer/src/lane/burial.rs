//! Writing dead letters: until it has worked, their records are not done. And resolving those that were written of records which are handled after all.

use std::sync::Arc;

use eb_contract::stores::{DeadLetterId, NewDeadLetter, Resolution};
use eb_contract::{BoxFuture, Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::context::{Context, Patience};
use crate::partition::{Partition, Seq};
use crate::status::PartitionBoard;

/// How many letters are written at once.
pub(super) const LETTERS: usize = 64;

/// What share of a lease must be left for a letter to be begun: it is to be there before the next holder looks.
const SHARE: u32 = 10;

/// What became of letters.
pub(crate) enum Answers {
    Put(Vec<(Seq, NewDeadLetter)>, Vec<Result<DeadLetterId>>),
    Resolved(Seq, DeadLetterId, Result<()>),
}

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
    /// Letters were put last: it is the turn of those to be resolved. Neither holds the other up.
    put_last: bool,
    patience: Patience,
}

impl Burial {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self { putting: None, again: None, put_last: false, patience: Patience::new(&ctx.commit) }
    }

    /// `ends` is the lease's end.
    pub(crate) fn start(
        &mut self,
        ctx: &Arc<Context>,
        partition: &mut Partition,
        now: Instant,
        ends: Instant,
    ) {
        let waits = self.putting.is_some() || self.again.is_some_and(|at| at > now);
        if waits || !(partition.has_letters_to_write() || partition.has_exhumed()) {
            return;
        }
        self.again = None;
        // A renewal is heard of.
        if ctx.in_order && ends.saturating_duration_since(now) < ctx.leases.time_to_live / SHARE {
            return;
        }
        let ctx = Arc::clone(ctx);
        let resolves = self.put_last || !partition.has_letters_to_write();
        let exhumed = if resolves { partition.take_exhumed() } else { None };
        self.put_last = exhumed.is_none();
        self.putting = Some(match exhumed {
            Some((seq, id)) => Box::pin(async move {
                let reason = format!("its record was handled by {} after all", ctx.owner);
                let resolved = ctx.stores.dead_letters.resolve(id, Resolution::Handled, &reason).await;
                Answers::Resolved(seq, id, resolved.map(drop))
            }),
            None => {
                let (seqs, letters): (Vec<Seq>, Vec<NewDeadLetter>) =
                    partition.take_letters(LETTERS).into_iter().unzip();
                Box::pin(async move {
                    let answers = ctx.stores.dead_letters.put(&letters).await;
                    Answers::Put(seqs.into_iter().zip(letters).collect(), answers)
                })
            }
        });
    }

    /// When to look again.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.again
    }

    pub(crate) fn done(
        &mut self,
        ctx: &Context,
        partition: &mut Partition,
        board: &PartitionBoard,
        answers: Answers,
    ) {
        self.putting = None;
        let failed = match answers {
            Answers::Put(letters, answers) => put(ctx, partition, letters, answers),
            Answers::Resolved(seq, id, resolved) => match resolved {
                Err(error) if !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    partition.letter_stays(seq, id);
                    Some(error)
                }
                _ => {
                    partition.letter_resolved(seq);
                    None
                }
            },
        };
        match failed {
            None => {
                self.patience.reset();
                board.well("dead letters");
            }
            Some(error) => {
                ctx.metrics.store_failed("dead_letter", &error);
                board.trouble("dead letters", &error);
                self.again = Some(Instant::now() + self.patience.delay());
            }
        }
    }
}

fn put(
    ctx: &Context,
    partition: &mut Partition,
    letters: Vec<(Seq, NewDeadLetter)>,
    answers: Vec<Result<DeadLetterId>>,
) -> Option<Error> {
    let mut failed = None;
    let mut answers = answers.into_iter();
    for (seq, letter) in letters {
        let silent =
            || Err(Error::new(ErrorKind::ProtocolViolation, "put dead letter", "the store did not answer"));
        match answers.next().unwrap_or_else(silent) {
            Ok(_) => {
                tell(ctx, &letter);
                partition.letter_kept(seq, &letter);
            }
            Err(error) => {
                partition.letter_refused(seq, letter);
                failed = Some(error);
            }
        }
    }
    failed
}
