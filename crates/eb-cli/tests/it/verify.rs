//! `eb verify`

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{AUDIT, Place, Ran, event, events};

fn log(place: &Place) -> PathBuf {
    place.path("runs/event_bus").join(AUDIT).join("partition=0.jsonl")
}

fn append(place: &Place, text: &str) {
    OpenOptions::new().append(true).open(log(place)).unwrap().write_all(text.as_bytes()).unwrap();
}

/// The lines of this type.
fn of(ran: &Ran, kind: &str) -> Vec<Value> {
    ran.lines().into_iter().filter(|l| l["type"] == kind).collect()
}

fn audit(ran: &Ran, kind: &str) -> Value {
    of(ran, kind).into_iter().find(|l| l["topic"] == AUDIT).unwrap()
}

#[test]
fn a_whole_bus_is_counted_and_digested() {
    let place = Place::with_events(120);
    let ran = place.eb(&["verify"]).ended(0);
    assert_eq!(of(&ran, "partition").len(), 3);
    let partition = audit(&ran, "partition");
    assert_eq!((&partition["records"], &partition["findings"]), (&json!(120), &json!([])));
    assert_eq!((&partition["watermark"], &partition["being_written"]), (&json!(120), &json!(false)));
    let keys = audit(&ran, "topic")["key_sequences"].clone();
    assert_eq!((&keys["keys"], &keys["first_occurrences"]), (&json!(120), &json!(120)));
    assert_eq!(
        of(&ran, "summary")[0],
        json!({"type": "summary", "facts_are_whole": true, "worst": null, "records": 120, "repairs_planned": 0, "repairs_done": 0})
    );

    let again = place.eb(&["verify", "--topic", AUDIT, "--skip-key-digest"]).ended(0);
    assert_eq!(audit(&again, "partition")["digest"], partition["digest"]);
    assert_eq!(audit(&again, "topic")["key_sequences"], json!(null));
    assert_eq!(of(&again, "partition").len(), 1);
    assert!(place.eb(&["verify", "--topic", "nope"]).ended(1).stderr.contains("nope"));
}

#[test]
fn the_same_facts_have_the_same_digest_however_they_came_there() {
    let whole = Place::with_events(30);
    let other = Place::new();
    for part in [21..=30, 1..=20, 5..=25] {
        other.eb_with(&["ingest"], events(part).as_bytes()).ended(0);
    }
    let digest =
        |place: &Place| audit(&place.eb(&["verify"]).ended(0), "topic")["key_sequences"]["digest"].clone();
    assert_eq!(digest(&whole), digest(&other));
    other.eb_with(&["ingest"], event(31).as_bytes()).ended(0);
    assert_ne!(digest(&whole), digest(&other));
}

#[test]
fn a_flipped_byte_is_named_with_its_place_and_no_repair_touches_it() {
    let place = Place::with_events(20);
    let mut bytes = fs::read(log(&place)).unwrap();
    let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    bytes[second + 100] ^= 1;
    fs::write(log(&place), &bytes).unwrap();
    for args in [&["verify"][..], &["verify", "--repair", "--yes"]] {
        let ran = place.eb(args).ended(1);
        let finding = &audit(&ran, "partition")["findings"][0];
        assert_eq!((&finding["kind"], &finding["severity"]), (&json!("damaged_record"), &json!("facts")));
        assert_eq!(
            (&finding["line"], &finding["byte"], &finding["acked"]),
            (&json!(2), &json!(second), &json!("yes"))
        );
        assert!(ran.stderr.starts_with("eb: 1 damage to records that were ACKed"), "{ran:?}");
        assert_eq!(fs::read(log(&place)).unwrap(), bytes);
    }
    let read = place.eb(&["tail", "--topic", AUDIT]).ended(1);
    assert_eq!(read.lines().len(), 1, "what lies before it is read");
    assert!(read.stderr.contains("partition=0.jsonl") && read.stderr.contains('2'), "{read:?}");
}

#[test]
fn a_torn_tail_is_shown_first_and_set_aside_only_when_asked_for() {
    let place = Place::with_events(5);
    let whole = fs::read(log(&place)).unwrap();
    append(&place, "{\"crc32c\":\"0123");
    let looked = place.eb(&["verify"]).ended(0);
    let partition = audit(&looked, "partition");
    assert_eq!(partition["findings"][0]["kind"], "torn_tail");
    assert_eq!(partition["repairs"][0]["action"], "recover");
    assert_eq!(partition["repairs"][0]["set_aside_from_byte"], json!(whole.len()));
    assert_eq!(of(&looked, "summary")[0]["repairs_planned"], 1);

    let unasked = place.eb(&["verify", "--repair"]).ended(2);
    assert_eq!(
        unasked.stderr,
        "eb: --repair needs --yes where nobody can be asked; look at the plan, then run it again with --yes\n"
    );
    assert_ne!(fs::read(log(&place)).unwrap(), whole, "nothing was changed");

    let repaired = place.eb(&["verify", "--repair", "--yes"]).ended(0);
    assert_eq!(of(&repaired, "repaired").len(), 1);
    assert_eq!(of(&repaired, "summary")[0]["repairs_done"], 1);
    assert_eq!(fs::read(log(&place)).unwrap(), whole);
    let names: Vec<_> = fs::read_dir(log(&place).parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.iter().filter(|n| n.starts_with("partition=0.torn-")).count(), 1, "{names:?}");
    assert_eq!(of(&place.eb(&["verify"]).ended(0), "summary")[0]["repairs_planned"], 0);
    place.eb_with(&["ingest"], event(6).as_bytes()).ended(0);
    assert_eq!(place.eb(&["tail", "--topic", AUDIT]).ended(0).lines().len(), 6);
}

#[test]
fn a_bus_that_is_being_written_is_checked_and_not_repaired() {
    let place = Place::with_events(3);
    let mut writer = place.start(&["ingest"]);
    writer.say(&event(4));
    writer.hear();
    let ran = place.eb(&["verify", "--topic", AUDIT]).ended(0);
    let partition = audit(&ran, "partition");
    assert_eq!((&partition["being_written"], &partition["records"]), (&json!(true), &json!(4)));
    drop(writer.stdin.take());
    writer.finish().ended(0);
}

#[test]
fn another_kind_of_bus_is_read_through_and_not_repaired() {
    let place = Place::new();
    let run = |args: &[&str]| place.command(args).env("EVENT_BUS_KIND", "memory").output().unwrap();
    assert_eq!(run(&["verify"]).status.code(), Some(0));
    let refused = run(&["verify", "--repair"]);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(
        stderr.ends_with("eb: a bus of kind memory cannot be repaired; leave --repair out\n"),
        "{stderr}"
    );
}
