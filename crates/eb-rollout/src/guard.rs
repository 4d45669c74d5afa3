//! What rolls back on its own.

use std::sync::Arc;
use std::time::Duration;

use eb_contract::{ErrorKind, Topic};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::settle_all;
use crate::control::roll_back;
use crate::error::within;
use crate::latency::{Summary, Verdict, Whose};
use crate::mirror::MirrorState;
use crate::shared::Shared;
use crate::state::{Phase, Side, State};

/// Watches until the process's last handle is gone.
pub(crate) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut watching = Watching::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.config.triggers.check_every) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let lease = shared.lease();
        let state = &lease.state;
        if !state.is_active() {
            continue;
        }
        show(state);
        if !state.pending().is_empty()
            && let Err(error) = settle_all(&shared, state, None).await
        {
            tracing::debug!(%error, "where an epoch ends is not known yet");
        }
        if let Some(why) = watching.look(&shared, state).await {
            tracing::error!(%why, phase = %state.phase, "rolling back");
            metrics::counter!("eb_rollout_triggers_total").increment(1);
            let reason = format!("trigger: {why}");
            if let Err(error) = roll_back(&shared, Phase::Baseline, state, &reason).await {
                tracing::error!(%error, "the rollback has failed; trying again");
            }
        }
    }
}

fn show(state: &State) {
    #[allow(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("eb_rollout_epoch").set(state.epoch as f64);
    let phase = Phase::ALL.iter().position(|p| *p == state.phase).unwrap_or(0);
    #[allow(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("eb_rollout_phase").set(phase as f64);
}

#[derive(Default)]
struct Watching {
    /// Of which epoch and run of the mirror the rest is.
    of: Option<(u64, u64)>,
    /// Since when the new bus, as primary, has not been heard of.
    failing_since: Option<Instant>,
    verdict: Verdict,
}

impl Watching {
    /// Why to roll back, if so.
    async fn look(&mut self, shared: &Shared, state: &State) -> Option<String> {
        let triggers = &shared.config.triggers;
        shared.latencies.turn(triggers.window, triggers.min_samples);
        if self.of != Some((state.epoch, state.mirror_run)) {
            if self.of.is_some() {
                shared.latencies.begin_anew(triggers.min_samples);
            }
            let standing = shared.latencies.last(Side::New, whose_new(state)).map(|(window, _)| window);
            *self = Self {
                of: Some((state.epoch, state.mirror_run)),
                failing_since: None,
                verdict: Verdict::anew(standing),
            };
            shared.side(Side::New).outage.is_over();
        }
        if !state.phase.is_mirrored() {
            return None;
        }
        let mirror = match shared.mirror.load().await {
            Ok(stands) => stands.map(|(_, m)| m).filter(|m| m.run == state.mirror_run),
            Err(error) => {
                tracing::warn!(%error, "the mirror's progress cannot be read");
                None
            }
        };
        if triggers.on_finding
            && let Some(finding) = mirror.as_ref().and_then(|m| m.findings.first())
        {
            return Some(finding.to_string());
        }
        if let Some(limit) = triggers.unavailable_for {
            let failing = match state.phase.primary() {
                Side::New => self.failing_for(shared, state).await,
                Side::Old => mirror.as_ref().map_or(Duration::ZERO, MirrorState::failing_for),
            };
            if failing > limit {
                return Some(format!(
                    "the new bus has been unavailable for {failing:?}, longer than {limit:?}"
                ));
            }
        }
        let ratio = triggers.p99_ratio?;
        let (new, old) = latencies(shared, state, mirror.as_ref());
        let (new, old) = (new?, old?);
        let (floor, windows) = (triggers.p99_floor, triggers.p99_windows);
        self.verdict.judge(new, old, ratio, floor, windows).then(|| {
            let (_, new) = new;
            format!(
                "publishing to the new bus takes {:?} (p99 of {}), more than {ratio} times the old bus's {:?} (of {}), in {windows} windows of at least {:?} in a row",
                new.p99, new.samples, old.p99, old.samples, triggers.window
            )
        })
    }

    /// How long the new bus as primary has not been able to take a record, as seen from here.
    async fn failing_for(&mut self, shared: &Shared, state: &State) -> Duration {
        let now = Instant::now();
        let Some(topic) = state.topics.keys().next() else { return Duration::ZERO };
        match probe(shared, Side::New, topic).await {
            Ok(()) => self.failing_since = None,
            Err(error) => {
                tracing::warn!(%error, "the new bus does not answer");
                self.failing_since.get_or_insert(now);
            }
        }
        let unheard = self
            .failing_since
            .map_or(Duration::ZERO, |since| Instant::now().saturating_duration_since(since));
        // One that answers and takes nothing is as unavailable.
        unheard.max(shared.side(Side::New).outage.lasted())
    }
}

/// Whether the bus could take a record now.
pub(crate) async fn probe(shared: &Shared, side: Side, topic: &Topic) -> eb_contract::Result<()> {
    // Asked of the reading side: it takes no lock, so that any process may ask.
    let patience = shared.config.triggers.check_every.max(Duration::from_secs(1));
    match within("probe", patience, shared.side(side).reader.partitions(topic)).await {
        // An answer, too: the topic is made when it is needed.
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Whose calls to the new bus are looked at.
fn whose_new(state: &State) -> Whose {
    if state.phase.primary() == Side::New { Whose::Callers } else { Whose::Mirror }
}

/// The windows to compare, of the new bus and of the old; see [`crate::latency`].
fn latencies(
    shared: &Shared,
    state: &State,
    mirror: Option<&MirrorState>,
) -> (Option<(u64, Summary)>, Option<Summary>) {
    let own = |side, whose| shared.latencies.last(side, whose);
    let of_mirror = || mirror.and_then(MirrorState::latency);
    let of_old = own(Side::Old, Whose::Callers).map(|(_, summary)| summary);
    match state.phase.primary() {
        // The mirror's worker may be another process.
        Side::Old => (own(Side::New, Whose::Mirror).or_else(of_mirror), of_old),
        Side::New => {
            (own(Side::New, Whose::Callers), of_old.or_else(|| of_mirror().map(|(_, summary)| summary)))
        }
    }
}
