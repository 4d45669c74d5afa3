//! Gates on Redis: the server killed under load, gates killed, several gates.

mod gates;
mod killed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use canonical_envelope::Envelope;
use eb_contract::{EbRef, EventBusReaderExt as _, StartAt};
use eb_profile::{Env, Platform, Purpose};
use eb_system_tests::facts::Fact;
use eb_testkit::events::{Event, Expected};
use eb_testkit::services::{Redis, RedisOptions, TestDatabase};
use ig_gate::{Decision, Receipt};

const DEV_REDIS: &str = include_str!("../../../../config/platform/profiles/dev_redis.yaml");

/// A server, a database and a folder of its own.
struct Place {
    redis: Redis,
    database: TestDatabase,
    folder: tempfile::TempDir,
}

/// Whose the admission index of a gate is.
enum Index {
    /// In Postgres, for all gates.
    Shared,
    /// In files below the gate's own folder.
    Own,
}

impl Place {
    fn new() -> Self {
        let redis = Redis::start(&RedisOptions::default()).expect("a Redis to test with");
        let database = TestDatabase::create().expect("a Postgres to test with");
        Self { redis, database, folder: tempfile::tempdir().expect("a folder for temporary files") }
    }

    /// The shipped profile with the addresses of this place, for a gate of this name.
    fn profile(&self, gate: &str, index: &Index) -> PathBuf {
        let replace = |text: String, from: &str, to: &str| {
            assert!(text.contains(from), "{from} is in the shipped profile");
            text.replace(from, to)
        };
        let url = self.redis.url();
        let text = replace(DEV_REDIS.to_owned(), "${EB_REDIS_URL:-redis://127.0.0.1:6379}", &url);
        let (before, stores) = text.split_once("  admission_index:\n").expect("the profile has an index");
        let (shared, after) = stores.split_once("\n\n").expect("a section behind it");
        let index = match index {
            Index::Shared => format!("{shared}\n    gate: {gate}"),
            Index::Own => "    kind: embedded\n    path: ${EB_RUNS}/index\n    max_lag: 1000".to_owned(),
        };
        let text = format!("{before}  admission_index:\n{index}\n\n{after}");
        let usual = "${EB_POSTGRES_URL:-postgres://event_bus:event_bus@127.0.0.1:5432/event_bus}";
        let text = replace(text, usual, &self.database.url());
        let config = self.folder.path().join(gate).join("config");
        let profiles = config.join("platform/profiles");
        std::fs::create_dir_all(&profiles).unwrap();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        for policies in ["ig", "schemas"] {
            let link = config.join(policies);
            if !link.exists() {
                std::os::unix::fs::symlink(ours.join(policies), link).unwrap();
            }
        }
        let file = profiles.join("gate.yaml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// What a gate of this name writes, lies below.
    fn runs(&self, gate: &str) -> PathBuf {
        self.folder.path().join(gate).join("runs")
    }

    async fn open(&self, gate: &str, index: &Index, purpose: Purpose) -> Platform {
        let env = Env::only([("EB_RUNS", self.runs(gate).to_str().unwrap())]);
        let profile = self.profile(gate, index);
        Platform::open_with(profile.to_str().unwrap(), purpose, &env).await.unwrap()
    }
}

/// What all receipts say, whoever was given them.
struct Receipts {
    events: Vec<Event>,
    /// By the place of the event that was sent first of its identity.
    places: BTreeMap<usize, EbRef>,
    admitted: BTreeMap<usize, u32>,
    answers: usize,
}

impl Receipts {
    fn new(events: Vec<Event>) -> Self {
        Self { events, places: BTreeMap::new(), admitted: BTreeMap::new(), answers: 0 }
    }

    fn take(&mut self, place: usize, receipt: &Receipt) {
        self.answers += 1;
        let first = match self.events[place].expected {
            Expected::Admit => place,
            Expected::DuplicateOf(first) => first,
            Expected::Quarantine(_) => {
                assert_eq!(receipt.decision, Decision::Quarantine, "event {place}: {receipt:?}");
                return;
            }
        };
        let eb_ref = receipt.eb_ref.as_ref().unwrap_or_else(|| panic!("event {place}: {receipt:?}"));
        let known = self.places.entry(first).or_insert_with(|| eb_ref.clone());
        assert_eq!(known, eb_ref, "event {place}: two receipts name two places");
        if receipt.decision == Decision::Admit {
            let times = self.admitted.entry(first).or_insert(0);
            *times += 1;
            assert_eq!(*times, 1, "event {place} was admitted twice");
        }
    }

    /// Takes what a gate in another process says.
    fn hear(&mut self, line: &str) {
        match Fact::hear(line) {
            Fact::Answered(place, json) => self.take(place, &serde_json::from_str(&json).unwrap()),
            Fact::Reached(_) => {}
            other => panic!("a gate failed: {other:?}"),
        }
    }

    /// Holds the log to the receipts: every event has a place, and lies there. Gives back how many copies the log holds
    /// besides.
    async fn check(&self, platform: &Platform) -> usize {
        let reader = platform.reader();
        let mut log = BTreeMap::new();
        for topic in reader.topics().await.unwrap() {
            for partition in reader.partitions(&topic).await.unwrap().partitions {
                for record in reader.read_to_head(&topic, partition.id, StartAt::Earliest).await.unwrap() {
                    log.insert(record.eb_ref.to_string(), record);
                }
            }
        }
        for (place, event) in self.events.iter().enumerate() {
            if event.expected != Expected::Admit {
                continue;
            }
            let eb_ref =
                self.places.get(&place).unwrap_or_else(|| panic!("event {place} has no receipt")).to_string();
            let record = log.get(&eb_ref).unwrap_or_else(|| panic!("nothing is at {eb_ref}"));
            let mut canonical = Vec::new();
            Envelope::parse(&event.bytes).unwrap().write_canonical(&mut canonical);
            assert_eq!(record.envelope.as_bytes(), canonical, "event {place} is not at {eb_ref}");
        }
        log.len() - self.places.len()
    }
}
