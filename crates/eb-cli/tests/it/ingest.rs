//! `eb ingest`

use eb_testkit::events::{Expected, Generator, Mix};
use serde_json::{Value, json};

use crate::{AUDIT, Place, event, events, exists, ids, numbered};

/// The summary as `--json` gives it, last on standard error.
fn summary(stderr: &str) -> Value {
    let line = stderr.lines().find(|l| l.starts_with("{\"summary\"")).unwrap_or_else(|| panic!("{stderr}"));
    serde_json::from_str::<Value>(line).unwrap()["summary"].clone()
}

#[test]
fn a_receipt_comes_for_each_line_in_the_order_of_the_input() {
    let place = Place::new();
    place.write("in.ndjson", &events(1..=500));
    let ran = place.eb(&["ingest", "in.ndjson", "--concurrency", "64"]).ended(0);
    let receipts = ran.lines();
    assert_eq!(ids(&receipts), numbered(1..=500));
    let offsets: Vec<_> = receipts.iter().map(|r| r["eb_ref"]["offset"].as_str().unwrap()).collect();
    let counted: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(offsets, counted);
    assert!(
        ran.stderr.starts_with("500 lines: 500 admitted, 0 duplicates, 0 quarantined in "),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_same_input_again_admits_nothing_twice() {
    let place = Place::with_events(50);
    let again = place.eb(&["--json", "ingest", "events.ndjson"]).ended(0);
    let summary = summary(&again.stderr);
    assert_eq!((&summary["admitted"], &summary["duplicates"]), (&json!(0), &json!(50)));
    assert_eq!((&summary["complete"], &summary["last_line"]), (&json!(true), &json!(50)));
    assert_eq!(place.eb(&["tail", "--topic", AUDIT]).lines().len(), 50);
}

#[test]
fn quarantined_lines_make_exit_code_3_and_are_counted_by_reason() {
    let place = Place::new();
    let input = format!("{}not json\n\n   \n{}{{}}\n", event(1), event(2));
    let ran = place.eb_with(&["--json", "ingest", "-"], input.as_bytes()).ended(3);
    let decisions: Vec<_> = ran.lines().iter().map(|r| r["decision"].as_str().unwrap().to_owned()).collect();
    assert_eq!(decisions, ["ADMIT", "QUARANTINE", "ADMIT", "QUARANTINE"]);
    let summary = summary(&ran.stderr);
    assert_eq!(summary["reasons"], json!({"ENVELOPE_INVALID": 2}));
    assert_eq!(
        (&summary["lines"], &summary["last_line"]),
        (&json!(4), &json!(6)),
        "blank lines are skipped, not counted out"
    );
}

#[test]
fn realistic_events_get_the_answers_that_they_should() {
    let place = Place::new();
    let mix = Mix { distance: 300, ..Mix::default() };
    let generated: Vec<_> = Generator::new(11, mix).take(2000).collect();
    let input: Vec<u8> = generated.iter().flat_map(|e| [&e.bytes[..], b"\n"].concat()).collect();
    std::fs::write(place.path("in.ndjson"), input).unwrap();
    let ran = place.eb(&["ingest", "in.ndjson", "--concurrency", "200"]).ended(3);
    let receipts = ran.lines();
    assert_eq!(receipts.len(), generated.len());
    for (n, (receipt, event)) in receipts.iter().zip(&generated).enumerate() {
        let expected = match &event.expected {
            Expected::Admit => "ADMIT",
            Expected::DuplicateOf(_) => "DUPLICATE",
            Expected::Quarantine(_) => "QUARANTINE",
        };
        assert_eq!(receipt["decision"], expected, "line {}: {receipt}", n + 1);
    }
}

#[test]
fn it_starts_at_the_line_it_is_told() {
    let place = Place::new();
    place.write("in.ndjson", &events(1..=10));
    let ran = place.eb(&["ingest", "in.ndjson", "--from-line", "8"]).ended(0);
    assert_eq!(ids(&ran.lines()), numbered(8..=10));
}

#[test]
fn an_input_that_is_not_there_leaves_no_platform_behind() {
    let place = Place::new();
    let ran = place.eb(&["ingest", "nowhere.ndjson"]).ended(1);
    assert!(ran.stderr.starts_with("eb: cannot read nowhere.ndjson: "), "{ran:?}");
    assert!(ran.stderr.ends_with("; give a file of JSON lines, or -\n"), "{ran:?}");
    place.eb(&["ingest", "."]).ended(1);
    assert!(!exists(&place.path("runs")));
}

#[test]
fn a_line_that_is_too_long_is_named_and_nothing_of_it_is_sent() {
    let place = Place::new();
    let long = "x".repeat((16 << 20) + 1);
    place.write("in.ndjson", &format!("{}{long}\n{}", event(1), event(2)));
    let ran = place.eb(&["ingest", "in.ndjson"]).ended(1);
    assert_eq!(ids(&ran.lines()), ["e1"]);
    assert!(
        ran.stderr.contains("eb: line 2 of in.ndjson has more than 16 MiB; nothing of it was sent; "),
        "{ran:?}"
    );

    let large = event(3).replace("\"n\":3", &format!("\"n\":\"{}\"", "x".repeat(2 << 20)));
    let ran = place.eb_with(&["ingest"], large.as_bytes()).ended(3);
    assert_eq!(
        ran.lines()[0]["reason_codes"],
        json!(["PAYLOAD_TOO_LARGE"]),
        "what the gate can take, it answers"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_what_is_in_flight_and_says_where_it_stopped() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::new();
        let mut running = place.start(&["--json", "ingest", "-"]);
        running.say(&events(1..=3));
        let receipts: Vec<_> = (0..3).map(|_| running.hear()).collect();
        assert_eq!(ids(&receipts), numbered(1..=3));
        running.signal(signal);
        // Standard input stays open all the while: the program must not wait for it.
        let stdin = running.stdin.take();
        let ran = running.finish().ended(75);
        drop(stdin);
        let summary = summary(&ran.stderr);
        assert_eq!((&summary["complete"], &summary["last_line"]), (&json!(false), &json!(3)));
        let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(error["error"]["kind"], "interrupted");
        assert_eq!(error["error"]["stopped_after_line"], 3);
        assert!(error["error"]["advice"].as_str().unwrap().contains("--from-line 4"), "{error}");

        let again = place.eb_with(&["ingest"], events(1..=5).as_bytes()).ended(0).lines();
        let decisions: Vec<_> = again.iter().map(|r| r["decision"].as_str().unwrap()).collect();
        assert_eq!(decisions, ["DUPLICATE", "DUPLICATE", "DUPLICATE", "ADMIT", "ADMIT"]);
    }
}

#[test]
fn whoever_stops_reading_receipts_is_told_where_the_input_stopped() {
    let place = Place::new();
    place.write("in.ndjson", &events(1..=3000));
    let mut running = place.start(&["ingest", "in.ndjson"]);
    running.hear();
    drop(running.stdout.take());
    let ran = running.finish().ended(1);
    assert!(ran.stderr.contains("eb: nobody reads the receipts any more; every line before "), "{ran:?}");
    place.eb(&["ingest", "in.ndjson"]).ended(0);
    assert_eq!(place.eb(&["tail", "--topic", AUDIT]).lines().len(), 3000);
}

#[test]
fn a_second_writer_is_told_who_the_first_is_and_to_try_again() {
    let place = Place::new();
    let mut first = place.start(&["ingest"]);
    first.say(&event(1));
    first.hear();
    let second = place.eb_with(&["ingest"], b"").ended(75);
    assert!(second.stderr.contains(" in use by pid "), "{second:?}");
    drop(first.stdin.take());
    first.finish().ended(0);
    place.eb_with(&["ingest"], b"").ended(0);
}
