//! The gate, killed again and again between publish and index write, sent the same stream each time.
//!
//! Every distinct event ends up in the log exactly once, whoever heard of it; every receipt that was ever given is true at the
//! end; the same identity with another payload is quarantined, also across crashes; nothing is forgotten. What would break it: an
//! index that runs ahead of its log, or is believed without reading what it lacks; a receipt before the ACK.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use canonical_envelope::Envelope;
use eb_contract::{EbRef, EventBusReader, EventBusReaderExt, StartAt};
use eb_file::{FileBus, FileBusConfig};
use eb_profile::{Env, Platform, Purpose};
use eb_system_tests::facts::Fact;
use eb_system_tests::{GATE_WINDOW, block_on, gate_events};
use eb_testkit::events::{Event, Expected};
use eb_testkit::process::Spoken;
use eb_testkit::{Budget, Rng};
use ig_gate::{Decision, Receipt};

/// A copy of the configuration whose index writes often, so that crashes find it at work.
fn configuration(folder: &Path) -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let copied = Command::new("cp").arg("-r").arg(ours).arg(folder.join("config")).status();
    assert!(copied.expect("cp is there").success());
    let profile = folder.join("config/platform/profiles/local.yaml");
    let text = std::fs::read_to_string(&profile).expect("the local profile");
    let lagging = text.replace("    kind: embedded\n", "    kind: embedded\n    max_lag: 1000\n");
    assert_ne!(text, lagging, "the profile names an embedded index");
    std::fs::write(&profile, lagging).expect("a folder of our own");
    profile
}

/// What the receipts said, over all runs.
struct Truth {
    events: Vec<Event>,
    /// By the place of the event that was admitted first.
    places: BTreeMap<usize, EbRef>,
    admitted: Vec<bool>,
    evidence: u64,
    heard: usize,
}

impl Truth {
    fn hear(&mut self, line: &str) -> Result<(), String> {
        let (place, json) = match Fact::hear(line) {
            Fact::Answered(place, json) => (place, json),
            Fact::Reached(_) => return Ok(()),
            other => return Err(format!("the gate failed: {other:?}")),
        };
        self.heard += 1;
        let receipt: Receipt = serde_json::from_str(&json).map_err(|e| format!("{e}: {json}"))?;
        let event = &self.events[place];
        let codes: Vec<&str> = receipt.reason_codes.iter().map(|code| code.as_str()).collect();
        let wrong = |what: &str| Err(format!("event {place} ({:?}), {what}: {json}", event.origin));
        let first = match event.expected {
            Expected::Admit => place,
            Expected::DuplicateOf(first) => first,
            Expected::Quarantine(code) => {
                if receipt.decision != Decision::Quarantine || codes != [code] || receipt.eb_ref.is_some() {
                    return wrong("expected quarantine");
                }
                let record = receipt.evidence_refs.iter().find_map(|e| e.reference.rsplit_once('@'));
                let Some(Ok(offset)) = record.map(|(_, offset)| offset.parse::<u64>()) else {
                    return wrong("no evidence");
                };
                self.evidence = self.evidence.max(offset + 1);
                return Ok(());
            }
        };
        let Some(eb_ref) = receipt.eb_ref else { return wrong("no EbRef") };
        match receipt.decision {
            // A process that died before it could say so may have admitted it; then this is a duplicate.
            Decision::Admit if place != first => return wrong("a repeat was admitted"),
            Decision::Admit if std::mem::replace(&mut self.admitted[place], true) => {
                return wrong("admitted twice");
            }
            Decision::Quarantine => return wrong("a good event was quarantined"),
            Decision::Admit | Decision::Duplicate => {}
        }
        let known = self.places.entry(first).or_insert_with(|| eb_ref.clone());
        if *known != eb_ref {
            return Err(format!("event {place}: other receipts say {known}, this one {eb_ref}"));
        }
        Ok(())
    }

    /// Holds the logs to the receipts: after a run that went through, everything distinct is there, once.
    fn check(&self, profile: &Path, runs: &Path) -> Result<(), String> {
        let env = Env::only([("EB_RUNS", runs.display().to_string())]);
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let platform = block_on(Platform::open_with(&profile.display().to_string(), Purpose::Reading, &env))
            .map_err(|e| text(&e))?;
        let reader = platform.reader();
        let mut there = BTreeMap::new();
        for topic in block_on(reader.topics()).map_err(|e| text(&e))? {
            for partition in block_on(reader.partitions(&topic)).map_err(|e| text(&e))?.partitions {
                let records = block_on(reader.read_to_head(&topic, partition.id, StartAt::Earliest));
                for record in records.map_err(|e| text(&e))? {
                    there.insert(record.eb_ref.to_string(), record);
                }
            }
        }
        let distinct = self.events.iter().filter(|event| event.expected == Expected::Admit).count();
        if there.len() != distinct || self.places.len() != distinct {
            let (log, receipts) = (there.len(), self.places.len());
            return Err(format!("{distinct} distinct events, {log} records, receipts for {receipts}"));
        }
        for (place, eb_ref) in &self.places {
            let event = &self.events[*place];
            let Some(record) = there.get(&eb_ref.to_string()) else {
                return Err(format!("event {place} has a receipt for {eb_ref}, where nothing is"));
            };
            let mut canonical = Vec::new();
            Envelope::parse(&event.bytes).map_err(|e| text(&e))?.write_canonical(&mut canonical);
            if record.envelope.as_bytes() != canonical || record.partition_key.as_str() != event.partition_key
            {
                return Err(format!("event {place}: {eb_ref} holds another event"));
            }
        }
        self.check_evidence(runs)
    }

    fn check_evidence(&self, runs: &Path) -> Result<(), String> {
        let bus = FileBus::open(FileBusConfig::new(runs.join("ig/quarantine"))).map_err(|e| e.to_string())?;
        let reader = bus.reader();
        let mut records = 0;
        for topic in block_on(reader.topics()).map_err(|e| e.to_string())? {
            let all = eb_system_tests::read_all(&reader, &topic);
            records +=
                block_on(all).map_err(|e| e.to_string())?.iter().map(|(_, r)| r.len() as u64).sum::<u64>();
        }
        if records < self.evidence {
            return Err(format!("receipts cite {} pieces of evidence, {records} are there", self.evidence));
        }
        Ok(())
    }
}

fn start(profile: &Path, runs: &Path, seed: u64, count: usize, concurrency: usize) -> Spoken {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-gate"));
    command.arg(profile).arg(runs).args([seed, count as u64, concurrency as u64].map(|n| n.to_string()));
    Spoken::spawn(&mut command).expect("the child starts")
}

#[test]
fn a_gate_that_is_killed_again_and_again_admits_every_event_exactly_once() {
    let mut budget = Budget::new(2, Duration::from_secs(8), 60);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let (mut heard, mut kills) = (0, 0);
    while budget.again() {
        let dir = tempfile::tempdir().unwrap();
        let profile = configuration(dir.path());
        let runs = dir.path().join("runs");
        let (stream, count) = (rng.next_u64(), 2500);
        let events: Vec<Event> = gate_events(stream).take(count).collect();
        let admitted = vec![false; count];
        let mut truth = Truth { events, places: BTreeMap::new(), admitted, evidence: 0, heard: 0 };
        let seed = budget.seed;
        let mut tell = |line: &str| {
            truth.hear(line).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        };
        for _ in 0..rng.range(4..9) {
            let concurrency = *rng.pick(&[1, 8, GATE_WINDOW]);
            let mut child = start(&profile, &runs, stream, count, concurrency);
            if rng.chance(80) {
                for _ in 0..rng.range(1..count as u64) {
                    let Some(line) = child.line() else { break };
                    tell(&line);
                }
            } else {
                std::thread::sleep(Duration::from_micros(rng.range(0..60_000)));
            }
            let words = child.kill().unwrap();
            words.lines.iter().for_each(|line| tell(line));
            kills += 1;
        }
        let words = start(&profile, &runs, stream, count, GATE_WINDOW).wait().unwrap();
        words.lines.iter().for_each(|line| tell(line));
        assert!(words.status.success(), "seed {seed}: {}", words.errors);
        truth.check(&profile, &runs).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        heard += truth.heard;
    }
    println!("{kills} kills, {heard} receipts held");
    assert!(heard > 3000);
}
