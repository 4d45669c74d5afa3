//! Real processes that share the stores of a consumer, killed at random: what they were answered is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use eb_contract::PartitionId;
use eb_contract::stores::{Claim, DeadLetterStore, LeaseKey, LeaseStore, MarkScope, ProcessedStore, Seen};
use eb_contract::{Cut, stores::DeadLetterId};
use eb_store_local::{EmbeddedDeadLetters, EmbeddedLeases, EmbeddedProcessed, MarksConfig};
use eb_testkit::Rng;

use crate::consumer_faults::{letter, line, mark, scope, step};

const DIR: &str = "EB_STORE_LOCAL_CONSUMER_DIR";
const WHO: &str = "EB_STORE_LOCAL_CONSUMER_WHO";
const TIME: Duration = Duration::from_secs(30);

fn config(dir: &Path) -> MarksConfig {
    MarksConfig::new(dir).with_segment_bytes(3_000)
}

fn key(partition: u32) -> LeaseKey {
    LeaseKey { consumer: scope().subscriber, topic: scope().topic, partition_id: PartitionId(partition) }
}

fn scope_at(partition: u32) -> MarkScope {
    MarkScope { partition_id: PartitionId(partition), ..scope() }
}

/// Not a test: what a killed process does. It claims whichever of two partitions is free, marks records there, and puts letters; it tells
/// each answer.
#[tokio::test]
#[ignore = "run by the tests of this file, in a process of its own"]
async fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let who = std::env::var(WHO).unwrap();
    let leases = EmbeddedLeases::open(&dir);
    let marks = EmbeddedProcessed::open(&config(&dir));
    let letters = EmbeddedDeadLetters::open(&dir);
    for round in 0_u64.. {
        let partition = (round % 2) as u32;
        let Claim::Held(lease) = leases.claim(&key(partition), &who, TIME).await.unwrap() else { continue };
        println!("\nepoch {partition} {} {who}", lease.epoch);
        let scope = scope_at(partition);
        // The first record that nobody has marked.
        let mut n = 0;
        while marks.seen(&scope, &[mark(n)], false).await.unwrap() == [Seen::Here] {
            n += 1;
        }
        for n in n..n + 5 {
            let progress = step(&scope, vec![mark(n)], Cut::Begin, Cut::Next(line(n)));
            marks.record(&progress, &lease).await.unwrap();
            println!("\nmark {partition} {n}");
            let id =
                letters.put(&[letter(u64::from(partition) * 1_000_000 + n)]).await.pop().unwrap().unwrap();
            println!("\nletter {} {}", id.0, u64::from(partition) * 1_000_000 + n);
        }
        leases.release(&key(partition), &lease).await.unwrap();
    }
}

struct Worker {
    child: Child,
    told: BufReader<ChildStdout>,
}

fn start(dir: &Path, who: &str) -> Worker {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["consumer_kills::child", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(WHO, who)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap());
    Worker { child, told }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_killed_workers_were_answered_is_there_and_no_epoch_is_given_twice() {
    let seed = std::env::var("EB_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_26);
    println!("EB_TEST_SEED={seed}");
    let mut rng = Rng::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut epochs: BTreeMap<(u32, u64), String> = BTreeMap::new();
    let mut marked: BTreeSet<(u32, u64)> = BTreeSet::new();
    let mut put: BTreeMap<u64, u64> = BTreeMap::new();
    let mut round = 0;
    // Where the first are killed early, there are more of them.
    while round < 6 || marked.len() <= 20 || put.len() <= 20 {
        round += 1;
        let mut workers: Vec<Worker> = (0..2).map(|n| start(dir.path(), &format!("{round}-{n}"))).collect();
        // The first is killed after some answers, the second at whatever it does then.
        let mut lines: Vec<String> = Vec::new();
        let wanted = 5 + rng.index(60);
        let mut line_of = String::new();
        while lines.len() < wanted && workers[0].told.read_line(&mut line_of).unwrap() > 0 {
            lines.push(std::mem::take(&mut line_of));
        }
        for worker in &mut workers {
            worker.child.kill().unwrap();
            worker.child.wait().unwrap();
            lines.extend((&mut worker.told).lines().map_while(Result::ok));
        }
        for line in &lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["epoch", p, e, who] => {
                    let of = (p.parse().unwrap(), e.parse().unwrap());
                    let before = epochs.insert(of, who.to_owned());
                    assert!(before.is_none_or(|b| b == who), "{of:?} was given twice");
                }
                ["mark", p, n] => _ = marked.insert((p.parse().unwrap(), n.parse().unwrap())),
                ["letter", id, n] => _ = put.insert(id.parse().unwrap(), n.parse().unwrap()),
                _ => {}
            }
        }
        let marks = EmbeddedProcessed::open(&config(dir.path()));
        for (partition, n) in &marked {
            let seen = marks.seen(&scope_at(*partition), &[mark(*n)], false).await.unwrap();
            assert_eq!(seen, [Seen::Here], "round {round}: mark {n} of partition {partition}");
        }
        let letters = EmbeddedDeadLetters::open(dir.path());
        for (id, n) in &put {
            assert_eq!(letters.get(DeadLetterId(*id)).await.unwrap().letter, letter(*n), "round {round}");
        }
        // The dead keep their leases for as long as they asked; another opening ends them by releasing.
        let leases = EmbeddedLeases::open(dir.path());
        for info in leases.list(None).await.unwrap() {
            leases.release(&info.key, &info.lease).await.unwrap();
        }
    }
    println!("{round} rounds, {} marks, {} letters", marked.len(), put.len());
}
