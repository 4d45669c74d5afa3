//! Moving the rollout on, and back.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{MAX_REGISTER_BYTES, RegisterChange};
use eb_contract::{Cut, Error, ErrorKind, Result, Timestamp, Topic};
use serde::Serialize;
use tokio::time::Instant;

use crate::bus::{Running, settle_all};
use crate::error::within;
use crate::guard::probe;
use crate::mirror::{self, Comparison, MirrorState};
use crate::shared::{Lease, Shared};
use crate::state::{Phase, Side, Stage, State};
use crate::switch;

const OP: &str = "rollout";

/// How long a change waits for a switch that is under way.
const BUSY: Duration = Duration::from_secs(20);

/// Moves the rollout on and back; any process may. Dropping a future leaves the step done, not done, or a switch that another
/// process finishes.
pub struct Control {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// How the rollout stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The version of the state in its register; 0 before anything was stored.
    pub version: u64,
    /// The state.
    pub state: State,
    /// The mirror's progress, where there is any of the present run.
    pub mirror: Option<MirrorState>,
    /// What was changed last, newest first.
    pub history: Vec<RegisterChange>,
    /// Topics with an epoch whose end is not known yet.
    pub pending: Vec<Topic>,
}

/// What stands between the rollout and its next phase.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// The next phase; `None` at the end.
    pub next: Option<Phase>,
    /// What is missing, a sentence each; empty if the step can be made.
    pub missing: Vec<String>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, running: Arc<Running>) -> Self {
        Self { shared, running }
    }

    /// Ends this process's workers, whatever other handles there are: the mirror's lead is given back, so that another process goes on at once.
    /// The lease is renewed no more; without this, the last handle's end does the same in the background.
    pub async fn close(&self) {
        self.running.rest(self.shared.config.drain).await;
    }

    /// How the rollout stands.
    ///
    /// # Errors
    /// When the register cannot be read.
    pub async fn status(&self) -> Result<Status> {
        let lease = self.shared.refresh().await?;
        let mirror = self.shared.mirror.load().await?.map(|(_, mirror)| mirror);
        let history = self.shared.state.store().history(self.shared.state.name(), 20).await?;
        Ok(Status {
            version: lease.version,
            pending: lease.state.pending().into_iter().map(|(topic, _)| topic).collect(),
            mirror: mirror.filter(|m| m.run == lease.state.mirror_run && lease.state.phase.is_mirrored()),
            state: lease.state.clone(),
            history,
        })
    }

    /// What is missing for the next phase. Reads, and waits for the mirror as long as [`RolloutConfig::drain`](crate::RolloutConfig::drain).
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn readiness(&self) -> Result<Readiness> {
        let lease = settled_down(&self.shared).await?;
        let Some(next) = lease.state.phase.next() else {
            return Ok(Readiness { next: None, missing: Vec::new() });
        };
        let missing = missing(&self.shared, &lease.state, next).await?;
        Ok(Readiness { next: Some(next), missing })
    }

    /// Moves on to the next phase once nothing is missing for it.
    ///
    /// # Errors
    /// `InvalidInput` saying what is missing, or at the last phase; what called the switch off. The former phase holds then.
    pub async fn advance(&self, reason: &str) -> Result<Status> {
        let shared = &self.shared;
        let lease = settled_down(shared).await?;
        let from = lease.state.phase;
        let Some(to) = from.next() else {
            let what = "the new bus is the only one: this is the last phase";
            return Err(Error::new(ErrorKind::InvalidInput, OP, what));
        };
        if to == Phase::DualWrite {
            make_topics(shared, &lease.state).await?;
        }
        let missing = missing(shared, &lease.state, to).await?;
        if !missing.is_empty() {
            let what = format!("the step from {from} to {to} cannot be made: {}", missing.join("; "));
            return Err(Error::new(ErrorKind::InvalidInput, OP, what).with_retry(eb_contract::Retry::Later));
        }
        go(shared, &lease.state, to, reason, false).await?;
        self.status().await
    }

    /// Goes back to an earlier phase, baseline as a rule, whatever the new bus does. Takes about a lease's time, and less where it takes back
    /// a step that is not done yet. In that phase already, it changes nothing.
    ///
    /// # Errors
    /// `InvalidInput` for a later phase; when the register cannot be written, or the old bus cannot take over.
    pub async fn rollback(&self, to: Phase, reason: &str) -> Result<Status> {
        let shared = &self.shared;
        loop {
            let now = shared.refresh().await?;
            let step = match switch::call_off(shared, &now.state, to, reason).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => {
                    let lease = if now.state.is_active() { now } else { settled_down(shared).await? };
                    let from = lease.state.phase;
                    if to > from {
                        let what = format!("the phase is {from}, and {to} comes after it");
                        return Err(Error::new(ErrorKind::InvalidInput, OP, what).advise("use advance"));
                    }
                    roll_back(shared, to, &lease.state, reason).await
                }
                Err(error) => Err(error),
            };
            match step {
                // Somebody else's step came first: look again.
                Err(error) if crate::doc::is_conflict(&error) => {}
                other => {
                    other?;
                    return self.status().await;
                }
            }
        }
    }

    /// Reads both logs over the whole stretch that the mirror says agrees, and compares them.
    ///
    /// # Errors
    /// When they cannot be read; `InvalidInput` where nothing is mirrored.
    pub async fn compare(&self) -> Result<Vec<Comparison>> {
        let lease = self.shared.refresh().await?;
        compare(&self.shared, &lease.state).await
    }
}

/// The state when no switch is under way.
async fn settled_down(shared: &Shared) -> Result<Arc<Lease>> {
    let deadline = Instant::now() + BUSY;
    loop {
        let lease = shared.refresh().await?;
        if lease.state.is_active() {
            return Ok(lease);
        }
        if Instant::now() > deadline {
            return Err(crate::error::unavailable(OP, "a switch is under way and does not end"));
        }
        shared.changed(&lease, lease.length()).await;
    }
}

/// Back from `from`, if the rollout still stands there.
pub(crate) async fn roll_back(shared: &Shared, to: Phase, from: &State, reason: &str) -> Result<()> {
    if to == from.phase {
        return Ok(());
    }
    metrics::counter!("eb_rollout_rollbacks_total").increment(1);
    go(shared, from, to, reason, true).await
}

/// Makes a step that was decided on when `seen` was the state.
async fn go(shared: &Shared, seen: &State, to: Phase, reason: &str, urgent: bool) -> Result<()> {
    let from = &Stage::of(seen);
    if from.phase.primary() == to.primary() {
        return switch::change(shared, reason, |state| {
            if Stage::of(state) != *from || !state.is_active() {
                return Err(switch::overtaken(state, from));
            }
            let mut next = state.clone();
            (next.phase, next.since, next.reason) = (to, Timestamp::now(), reason.to_owned());
            next.mirror_run += u64::from(to.is_mirrored());
            Ok(Some(next))
        })
        .await
        .map(drop);
    }
    // What an earlier rollback left open on the bus that takes over must be known first.
    settle_all(shared, seen, Some(to.primary())).await?;
    let began = Instant::now();
    let lease = switch::begin(shared, to, from, reason, urgent).await?;
    if !urgent {
        mirror::rested(shared, shared.config.drain).await;
    }
    let done = switch::complete(shared, &lease).await?;
    if done.state.epoch == from.epoch || done.state.phase != to {
        // Another process has called it off, or gone further.
        return Err(switch::overtaken(&done.state, from));
    }
    let took = began.elapsed();
    metrics::histogram!("eb_rollout_switch_seconds").record(took.as_secs_f64());
    tracing::info!(from = %from.phase, %to, ?took, reason, "the primary was switched");
    Ok(())
}

/// Makes the topics that the new bus lacks.
async fn make_topics(shared: &Shared, state: &State) -> Result<()> {
    let (primary, other) = (shared.side(state.primary()), shared.side(state.primary().other()));
    let topics = if state.is_implicit() {
        primary.reader.topics().await?
    } else {
        state.topics.keys().cloned().collect()
    };
    let there = other.reader.topics().await?;
    for topic in topics.iter().filter(|t| !there.contains(t)) {
        let listed = primary.reader.partitions(topic).await?.partitions;
        let open = listed.iter().filter(|p| !p.closed).count();
        let count = u32::try_from(open).unwrap_or(u32::MAX).max(1);
        other.admin.create_topic(topic, count).await.map_err(|e| {
            e.advise(format!("make {topic} on the new bus with {count} partitions, then advance again"))
        })?;
    }
    Ok(())
}

async fn compare(shared: &Shared, state: &State) -> Result<Vec<Comparison>> {
    let mirror = shared.mirror.load().await?.map(|(_, m)| m).filter(|m| m.run == state.mirror_run);
    match mirror.filter(|_| state.phase.is_mirrored()) {
        Some(mirror) => mirror::compare(shared, &mirror).await,
        None => Err(Error::new(ErrorKind::InvalidInput, "compare", "nothing has been mirrored yet")),
    }
}

/// What is missing for the step to `next`.
async fn missing(shared: &Shared, state: &State, next: Phase) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    if let Some(topic) = any_topic(shared, state).await?
        && let Err(error) = probe(shared, Side::New, &topic).await
    {
        missing.push(format!("the new bus is not healthy: {error}"));
        return Ok(missing);
    }
    let pending = state.pending();
    if next.primary() != state.primary() && !pending.is_empty() {
        let outcome = settle_all(shared, state, None).await;
        if let Err(error) = outcome {
            missing.push(format!("where an earlier epoch ends is not known yet: {error}"));
        }
    }
    if next == Phase::NewPrimary {
        missing.extend(too_large(state));
        missing.extend(rested_enough(shared, state));
        missing.extend(mirror_missing(shared, state).await?);
    }
    Ok(missing)
}

async fn any_topic(shared: &Shared, state: &State) -> Result<Option<Topic>> {
    if !state.is_implicit() {
        return Ok(state.topics.keys().next().cloned());
    }
    let topics = shared.side(Side::Old).reader.topics();
    Ok(within(OP, shared.config.drain, topics).await?.into_iter().next())
}

/// Each switch adds a segment to every topic; the way back must always fit.
fn too_large(state: &State) -> Option<String> {
    let bytes = |value: serde_json::Result<Vec<u8>>| value.map_or(usize::MAX / 4, |json| json.len());
    let now = bytes(serde_json::to_vec(state));
    let last: Vec<_> = state.topics.values().filter_map(|chain| chain.last()).collect();
    // An end as long as its beginning is written to a segment that is settled.
    let step = 2 * bytes(serde_json::to_vec(&last));
    (now + 3 * step > MAX_REGISTER_BYTES).then(|| {
        format!("the rollout's state has {now} bytes of {MAX_REGISTER_BYTES}, too many for another switch and the way back")
    })
}

/// A request that was given up on may land long after: not in the next epoch on its bus.
fn rested_enough(shared: &Shared, state: &State) -> Option<String> {
    let may_land_late = shared.side(Side::New).reader.capabilities().unknown_outcomes;
    let switched = state.switched_at.filter(|_| may_land_late)?;
    let since = Timestamp::now().saturating_since(switched);
    (since < shared.config.rest).then(|| {
        format!(
            "the new bus was primary until {since:?} ago, and rests for {:?} before it is again",
            shared.config.rest
        )
    })
}

/// The mirror must have come to where the log stood when this was asked, and both logs must be equal until there.
async fn mirror_missing(shared: &Shared, state: &State) -> Result<Option<String>> {
    let heads = mirror::source_heads(shared, state).await?;
    let deadline = Instant::now() + shared.config.drain;
    loop {
        let mirror = shared.mirror.load().await?.map(|(_, m)| m).filter(|m| m.run == state.mirror_run);
        let behind = match &mirror {
            None => Some("the mirror has not begun".to_owned()),
            Some(mirror) => {
                if let Some(finding) = mirror.findings.first() {
                    return Ok(Some(format!("the mirror differs: {finding}")));
                }
                heads.iter().find(|(topic, id, head)| !has_reached(mirror, topic, *id, head)).map(
                    |(topic, id, head)| {
                        let error = mirror.error.as_deref().map(|e| format!(" ({e})")).unwrap_or_default();
                        let rests = mirror::rests_for(shared, state)
                            .map(|left| format!(" (its bus was primary, and rests for {left:?} more)"))
                            .unwrap_or_default();
                        format!("the mirror of {topic}/{id} has not come to {head} yet{error}{rests}")
                    },
                )
            }
        };
        match (behind, mirror) {
            (None, Some(mirror)) => {
                let unequal = mirror::compare(shared, &mirror).await?;
                return Ok(unequal.iter().find(|c| !c.is_equal()).map(ToString::to_string));
            }
            (behind, _) if Instant::now() >= deadline => return Ok(behind),
            _ => tokio::time::sleep(shared.config.mirror.idle).await,
        }
    }
}

fn has_reached(mirror: &MirrorState, topic: &Topic, id: u32, head: &Cut) -> bool {
    let at = mirror.topics.get(topic).and_then(|t| t.source.get(&id));
    at.is_some_and(|at| at.compare(head).is_some_and(std::cmp::Ordering::is_ge))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use eb_contract::BusIncarnation;

    use super::*;
    use crate::state::{EndState, Part, Segment};

    #[test]
    fn no_step_is_made_whose_way_back_would_not_fit_into_the_register() {
        let with = |partitions: u32, epochs: u64| {
            let segment = |epoch| Segment {
                epoch,
                side: Side::Old,
                incarnation: BusIncarnation::new("life").expect("a name"),
                opened_at: Timestamp::EPOCH,
                end: EndState::Pending,
                partitions: (0..partitions)
                    .map(|id| Part { id, parents: vec![], start: Cut::Begin, end: None, last: None })
                    .collect(),
                excluded: vec![],
            };
            let mut state = State::initial(["a".to_owned(), "b".to_owned()], 500);
            let chain = (0..epochs).map(segment).collect();
            state.topics = BTreeMap::from([(Topic::new("t").expect("a letter"), chain)]);
            too_large(&state)
        };
        assert_eq!(with(100, 50), None);
        assert_eq!(with(3_000, 1), None);
        assert!(with(3_000, 9).is_some_and(|missing| missing.contains("the way back")));
    }
}
