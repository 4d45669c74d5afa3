//! Switching the primary; see the crate's documentation for the protocol and why it is right.

use std::collections::BTreeMap;
use std::time::Duration;

use eb_contract::stores::MAX_REGISTER_BYTES;
use eb_contract::{Cut, Error, ErrorKind, PartitionId, Result, Timestamp, Topic, TopicPartitions};
use futures_util::future::{join, join_all};
use tokio::time::{Instant, sleep_until};

use crate::chain::{check_incarnation, members};
use crate::doc::is_conflict;
use crate::error::within;
use crate::shared::{Lease, Shared};
use crate::state::{EndState, LastOffset, Part, Phase, Segment, Side, Stage, State, Switching};

const OP: &str = "switch";

/// How often a change is tried again that somebody else's came before.
const TRIES: usize = 20;

/// Changes the state: `change` says what is to be, or why not, or that nothing is to do (`None`). Tried again where somebody else's change
/// came first.
pub(crate) async fn change(
    shared: &Shared,
    reason: &str,
    mut change: impl FnMut(&State) -> Result<Option<State>>,
) -> Result<std::sync::Arc<Lease>> {
    for _ in 0..TRIES {
        let asked = Instant::now();
        let (version, state) = match shared.load().await? {
            Some(stands) => stands,
            None => {
                let lease_ms = u64::try_from(shared.config.lease.as_millis()).unwrap_or(u64::MAX);
                (0, State::initial(shared.buses().clone(), lease_ms))
            }
        };
        let Some(next) = change(&state)? else { return shared.install(version, &state, asked) };
        let asked = Instant::now();
        match shared.state.swap(version, next, reason).await {
            Ok((version, state)) => return shared.install(version, &state, asked),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(crate::error::unavailable(OP, "others keep changing the rollout's state").advise("try again"))
}

/// That the state is not what was decided upon.
pub(crate) fn overtaken(state: &State, decided_on: &Stage) -> Error {
    let Stage { phase, epoch, mirror_run } = decided_on;
    let now = Stage::of(state);
    let what = format!(
        "somebody else was first: the phase is {} (epoch {}, mirror {}), and was {phase} (epoch {epoch}, mirror {mirror_run}) when this was decided; last change: {}",
        now.phase, now.epoch, now.mirror_run, state.reason
    );
    Error::new(ErrorKind::VersionConflict { current: state.epoch }, OP, what)
        .advise("look again and decide anew")
}

/// Begins a switch to a phase with the other primary, if the rollout still stands where that was decided.
pub(crate) async fn begin(
    shared: &Shared,
    to: Phase,
    from: &Stage,
    reason: &str,
    urgent: bool,
) -> Result<std::sync::Arc<Lease>> {
    change(shared, reason, |state| {
        if let Some(switching) = &state.switching {
            let what = format!("a switch to {} is under way: {}", switching.to, switching.reason);
            return Err(Error::new(ErrorKind::Locked { holder: switching.by.clone() }, OP, what));
        }
        if Stage::of(state) != *from {
            return Err(overtaken(state, from));
        }
        let mut next = state.clone();
        next.switching = Some(Switching {
            to,
            since: Timestamp::now(),
            by: shared.config.owner.clone(),
            reason: reason.to_owned(),
            urgent,
        });
        Ok(Some(next))
    })
    .await
}

/// Takes a planned switch back before it is made: the bus that it leaves takes records again at once, in the same epoch. Whoever makes the
/// switch finds the register changed. `None` where there is no such switch.
pub(crate) async fn call_off(
    shared: &Shared,
    seen: &State,
    to: Phase,
    reason: &str,
) -> Result<Option<std::sync::Arc<Lease>>> {
    let planned = |state: &State| state.switching.as_ref().is_some_and(|s| !s.urgent);
    if !planned(seen) || seen.primary() != to.primary() || to > seen.phase {
        return Ok(None);
    }
    let lease = change(shared, reason, |state| {
        if Stage::of(state) != Stage::of(seen) || !planned(state) {
            return Err(overtaken(state, &Stage::of(seen)));
        }
        let mut next = state.clone();
        next.switching = None;
        (next.phase, next.since, next.reason) = (to, Timestamp::now(), reason.to_owned());
        Ok(Some(next))
    })
    .await?;
    Ok(Some(lease))
}

/// How long the buses of a switch may take to show all that they have ACKed, where it waits for that.
pub(crate) fn shown_after(shared: &Shared, state: &State) -> Duration {
    let planned = state.switching.as_ref().filter(|s| !s.urgent);
    let of_both = [Side::Old, Side::New].map(|side| shared.side(side).shows_within);
    planned.map_or(Duration::ZERO, |_| of_both[0].max(of_both[1]))
}

/// Finishes the switch that `seen` shows, or calls it off. Whoever else finishes it first is as good.
///
/// # Errors
/// Why it was called off; the former primary is active again then. When the register does not answer: it is still under way.
pub(crate) async fn complete(shared: &Shared, seen: &Lease) -> Result<std::sync::Arc<Lease>> {
    let Some(switching) = seen.state.switching.clone() else { return shared.refresh().await };
    let over = sleep_until(seen.seen_at + Shared::grace(seen) + shown_after(shared, &seen.state));
    let ((), patience) = join(over, patience(shared, &seen.state, &switching)).await;
    let plan = plan(shared, &seen.state, &switching, patience).await;
    let asked = Instant::now();
    let (next, failed) = match plan {
        Ok(next) => (next, None),
        Err(error) => {
            let mut same = seen.state.clone();
            same.switching = None;
            (same, Some(error))
        }
    };
    let reason = match &failed {
        None => switching.reason.clone(),
        Some(error) => format!("called off: {error}"),
    };
    match shared.state.swap(seen.version, next, &reason).await {
        Ok((version, state)) => {
            let lease = shared.install(version, &state, asked)?;
            match failed {
                Some(error) => Err(error),
                None => {
                    tracing::info!(phase = %lease.state.phase, epoch = lease.state.epoch, reason, "switched");
                    Ok(lease)
                }
            }
        }
        // Somebody else has finished it, one way or the other.
        Err(error) if is_conflict(&error) => shared.refresh().await,
        Err(error) => Err(error),
    }
}

/// How long the bus that is left may take to say where its epoch ends, once all leases have ended. A rollback asks it while they still run, only to see
/// whether it answers at all (what it says then is no end): one that hangs has had that time, and is not given it again.
async fn patience(shared: &Shared, state: &State, switching: &Switching) -> Duration {
    let side = shared.side(state.primary());
    if !switching.urgent {
        return shared.config.drain;
    }
    let open = |(topic, chain): (&'_ Topic, &'_ Vec<Segment>)| {
        chain.last().filter(|s| s.end == EndState::Open).map(|s| (topic.clone(), s.clone()))
    };
    let Some((topic, segment)) = state.topics.iter().find_map(open).filter(|_| side.shows_within.is_zero())
    else {
        return shared.config.reach;
    };
    let reach = shared.config.reach;
    match within(OP, reach, end_of(shared, &topic, Some(&segment))).await {
        Err(error) if *error.kind() == ErrorKind::Timeout => Duration::ZERO,
        _ => reach,
    }
}

/// The state after the switch.
async fn plan(shared: &Shared, state: &State, switching: &Switching, patience: Duration) -> Result<State> {
    let (from, to) = (state.primary(), switching.to.primary());
    let topics = topics(shared, state, from).await?;
    let shows_at_once = shared.side(from).shows_within.is_zero();
    let ends = topics.iter().map(|(topic, chain)| async move {
        if let Some(open) = chain.last().filter(|s| s.end == EndState::Open && switching.urgent && !shows_at_once) {
            // What it has ACKed it may not show yet, and a rollback does not wait for that.
            return Ok(Some(Segment { end: EndState::Pending, ..open.clone() }));
        }
        let ended = within(OP, patience, end_of(shared, topic, chain.last())).await;
        match ended {
            Ok(segment) => Ok(segment),
            Err(error) if switching.urgent && chain.last().is_some() => {
                tracing::warn!(%topic, %error, "the bus that is left does not say where its epoch ends; settled later");
                Ok(chain.last().map(|s| Segment { end: EndState::Pending, ..s.clone() }))
            }
            Err(error) => Err(error.at(format!("{topic} on the {from} bus"))),
        }
    });
    let epoch = state.epoch + 1;
    let starts = topics.iter().map(|(topic, chain)| async move {
        // Where a bus was left without a word, its end must be settled before it goes on.
        if chain.iter().any(|s| s.side == to && s.end == EndState::Pending) {
            return Err(crate::error::unavailable(
                OP,
                "where an earlier epoch on that bus ends is not known yet",
            )
            .at(topic));
        }
        let like = chain.iter().rev().find(|s| s.side == from).map(|s| s.partitions.len());
        let started = within(OP, shared.config.drain, start_of(shared, topic, to, epoch, like)).await;
        started.map_err(|e| e.at(format!("{topic} on the {to} bus")))
    });
    let (ends, starts) = join(join_all(ends), join_all(starts)).await;
    let mut next = state.clone();
    for (((topic, mut chain), end), start) in topics.into_iter().zip(ends).zip(starts) {
        if let Some(end) = end? {
            chain.pop();
            chain.push(end);
        }
        chain.push(start?);
        next.topics.insert(topic, chain);
    }
    next.phase = switching.to;
    next.since = Timestamp::now();
    next.reason.clone_from(&switching.reason);
    next.epoch = epoch;
    next.switched_at = Some(Timestamp::now());
    next.mirror_run += u64::from(switching.to.is_mirrored());
    next.switching = None;
    let size = serde_json::to_vec(&next).map_or(usize::MAX, |json| json.len());
    if size > MAX_REGISTER_BYTES {
        // Called off, then: a switch that cannot be stored would never end.
        let kind = ErrorKind::TooLarge { size, limit: MAX_REGISTER_BYTES };
        return Err(Error::new(kind, OP, "the chain of epochs does not fit into its register any more"));
    }
    Ok(next)
}

/// Every topic and its chain so far; the first segment made up where nothing was ever switched.
async fn topics(shared: &Shared, state: &State, from: Side) -> Result<BTreeMap<Topic, Vec<Segment>>> {
    if !state.is_implicit() {
        return Ok(state.topics.clone());
    }
    let reader = &shared.side(from).reader;
    let named = within(OP, shared.config.drain, reader.topics()).await?;
    let first = named.into_iter().map(|topic| async move {
        let listed = within(OP, shared.config.drain, reader.partitions(&topic)).await?;
        let partitions = members(&listed, &[])
            .into_iter()
            .map(|(id, parents, _)| Part { id, parents, start: Cut::Begin, end: None, last: None })
            .collect();
        let segment = Segment {
            epoch: 0,
            side: from,
            incarnation: listed.incarnation,
            opened_at: Timestamp::EPOCH,
            end: EndState::Open,
            partitions,
            excluded: Vec::new(),
        };
        Ok::<_, Error>((topic, vec![segment]))
    });
    join_all(first).await.into_iter().collect()
}

/// The open segment as it has ended: asked after nobody's lease can be valid any more.
async fn end_of(shared: &Shared, topic: &Topic, open: Option<&Segment>) -> Result<Option<Segment>> {
    let Some(open) = open.filter(|s| s.end != EndState::Settled) else { return Ok(None) };
    let reader = &shared.side(open.side).reader;
    let listed = reader.partitions(topic).await?;
    check_incarnation(OP, topic, &open.incarnation, &listed.incarnation)?;
    let parts = members(&listed, &open.excluded).into_iter().map(|(id, parents, _)| async move {
        let head = reader.head(topic, PartitionId(id)).await?;
        let start = open.part(id).map_or(Cut::Begin, |p| p.start);
        // A service may say a little less of its head than it has said before.
        let end =
            if start.compare(&head.cut).is_some_and(std::cmp::Ordering::is_gt) { start } else { head.cut };
        let last = head.last.filter(|last| start.is_before(last) == Some(true)).map(LastOffset);
        Ok::<_, Error>(Part { id, parents, start, end: Some(end), last })
    });
    let partitions = join_all(parts).await.into_iter().collect::<Result<Vec<_>>>()?;
    // Partitions that it began with and that its bus no longer lists have expired, whole.
    Ok(Some(Segment { end: EndState::Settled, partitions, ..open.clone() }))
}

/// A new segment that begins where the bus's log ends now. Makes the topic where it is missing, with as many partitions as `like`.
pub(crate) async fn start_of(
    shared: &Shared,
    topic: &Topic,
    side: Side,
    epoch: u64,
    like: Option<usize>,
) -> Result<Segment> {
    let handles = shared.side(side);
    let listed: TopicPartitions = match handles.reader.partitions(topic).await {
        Err(error) if *error.kind() == ErrorKind::NotFound => {
            let count = u32::try_from(like.unwrap_or(1)).unwrap_or(1).max(1);
            handles.admin.create_topic(topic, count).await?;
            handles.reader.partitions(topic).await?
        }
        other => other?,
    };
    let excluded: Vec<u32> = listed.partitions.iter().filter(|p| p.closed).map(|p| p.id.0).collect();
    let parts = members(&listed, &excluded).into_iter().map(|(id, parents, _)| async move {
        let head = handles.reader.head(topic, PartitionId(id)).await?;
        Ok::<_, Error>(Part { id, parents, start: head.cut, end: None, last: None })
    });
    Ok(Segment {
        epoch,
        side,
        incarnation: listed.incarnation.clone(),
        opened_at: Timestamp::now(),
        end: EndState::Open,
        partitions: join_all(parts).await.into_iter().collect::<Result<_>>()?,
        excluded,
    })
}

/// Settles where the pending segment of a topic ended, if it has one and its bus answers.
///
/// # Errors
/// When it does not.
pub(crate) async fn settle_topic(shared: &Shared, topic: &Topic) -> Result<()> {
    let mut state = shared.refresh().await?.state.clone();
    for _ in 0..TRIES {
        let Some(chain) = state.topics.get(topic) else { return Ok(()) };
        let Some(at) = chain.iter().position(|s| s.end == EndState::Pending) else { return Ok(()) };
        // Nobody has written to it since before it was pending; what it has ACKed until then it must show.
        if let Some(shows_within) = chain.get(at).map(|s| shared.side(s.side).shows_within) {
            tokio::time::sleep(shows_within).await;
        }
        let patience = shared.config.drain.max(Duration::from_secs(1));
        let Some(settled) = within(OP, patience, end_of(shared, topic, chain.get(at))).await? else {
            return Ok(());
        };
        let epoch = settled.epoch;
        let reason = format!("where epoch {epoch} of {topic} ended is settled");
        let lease = change(shared, &reason, |now| {
            let mut next = now.clone();
            let segment = next.topics.get_mut(topic).and_then(|c| c.iter_mut().find(|s| s.epoch == epoch));
            match segment {
                // Whoever was first has decided.
                Some(segment) if segment.end == EndState::Pending => *segment = settled.clone(),
                _ => return Ok(None),
            }
            Ok(Some(next))
        })
        .await?;
        state = lease.state.clone();
    }
    Ok(())
}
