//! One log, written by process after process, each killed while it publishes at full speed.

use std::time::Duration;

use eb_system_tests::ledger::Ledger;
use eb_testkit::process::{LastWords, Spoken};
use eb_testkit::{Budget, Rng};

use super::{check, child, enter};

/// Lets a child run for a while that is now shorter than its start takes, now long enough for thousands of records.
fn kill_at_random(mut child: Spoken, rng: &mut Rng, ledger: &mut Ledger) -> LastWords {
    let mut heard = Vec::new();
    // Either so many facts, or so many microseconds (which also hits opening and recovery).
    if rng.chance(60) {
        for _ in 0..rng.range(0..1500) {
            let Some(line) = child.line() else { break };
            heard.push(line);
        }
    } else {
        let pause = Duration::from_micros(rng.range(0..25_000));
        std::thread::sleep(pause);
    }
    let mut words = child.kill().expect("a child can be killed");
    heard.append(&mut words.lines);
    let failures = enter(ledger, heard);
    assert!(failures.is_empty(), "a killed process's successor failed: {failures:?}\n{}", words.errors);
    assert!(words.errors.is_empty(), "{}", words.errors);
    words
}

fn options(rng: &mut Rng, run: u64) -> Vec<String> {
    let (tasks, ahead, inline) = (rng.pick(&[1, 3, 16]), rng.pick(&[0, 100_000]), u8::from(rng.chance(50)));
    let reserve = rng.pick(&[0, 50_000, 16 << 20]);
    let rest =
        format!("tasks={tasks} preallocate={ahead} reserve={reserve} inline={inline} partitions=2 run={run}");
    rest.split(' ').map(str::to_owned).collect()
}

#[test]
fn every_ack_of_a_killed_writer_is_in_the_log_at_its_place_with_its_bytes() {
    let mut budget = Budget::new(8, Duration::from_secs(6), 400);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let (mut acks, mut silent) = (0, 0);
    while budget.again() || acks <= 500 || silent >= budget.cycles() * 7 {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let seed = budget.seed;
        for run in 0..rng.range(2..8) {
            let before = ledger.acks();
            kill_at_random(child("publish", dir.path(), &options(&mut rng, run)), &mut rng, &mut ledger);
            silent += u64::from(ledger.acks() == before);
            if ledger.acks() > before {
                check(dir.path(), &ledger)
                    .unwrap_or_else(|broken| panic!("seed {seed}, run {run}: {broken}"));
            }
        }
        // The last one ends by itself: what it publishes lies above everything before.
        let last = [options(&mut rng, 99), vec!["count=4".to_owned()]].concat();
        let words = child("publish", dir.path(), &last).wait().unwrap();
        assert!(words.status.success(), "seed {seed}: {words:?}");
        let failures = enter(&mut ledger, words.lines);
        assert!(failures.is_empty(), "seed {seed}: {failures:?}");
        let records = check(dir.path(), &ledger).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        assert!(records >= ledger.acks());
        acks += ledger.acks();
    }
    println!("{} logs, {acks} ACKs held, {silent} processes killed before their first", budget.cycles());
}

#[test]
fn a_reader_in_another_process_never_hands_out_what_later_is_not_there() {
    let mut budget = Budget::new(3, Duration::from_secs(5), 100);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let mut sights = 0;
    // Where the writers are all killed early there is little to see.
    while budget.again() || sights <= 100 {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let seed = budget.seed;
        let mut writer = child("publish", dir.path(), &options(&mut rng, 0));
        let first = writer.line().expect("a first ACK");
        assert!(enter(&mut ledger, [first]).is_empty());
        let follower = child("follow", dir.path(), &[]);
        kill_at_random(writer, &mut rng, &mut ledger);
        for run in 1..rng.range(3..6) {
            // Between two writers nobody holds the lock, and the follower is on its own.
            let late = (rng.chance(50)).then(|| child("follow", dir.path(), &[]));
            let writer = child("publish", dir.path(), &options(&mut rng, run));
            kill_at_random(writer, &mut rng, &mut ledger);
            if let Some(late) = late {
                hear_to_its_end(late, &mut ledger, seed);
            }
            // Also while the other follower settles the dead writer's tail.
            check(dir.path(), &ledger).unwrap_or_else(|broken| panic!("seed {seed}, run {run}: {broken}"));
        }
        hear_to_its_end(follower, &mut ledger, seed);
        check(dir.path(), &ledger).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        sights += ledger.sights();
        let words = child("publish", dir.path(), &["run=99".into(), "partitions=2".into(), "count=3".into()]);
        enter(&mut ledger, words.wait().unwrap().lines);
        check(dir.path(), &ledger).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    println!("{} logs, {sights} records seen from outside", budget.cycles());
}

fn hear_to_its_end(follower: Spoken, ledger: &mut Ledger, seed: u64) {
    let words = follower.wait().expect("a child can be waited for");
    assert!(words.status.success(), "seed {seed}: a follower failed: {words:?}");
    let failures = enter(ledger, words.lines);
    assert!(failures.is_empty(), "seed {seed}: {failures:?}");
}
