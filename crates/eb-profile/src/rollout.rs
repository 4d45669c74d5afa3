//! The section `wiring.event_bus.rollout`: two buses, and what decides between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ProfileError;
use crate::interpolate::Env;
use crate::model::{BUS_KINDS, BusKind, EventBusConfig, KIND_OVERRIDE};
use crate::postgres::{self, PostgresSettings};
use crate::section::Section;

#[cfg(feature = "rollout")]
pub(crate) mod claims;
#[cfg(feature = "rollout")]
pub(crate) mod opened;

const KEYS: &[&str] = &["old", "new", "state", "lease_ms", "rest_ms", "mirror_patience_ms", "triggers"];

const TRIGGERS: &[&str] = &[
    "on_finding",
    "unavailable_ms",
    "p99_ratio_percent",
    "p99_floor_ms",
    "p99_windows",
    "window_ms",
    "min_samples",
];

/// A bus made of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSettings {
    /// `old`: the bus that is left.
    pub old: RolloutSide,
    /// `new`: the bus that is moved to.
    pub new: RolloutSide,
    /// `state`: the register that decides for all processes.
    pub state: RolloutState,
    /// `lease_ms`: how long a process may write without asking; taken from the register once it is there.
    pub lease: Duration,
    /// `rest_ms`: how long a bus rests after it was primary before records are mirrored to it, and the new one before a planned step makes it primary
    /// again; what was given up on there, or sent by somebody who was halted, must have landed, or never will.
    pub rest: Duration,
    /// `mirror_patience_ms`: how long nobody must have heard of the mirror's worker before another process takes over.
    pub mirror_patience: Duration,
    /// `triggers`.
    pub triggers: RolloutTriggers,
    /// `EVENT_BUS_KIND` names the old bus: opening for writing rolls back, for all processes.
    pub rollback_requested: bool,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSide {
    /// `kind`.
    pub kind: BusKind,
    /// Its settings; topics and limits are those of the rollout.
    pub config: Box<EventBusConfig>,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutState {
    /// Below `<root>/registers`: for the processes of one machine.
    File {
        /// The folder, resolved.
        root: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(PostgresSettings),
    /// In the process.
    Memory,
}

/// The section `triggers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutTriggers {
    /// `on_finding`: an event that is missing or differs in the mirror rolls back.
    pub on_finding: bool,
    /// `unavailable_ms`: how long the new bus may be unavailable; 0 for ever.
    pub unavailable: Option<Duration>,
    /// `p99_ratio_percent`: how much of the old bus's 99th percentile of publish latency the new one's may be; 0 for any.
    pub p99_ratio_percent: Option<u64>,
    /// `p99_floor_ms`: up to here the new bus's percentile is well, whatever the old one's is.
    pub p99_floor: Duration,
    /// `p99_windows`: so many windows in a row must be worse.
    pub p99_windows: u32,
    /// `window_ms`: latencies are compared over stretches of this length at least.
    pub window: Duration,
    /// `min_samples`: a window goes on until it has so many.
    pub min_samples: u64,
}

/// Reads the settings of a bus of a kind from a section; topics and limits apart.
pub(crate) type ReadSide<'r> =
    &'r mut dyn FnMut(&Section<'_>, BusKind) -> Result<EventBusConfig, ProfileError>;

/// Reads the section, where it is.
pub(crate) fn read(
    bus: &Section<'_>,
    kind: BusKind,
    env: &Env,
    base: &Path,
    side: ReadSide<'_>,
    notices: &mut Vec<String>,
) -> Result<Option<RolloutSettings>, ProfileError> {
    let Some(section) = bus.optional_section("rollout", Some(KEYS))? else {
        if kind == BusKind::Rollout {
            return Err(bus.missing("rollout", "").advise("write its `old`, `new` and `state` below it"));
        }
        return Ok(None);
    };
    let old = read_side(&section, "old", side)?;
    let new = read_side(&section, "new", side)?;
    let lease = Duration::from_millis(section.number_or("lease_ms", 20..=500, 500)?);
    let settings = RolloutSettings {
        state: read_state(&section, old.kind, base)?,
        lease,
        rest: Duration::from_millis(section.number_or("rest_ms", 0..=86_400_000, 30_000)?),
        mirror_patience: Duration::from_millis(section.number_or(
            "mirror_patience_ms",
            1_000..=600_000,
            15_000,
        )?),
        triggers: triggers(&section)?,
        rollback_requested: kind == BusKind::Rollout && requested(env, &old, notices)?,
        old,
        new,
    };
    Ok(Some(settings))
}

/// The environment never takes a process of a rollout to a bus of its own: it asks for the rollback of all.
fn requested(env: &Env, old: &RolloutSide, notices: &mut Vec<String>) -> Result<bool, ProfileError> {
    let held = env.get(KIND_OVERRIDE).ok().flatten().filter(|text| !text.is_empty());
    match held.as_deref() {
        None | Some("rollout") => Ok(false),
        Some(kind) if kind == old.kind.as_str() => {
            notices.push(format!(
                "{KIND_OVERRIDE}={kind} in the environment asks for the rollback of the rollout to its old bus, for all processes"
            ));
            Ok(true)
        }
        Some(_) => {
            let what = format!(
                "the profile is a rollout: {KIND_OVERRIDE} can only name its old bus, `{}`, and so roll all processes back",
                old.kind.as_str()
            );
            Err(ProfileError::new(KIND_OVERRIDE, what).advise("unset it, or use `eb rollout`"))
        }
    }
}

fn read_side(
    section: &Section<'_>,
    key: &'static str,
    side: ReadSide<'_>,
) -> Result<RolloutSide, ProfileError> {
    let of =
        section.section(key, &["kind", "root", "preallocate_bytes", "reserve_bytes", "kinesis", "redis"])?;
    let kind = of.required("kind")?;
    let nested = kind.error("a rollout is made of two buses that are none");
    let kind = kind.one_of(BUS_KINDS)?;
    if kind == BusKind::Rollout {
        return Err(nested);
    }
    if let Some(why) = kind.unavailable() {
        return Err(of.reading.error(of.at, &of.full("kind"), why));
    }
    Ok(RolloutSide { kind, config: Box::new(side(&of, kind)?) })
}

#[derive(Clone, Copy)]
enum StateKind {
    File,
    Postgres,
    Memory,
}

fn read_state(section: &Section<'_>, old: BusKind, base: &Path) -> Result<RolloutState, ProfileError> {
    let state = section.section("state", &[&["kind", "root"], postgres::KEYS].concat())?;
    let kinds = [("file", StateKind::File), ("postgres", StateKind::Postgres), ("memory", StateKind::Memory)];
    Ok(match state.required("kind")?.one_of(&kinds)? {
        StateKind::File => RolloutState::File { root: state.required("root")?.path_from(base)? },
        StateKind::Postgres => RolloutState::Postgres(postgres::read(&state, old, base)?),
        StateKind::Memory => RolloutState::Memory,
    })
}

fn triggers(section: &Section<'_>) -> Result<RolloutTriggers, ProfileError> {
    let t = section.section_or_empty("triggers", TRIGGERS)?;
    let some = |n: u64| (n > 0).then_some(n);
    let ratio = t.number_or("p99_ratio_percent", 0..=1_000_000, 500)?;
    if (1..100).contains(&ratio) {
        let what = "the new bus would have to be faster than the old one; 0 is no limit";
        let at = t.optional("p99_ratio_percent")?.map_or(t.at, |written| written.at);
        return Err(t.reading.error(at, &t.full("p99_ratio_percent"), what));
    }
    Ok(RolloutTriggers {
        on_finding: t.boolean_or("on_finding", true)?,
        unavailable: some(t.number_or("unavailable_ms", 0..=86_400_000, 30_000)?).map(Duration::from_millis),
        p99_ratio_percent: some(ratio),
        p99_floor: Duration::from_millis(t.number_or("p99_floor_ms", 0..=60_000, 20)?),
        // Within the range.
        p99_windows: u32::try_from(t.number_or("p99_windows", 1..=1_000, 2)?).unwrap_or(u32::MAX),
        window: Duration::from_millis(t.number_or("window_ms", 100..=86_400_000, 60_000)?),
        min_samples: t.number_or("min_samples", 1..=1_000_000, 200)?,
    })
}
