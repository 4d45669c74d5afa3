//! The section `wiring`: which bus, which stores.

use std::path::Path;

use eb_contract::Topic;

use crate::consumer;
use crate::error::ProfileError;
use crate::interpolate::Env;
use crate::kinesis;
use crate::locate::ProfileSource;
use crate::model::{BUS_KINDS, BusKind, EventBusConfig, KIND_OVERRIDE, Wiring};
use crate::redis;
use crate::rollout;
use crate::section::{Origin, Section, suggestion};
use crate::stores::Stores;

const MAX_PARTITIONS: u64 = 10_000;

/// Reads the section, and everything in it.
pub(crate) fn read(
    root: &Section<'_>,
    profile_id: &str,
    source: &ProfileSource,
    env: &Env,
    notices: &mut Vec<String>,
) -> Result<Wiring, ProfileError> {
    let known =
        ["event_bus_kind", "event_bus", "checkpoint_store", "admission_index", "quarantine", "consumers"];
    let wiring = root.section("wiring", &known)?;
    let (kind, overridden) = read_kind(&wiring, env, notices)?;
    let event_bus = read_event_bus(&wiring, kind, overridden, source.base(), env, notices)?;
    let positions = event_bus.positions_of(kind);
    let ends_with_process = event_bus.ends_with_process(kind);
    let stores = Stores {
        wiring: &wiring,
        profile_id,
        kind: positions,
        ends_with_process,
        overridden,
        base: source.base(),
    };
    let checkpoint_store = stores.checkpoint_store(&event_bus, notices)?;
    let result = Wiring {
        event_bus_kind: kind,
        consumers: consumer::read(&stores, &checkpoint_store, notices)?,
        checkpoint_store,
        admission_index: stores.admission_index(notices)?,
        quarantine: stores.quarantine()?,
        event_bus,
    };
    Ok(result)
}

/// The kind in force, and whether the environment overrides the profile's.
fn read_kind(
    wiring: &Section<'_>,
    env: &Env,
    notices: &mut Vec<String>,
) -> Result<(BusKind, bool), ProfileError> {
    let key = "event_bus_kind";
    let value = wiring.required(key)?;
    let refusal = |what| value.error(what).advise("use another kind or another build of this program");
    let variable = |what: String| ProfileError::new(KIND_OVERRIDE, what);
    let held =
        env.get(KIND_OVERRIDE).map_err(|_| variable("it holds something else than UTF-8".to_owned()))?;
    // A rollout is never bypassed: its section says what the variable means to it.
    if value.shown() == BusKind::Rollout.as_str()
        && let None = BusKind::Rollout.unavailable()
    {
        return Ok((value.one_of(BUS_KINDS)?, false));
    }
    if let Some(wanted) = held.filter(|text| !text.is_empty()) {
        let Some((_, kind)) = BUS_KINDS.iter().find(|(name, _)| *name == wanted) else {
            let names: Vec<_> = BUS_KINDS.iter().map(|(name, _)| *name).collect();
            let shown: String = wanted.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(
                variable(format!("`{shown}` is no kind of event bus")).advise(suggestion(&wanted, &names))
            );
        };
        if let Some(why) = kind.unavailable() {
            return Err(variable(why).advise("set it to another kind, or unset it"));
        }
        let written = value.shown();
        if written != kind.as_str() {
            notices.push(format!(
                "{KIND_OVERRIDE}={} in the environment overrides {key} `{written}` of the profile",
                kind.as_str()
            ));
            let origin = Origin::Override { variable: KIND_OVERRIDE };
            wiring.reading.record(&wiring.full(key), kind.as_str().to_owned(), false, origin);
            return Ok((*kind, true));
        }
    }
    let unavailable =
        BUS_KINDS.iter().find(|(name, _)| *name == value.shown()).and_then(|(_, kind)| kind.unavailable());
    if let Some(why) = unavailable {
        return Err(refusal(why));
    }
    Ok((value.one_of(BUS_KINDS)?, false))
}

fn read_event_bus(
    wiring: &Section<'_>,
    kind: BusKind,
    overridden: bool,
    base: &Path,
    env: &Env,
    notices: &mut Vec<String>,
) -> Result<EventBusConfig, ProfileError> {
    let known = [
        "root",
        "topics",
        "create_topics",
        "max_envelope_bytes",
        "preallocate_bytes",
        "reserve_bytes",
        "kinesis",
        "redis",
        "rollout",
    ];
    let bus = wiring.section("event_bus", &known)?;
    let mut topics = Vec::new();
    if let Some(section) = bus.optional_section("topics", None)? {
        for (name, at) in section.keys() {
            let full = section.full(name);
            let topic = Topic::new(name).map_err(|e| wiring.reading.error(at, &full, e.to_string()))?;
            let partitions = section.required(name)?.number(1..=MAX_PARTITIONS)?;
            // Within the range just checked.
            topics.push((topic, u32::try_from(partitions).unwrap_or(1)));
        }
    }
    let create_topics = bus.boolean_or("create_topics", false)?;
    let default = eb_contract::EnvelopeLimits::DEFAULT_BYTES as u64;
    let max_envelope_bytes = bus.number_or("max_envelope_bytes", 1024..=16 << 20, default)?;
    let max_envelope_bytes = usize::try_from(max_envelope_bytes).unwrap_or(usize::MAX);
    let mut all = backend_settings(&bus, kind, overridden, base, notices)?;
    (all.topics, all.create_topics, all.max_envelope_bytes) = (topics, create_topics, max_envelope_bytes);
    let mut of_sides = Vec::new();
    let mut side = |section: &Section<'_>, kind| {
        let settings = backend_settings(section, kind, false, base, &mut of_sides)?;
        Ok(EventBusConfig { max_envelope_bytes, ..settings })
    };
    all.rollout = rollout::read(&bus, kind, env, base, &mut side, notices)?;
    if let Some(rollout) = all.rollout.as_ref().filter(|_| kind == BusKind::Rollout) {
        notices.extend(of_sides);
        // Where a file bus lies, its checkpoints lie.
        all.root = all.root.or_else(|| rollout.old.config.root.clone());
    }
    Ok(all)
}

/// What a section says of the bus of a kind, topics and limits apart.
fn backend_settings(
    bus: &Section<'_>,
    kind: BusKind,
    overridden: bool,
    base: &Path,
    notices: &mut Vec<String>,
) -> Result<EventBusConfig, ProfileError> {
    let root = match bus.optional("root")? {
        Some(root) => Some(root.path_from(base)?),
        None if kind == BusKind::File => {
            let why = if overridden { " (EVENT_BUS_KIND=file needs it)" } else { "" };
            return Err(bus.missing("root", why));
        }
        None => None,
    };
    Ok(EventBusConfig {
        root,
        topics: Vec::new(),
        create_topics: false,
        max_envelope_bytes: eb_contract::EnvelopeLimits::DEFAULT_BYTES,
        preallocate_bytes: bus.number_or("preallocate_bytes", 0..=1 << 30, 0)?,
        reserve_bytes: bus.number_or("reserve_bytes", 0..=1 << 30, 16 << 20)?,
        kinesis: kinesis::read(bus, kind, overridden)?,
        redis: redis::read(bus, kind, overridden, base, notices)?,
        rollout: None,
    })
}
