//! Checkpoints and the admission index in Postgres.

use eb_testkit::services::TestDatabase;
use serde_json::{Value, json};

use crate::{AUDIT, Place, Ran, event, events};

const LOCAL: &str = include_str!("../../../../config/platform/profiles/local.yaml");
/// Only this process holds the server.
const URL: &str = "EB_TEST_DATABASE";

struct Platform {
    place: Place,
    database: TestDatabase,
}

impl Platform {
    fn new() -> Self {
        let place = Place::new();
        let embedded = LOCAL.find("    kind: embedded").unwrap();
        let end = embedded + LOCAL[embedded..].find("\n\n").unwrap() + 1;
        let postgres = format!("    kind: postgres\n    url: ${{{URL}}}\n");
        let text = format!("{}{postgres}{}", &LOCAL[..embedded], &LOCAL[end..]);
        place.write("config/platform/profiles/pg.yaml", &text.replacen("    kind: file\n", &postgres, 1));
        place.with_policies();
        Self { place, database: TestDatabase::create().unwrap() }
    }

    fn eb_at(&self, url: &str, args: &[&str]) -> Ran {
        let mut command = self.place.command(&[args, &["--profile", "pg"]].concat());
        Ran::of(command.env(URL, url).stdin(std::process::Stdio::null()).output().unwrap())
    }

    fn eb(&self, args: &[&str]) -> Ran {
        self.eb_at(&self.database.url(), args)
    }

    fn checkpoint(&self, verb: &str, more: &[&str]) -> Ran {
        self.eb(&[&["checkpoint", verb, "--consumer", "c1", "--topic", AUDIT], more].concat())
    }
}

fn next(offset: &str) -> Value {
    json!({"type": "next", "offset": offset, "offset_kind": "file_line"})
}

#[test]
fn events_are_admitted_once_and_checkpoints_move_as_anywhere_else() {
    let platform = Platform::new();
    platform.place.write("events.ndjson", &events(1..=12));
    platform.eb(&["ingest", "events.ndjson"]).ended(0);
    let again = platform.eb(&["ingest", "events.ndjson"]).ended(0).lines();
    assert!(again.iter().all(|receipt| receipt["decision"] == "DUPLICATE"), "{again:?}");

    assert_eq!(platform.eb(&["checkpoint", "list"]).ended(0).stdout, "");
    let made = platform.checkpoint("set", &["--at", "9"]).one();
    assert_eq!((&made["cut"], &made["version"]), (&next("9"), &json!(1)));
    let moved = platform.checkpoint("set", &["--at", "after:9"]).one();
    assert_eq!((&moved["cut"], &moved["version"]), (&next("10"), &json!(2)));
    let back = platform.checkpoint("set", &["--at", "2"]).ended(1);
    assert!(back.stderr.contains("`eb checkpoint reset --reason …` moves it all the same"), "{back:?}");
    let reset = platform.checkpoint("reset", &["--at", "2", "--reason", "a test"]).one();
    assert_eq!((&reset["cut"], &reset["version"]), (&next("2"), &json!(3)));
    assert_eq!(platform.checkpoint("get", &[]).one(), reset);
    assert_eq!(platform.eb(&["checkpoint", "list"]).one(), reset);
    assert!(!platform.place.path("runs/event_bus/checkpoints").exists());
}

#[test]
fn check_connects_and_says_what_is_wrong_in_one_line() {
    let platform = Platform::new();
    let checked = platform.eb(&["profile", "check"]).one();
    let to_come = "connected; its tables are made when it is first used";
    assert_eq!(
        checked["databases"],
        json!([
            {"section": "checkpoint_store", "found": to_come},
            {"section": "admission_index", "found": to_come}
        ])
    );
    platform.place.write("event.ndjson", &event(1));
    platform.eb(&["ingest", "event.ndjson"]).ended(0);
    let checked = platform.eb(&["profile", "check"]).one();
    assert_eq!(checked["databases"][1]["found"], "connected");

    // Nobody listens on the discard port.
    let gone = platform.eb_at("postgres://me:hunter2@127.0.0.1:9/bus", &["profile", "check"]).ended(75);
    assert!(gone.stderr.contains("127.0.0.1:9/bus.event_bus_file"), "{gone:?}");
    let wrong = platform.eb_at("hunter2", &["profile", "check"]).ended(1);
    assert!(
        wrong.stderr.contains("pg.yaml:") && wrong.stderr.contains("wiring.checkpoint_store.url"),
        "{wrong:?}"
    );
    let (url, _) =
        platform.database.url().rsplit_once('/').map(|(u, n)| (u.to_owned(), n.to_owned())).unwrap();
    let nowhere = platform.eb_at(&format!("{url}/no_such_database"), &["profile", "check"]).ended(1);
    assert!(nowhere.stderr.contains("no_such_database"), "{nowhere:?}");
    for ran in [&gone, &wrong, &nowhere] {
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn reading_the_bus_needs_no_database() {
    let platform = Platform::new();
    platform.place.write("event.ndjson", &event(1));
    platform.eb(&["ingest", "event.ndjson"]).ended(0);
    let nowhere = "postgres://me@127.0.0.1:9/bus";
    assert_eq!(platform.eb_at(nowhere, &["tail", "--topic", AUDIT]).one()["envelope"]["event_id"], "e1");
    platform.eb_at(nowhere, &["checkpoint", "list"]).ended(75);
    let refused = platform.eb_at(nowhere, &["ingest", "event.ndjson"]).ended(75);
    assert_eq!(refused.stdout, "", "no receipt without the index");
}
