//! `eb tail`

use std::io::{BufRead as _, Read as _};

use serde_json::json;

use crate::{AUDIT, Place, event, events, ids, numbered};

fn tail(place: &Place, more: &[&str]) -> Vec<String> {
    ids(&place.eb(&[&["tail", "--topic", AUDIT], more].concat()).ended(0).lines())
}

#[test]
fn a_record_is_one_line_with_the_envelopes_exact_bytes() {
    let place = Place::new();
    let envelope = event(1).trim().replace(r#"{"n":1}"#, r#"{"n":1.50e1,"s":"\u00e4/ä"}"#);
    place.eb_with(&["ingest"], envelope.as_bytes()).ended(0);
    let ran = place.eb(&["tail", "--topic", AUDIT]).ended(0);
    let at = ran.lines()[0]["published_at_utc"].as_str().unwrap().to_owned();
    let expected = format!(
        r#"{{"topic":"fp.bus.audit.v1","partition_id":0,"offset":"0","offset_kind":"file_line","published_at_utc":"{at}","partition_key":"e1","envelope":{envelope}}}"#
    );
    assert_eq!(ran.stdout, expected + "\n");
}

#[test]
fn it_starts_and_stops_where_it_is_told() {
    let place = Place::with_events(120);
    assert_eq!(tail(&place, &[]), numbered(1..=120));
    assert_eq!(tail(&place, &["--from", "earliest", "--max", "2"]), numbered(1..=2));
    assert_eq!(tail(&place, &["--from-offset", "99", "--max", "3"]), numbered(100..=102));
    assert_eq!(tail(&place, &["--partition", "0", "--from-offset", "9", "--max", "2"]), numbered(10..=11));
    assert_eq!(tail(&place, &["--last", "20"]), numbered(101..=120));
    assert_eq!(tail(&place, &["--last", "500"]).len(), 120);
    assert_eq!(tail(&place, &["--from", "latest"]), [""; 0]);
    assert_eq!(tail(&place, &["--max", "0"]), [""; 0]);
    assert_eq!(tail(&place, &["--from-offset", "5000"]), [""; 0], "past the head there is nothing yet");
    assert_eq!(tail(&place, &["--from", "2020-01-01T00:00:00Z"]).len(), 120);
    assert_eq!(tail(&place, &["--from", "2999-01-01T00:00:00Z"]), [""; 0]);
}

#[test]
fn what_it_cannot_find_it_says() {
    let place = Place::with_events(1);
    let ran = place.eb(&["tail", "--topic", "nope"]).ended(1);
    assert!(ran.stderr.contains("nope"), "{ran:?}");
    let ran = place.eb(&["tail", "--topic", AUDIT, "--partition", "7"]).ended(1);
    assert_eq!(ran.stderr, "eb: fp.bus.audit.v1 has no partition 7, it has 1; `eb head` lists them\n");
    let ran = place.eb(&["tail", "--topic", AUDIT, "--from-offset", "07"]).ended(2);
    assert_eq!(ran.stderr, "eb: --from-offset: \"07\" is not a file_line offset\n");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let place = Place::with_events(3000);
    let mut running = place.start(&["tail", "--topic", AUDIT]);
    let mut stdout = running.stdout.take().unwrap();
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let ran = running.finish().ended(0);
    assert_eq!(ran.stderr, "");
    assert!(first.contains("\"e1\""));
}

#[test]
fn all_partitions_are_read_and_offsets_need_one() {
    let place = Place::new();
    let profile = include_str!("../../../../config/platform/profiles/local.yaml")
        .replace("fp.bus.audit.v1: 1", "fp.bus.audit.v1: 4");
    place.write("config/platform/profiles/local.yaml", &profile);
    place.with_policies();
    place.eb_with(&["ingest"], events(1..=40).as_bytes()).ended(0);
    let lines = place.eb(&["tail", "--topic", AUDIT]).ended(0).lines();
    let mut seen = ids(&lines);
    seen.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
    assert_eq!(seen, numbered(1..=40));
    let mut partitions: Vec<_> = lines.iter().map(|l| l["partition_id"].as_u64().unwrap()).collect();
    partitions.dedup();
    assert_eq!(partitions, [0, 1, 2, 3], "one after the other");
    let heads = place.eb(&["head", "--topic", AUDIT]).ended(0).lines();
    assert_eq!(
        heads.iter().map(|h| h["partition_id"].clone()).collect::<Vec<_>>(),
        [json!(0), json!(1), json!(2), json!(3)]
    );

    let ran = place.eb(&["tail", "--topic", AUDIT, "--from-offset", "1"]).ended(2);
    assert!(
        ran.stderr.starts_with("eb: --from-offset needs --partition: fp.bus.audit.v1 has 4 partitions; "),
        "{ran:?}"
    );
    let args = ["tail", "--topic", AUDIT, "--last", "2", "--follow", "--max", "8"];
    let last = place.eb(&args).ended(0).lines();
    for partition in 0..4 {
        let here: Vec<_> = last.iter().filter(|r| r["partition_id"] == partition).collect();
        let whole = tail(&place, &["--partition", &partition.to_string(), "--last", "2"]);
        assert_eq!(ids(&here.into_iter().cloned().collect::<Vec<_>>()), whole, "the last two of each");
    }
    assert_eq!(
        place.eb(&["tail", "--topic", AUDIT, "--last", "1"]).ended(0).lines().len(),
        4,
        "of each partition"
    );

    let mut following = place.start(&["tail", "--topic", AUDIT, "--follow", "--max", "42"]);
    let mut followed: Vec<_> = (0..40).map(|_| following.hear()).collect();
    place.eb_with(&["ingest"], events(41..=42).as_bytes()).ended(0);
    followed.extend(following.finish().ended(0).lines());
    assert_eq!(followed.len(), 42);
}

/// The writer is another process, alive all the while.
#[test]
fn it_follows_a_program_that_writes() {
    let place = Place::with_events(2);
    let mut writer = place.start(&["ingest"]);
    let mut follower = place.start(&["tail", "--topic", AUDIT, "--follow", "--last", "1"]);
    assert_eq!(follower.hear()["envelope"]["event_id"], "e2");
    for n in 3..=5 {
        writer.say(&event(n));
        assert_eq!(writer.hear()["event_id"], format!("e{n}"));
        assert_eq!(follower.hear()["envelope"]["event_id"], format!("e{n}"));
    }
    assert_eq!(tail(&place, &[]), numbered(1..=5), "a third process reads at the same time");
    drop(writer.stdin.take());
    writer.finish().ended(0);
    #[cfg(unix)]
    {
        follower.signal("-INT");
        let mut rest = String::new();
        follower.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert_eq!(follower.finish().ended(0).stderr, "");
    }
}
