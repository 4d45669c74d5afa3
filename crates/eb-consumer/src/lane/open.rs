//! Opening a partition that was claimed: where to go on, which keys are parked.

use std::sync::Arc;

use eb_contract::stores::MarkScope;
use eb_contract::{Cut, Error, ErrorKind, Result, StartAt};
use tokio::time::Instant;

use super::{Burial, Claimed, Desk, LaneEnd};
use crate::care::Care;
use crate::context::{Context, Patience};
use crate::fetch::{Fetch, READ_AHEAD};
use crate::hold::Hold;
use crate::ledger::Ledger;
use crate::partition::{Partition, Rules, Whose};
use crate::room::{Room, Taken};
use crate::status::Phase;

/// What opening leads to.
pub(crate) enum Opening {
    Open(Box<Desk>),
    /// There is nothing to do, or it cannot be done.
    End(LaneEnd),
}

/// How letters are put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// Apart from marks.
    OnTheirOwn,
    /// With them: a record that is not marked has none.
    WithinTransactions,
}

/// Opens it.
pub(crate) async fn open(ctx: Arc<Context>, claimed: Claimed, handlers: Handlers) -> Opening {
    match try_open(ctx, claimed, handlers).await {
        Ok(opening) => opening,
        Err(error) if matches!(error.kind(), ErrorKind::Fenced) => Opening::End(LaneEnd::Fenced(error)),
        Err(error) => Opening::End(LaneEnd::Failed(error)),
    }
}

async fn try_open(ctx: Arc<Context>, claimed: Claimed, handlers: Handlers) -> Result<Opening> {
    let Claimed { key, lease, incarnation, is_child, ends, orders } = claimed;
    let board = ctx.board.open(&key.topic, key.partition_id);
    let place = format!("{}/{}", key.topic, key.partition_id);
    let stored = ctx.stores.checkpoints.load(&ctx.consumer, &key.topic, key.partition_id).await?;
    if let Some(stored) = &stored {
        if stored.bus_incarnation != incarnation {
            let what = format!(
                "the checkpoint of `{}` belongs to another life of the topic ({}, it is now {incarnation})",
                ctx.consumer, stored.bus_incarnation
            );
            let advice = "reset it with `eb checkpoint reset` once you know what was missed";
            return Err(Error::new(ErrorKind::WrongIncarnation, "consume", what).at(place).advise(advice));
        }
        if matches!(stored.cut, Cut::End) {
            return Ok(Opening::End(LaneEnd::Ended));
        }
    }
    let start = match &stored {
        Some(stored) => StartAt::from(stored),
        None if is_child => StartAt::Cut(Cut::Begin),
        None => ctx.start,
    };
    let parked = ctx.stores.dead_letters.parked_keys(&ctx.consumer, &key.topic).await?;
    let letters = handlers == Handlers::OnTheirOwn
        && ctx.stores.dead_letters.count_open(Some(&ctx.consumer)).await? > 0;
    let opened = ctx.source.open(&key.topic, key.partition_id, &ctx.owner, start).await.map_err(|e| {
        let advice =
            "reset the consumer's checkpoint with `eb checkpoint reset` once you know what was missed";
        if matches!(e.kind(), ErrorKind::OutOfRange { .. }) && e.advice().is_none() {
            e.advise(advice)
        } else {
            e
        }
    })?;
    let scope = MarkScope {
        subscriber: ctx.consumer.clone(),
        bus_incarnation: incarnation.clone(),
        topic: key.topic.clone(),
        partition_id: key.partition_id,
    };
    // Last of all: what could not be opened was not taken.
    let cut = stored.as_ref().map_or(Cut::Begin, |stored| stored.cut);
    let care = Care::take(&ctx, &key, &lease, &incarnation, cut).await?;
    let hold = ctx.in_order.then(|| Arc::new(Hold::new(&lease, ends.clone())));
    let ledger = Ledger::new(Arc::clone(&ctx), scope.clone(), lease, stored.as_ref(), opened.tell);
    let rules = Rules {
        retry: ctx.retry,
        in_order: ctx.in_order,
        by_event: ctx.by_event,
        read_ahead: (READ_AHEAD * ctx.limits.read_records) as u64,
    };
    let whose = Whose { consumer: ctx.consumer.clone(), incarnation };
    let position = opened.feed.position();
    let partition = Partition::new(whose, rules, position, parked.into_iter().collect());
    let room = Room::new(ctx.limits.partition_records, ctx.limits.partition_bytes);
    let (fetch, fetched) = Fetch::start(
        Arc::clone(&ctx),
        scope,
        opened.feed,
        ledger.committed(),
        Arc::clone(&room),
        Arc::clone(&board),
        letters,
    );
    board.phase(Phase::Running);
    board.committed(ledger.committed());
    board.read_to(position);
    let now = Instant::now();
    let gauge = ctx.metrics.in_flight(&key.topic, key.partition_id);
    Ok(Opening::Open(Box::new(Desk {
        here: Taken::none(&room),
        total: Taken::none(&ctx.room),
        write_patience: Patience::new(&ctx.commit),
        note_patience: Patience::new(&ctx.commit),
        burial: Burial::new(&ctx),
        ctx,
        partition,
        ledger,
        board,
        ends,
        hold,
        orders,
        fetch: Some(fetch),
        fetched,
        read_failed: None,
        writing: None,
        rewrite: None,
        finished_since: None,
        last_write: now,
        stepping: true,
        care,
        noting: None,
        note_again: None,
        parking: None,
        parked_at: now,
        keeping: None,
        kept_at: now,
        gauge,
    })))
}
