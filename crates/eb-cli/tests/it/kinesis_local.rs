//! The profile `dev_local`, on the Kinesis engine alone and Postgres.

use std::io::{BufRead as _, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use eb_testkit::services::{TestDatabase, free_port, kinesis_url};
use serde_json::json;

use crate::{AUDIT, Place, Ran, event, events, ids, numbered};

const DEV_LOCAL: &str = include_str!("../../../../config/platform/profiles/dev_local.yaml");

/// Streams and a database of its own.
struct Platform {
    place: Place,
    endpoint: String,
    database: TestDatabase,
}

impl Platform {
    fn new() -> Self {
        let place = Place::new();
        place.with_policies();
        place.write("config/platform/profiles/dev_local.yaml", DEV_LOCAL);
        let endpoint = kinesis_url().expect("a Kinesis engine to test with");
        Self { place, endpoint, database: TestDatabase::create().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(&[args, &["--profile", "dev_local"]].concat());
        command.env("EB_KINESIS_ENDPOINT_URL", &self.endpoint);
        command.env("EB_POSTGRES_URL", self.database.url());
        // The database's name is nobody else's.
        let name = self.database.url().rsplit_once('/').unwrap().1.to_owned();
        command.env("EB_STREAM_PREFIX", format!("{name}-"));
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

#[test]
fn events_are_admitted_once_read_back_and_checkpointed() {
    let platform = Platform::new();
    platform.place.write("events.ndjson", &events(1..=12));
    let receipts = platform.eb(&["ingest", "events.ndjson"]).ended(0).lines();
    assert!(receipts.iter().all(|r| r["eb_ref"]["offset_kind"] == "kinesis_sequence"), "{receipts:?}");
    let again = platform.eb(&["ingest", "events.ndjson"]).ended(0).lines();
    assert!(again.iter().all(|r| r["decision"] == "DUPLICATE"), "{again:?}");
    assert_eq!(again[4]["eb_ref"], receipts[4]["eb_ref"]);

    let tail = platform.eb(&["tail", "--topic", AUDIT]).ended(0).lines();
    let mut found = ids(&tail);
    found.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
    assert_eq!(found, numbered(1..=12));
    let offset = |n: usize| tail[n]["offset"].as_str().unwrap().to_owned();
    let from = platform.eb(&["tail", "--topic", AUDIT, "--partition", "0", "--from-offset", &offset(7)]);
    assert_eq!(from.ended(0).lines(), tail[7..], "from a known offset, itself included");

    let at = ["checkpoint", "set", "--consumer", "c1", "--topic", AUDIT, "--at"];
    let set = platform.eb(&[&at[..], &[&format!("after:{}", offset(7))]].concat()).one();
    assert_eq!(
        (&set["cut"]["offset"], &set["cut"]["offset_kind"], &set["version"]),
        (&json!(offset(7)), &json!("kinesis_sequence"), &json!(1))
    );
    assert_eq!(platform.eb(&["checkpoint", "list"]).one(), set);
    let back = platform.eb(&[&at[..], &[&format!("after:{}", offset(3))]].concat()).ended(1);
    assert!(back.stderr.contains("eb checkpoint reset"), "{back:?}");

    let topics = platform.eb(&["topics"]).ended(0).lines();
    let shards: Vec<_> = topics.iter().map(|t| (&t["topic"], &t["partitions"])).collect();
    assert!(shards.contains(&(&json!("fp.bus.traffic.v1"), &json!(4))), "{topics:?}");
    let checked = platform.eb(&["profile", "check"]).one();
    assert_eq!(checked["capabilities"]["backend"], "kinesis");
    assert_eq!(checked["databases"][0]["found"], "connected");
}

#[test]
fn a_stream_that_is_missing_is_an_error_that_says_what_to_run() {
    let platform = Platform::new();
    let text = DEV_LOCAL.replace("create_topics: true", "create_topics: false");
    platform.place.write("config/platform/profiles/dev_local.yaml", &text);
    platform.place.write("event.ndjson", &event(1));
    for args in [
        &["ingest", "event.ndjson"][..],
        &["tail", "--topic", AUDIT],
        &["head", "--topic", AUDIT],
        &["profile", "check"],
    ] {
        let ran = platform.eb(args).ended(1);
        assert!(ran.stderr.contains("eb topics create fp.bus.audit.v1 --shards"), "{args:?}: {ran:?}");
        assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{args:?}: {ran:?}");
    }
    let made = platform.eb(&["topics", "create", AUDIT, "--shards", "2"]).one();
    assert_eq!((&made["partitions"], &made["records"]), (&json!(2), &json!(0)), "{made}");
    platform.eb(&["topics", "create"]).ended(1);
    for other in ["fp.bus.traffic.v1", "fp.bus.control.v1"] {
        platform.eb(&["topics", "create", other]).one();
    }
    assert_eq!(platform.eb(&["ingest", "event.ndjson"]).one()["decision"], "ADMIT");
}

#[test]
fn the_switch_leads_to_the_file_bus_with_all_its_own() {
    let platform = Platform::new();
    platform.place.write("event.ndjson", &event(1));
    assert_eq!(platform.eb(&["ingest", "event.ndjson"]).one()["decision"], "ADMIT");
    let switched = [("EVENT_BUS_KIND", "file")];
    let receipt = platform.eb_with(&["ingest", "event.ndjson"], &switched).one();
    assert_eq!(
        (&receipt["decision"], &receipt["eb_ref"]["offset_kind"]),
        (&json!("ADMIT"), &json!("file_line"))
    );
    assert_eq!(platform.eb(&["ingest", "event.ndjson"]).one()["decision"], "DUPLICATE");
}

/// Passes connections on to an engine, until it is dropped: then what is open is cut, and nobody listens.
struct Way {
    port: u16,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    taking: Option<JoinHandle<()>>,
}

impl Way {
    fn to(engine: &str, port: u16) -> Self {
        let engine = engine.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let open: Arc<Mutex<Option<Vec<TcpStream>>>> = Arc::new(Mutex::new(Some(Vec::new())));
        let all = Arc::clone(&open);
        let taking = std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&engine).unwrap());
                let mut open = all.lock().unwrap();
                let Some(open) = open.as_mut() else { return };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // How it ends is the business of those at the ends.
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.extend([client, server]);
            }
        });
        Self { port, open, taking: Some(taking) }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        for cut in self.open.lock().unwrap().take().unwrap() {
            let _ = cut.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which finds that it is over.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.taking.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_follower_waits_for_an_engine_that_is_away_and_goes_on_where_it_was() {
    let platform = Platform::new();
    platform.place.write("events.ndjson", &events(1..=8));
    platform.eb(&["ingest", "events.ndjson"]).ended(0);
    // Nobody else is given it while it is away.
    let port = free_port().unwrap();
    let way = Way::to(&platform.endpoint, port);
    let through = format!("http://127.0.0.1:{port}");
    let mut command = platform.command(&["tail", "--topic", AUDIT, "--follow", "--max", "16"]);
    command.env("EB_KINESIS_ENDPOINT_URL", through);
    let mut follower =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
    let mut hear = |count| -> Vec<serde_json::Value> {
        heard.by_ref().take(count).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    };
    let mut seen = ids(&hear(8));
    drop(way);
    let line = said.next().unwrap().unwrap();
    assert!(line.starts_with("eb: ") && line.ends_with("; waiting for it, and going on from here"), "{line}");
    platform.place.write("events.ndjson", &events(9..=16));
    platform.eb(&["ingest", "events.ndjson"]).ended(0);
    let way = Way::to(&platform.endpoint, port);
    seen.extend(ids(&hear(8)));
    assert_eq!(said.map(Result::unwrap).collect::<Vec<_>>(), [""; 0], "it is said once");
    assert!(follower.wait().unwrap().success());
    drop(way);
    seen.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
    assert_eq!(seen, numbered(1..=16), "no gap and no copy");
}

#[test]
fn an_engine_that_is_gone_is_said_in_one_line_to_try_again() {
    let platform = Platform::new();
    let gone = [("EB_KINESIS_ENDPOINT_URL", "http://127.0.0.1:9")];
    for args in [&["topics"][..], &["profile", "check"]] {
        let ran = platform.eb_with(args, &gone).ended(75);
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}
