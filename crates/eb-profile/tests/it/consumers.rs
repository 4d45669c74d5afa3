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
