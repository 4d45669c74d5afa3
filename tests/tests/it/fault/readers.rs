//! Readers at every moment of a writer: between any two of its operations someone reads, and then the power is cut. Whatever was
//! handed out must be there afterwards.

use std::sync::Arc;
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
    println!("seed {}: {cases} moments, {sights} records seen", budget.seed);
    assert!(sights > cases, "{sights} records in {cases} moments");
}

#[test]
fn a_writer_waits_for_a_reader_in_another_process_that_settles_a_dead_writers_tail_on_a_slow_disk() {
    let disk = FaultDisk::new(3);
    let mut account = Account::default();
    let mut dead = Session::new(disk.clone(), Manner::default());
    dead.step(&Step::Publish(0, 10), &mut account).unwrap();
    disk.plan(Plan::of(OpKind::SyncData, 0, Fault::Kill));
    dead.step(&Step::Publish(0, 10), &mut account).unwrap();
    let _ = dead.close();
    assert!(!disk.is_alive(), "it died with a whole line written and not synced");

    let (reading, writing) = (disk.new_process(), disk.new_process());
    let reader = Session::beside(reading.clone(), Manner::default());
    let reader = FileBus::open_on(reader.config(), Arc::new(reading.clone())).unwrap();
    let (send, recovered) = std::sync::mpsc::channel();
    let attempts = disk.operations(Some(OpKind::Lock));
    reading.meanwhile(OpKind::SyncAll, 0, move || {
        let asking = writing.clone();
        let writer = std::thread::spawn(move || {
            let mut session = Session::new(asking, Manner::default());
            let reports = session.publisher().and_then(|p| block_on(p.recover(&topic())));
            send.send(reports).expect("the test waits for it");
        });
        // A sync that lasts until the writer has asked far more often than it does for another writer, or given up.
        while writing.operations(Some(OpKind::Lock)) < attempts + 40 && !writer.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let read = block_on(read_all(&reader.reader(), &topic())).unwrap();
    let records: usize = read.iter().map(|(_, records)| records.len()).sum();
    assert_eq!(records, 2, "the reader settled the line and shows it");
    let reports = recovered.recv().unwrap().expect("the writer waited");
    assert_eq!(reports.iter().map(|report| report.records).sum::<u64>(), 2);
}
