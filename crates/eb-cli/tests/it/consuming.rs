//! `eb subscribe`, `eb consumers`, `eb dlq` on files.

use serde_json::{Value, json};

use crate::{AUDIT, Place, Ran, numbered};

/// What a run of `eb subscribe` says at its end.
fn summary(ran: &Ran) -> Value {
    serde_json::from_str(ran.stderr.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{ran:?}"))
}

/// Runs a shell command for every event up to the head; retries come at once.
fn subscribe(place: &Place, more: &[&str], command: &str) -> Ran {
    let args =
        ["--json", "subscribe", "--topic", AUDIT, "--name", "job", "--until-head", "--concurrency", "1"];
    place.eb(&[&args[..], &["--delay-ms", "1"], more, &["--shell", "--exec", command]].concat())
}

/// The lines of a file that commands wrote.
fn lines(place: &Place, name: &str) -> Vec<String> {
    std::fs::read_to_string(place.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_command_gets_every_event_once_with_its_place_and_goes_on_where_it_stopped() {
    let place = Place::with_events(3);
    let tell = "read -r envelope; echo \"$EB_EVENT_ID $EB_EVENT_TYPE $EB_TOPIC $EB_PARTITION $EB_OFFSET $EB_OFFSET_KIND \
                $EB_CONSUMER $EB_ATTEMPT ${#envelope}\" >> got";
    assert_eq!(summary(&subscribe(&place, &[], tell).ended(0))["handled"], 3);
    place.write("more.ndjson", &crate::events(4..=5));
    place.eb(&["ingest", "more.ndjson"]).ended(0);
    assert_eq!(summary(&subscribe(&place, &[], tell).ended(0))["handled"], 2);
    let length = crate::event(1).trim_end().len();
    let expected: Vec<_> = (1..=5)
        .map(|n| format!("e{n} audit.access.granted {AUDIT} 0 {} file_line job 1 {length}", n - 1))
        .collect();
    assert_eq!(lines(&place, "got"), expected);

    let consumers = place.eb(&["consumers", "job"]).one();
    assert_eq!((&consumers["lag"], &consumers["dead_letters"]), (&json!(0), &json!(0)), "{consumers}");
    assert_eq!(consumers["committed"]["offset"], "5");
}

#[test]
fn only_the_types_that_were_asked_for_are_handled_and_the_others_count_as_done() {
    let place = Place::with_events(2);
    let ran = subscribe(&place, &["--type", "audit.policy.changed"], "echo $EB_EVENT_ID >> got").ended(0);
    assert_eq!((&summary(&ran)["handled"], lines(&place, "got").len()), (&json!(0), 0));
    assert_eq!(place.eb(&["consumers", "job"]).one()["lag"], 0);
}

#[test]
fn exit_code_75_is_tried_again_and_any_other_failure_is_a_dead_letter_that_can_be_retried_or_dropped() {
    let place = Place::with_events(5);
    // e2 succeeds with its third attempt; e3 and e4 never do.
    let command = "echo $EB_EVENT_ID $EB_ATTEMPT >> got; case $EB_EVENT_ID in \
                   e2) [ $EB_ATTEMPT -ge 3 ] || exit 75;; e3|e4) echo no such account >&2; exit 9;; esac";
    assert_eq!(summary(&subscribe(&place, &[], command).ended(3)), json!({"handled": 3, "dead_letters": 2}));
    let mut got = lines(&place, "got");
    got.sort();
    assert_eq!(got, ["e1 1", "e2 1", "e2 2", "e2 3", "e3 1", "e4 1", "e5 1"]);
    assert_eq!(place.eb(&["consumers", "job"]).one()["dead_letters"], 2);

    let letters = place.eb(&["dlq", "list"]).ended(0).lines();
    let ids: Vec<_> = letters.iter().map(|l| l["event_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, numbered(3..=4));
    assert_eq!((&letters[0]["reason"], &letters[0]["attempts"]), (&json!("permanent"), &json!(1)));
    assert!(letters[0]["last_error"].as_str().unwrap().contains("no such account"), "{letters:?}");
    assert_eq!(letters[0]["eb_ref"]["offset"], "2");
    let first = place.eb(&["dlq", "list", "--max", "1"]).ended(0);
    assert_eq!(
        (first.lines().len(), first.stderr.contains("there are more than these 1")),
        (1, true),
        "{first:?}"
    );
    assert_eq!(place.eb(&["dlq", "list", "--max", "2"]).ended(0).stderr, "");
    let (e3, e4) = (letters[0]["id"].to_string(), letters[1]["id"].to_string());
    let envelope = place.eb(&["dlq", "show", &e3, "--envelope"]).ended(0).stdout;
    assert_eq!(envelope.trim_end(), crate::event(3).trim_end(), "byte for byte");

    // What fails again stays; what succeeds is resolved, and is not tried again.
    let retry = |command: &str| place.eb(&["dlq", "retry", "--name", "job", "--shell", "--exec", command]);
    retry("exit 1").ended(1);
    assert_eq!(place.eb(&["dlq", "list"]).ended(0).lines().len(), 2);
    retry("[ $EB_EVENT_ID = e3 ]").ended(1);
    assert_eq!(place.eb(&["dlq", "list"]).one()["event_id"], "e4");
    place.eb(&["dlq", "drop", &e4, "--reason", ""]).ended(2);
    place.eb(&["dlq", "drop", &e4, "--reason", "the account is closed"]).ended(0);
    assert!(place.eb(&["dlq", "list"]).ended(0).lines().is_empty());
    place.eb(&["dlq", "drop", &e4, "--reason", "again"]).ended(1);
    let all = place.eb(&["dlq", "list", "--all"]).ended(0).lines();
    let how: Vec<_> = all.iter().map(|l| l["resolved"]["how"].as_str().unwrap()).collect();
    assert_eq!(how, ["handled", "dropped"]);
    place.eb(&["dlq", "show", "4711"]).ended(1);
}

#[test]
fn when_the_attempts_are_used_up_the_dead_letter_says_so_and_parks_its_key_where_that_was_asked_for() {
    let place = Place::with_events(3);
    let ran = subscribe(
        &place,
        &["--max-attempts", "2", "--after-max", "park"],
        "[ $EB_EVENT_ID != e2 ] || exit 75",
    );
    assert_eq!(summary(&ran.ended(3))["handled"], 2);
    let letter = place.eb(&["dlq", "list"]).one();
    assert_eq!(
        (&letter["event_id"], &letter["reason"], &letter["attempts"], &letter["parks_key"]),
        (&json!("e2"), &json!("attempts_exhausted"), &json!(2), &json!(true))
    );
}

#[test]
fn without_its_bus_a_consumer_does_not_start_and_says_why() {
    let place = Place::new();
    let ran = subscribe(&place, &[], "true").ended(1);
    assert!(ran.stderr.contains("cannot start") && ran.stderr.contains("required"), "{ran:?}");
}

/// Looks by `eb consumers` until it says so. Each look is a process of its own.
fn until(place: &Place, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let seen = place.eb(&["consumers", "job"]).ended(0).lines();
        if let Some(line) = seen.iter().find(|line| so(line)) {
            return line.clone();
        }
        assert!(std::time::Instant::now() < deadline, "{what} never came: {seen:?}");
    }
}

#[test]
fn a_consumer_at_work_in_another_process_is_seen_with_what_it_has_in_flight_and_tries_again() {
    let place = Place::with_events(3);
    // The first command waits for a file; the two others are told to try again until it is there.
    let command =
        "case $EB_EVENT_ID in e1) until [ -e go ]; do sleep 0.05; done;; *) [ -e go ] || exit 75;; esac";
    let args =
        ["--json", "subscribe", "--topic", AUDIT, "--name", "job", "--delay-ms", "20", "--backoff", "fixed"];
    let more = ["--max-attempts", "0", "--shell", "--exec", command];
    let worker = place.start(&[&args[..], &more].concat());
    let busy = until(&place, "the work", |line| line["in_flight"] == 3 && line["retries"].as_u64() > Some(2));
    assert_eq!(
        (&busy["phase"], &busy["lag"], &busy["keys_retrying"]),
        (&json!("running"), &json!(3), &json!(2))
    );
    assert!(busy["holder"].as_str().unwrap().starts_with("pid-"), "{busy}");
    assert!(busy["reported_at_utc"].is_string() && busy["lease_left_ms"].as_u64() > Some(0), "{busy}");

    // Killed, it is seen no longer once its lease has ended; whoever comes next is seen with its own numbers.
    worker.signal("-KILL");
    let dead = until(&place, "the end of the lease", |line| line["holder"].is_null());
    assert_eq!(
        (&dead["in_flight"], &dead["retries"], &dead["phase"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    place.write("go", "");
    let ran = subscribe(&place, &[], "true").ended(0);
    assert_eq!(summary(&ran)["handled"], 3);
    let done = place.eb(&["consumers", "job"]).one();
    assert_eq!(
        (&done["lag"], &done["in_flight"], &done["dead_letters"]),
        (&json!(0), &Value::Null, &json!(0))
    );
    drop(worker.finish());
}
