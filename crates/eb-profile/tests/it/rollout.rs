//! The section `wiring.event_bus.rollout`.

use std::time::Duration;

use eb_profile::{BusKind, RolloutState};

use crate::{parse, spoilt};

/// A rollout from files to a Redis, with this in place of one of its lines.
fn rollout(from: &str, to: &str) -> String {
    let sides = "event_bus_kind: rollout
  event_bus:
    rollout:
      old: {kind: file, root: old}
      new: {kind: redis, redis: {url: 'redis://u:hunter2@h:1'}}
      state: {kind: file, root: state}
";
    assert!(sides.contains(from), "{from:?} is not in the section");
    let text = spoilt("event_bus_kind: file\n  event_bus:\n    root: ${RUNS:-runs}/event_bus\n", sides);
    text.replacen(from, to, 1)
}

#[test]
fn two_buses_and_their_register_are_read_with_their_defaults_and_no_secret_shows() {
    let profile = parse(&rollout("rollout", "rollout"), &[]).unwrap();
    assert_eq!(profile.wiring.event_bus_kind, BusKind::Rollout);
    let settings = profile.wiring.event_bus.rollout.clone().unwrap();
    assert_eq!((settings.old.kind, settings.new.kind), (BusKind::File, BusKind::Redis));
    assert_eq!(settings.old.config.root.as_deref(), Some("/base/old".as_ref()));
    assert_eq!(settings.state, RolloutState::File { root: "/base/state".into() });
    assert_eq!(settings.lease, Duration::from_millis(500));
    assert_eq!(settings.triggers.unavailable, Some(Duration::from_secs(30)));
    assert!(settings.triggers.on_finding && !settings.rollback_requested);
    let shown = format!("{profile:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_environment_asks_for_the_rollback_and_never_leads_around_it() {
    let text = rollout("rollout", "rollout");
    let profile = parse(&text, &[("EVENT_BUS_KIND", "file")]).unwrap();
    assert_eq!(profile.wiring.event_bus_kind, BusKind::Rollout);
    assert!(profile.wiring.event_bus.rollout.unwrap().rollback_requested);
    assert!(profile.notices[0].contains("asks for the rollback"), "{:?}", profile.notices);
    for other in ["redis", "memory"] {
        let error = parse(&text, &[("EVENT_BUS_KIND", other)]).unwrap_err().to_string();
        assert!(error.contains("can only name its old bus, `file`"), "{error}");
    }
}

#[test]
fn what_is_wrong_in_it_is_said_with_its_place() {
    let golden = [
        (
            "old: {kind: file, root: old}",
            "old: {kind: rollout}",
            "p.yaml:11:19: wiring.event_bus.rollout.old.kind: a rollout is made of two buses that are none",
        ),
        (
            "old: {kind: file, root: old}",
            "old: {kind: file}",
            "p.yaml:11:7: wiring.event_bus.rollout.old.root: missing",
        ),
        (
            "state: {kind: file, root: state}",
            "state: {kind: file}",
            "p.yaml:13:7: wiring.event_bus.rollout.state.root: missing",
        ),
        ("      old: {kind: file, root: old}\n", "", "p.yaml:10:5: wiring.event_bus.rollout.old: missing"),
        (
            "root: state}",
            "root: state}\n      lease_ms: 501",
            "p.yaml:14:17: wiring.event_bus.rollout.lease_ms: `501` is not a whole number from 20 to 500",
        ),
        (
            "root: state}",
            "root: state}\n      triggers: {p99_ratio_percent: 50}",
            "p.yaml:14:37: wiring.event_bus.rollout.triggers.p99_ratio_percent: the new bus would have to be faster than the old one; 0 is no limit",
        ),
        (
            "state: {",
            "stat: {",
            "p.yaml:13:7: wiring.event_bus.rollout.stat: unknown key; did you mean `state`?",
        ),
    ];
    for (from, to, expected) in golden {
        assert_eq!(parse(&rollout(from, to), &[]).unwrap_err().to_string(), expected);
    }
}
