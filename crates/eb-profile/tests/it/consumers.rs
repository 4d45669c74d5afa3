//! The section `wiring.consumers`.

use std::time::Duration;

use eb_profile::{ConsumerMode, ConsumerSourceKind, ConsumerStoreConfig};

use crate::{GOOD, parse};

fn with(section: &str) -> String {
    format!("{GOOD}  consumers:\n{section}")
}

#[test]
fn without_a_word_the_stores_lie_beside_the_checkpoints_and_the_bus_is_required() {
    let consumers = parse(GOOD, &[]).unwrap().wiring.consumers;
    assert_eq!(consumers.mode, ConsumerMode::Required);
    assert_eq!(consumers.source, ConsumerSourceKind::Log);
    assert_eq!(consumers.keep_marks, Duration::from_secs(168 * 3600));
    for store in [&consumers.lease_store, &consumers.processed_store, &consumers.dead_letter_store] {
        let ConsumerStoreConfig::Embedded { path } = store else { panic!("{store:?}") };
        assert!(path.starts_with("/base/runs/event_bus") && path.ends_with("consumers"), "{path:?}");
    }
}

#[test]
fn what_is_said_takes_effect() {
    let text = with(
        "    mode: degraded\n    processed_store: {kind: embedded, path: elsewhere}\n    retention: {marks_hours: 2}\n",
    );
    let consumers = parse(&text, &[]).unwrap().wiring.consumers;
    assert_eq!(consumers.mode, ConsumerMode::Degraded);
    assert_eq!(consumers.processed_store, ConsumerStoreConfig::Embedded { path: "/base/elsewhere".into() });
    assert_eq!(consumers.keep_marks, Duration::from_secs(7200));
}

#[test]
fn what_is_wrong_in_it_is_said_with_its_place() {
    let golden = [
        (
            "    mode: degradd\n",
            "p.yaml:23:11: wiring.consumers.mode: `degradd` is not one of them; did you mean `degraded`?",
        ),
        (
            "    source: groups\n",
            "p.yaml:23:13: wiring.consumers.source: a bus of kind file keeps no consumer groups, only redis does; use `source: log`, which reads any bus",
        ),
        (
            "    processed_store: {kind: memory}\n",
            "p.yaml:23:29: wiring.consumers.processed_store.kind: it would forget with the process what durable checkpoints refer to; use `kind: embedded` or `postgres`",
        ),
        (
            "    dead_letter_store: {kind: postgres}\n",
            "p.yaml:23:31: wiring.consumers.dead_letter_store.kind: it lies in the database of the checkpoint store, which is none; use `kind: postgres` for wiring.checkpoint_store, or `kind: embedded` here",
        ),
        (
            "    retention: {marks_hours: 0}\n",
            "p.yaml:23:30: wiring.consumers.retention.marks_hours: `0` is not a whole number from 1 to 876000",
        ),
        (
            "    retries: 3\n",
            "p.yaml:23:5: wiring.consumers.retries: unknown key; known here: mode, source, lease_store, processed_store, dead_letter_store, retention",
        ),
    ];
    for (section, expected) in golden {
        assert_eq!(parse(&with(section), &[]).unwrap_err().to_string(), expected);
    }
}

/// [`GOOD`] on a bus in memory, with such a section.
fn in_memory(section: &str) -> String {
    with(section)
        .replace("event_bus_kind: file", "event_bus_kind: memory")
        .replace("checkpoint_store:\n    kind: file", "checkpoint_store:\n    kind: memory")
        .replace("kind: embedded\n    path: ${RUNS:-runs}/ig/index", "kind: memory")
}

#[test]
fn on_a_bus_in_memory_a_durable_store_is_refused_where_it_is_asked_for() {
    for section in ["", "    processed_store: {kind: memory}\n"] {
        let consumers = parse(&in_memory(section), &[]).unwrap().wiring.consumers;
        for store in [&consumers.lease_store, &consumers.processed_store, &consumers.dead_letter_store] {
            assert_eq!(*store, ConsumerStoreConfig::Memory);
        }
    }
    for (store, kind) in [
        ("lease_store", "embedded, path: x"),
        ("processed_store", "embedded, path: x"),
        ("dead_letter_store", "embedded, path: x"),
        ("processed_store", "postgres"),
    ] {
        let text = in_memory(&format!("    {store}: {{kind: {kind}}}\n"));
        let line = text.lines().position(|l| l.contains(store)).unwrap() + 1;
        let column = "    : {kind: ".len() + store.len() + 1;
        assert_eq!(
            parse(&text, &[]).unwrap_err().to_string(),
            format!(
                "p.yaml:{line}:{column}: wiring.consumers.{store}.kind: it would outlive the memory bus; use `kind: memory` with `event_bus_kind: memory`"
            )
        );
    }
}

#[test]
fn the_switch_to_a_bus_in_memory_says_which_stores_go_along() {
    let text = with("    processed_store: {kind: embedded, path: x}\n");
    let profile = parse(&text, &[("EVENT_BUS_KIND", "memory")]).unwrap();
    assert_eq!(profile.wiring.consumers.processed_store, ConsumerStoreConfig::Memory);
    let said = "with the memory bus, the marks of consumers are in memory too".to_owned();
    assert!(profile.notices.contains(&said), "{:?}", profile.notices);
}
