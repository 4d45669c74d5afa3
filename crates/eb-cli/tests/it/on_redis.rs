//! The profile `dev_redis`, on a Redis and a database of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use eb_testkit::services::{Redis, RedisOptions, RedisReply, Signal, TestDatabase};
use serde_json::json;

use crate::{AUDIT, Place, Ran, event, events, ids, numbered};

struct Platform {
    place: Place,
    redis: Redis,
    database: TestDatabase,
}

impl Platform {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = RedisOptions { settings, ..RedisOptions::default() };
        let redis = Redis::start(&options).expect("a Redis to test with");
        // The profile and its policies are the built-in ones.
        Self {
            place: Place::new(),
            redis,
            database: TestDatabase::create().expect("a Postgres to test with"),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&[args, &["--profile", "dev_redis"]].concat());
        command.env("EB_REDIS_URL", self.redis.url()).env("EB_POSTGRES_URL", self.database.url());
        command
    }

    fn eb_with(&self, args: &[&str], more: &[(&str, &str)]) -> Ran {
        let mut command = self.command(args);
        command.envs(more.iter().copied());
        Ran::of(command.stdin(Stdio::null()).output().unwrap())
    }

    fn eb(&self, args: &[&str]) -> Ran {
        self.eb_with(args, &[])
    }
}

/// Every kind of command that goes to the bus.
const COMMANDS: [&[&str]; 7] = [
    &["topics"],
    &["topics", "create", "own.topic"],
    &["head"],
    &["tail", "--topic", AUDIT],
    &["verify"],
    &["health"],
    &["profile", "check"],
];

/// The one line that a command fails with.
fn line(ran: Ran, code: i32) -> String {
    let ran = ran.ended(code);
    assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{ran:?}");
    ran.stderr
}

#[test]
fn events_are_admitted_once_read_back_and_checkpointed() {
    let platform = Platform::new();
    platform.place.write("events.ndjson", &events(1..=12));
    let receipts = platform.eb(&["ingest", "events.ndjson"]).ended(0).lines();
    assert!(receipts.iter().all(|r| r["eb_ref"]["offset_kind"] == "redis_stream_id"), "{receipts:?}");
    let again = platform.eb(&["ingest", "events.ndjson"]).ended(0).lines();
    assert!(again.iter().all(|r| r["decision"] == "DUPLICATE"), "{again:?}");
    assert_eq!(again[4]["eb_ref"], receipts[4]["eb_ref"]);

    let tail = platform.eb(&["tail", "--topic", AUDIT]).ended(0).lines();
    assert_eq!(ids(&tail), numbered(1..=12));
    let offset = |n: usize| tail[n]["offset"].as_str().unwrap().to_owned();
    let from = platform.eb(&["tail", "--topic", AUDIT, "--partition", "0", "--from-offset", &offset(7)]);
    assert_eq!(from.ended(0).lines(), tail[7..], "from a known offset, itself included");

    let at = ["checkpoint", "set", "--consumer", "c1", "--topic", AUDIT, "--at"];
    let set = platform.eb(&[&at[..], &[&format!("after:{}", offset(7))]].concat()).one();
    assert_eq!(
        (&set["cut"]["offset"], &set["cut"]["offset_kind"], &set["version"]),
        (&json!(offset(7)), &json!("redis_stream_id"), &json!(1))
    );
    assert_eq!(platform.eb(&["checkpoint", "list"]).one(), set);
    let back = platform.eb(&[&at[..], &[&format!("after:{}", offset(3))]].concat()).ended(1);
    assert!(back.stderr.contains("eb checkpoint reset"), "{back:?}");

    let topics = platform.eb(&["topics"]).ended(0).lines();
    let partitions: Vec<_> = topics.iter().map(|t| (&t["topic"], &t["partitions"])).collect();
    assert!(partitions.contains(&(&json!("fp.bus.traffic.v1"), &json!(4))), "{topics:?}");
    let checked = platform.eb(&["profile", "check"]).one();
    let capabilities = &checked["capabilities"];
    assert_eq!(
        (&capabilities["backend"], &capabilities["durability"]),
        (&json!("redis"), &json!("power_cut"))
    );
    assert_eq!(platform.eb(&["health"]).one()["status"], "ready");
    platform.eb(&["verify"]).ended(0);
}

#[test]
fn a_topic_is_made_with_as_many_partitions_as_are_asked_for_and_keeps_them() {
    let platform = Platform::new();
    let missing = line(platform.eb(&["tail", "--topic", "own.topic"]), 1);
    assert!(missing.contains("`eb topics create own.topic --shards N` makes it"), "{missing}");
    let made = platform.eb(&["topics", "create", "own.topic", "--shards", "3"]).one();
    assert_eq!((&made["partitions"], &made["records"]), (&json!(3), &json!(0)), "{made}");
    assert_eq!(platform.eb(&["topics", "create", "own.topic", "--shards", "3"]).one(), made);
    let other = line(platform.eb(&["topics", "create", "own.topic", "--shards", "4"]), 1);
    assert!(other.contains("it exists with 3 partitions, not 4"), "{other}");
    assert_eq!(platform.eb(&["head", "--topic", "own.topic"]).ended(0).lines().len(), 3);
    let many = line(platform.eb(&["topics", "create", "too.many", "--shards", "4097"]), 1);
    assert!(many.contains("it must be 1 to 4096"), "{many}");
}

#[test]
fn a_server_that_is_away_or_refuses_us_is_said_in_one_line_that_says_what_to_do() {
    let mut platform = Platform::new();
    let port = platform.redis.port();
    let mut wire = platform.redis.wire().unwrap();
    wire.must(&["ACL", "SETUSER", "gate", "on", ">geheim", "~{eb}:*", "+@all"]).unwrap();
    let wrong = format!("redis://gate:falsch@127.0.0.1:{port}");
    for args in COMMANDS {
        let said = line(platform.eb_with(args, &[("EB_REDIS_URL", &wrong)]), 1);
        assert!(said.contains("check user and password of the address"), "{args:?}: {said}");
        assert!(!said.contains("falsch") && said.contains(&format!("redis://127.0.0.1:{port}")), "{said}");
    }
    let right = format!("redis://gate:geheim@127.0.0.1:{port}");
    let shown = platform.eb_with(&["profile", "show"], &[("EB_REDIS_URL", &right)]).ended(0);
    assert!(!shown.stdout.contains("geheim") && !shown.stderr.contains("geheim"), "{shown:?}");
    platform.eb_with(&["topics", "create"], &[("EB_REDIS_URL", &right)]).ended(0);

    platform.redis.stop(Signal::Kill).unwrap();
    for args in COMMANDS {
        let said = line(platform.eb(args), 75);
        assert!(said.ends_with("see that it runs at this address, then try again\n"), "{args:?}: {said}");
    }
}

#[test]
fn a_server_that_can_lose_an_ack_is_refused_with_what_to_set_or_told_by_every_command() {
    let platform = Platform::with(&[("appendfsync", "everysec")]);
    for args in COMMANDS {
        let said = line(platform.eb(args), 1);
        let set = "appendfsync is everysec; set appendonly yes, appendfsync always and no-appendfsync-on-rewrite no";
        assert!(said.contains(set), "{args:?}: {said}");
    }
    let profile = include_str!("../../../../config/platform/profiles/dev_redis.yaml");
    platform.place.with_policies();
    platform.place.write(
        "config/platform/profiles/dev_redis.yaml",
        &profile.replace("accept_weaker_ack: false", "accept_weaker_ack: true"),
    );
    let notice =
        "accept_weaker_ack is on: a crash or a failover of the Redis server can take records that were ACKed";
    let checked = platform.eb(&["profile", "check"]);
    assert!(checked.stderr.contains(notice), "{checked:?}");
    let capabilities = &checked.one()["capabilities"];
    assert_eq!(capabilities["durability"], "weaker");
    let notes = capabilities["notes"].to_string();
    assert!(notes.contains("appendfsync is everysec: a power cut takes what was not synced yet"), "{notes}");
    let shown = platform.eb(&["profile", "show"]).one();
    assert!(shown["notices"].to_string().contains(notice), "{shown}");
    platform.place.write("event.ndjson", &event(1));
    let ran = platform.eb(&["ingest", "event.ndjson"]).ended(0);
    assert!(ran.stderr.contains(notice), "{ran:?}");
}

#[test]
fn the_switch_leads_to_the_file_bus_with_all_its_own_and_back() {
    let platform = Platform::new();
    platform.place.write("event.ndjson", &event(1));
    let on_redis = platform.eb(&["ingest", "event.ndjson"]).one();
    assert_eq!(on_redis["decision"], "ADMIT");
    let switched = [("EVENT_BUS_KIND", "file")];
    let receipt = platform.eb_with(&["ingest", "event.ndjson"], &switched).one();
    assert_eq!(
        (&receipt["decision"], &receipt["eb_ref"]["offset_kind"]),
        (&json!("ADMIT"), &json!("file_line"))
    );
    let back = platform.eb(&["ingest", "event.ndjson"]).one();
    assert_eq!((&back["decision"], &back["eb_ref"]), (&json!("DUPLICATE"), &on_redis["eb_ref"]));
    let nowhere = line(platform.eb_with(&["topics"], &[("EVENT_BUS_KIND", "kinesis")]), 1);
    assert!(
        nowhere.contains("wiring.event_bus.kinesis: missing (EVENT_BUS_KIND=kinesis needs it)"),
        "{nowhere}"
    );
}

#[test]
fn an_ingest_goes_on_through_a_killed_and_restarted_server_and_every_receipt_is_true() {
    const COUNT: usize = 3_000;
    let mut platform = Platform::new();
    platform.place.write("events.ndjson", &events(1..=COUNT));
    let mut command = platform.command(&["ingest", "events.ndjson"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut receipts = Vec::new();
    for receipt in BufReader::new(child.stdout.take().unwrap()).lines() {
        receipts.push(serde_json::from_str::<serde_json::Value>(&receipt.unwrap()).unwrap());
        if receipts.len() == 100 {
            platform.redis.stop(Signal::Kill).unwrap();
            platform.redis.restart().unwrap();
        }
    }
    let ended = Ran::of(child.wait_with_output().unwrap());
    let ended = ended.ended(0);
    assert_eq!(receipts.len(), COUNT, "{ended:?}");
    let tail = platform.eb(&["tail", "--topic", AUDIT]).ended(0).lines();
    let at = |r: &serde_json::Value| r["offset"].as_str().unwrap().to_owned();
    let lies: std::collections::HashMap<_, _> =
        tail.iter().map(|r| (at(r), r["envelope"]["event_id"].clone())).collect();
    for receipt in &receipts {
        assert_eq!(lies.get(&at(&receipt["eb_ref"])), Some(&receipt["event_id"]), "{receipt}");
    }
}

/// Follows, hears what is there, and goes on where it was when the server was killed and is back.
fn follows_through_a_restart(
    platform: &mut Platform,
    topic: &str,
    more: &[&str],
    event: fn(usize) -> String,
) {
    let publish = |platform: &Platform, range: std::ops::RangeInclusive<usize>| {
        platform.place.write("events.ndjson", &range.map(event).collect::<String>());
        platform.eb(&["ingest", "events.ndjson"]).ended(0);
    };
    publish(platform, 1..=8);
    let mut command =
        platform.command(&[&["tail", "--topic", topic, "--follow", "--max", "16"], more].concat());
    let mut follower =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
    let mut hear = |count| -> Vec<serde_json::Value> {
        heard.by_ref().take(count).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    };
    let mut seen = ids(&hear(8));
    platform.redis.stop(Signal::Kill).unwrap();
    let line = said.next().unwrap().unwrap();
    assert!(
        line.starts_with("eb: read ") && line.ends_with("; waiting for it, and going on from here"),
        "{line}"
    );
    platform.redis.restart().unwrap();
    publish(platform, 9..=16);
    seen.extend(ids(&hear(8)));
    assert_eq!(said.map(Result::unwrap).collect::<Vec<_>>(), [""; 0], "it is said once");
    assert!(follower.wait().unwrap().success());
    seen.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
    assert_eq!(seen, numbered(1..=16), "no gap and no copy");
}

#[test]
fn a_follower_waits_for_a_server_that_was_killed_and_goes_on_where_it_was() {
    let mut platform = Platform::new();
    follows_through_a_restart(&mut platform, AUDIT, &[], event);
}

#[test]
fn a_follower_of_many_partitions_or_of_one_waits_too() {
    let traffic = |n: usize| {
        let pins = format!(
            "\"parameter_hash\":\"{0}\",\"seed\":7,\"scenario_id\":\"s\",\"run_id\":\"{1}\",",
            "b".repeat(64),
            "c".repeat(32)
        );
        let payload = format!("\"payload\":{{\"merchant_id\":\"m{n}\",\"name\":\"n\"}}");
        event(n)
            .replace("audit.access.granted", "merchant.account.onboarded")
            .replace("\"schema_version\"", &format!("{pins}\"schema_version\""))
            .replace(&format!("\"payload\":{{\"n\":{n}}}"), &payload)
    };
    follows_through_a_restart(&mut Platform::new(), "fp.bus.traffic.v1", &[], traffic);
    follows_through_a_restart(
        &mut Platform::new(),
        AUDIT,
        &["--partition", "0", "--from", "earliest"],
        event,
    );
}

#[test]
fn a_consumer_of_a_group_of_the_service_handles_each_event_once_and_acknowledges_it() {
    let platform = Platform::new();
    let groups = [("EB_CONSUMER_SOURCE", "groups")];
    let handled = platform.place.path("handled");
    let append = format!("cat >> {}; echo >> {}", handled.display(), handled.display());
    let subscribe = ["subscribe", "--topic", AUDIT, "--until-head", "--name", "scoring", "--shell"];
    let subscribe = [&subscribe[..], &["--concurrency", "1", "--exec", &append, ";"]].concat();
    for (range, all) in [(1..=12, 1..=12), (13..=20, 1..=20)] {
        platform.place.write("events.ndjson", &events(range));
        platform.eb(&["ingest", "events.ndjson"]).ended(0);
        platform.eb_with(&subscribe, &groups).ended(0);
        let text = std::fs::read_to_string(&handled).unwrap();
        let envelopes: Vec<serde_json::Value> =
            text.lines().filter(|l| !l.is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect();
        let mut seen: Vec<_> = envelopes.iter().map(|e| e["event_id"].as_str().unwrap().to_owned()).collect();
        seen.sort();
        let mut expected = numbered(all);
        expected.sort();
        assert_eq!(seen, expected);
    }
    let mut wire = platform.redis.wire().unwrap();
    let RedisReply::List(pending) = wire.must(&["XPENDING", "{eb}:s:fp.bus.audit.v1:0", "scoring"]).unwrap()
    else {
        panic!("there is a group")
    };
    assert_eq!(pending[0], RedisReply::Number(0), "all are acknowledged");

    // Only the group knows how many records lie between stream ids.
    for (source, lag, pending) in [("groups", json!(0), json!(0)), ("log", json!(0), json!(null))] {
        let seen = platform.eb_with(&["consumers", "scoring"], &[("EB_CONSUMER_SOURCE", source)]).ended(0);
        let seen = seen.lines().into_iter().find(|line| line["topic"] == AUDIT).unwrap();
        assert_eq!((&seen["lag"], &seen["in_flight"]), (&lag, &pending), "{source}: {seen}");
    }
    wire.must(&["XGROUP", "SETID", "{eb}:s:fp.bus.audit.v1:0", "scoring", "0"]).unwrap();
    wire.must(&[
        "XREADGROUP",
        "GROUP",
        "scoring",
        "somebody",
        "COUNT",
        "2",
        "STREAMS",
        "{eb}:s:fp.bus.audit.v1:0",
        ">",
    ])
    .unwrap();
    let seen = platform.eb_with(&["consumers", "scoring"], &[("EB_CONSUMER_SOURCE", "groups")]).ended(0);
    let seen = seen.lines().into_iter().find(|line| line["topic"] == AUDIT).unwrap();
    assert_eq!((&seen["in_flight"], &seen["redelivered"]), (&json!(2), &json!(0)), "{seen}");
    assert!(seen["lag"].as_u64() > Some(2), "{seen}");

    let ran = platform.eb_with(&subscribe, &[("EB_CONSUMER_SOURCE", "groups"), ("EVENT_BUS_KIND", "file")]);
    assert!(line(ran, 1).contains("a bus of kind file keeps no consumer groups"));
}
