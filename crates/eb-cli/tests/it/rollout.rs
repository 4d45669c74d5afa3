//! Moving a log in files to a Redis and back, by hand.

use std::process::Stdio;
use std::time::{Duration, Instant};

use eb_testkit::services::{Redis, RedisOptions, Signal};
use serde_json::Value;

use crate::{AUDIT, Place, Ran, events, ids, numbered};

struct Moving {
    place: Place,
    redis: Redis,
}

impl Moving {
    /// A platform on files with events 1 to 10, and the profile `move` that leads to a Redis.
    fn new() -> Self {
        let redis = Redis::start(&RedisOptions::default()).expect("a Redis to test with");
        let place = Place::with_events(10);
        place.with_policies();
        let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let local = std::fs::read_to_string(config.join("platform/profiles/local.yaml")).unwrap();
        let sides = "    rollout:\n      \
             old: {kind: file, root: \"${EB_RUNS}/event_bus\"}\n      \
             new: {kind: redis, redis: {url: \"${EB_REDIS_URL}\"}}\n      \
             state: {kind: file, root: \"${EB_RUNS}/rollout\"}\n";
        let text = local
            .replace("profile_id: local", "profile_id: move")
            .replace("event_bus_kind: file", "event_bus_kind: rollout")
            .replace("    root: ${EB_RUNS:-runs/fraud-platform}/event_bus\n", sides);
        place.write("config/platform/profiles/move.yaml", &text);
        Self { place, redis }
    }

    fn eb_with(&self, args: &[&str], more: &[(&str, &str)]) -> Ran {
        let mut command = self.place.command(&[&["--profile", "move"], args].concat());
        command.env("EB_REDIS_URL", self.redis.url()).envs(more.iter().copied());
        Ran::of(command.stdin(Stdio::null()).output().unwrap())
    }

    fn eb(&self, args: &[&str]) -> Ran {
        self.eb_with(args, &[])
    }

    /// Admits events and gives back where each lies.
    fn ingest(&self, range: std::ops::RangeInclusive<usize>) -> Vec<Value> {
        self.place.write("more.ndjson", &events(range));
        let receipts = self.eb(&["ingest", "more.ndjson"]).ended(0).lines();
        assert!(receipts.iter().all(|r| r["decision"] == "ADMIT"), "{receipts:?}");
        receipts
    }

    fn phase(&self) -> String {
        self.eb(&["rollout", "status"]).one()["state"]["phase"].as_str().unwrap().to_owned()
    }

    /// A consumer's run up to the head: the events it was given.
    fn consume(&self) -> Vec<String> {
        let got = self.place.path("got");
        std::fs::write(&got, "").unwrap();
        let append = format!("echo $EB_EVENT_ID >> {}", got.display());
        let args = ["subscribe", "--topic", AUDIT, "--name", "c", "--until-head", "--concurrency", "1"];
        self.eb(&[&args[..], &["--shell", "--exec", &append]].concat()).ended(0);
        let mut events: Vec<_> = std::fs::read_to_string(&got).unwrap().lines().map(str::to_owned).collect();
        events.sort_by_key(|e| e[1..].parse::<u64>().unwrap());
        events
    }

    /// The next step, as soon as nothing is missing for it.
    fn advance(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let ran = self.eb(&["rollout", "advance"]);
            if ran.code != 75 || Instant::now() > deadline {
                ran.ended(0);
                return;
            }
        }
    }
}

#[test]
fn a_running_platform_moves_to_another_bus_and_back_and_its_consumer_keeps_its_place() {
    let moving = Moving::new();
    assert_eq!(moving.phase(), "baseline");
    assert_eq!(moving.consume(), numbered(1..=10));
    for (from, phase) in [(11, "dual_write"), (21, "new_primary"), (31, "new_only")] {
        moving.advance();
        assert_eq!(moving.phase(), phase);
        let receipts = moving.ingest(from..=from + 9);
        let kind = if phase == "dual_write" { "file_line" } else { "redis_stream_id" };
        assert!(receipts.iter().all(|r| r["eb_ref"]["offset_kind"] == kind), "{phase}: {receipts:?}");
        assert_eq!(moving.consume(), numbered(from..=from + 9), "{phase}");
    }
    moving.eb(&["rollout", "advance"]).ended(1);
    let args = ["rollout", "rollback", "--reason", "it was better before"];
    assert_eq!(moving.eb(&args).one()["state"]["phase"], "baseline");
    assert_eq!(moving.ingest(41..=50)[0]["eb_ref"]["offset_kind"], "file_line");
    assert_eq!(moving.consume(), numbered(41..=50));

    // Every fact is in the one log, in order, where its receipt says; what was admitted anywhere is known everywhere.
    let tail = moving.eb(&["tail", "--topic", AUDIT]).ended(0).lines();
    assert_eq!(ids(&tail), numbered(1..=50));
    moving.place.write("all.ndjson", &events(1..=50));
    let again = moving.eb(&["ingest", "all.ndjson"]).ended(0).lines();
    for (receipt, record) in again.iter().zip(&tail) {
        assert_eq!(receipt["decision"], "DUPLICATE");
        let at = |v: &Value| (v["partition_id"].clone(), v["offset"].clone());
        assert_eq!(at(&receipt["eb_ref"]), at(record));
    }
    let history = moving.eb(&["rollout", "status"]).one()["history"].to_string();
    assert!(history.contains("it was better before"), "{history}");
}

#[test]
fn a_rollback_from_a_bus_that_is_gone_needs_it_only_to_be_read_again() {
    let mut moving = Moving::new();
    moving.advance();
    moving.advance();
    let receipts = moving.ingest(11..=20);
    assert_eq!(receipts[0]["eb_ref"]["offset_kind"], "redis_stream_id");
    moving.redis.stop(Signal::Kill).unwrap();
    let rolled = moving.eb_with(&["rollout", "status"], &[]).one();
    assert_eq!(rolled["state"]["phase"], "new_primary");
    moving.eb(&["rollout", "rollback", "--reason", ""]).ended(2);
    moving.eb(&["rollout", "rollback", "--reason", "redis is gone"]).ended(0);
    assert_eq!(moving.phase(), "baseline");
    // A gate that starts now cannot know what was admitted last: it says what is missing instead of guessing.
    moving.place.write("more.ndjson", &events(21..=30));
    let refused = moving.eb(&["ingest", "more.ndjson"]);
    assert!(refused.code == 75 && refused.stderr.contains("redis"), "{refused:?}");
    moving.redis.restart().unwrap();
    moving.ingest(21..=30);
    assert_eq!(ids(&moving.eb(&["tail", "--topic", AUDIT]).ended(0).lines()), numbered(1..=30));
}

#[test]
fn the_switch_in_the_environment_rolls_all_back_and_names_no_other_bus() {
    let moving = Moving::new();
    moving.advance();
    moving.advance();
    let elsewhere = moving.eb_with(&["health"], &[("EVENT_BUS_KIND", "redis")]).ended(1);
    assert!(elsewhere.stderr.contains("can only name its old bus, `file`"), "{elsewhere:?}");
    assert_eq!(moving.phase(), "new_primary");
    // One cannot go forward and back at once.
    let both = moving.eb_with(&["rollout", "advance"], &[("EVENT_BUS_KIND", "file")]).ended(1);
    assert!(both.stderr.contains("asks for the rollback, and every program"), "{both:?}");
    assert_eq!(moving.phase(), "new_primary");
    moving.place.write("more.ndjson", &events(11..=12));
    let ran = moving.eb_with(&["ingest", "more.ndjson"], &[("EVENT_BUS_KIND", "file")]).ended(0);
    assert!(ran.stderr.contains("asks for the rollback"), "{ran:?}");
    assert_eq!(moving.phase(), "baseline");
    assert!(ran.lines().iter().all(|r| r["eb_ref"]["offset_kind"] == "file_line"));
}
