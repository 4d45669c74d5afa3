//! What everybody meets first: help, usage errors, an empty platform.

use serde_json::json;

use crate::{Place, exists};

#[test]
fn help_says_what_the_exit_codes_mean() {
    let help = Place::new().eb(&["--help"]).ended(0);
    for line in
        ["0   done", "1   failed", "2   usage", "3   done, but some events were quarantined", "75  try again"]
    {
        assert!(help.stdout.contains(line), "{line} in {}", help.stdout);
    }
    for command in [
        "ingest",
        "publish",
        "tail",
        "topics",
        "head",
        "verify",
        "checkpoint",
        "receipt",
        "profile",
        "health",
    ] {
        assert!(help.stdout.contains(command), "{command}");
        assert!(Place::new().eb(&[command, "--help"]).ended(0).stdout.contains("Usage: eb"));
    }
}

#[test]
fn a_wrong_command_line_is_one_line_that_says_what_to_do() {
    let place = Place::new();
    let golden: [(&[&str], &str); 9] = [
        (
            &["tial"],
            "eb: unrecognized subcommand 'tial'; a similar subcommand exists: 'tail'; see eb --help\n",
        ),
        (
            &["tail"],
            "eb: the following required arguments were not provided: --topic <TOPIC>; see eb tail --help\n",
        ),
        (
            &["tail", "--topic", "t", "--form", "x"],
            "eb: unexpected argument '--form' found; a similar argument exists: '--from'; see eb tail --help\n",
        ),
        (
            &["tail", "--topic", "a/b"],
            "eb: invalid value 'a/b' for '--topic <TOPIC>': invalid topic name: '/' in \"a/b\"; use only A-Z a-z 0-9 . _ -; see eb --help\n",
        ),
        (
            &["tail", "--topic", "t", "--from", "noon"],
            "eb: invalid value 'noon' for '--from <earliest|latest|TIME>': neither earliest nor latest, and not an RFC 3339 time from 1970 to 9999 (such as 2026-01-29T10:00:00.123456Z); see eb --help\n",
        ),
        (
            &["tail", "--topic", "t", "--from", "latest", "--last", "1"],
            "eb: the argument '--from <earliest|latest|TIME>' cannot be used with '--last <N>'; see eb tail --help\n",
        ),
        (
            &["receipt"],
            "eb: the following required arguments were not provided: <--event-id <ID>|--receipt-id <HEX32>>; see eb receipt --help\n",
        ),
        (
            &["receipt", "--receipt-id", "x"],
            "eb: --receipt-id: a receipt id is written as 32 lower-case hexadecimal digits\n",
        ),
        (
            &["checkpoint", "reset", "--consumer", "c", "--topic", "t", "--at", "begin"],
            "eb: the following required arguments were not provided: --reason <TEXT>; see eb checkpoint reset --help\n",
        ),
    ];
    for (args, expected) in golden {
        let ran = place.eb(args).ended(2);
        assert_eq!(ran.stderr, expected);
        assert_eq!(ran.stdout, "");
    }
    assert!(!exists(&place.path("runs")), "nothing was made");
}

#[test]
fn with_json_a_failure_is_an_object_with_the_exit_code() {
    let place = Place::new();
    let usage: serde_json::Value =
        serde_json::from_str(&place.eb(&["--json", "tail"]).ended(2).stderr).unwrap();
    assert_eq!(usage["error"]["kind"], "usage");
    assert_eq!(usage["error"]["exit_code"], 2);
    let missing = place.eb(&["tail", "--topic", "t", "--json"]).ended(1);
    let missing: serde_json::Value = serde_json::from_str(&missing.stderr).unwrap();
    assert_eq!(
        missing["error"],
        json!({
            "kind": "not_found", "operation": "open", "retryable": false, "outcome_unknown": false, "exit_code": 1,
            "place": place.path("runs/event_bus"), "message": missing["error"]["message"],
            "advice": "send a first event with `eb publish` or `eb ingest`",
        })
    );
}

#[test]
fn a_platform_that_nobody_has_written_to_says_what_to_do_and_stays_untouched() {
    let place = Place::new();
    let topics = place.eb(&["topics"]).ended(0);
    assert_eq!(topics.stdout, "");
    assert_eq!(topics.stderr, "eb: no topics yet; send a first event with `eb publish` or `eb ingest`\n");
    assert_eq!(place.eb(&["topics", "--quiet"]).ended(0).stderr, "");
    for args in [&["head"][..], &["tail", "--topic", "t"], &["checkpoint", "list"], &["verify"]] {
        let ran = place.eb(args).ended(1);
        assert!(ran.stderr.ends_with("; send a first event with `eb publish` or `eb ingest`\n"), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
    assert!(!exists(&place.path("runs")), "looking makes nothing");
}

#[test]
fn topics_and_heads_are_listed_as_json_lines() {
    let place = Place::with_events(3);
    let topics = place.eb(&["topics"]).ended(0).lines();
    let names: Vec<_> = topics.iter().map(|t| t["topic"].as_str().unwrap()).collect();
    assert_eq!(names, ["fp.bus.audit.v1", "fp.bus.control.v1", "fp.bus.traffic.v1"]);
    assert_eq!((&topics[0]["partitions"], &topics[0]["records"]), (&json!(1), &json!(3)));
    assert_eq!((&topics[1]["records"], &topics[1]["last_published_at_utc"]), (&json!(0), &json!(null)));

    let head = place.eb(&["head", "--topic", crate::AUDIT]).one();
    assert_eq!(head["head"], json!({"type": "next", "offset": "3", "offset_kind": "file_line"}));
    assert_eq!((&head["partition_id"], &head["last_offset"]), (&json!(0), &json!("2")));
    assert_eq!(head["bus_incarnation"], topics[0]["bus_incarnation"]);
    assert_eq!(place.eb(&["head"]).ended(0).lines().len(), 3);
    assert!(place.eb(&["head", "--topic", "nope"]).ended(1).stderr.contains("nope"));
}

#[test]
fn completions_and_manual_pages_come_for_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(place.eb(&["completions", shell]).ended(0).stdout.contains("checkpoint"), "{shell}");
    }
    assert!(place.eb(&["man"]).ended(0).stdout.contains(".TH eb 1"));
    place.eb(&["man", "--dir", "man"]).ended(0);
    for page in ["eb.1", "eb-ingest.1", "eb-checkpoint-reset.1"] {
        assert!(exists(&place.path("man").join(page)), "{page}");
    }
}

#[test]
fn health_is_asked_of_the_real_parts() {
    let place = Place::new();
    let health = place.eb(&["health"]).one();
    assert_eq!(health["status"], "ready", "{health}");
    let names: Vec<_> =
        health["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"bus fp.bus.audit.v1") && names.contains(&"index"), "{names:?}");
}
