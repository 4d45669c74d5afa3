//! Readers at every moment of a writer: between any two of its operations someone reads, and then the power is cut. Whatever was
//! handed out must be there afterwards.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eb_file::FileBus;
use eb_system_tests::{block_on, read_all, topic};
use eb_testkit::fault_disk::{Fault, FaultDisk, OpKind, Plan};
use eb_testkit::{Budget, Rng};
use parking_lot::Mutex;

use super::aftermath::{End, end, examine};
use super::session::{Account, Manner, Session};
use super::workload::{Step, steps};

/// Who reads.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Inside,
    Outside,
}

fn run_case(steps: &[Step], kind: OpKind, nth: u64, who: Reader, seed: u64) -> Result<(usize, u64), String> {
    let mut rng = Rng::new(seed);
    let disk = FaultDisk::new(rng.next_u64());
    let mut account = Account::default();
    let manner = Manner::draw(&mut rng);
    let mut session = Session::new(disk.clone(), manner);
    let bus = session.bus().map_err(|e| e.to_string())?;
    let before = disk.operations(Some(kind));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let from = match who {
        Reader::Inside => bus,
        Reader::Outside => {
            let outside = Session::beside(disk.new_process(), manner);
            FileBus::open_on(outside.config(), Arc::new(outside.disk.clone())).map_err(|e| e.to_string())?
        }
    };
    disk.meanwhile(kind, nth, move || {
        // On a thread of its own: this one may be polling the publish that is being committed.
        let read = std::thread::spawn(move || block_on(read_all(&from.reader(), &topic())));
        // A refused read is no sight; damage and missing facts are told apart by the other suites.
        if let Ok(Ok(all)) = read.join() {
            sees.lock().extend(all.into_iter().flat_map(|(_, records)| records));
        }
    });
    disk.plan(Plan::of(kind, nth, Fault::PowerCut));
    for step in steps {
        session.step(step, &mut account).map_err(|e| format!("{step:?}: {e}"))?;
        if !disk.is_alive() {
            break;
        }
    }
    let operations = disk.operations(Some(kind)) - before;
    disk.calm();
    let trace = disk.trace();
    let next = end(session, End::PowerCut, &mut rng)?;
    let seen = std::mem::take(&mut *seen.lock());
    let sights = seen.len();
    for found in seen {
        account.ledger.see(found.at, found.said);
    }
    examine(next, manner, &mut account, None, &mut rng)
        .map_err(|e| format!("{e}\nbefore the crash:\n{trace}"))?;
    Ok((sights, operations))
}

#[test]
fn what_a_reader_was_handed_at_any_moment_of_a_writer_is_there_after_a_power_cut() {
    let mut budget = Budget::new(1, Duration::from_secs(5), 60);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let (mut cases, mut sights) = (0, 0);
    while budget.again() {
        let steps: Vec<Step> =
            steps(&mut rng).into_iter().filter(|s| !matches!(s, Step::Read | Step::ReadOutside)).collect();
        for who in [Reader::Inside, Reader::Outside] {
            for kind in [OpKind::Write, OpKind::SyncData, OpKind::SyncAll, OpKind::SetLen, OpKind::SyncDir] {
                let mut run = |nth| {
                    let seed = rng.next_u64();
                    run_case(&steps, kind, nth, who, seed).unwrap_or_else(|broken| {
                        panic!("{broken}\n{who:?} before {kind:?} {nth} of {steps:?}, seed {seed}")
                    })
                };
                let (_, count) = run(u64::MAX / 2);
                for nth in 0..count {
                    sights += run(nth).0;
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} moments, {sights} records seen");
    assert!(sights > cases, "{sights} records in {cases} moments");
}

/// Two records of which the second is whole in the log and was never synced: its writer died.
fn dead_writers_tail() -> FaultDisk {
    let disk = FaultDisk::new(3);
    let mut account = Account::default();
    let mut dead = Session::new(disk.clone(), Manner::default());
    // The key is one of partition 0, which a writer recovers first.
    dead.step(&Step::Publish(1, 10), &mut account).expect("a calm disk");
    disk.plan(Plan::of(OpKind::SyncData, 0, Fault::Kill));
    dead.step(&Step::Publish(1, 10), &mut account).expect("errors of a dead process say nothing");
    let _ = dead.close();
    assert!(!disk.is_alive(), "it died with a whole line written and not synced");
    disk
}

/// How many records another process sees that waits so long for others.
fn count(disk: &FaultDisk, patience: Duration) -> usize {
    let mut config = Session::beside(disk.clone(), Manner::default()).config();
    config.settle_patience = patience;
    let reader = FileBus::open_on(config, Arc::new(disk.clone())).expect("there is a bus").reader();
    let read = block_on(read_all(&reader, &topic())).expect("a calm disk");
    read.iter().map(|(_, records)| records.len()).sum()
}

const LONG: Duration = Duration::from_secs(60);

/// Does `act` in `process` while `busy`, which is about to sync a log whole, waits; `busy` goes on when `process` has asked for a lock so often,
/// or is done. What `act` gave comes when both have ended.
fn while_it_syncs<T: Send + 'static>(
    busy: &FaultDisk,
    process: &FaultDisk,
    asked: u64,
    act: impl FnOnce() -> T + Send + 'static,
) -> Receiver<T> {
    let process = process.clone();
    let (send, done) = channel();
    busy.meanwhile(OpKind::SyncAll, 0, move || {
        let (go_on, gone_on) = channel();
        let again = go_on.clone();
        process.meanwhile(OpKind::Lock, asked, move || again.send(()).expect("it is waited for"));
        std::thread::spawn(move || {
            send.send(act()).expect("the test waits for it");
            // Nobody waits for this where the lock has been asked for.
            let _ = go_on.send(());
        });
        gone_on.recv().expect("one of both happens");
    });
    done
}

#[test]
fn a_writer_waits_for_a_reader_in_another_process_that_settles_a_dead_writers_tail_on_a_slow_disk() {
    let disk = dead_writers_tail();
    let (reading, writing) = (disk.new_process(), disk.new_process());
    let asking = writing.clone();
    // Far more often than it asks for another writer.
    let recovered = while_it_syncs(&reading, &writing, 40, move || {
        let mut session = Session::new(asking, Manner::default());
        session.publisher().and_then(|p| block_on(p.recover(&topic())))
    });
    assert_eq!(count(&reading, LONG), 2, "the reader settled the line and shows it");
    let reports = recovered.recv().unwrap().expect("the writer waited");
    assert_eq!(reports.iter().map(|report| report.records).sum::<u64>(), 2);
}

#[test]
fn a_reader_waits_for_another_that_settles_a_tail_and_sees_no_less_than_was_shown() {
    let disk = dead_writers_tail();
    assert_eq!(count(&disk.new_process(), LONG), 2);
    let (settling, late) = (disk.new_process(), disk.new_process());
    let waits = late.clone();
    let seen = while_it_syncs(&settling, &late, 5, move || count(&waits, LONG));
    assert_eq!(count(&settling, LONG), 2);
    assert_eq!(seen.recv().unwrap(), 2);
}

#[test]
fn a_reader_waits_for_a_writer_that_recovers_the_log_and_sees_no_less_than_was_shown() {
    let disk = dead_writers_tail();
    assert_eq!(count(&disk.new_process(), LONG), 2);
    let (writing, late) = (disk.new_process(), disk.new_process());
    let waits = late.clone();
    let seen = while_it_syncs(&writing, &late, 5, move || count(&waits, LONG));
    let mut writer = Session::new(writing, Manner::default());
    let publisher = writer.publisher().unwrap();
    block_on(publisher.recover(&topic())).unwrap();
    assert_eq!(seen.recv().unwrap(), 2);
    // It goes on writing, and what it has synced is all that there is: nobody waits for it.
    assert_eq!(count(&disk.new_process(), LONG), 2);
}

#[test]
fn a_reader_that_has_waited_in_vain_reads_up_to_the_watermark_and_does_not_wait_for_the_same_again() {
    let disk = dead_writers_tail();
    let (stuck, late) = (disk.new_process(), disk.new_process());
    let reads = late.clone();
    let done = while_it_syncs(&stuck, &late, u64::MAX / 2, move || {
        let mut config = Session::beside(reads.clone(), Manner::default()).config();
        // Time enough to ask more than once on a machine that is busy with everything else.
        config.settle_patience = Duration::from_secs(1);
        let reader = FileBus::open_on(config, Arc::new(reads.clone())).unwrap().reader();
        let look = || {
            let before = reads.operations(Some(OpKind::Lock));
            let all = block_on(read_all(&reader, &topic())).unwrap();
            let records: usize = all.iter().map(|(_, records)| records.len()).sum();
            (records, reads.operations(Some(OpKind::Lock)) - before)
        };
        (look(), look())
    });
    assert_eq!(count(&stuck, LONG), 2);
    let ((first, asked), (second, asked_again)) = done.recv().unwrap();
    assert_eq!((first, second), (1, 1), "the synced record");
    assert!(asked > asked_again, "asked {asked} times, then {asked_again} times");
}
