//! `eb checkpoint`

use serde_json::{Value, json};

use crate::{AUDIT, Place, Ran};

fn checkpoint(place: &Place, verb: &str, more: &[&str]) -> Ran {
    place.eb(&[&["checkpoint", verb, "--consumer", "c1", "--topic", AUDIT], more].concat())
}

fn next(offset: &str) -> Value {
    json!({"type": "next", "offset": offset, "offset_kind": "file_line"})
}

#[test]
fn a_checkpoint_is_made_moved_forward_and_listed() {
    let place = Place::with_events(12);
    assert_eq!(place.eb(&["checkpoint", "list"]).ended(0).stdout, "");
    let none = checkpoint(&place, "get", &[]).ended(1);
    assert_eq!(
        none.stderr,
        "eb: c1 has no checkpoint for fp.bus.audit.v1/0; `eb checkpoint list` shows what there is\n"
    );

    let made = checkpoint(&place, "set", &["--at", "9"]).one();
    assert_eq!((&made["cut"], &made["version"]), (&next("9"), &json!(1)));
    let moved = checkpoint(&place, "set", &["--at", "after:9"]).one();
    assert_eq!((&moved["cut"], &moved["version"]), (&next("10"), &json!(2)), "after 9 is next 10");
    let moved = checkpoint(&place, "set", &["--at", "head"]).one();
    assert_eq!(moved["cut"], next("12"));
    assert_eq!(checkpoint(&place, "get", &[]).one(), moved);
    assert_eq!(place.eb(&["checkpoint", "list"]).one(), moved);
    assert_eq!(place.eb(&["checkpoint", "list", "--consumer", "c2"]).ended(0).stdout, "");
}

#[test]
fn going_back_needs_reset_and_a_reason() {
    let place = Place::with_events(5);
    checkpoint(&place, "set", &["--at", "5"]).one();
    let back = checkpoint(&place, "set", &["--at", "2"]).ended(1);
    assert!(back.stderr.ends_with("; `eb checkpoint reset --reason …` moves it all the same\n"), "{back:?}");
    assert_eq!(back.stderr.lines().count(), 1);
    let reset = checkpoint(&place, "reset", &["--at", "2", "--reason", "replay after a bug"]).one();
    assert_eq!((&reset["cut"], &reset["version"]), (&next("2"), &json!(2)));
    checkpoint(&place, "reset", &["--at", "begin", "--reason", ""]).ended(2);
    let begin = checkpoint(&place, "reset", &["--at", "begin", "--reason", "from the start"]).one();
    assert_eq!(begin["cut"], json!({"type": "begin"}));
}

#[test]
fn a_commit_that_expects_another_version_is_refused() {
    let place = Place::with_events(5);
    checkpoint(&place, "set", &["--at", "1", "--expect-version", "0"]).one();
    let stale = checkpoint(&place, "set", &["--at", "2", "--expect-version", "0"]).ended(1);
    assert!(stale.stderr.contains("`eb checkpoint get`"), "{stale:?}");
    checkpoint(&place, "set", &["--at", "2", "--expect-version", "1"]).one();
}

#[test]
fn a_commit_bears_the_stored_lease_and_a_stale_one_is_fenced() {
    let place = Place::with_events(5);
    checkpoint(&place, "set", &["--at", "1", "--owner", "worker", "--epoch", "7"]).one();
    let kept = checkpoint(&place, "set", &["--at", "2"]).one();
    assert_eq!(kept["lease"], json!({"owner": "worker", "epoch": 7}), "a running consumer is not fenced");
    let fenced = checkpoint(&place, "set", &["--at", "3", "--owner", "other", "--epoch", "6"]).ended(1);
    assert!(fenced.stderr.contains("--owner and --epoch"), "{fenced:?}");
    checkpoint(&place, "set", &["--at", "3", "--owner", "other"]).ended(2);
}

#[test]
fn a_cut_that_means_nothing_is_refused() {
    let place = Place::with_events(1);
    for at in ["x", "next:-1", "after:", "07", "before:3"] {
        let ran = checkpoint(&place, "set", &["--at", at]).ended(2);
        assert!(
            ran.stderr.contains("write begin, head, end, OFFSET, next:OFFSET or after:OFFSET"),
            "{ran:?}"
        );
    }
    let ran = checkpoint(&place, "set", &["--at", "0", "--partition", "4"]).ended(1);
    assert!(ran.stderr.contains("has no partition 4"), "{ran:?}");
}
