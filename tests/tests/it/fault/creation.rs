//! Making a bus and a topic, with every fault at every operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eb_contract::{ErrorKind, EventBusReader};
use eb_file::{FileBus, FileBusConfig};
use eb_system_tests::{block_on, topic};
use eb_testkit::fault_disk::{Fault, FaultDisk, OpKind, Plan, Survival};
use eb_testkit::{Rng, seed};

use super::session::{ROOT, suspicious};

fn make(disk: &FaultDisk) -> eb_contract::Result<()> {
    FileBus::open_on(FileBusConfig::new(ROOT), Arc::new(disk.clone()))?.create_topic(&topic(), 3)
}

/// The topic as a process finds it that makes nothing.
fn find(disk: &FaultDisk) -> eb_contract::Result<eb_contract::TopicPartitions> {
    let mut config = FileBusConfig::new(ROOT);
    config.create = false;
    block_on(FileBus::open_on(config, Arc::new(disk.clone()))?.reader().partitions(&topic()))
}

#[test]
fn a_topic_exists_whole_or_not_at_all_and_for_good_once_its_creation_was_answered() {
    let seed = seed();
    println!("seed: {seed}");
    let mut rng = Rng::new(seed);
    let calm = FaultDisk::new(0);
    make(&calm).unwrap();
    let mut struck = 0;
    for kind in OpKind::ALL {
        for nth in 0..calm.operations(Some(kind)) {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.applies_to(kind)) {
                for _ in 0..6 {
                    let plan = Plan::of(kind, nth, fault);
                    struck += check(plan, &mut rng)
                        .unwrap_or_else(|broken| panic!("seed {seed}, {plan}: {broken}"));
                }
            }
        }
    }
    assert!(struck > 500, "{struck}");
}

fn check(plan: Plan, rng: &mut Rng) -> Result<u32, String> {
    let mut disk = FaultDisk::new(rng.next_u64());
    disk.plan(plan);
    let first = make(&disk);
    let struck = disk.struck().len();
    disk.calm();
    if let Err(e) = &first {
        suspicious(e)?;
    }
    // Whoever comes next finds nothing or everything, and completes it: in this process, the next, or after a power cut.
    if first.is_err() {
        disk = match (disk.is_powered(), disk.is_alive()) {
            (false, _) => disk.power_on(Survival::draw(rng)),
            (true, true) if rng.chance(50) => disk,
            (true, _) => disk.restart(),
        };
        if let Err(e) = find(&disk).map_err(|e| e.kind().clone())
            && e != ErrorKind::NotFound
        {
            return Err(format!("found half made: {e:?}"));
        }
        make(&disk).map_err(|e| format!("cannot be completed: {e}"))?;
    }
    let made = find(&disk).map_err(|e| e.to_string())?;
    let after = find(&disk.power_on(Survival::draw(rng))).map_err(|e| format!("gone after its ACK: {e}"))?;
    if made != after {
        return Err(format!("was {made:?}, is {after:?}"));
    }
    Ok(u32::try_from(struck).unwrap_or(u32::MAX))
}

#[test]
fn two_processes_that_make_a_bus_at_once_both_have_it() {
    let disk = FaultDisk::new(5);
    let [first, second] = [disk.new_process(), disk.new_process()];
    let (say, heard) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let racing = second.clone();
    // The first has written its file and is about to rename it. The second, which has found no bus, goes on until it waits, or opens a file
    // for what it would write.
    first.meanwhile(OpKind::Rename, 0, move || {
        let at_it = Arc::new(AtomicBool::new(false));
        let comes = at_it.clone();
        racing.meanwhile(OpKind::Open, 1, move || {
            comes.store(true, Ordering::SeqCst);
            // Until the first one is done.
            let _ = finished.recv();
        });
        let asked = racing.operations(Some(OpKind::Lock));
        let opening = racing.clone();
        std::thread::spawn(move || {
            let opened = FileBus::open_on(FileBusConfig::new("/bus"), Arc::new(opening)).map(drop);
            say.send(opened).expect("the test waits for it");
        });
        while !at_it.load(Ordering::SeqCst) && racing.operations(Some(OpKind::Lock)) < asked + 2 {
            std::thread::yield_now();
        }
    });
    FileBus::open_on(FileBusConfig::new("/bus"), Arc::new(first)).unwrap();
    drop(finish);
    heard.recv().unwrap().unwrap();
    assert!(
        disk.files().iter().all(|(path, _)| !path.to_string_lossy().ends_with(".tmp")),
        "nothing is left over"
    );
}
