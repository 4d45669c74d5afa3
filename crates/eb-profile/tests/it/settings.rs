//! What a profile resolves to.

use std::path::Path;

use eb_profile::{AdmissionIndexConfig, BusKind, CheckpointStoreConfig, Origin, Profile, QuarantineConfig};

use crate::{GOOD, parse, spoilt};

fn setting<'p>(profile: &'p Profile, key: &str) -> (&'p str, String) {
    let s = profile.settings.iter().rfind(|s| s.key == key).unwrap_or_else(|| panic!("no {key}"));
    (&s.value, s.origin.to_string())
}

#[test]
fn variables_defaults_and_paths_are_resolved() {
    let profile = parse(GOOD, &[("RUNS", "/data"), ("PARTITIONS", "8")]).unwrap();
    let wiring = &profile.wiring;
    assert_eq!(wiring.event_bus_kind, BusKind::File);
    assert_eq!(wiring.event_bus.root.as_deref(), Some(Path::new("/data/event_bus")));
    let topics: Vec<_> = wiring.event_bus.topics.iter().map(|(t, n)| (t.as_str(), *n)).collect();
    assert_eq!(topics, [("t.one", 1), ("t.two", 8)]);
    assert_eq!(wiring.checkpoint_store, CheckpointStoreConfig::File { root: "/data/event_bus".into() });
    let AdmissionIndexConfig::Embedded { path, max_lag, .. } = &wiring.admission_index else { panic!() };
    assert_eq!((path.as_path(), *max_lag), (Path::new("/data/ig/index/file"), 100_000));
    assert!(profile.notices.is_empty());

    let profile = parse(GOOD, &[]).unwrap();
    let root = profile.wiring.event_bus.root.as_deref();
    assert_eq!(root, Some(Path::new("/base/runs/event_bus")), "relative paths start at the base");
}

#[test]
fn every_setting_says_where_it_came_from() {
    let profile = parse(GOOD, &[("RUNS", "/data")]).unwrap();
    let from = |key| setting(&profile, key);
    assert_eq!(
        from("wiring.event_bus.root"),
        ("/data/event_bus", "line 10, RUNS from the environment".to_owned())
    );
    assert_eq!(
        from("wiring.event_bus.topics.t.two"),
        ("4", "line 13, PARTITIONS not set, default taken".to_owned())
    );
    assert_eq!(from("wiring.admission_index.max_lag"), ("100000", "default".to_owned()));
    assert_eq!(from("wiring.event_bus_kind"), ("file", "line 8".to_owned()));
}

#[test]
fn secrets_never_show() {
    let postgres = spoilt(
        "kind: file\n  admission",
        "kind: postgres\n    url: postgres://eb:${PG_PASSWORD}@db/eb\n  admission",
    );
    let profile = parse(&postgres, &[("PG_PASSWORD", "hunter2")]).unwrap();
    assert_eq!(setting(&profile, "wiring.checkpoint_store.url").0, "•••");
    assert!(!format!("{profile:?}").contains("hunter2"));
    let CheckpointStoreConfig::Postgres(database) = &profile.wiring.checkpoint_store else { panic!() };
    assert_eq!(database.url.expose(), "postgres://eb:hunter2@db/eb");
    assert_eq!(database.url.to_string(), "•••");

    let elsewhere = spoilt("policy_rev: v0", "policy_rev: v-${API_TOKEN}");
    let profile = parse(&elsewhere, &[("API_TOKEN", "hunter2")]).unwrap();
    assert_eq!(
        setting(&profile, "policy.policy_rev").0,
        "•••",
        "a secret variable masks the value it stands in"
    );
}

#[test]
fn the_environment_overrides_the_kind_and_the_profile_says_so() {
    let memory = [("EVENT_BUS_KIND", "memory")];
    let profile = parse(GOOD, &memory).unwrap();
    assert_eq!(profile.wiring.event_bus_kind, BusKind::Memory);
    assert_eq!(
        profile.notices[0],
        "EVENT_BUS_KIND=memory in the environment overrides event_bus_kind `file` of the profile"
    );
    assert_eq!(profile.wiring.admission_index, AdmissionIndexConfig::Memory, "an index is a view of one log");
    assert_eq!(profile.wiring.checkpoint_store, CheckpointStoreConfig::Memory);
    assert!(matches!(profile.wiring.quarantine, QuarantineConfig::File { .. }));
    assert!(profile.settings.iter().any(|s| matches!(s.origin, Origin::Override { .. })));

    for nothing in ["", "file"] {
        let profile = parse(GOOD, &[("EVENT_BUS_KIND", nothing)]).unwrap();
        assert_eq!((profile.wiring.event_bus_kind, profile.notices.len()), (BusKind::File, 0));
    }
}

#[test]
fn the_override_is_the_way_back_from_a_kind_that_this_build_lacks() {
    let kinesis = spoilt("event_bus_kind: file", "event_bus_kind: kinesis");
    let profile = parse(&kinesis, &[("EVENT_BUS_KIND", "file")]).unwrap();
    assert_eq!(profile.wiring.event_bus_kind, BusKind::File);
    assert_eq!(profile.notices.len(), 1);
}

#[test]
fn durable_stores_on_a_bus_that_ends_with_the_process_are_refused() {
    let text = spoilt("event_bus_kind: file", "event_bus_kind: memory");
    let e = parse(&text, &[]).unwrap_err().to_string();
    assert_eq!(
        e,
        "p.yaml:15:11: wiring.checkpoint_store: it would outlive the memory bus; use `kind: memory` with `event_bus_kind: memory`"
    );
}
