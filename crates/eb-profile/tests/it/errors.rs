//! Each error says where it is, what is wrong, and what to do next, in one line.

use crate::{GOOD, parse, spoilt};

fn error(from: &str, to: &str) -> String {
    parse(&spoilt(from, to), &[]).unwrap_err().to_string()
}

#[test]
fn an_error_points_to_file_line_column_and_key_and_suggests() {
    let golden = [
        (
            "    root: ${RUNS",
            "    rot: ${RUNS",
            "p.yaml:10:5: wiring.event_bus.rot: unknown key; did you mean `root`?",
        ),
        (
            "  quarantine:",
            "  quarantene:",
            "p.yaml:19:3: wiring.quarantene: unknown key; did you mean `quarantine`?",
        ),
        (
            "profile_id: test\n",
            "profile_id: test\nkafka: 1\n",
            "p.yaml:2:1: kafka: unknown key; known here: profile_id, policy, wiring",
        ),
        (
            "event_bus_kind: file",
            "event_bus_kind: fille",
            "p.yaml:8:19: wiring.event_bus_kind: `fille` is not one of them; did you mean `file`?",
        ),
        (
            "kind: embedded",
            "kind: sqlite",
            "p.yaml:17:11: wiring.admission_index.kind: `sqlite` is not one of them; known here: embedded, memory, postgres",
        ),
        (
            "root: ${RUNS:-runs}/event_bus",
            "root: ${NOT_THERE}/event_bus",
            "p.yaml:10:11: wiring.event_bus.root: the environment variable NOT_THERE is not set; set it, or write ${NOT_THERE:-default}",
        ),
        (
            "root: ${RUNS:-runs}/event_bus",
            "root: x/${RUNS",
            "p.yaml:10:13: wiring.event_bus.root: `${` without its `}`; write `$${` for a literal `${`",
        ),
        ("    root: ${RUNS:-runs}/event_bus\n", "", "p.yaml:9:3: wiring.event_bus.root: missing"),
        (
            "t.one: 1",
            "t.one: 0",
            "p.yaml:12:14: wiring.event_bus.topics.t.one: `0` is not a whole number from 1 to 10000",
        ),
        (
            "      t.one: 1",
            "      a/b: 1",
            "p.yaml:12:7: wiring.event_bus.topics.a/b: invalid topic name: '/' in \"a/b\"; use only A-Z a-z 0-9 . _ -",
        ),
        ("profile_id: test", "profile_id: ../x", "p.yaml:1:13: profile_id: use 1 to 64 of A-Z a-z 0-9 . _ -"),
        (
            "  checkpoint_store:\n    kind: file",
            "  checkpoint_store: file",
            "p.yaml:14:21: wiring.checkpoint_store: a map with kind, root, url, schema, tls, ca_file, migrations, max_connections, pool_wait_ms, connect_timeout_ms, statement_timeout_ms, lock_timeout_ms, allow_unsafe_server belongs here",
        ),
        ("      t.one: 1", "      t.two: 1", "p.yaml:13:7: the key `t.two` stands twice, first in line 12"),
        (
            "kind: file\n  admission",
            "kind: postgres\n  admission",
            "p.yaml:14:3: wiring.checkpoint_store.url: missing",
        ),
        (
            "    topics:",
            "    create_topics: yes\n    topics:",
            "p.yaml:11:20: wiring.event_bus.create_topics: `yes` is neither true nor false",
        ),
    ];
    for (from, to, expected) in golden {
        assert_eq!(error(from, to), expected);
    }
    assert!(parse(GOOD, &[]).is_ok());
}

#[test]
fn an_override_that_names_nothing_is_an_error_of_the_variable() {
    let e = parse(GOOD, &[("EVENT_BUS_KIND", "flie")]).unwrap_err();
    assert_eq!(e.to_string(), "EVENT_BUS_KIND: `flie` is no kind of event bus; did you mean `file`?");
}

#[test]
fn what_a_secret_variable_holds_is_in_no_error() {
    let text = spoilt("t.two: ${PARTITIONS:-4}", "t.two: ${MY_TOKEN}");
    let e = parse(&text, &[("MY_TOKEN", "hunter2")]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "p.yaml:13:14: wiring.event_bus.topics.t.two: `•••` is not a whole number from 1 to 10000"
    );
}

#[test]
fn no_cut_of_a_profile_panics() {
    for end in 0..GOOD.len() {
        let _ = parse(&GOOD[..end], &[]);
    }
}
