//! A reader never shows a record that later is not there: whatever the writer's end, whatever the power cut after it leaves.

use std::sync::Arc;

use eb_contract::{EbRef, EventBusPublisher, EventBusReaderExt, PartitionId, Record, Result, StartAt};
use eb_file::{FileBus, FileBusConfig};
use eb_testkit::Rng;
use eb_testkit::fault_disk::{Fault, FaultDisk, OpKind, Plan, Survival};

use crate::common::{block_on, record, topic};

const ROOT: &str = "/bus";

fn open(disk: &FaultDisk) -> Result<FileBus> {
    FileBus::open_on(FileBusConfig::new(ROOT), Arc::new(disk.clone()))
}

/// Publishes one by one and in batches until something fails; what was ACKed.
fn write(bus: &FileBus) -> Vec<EbRef> {
    let publisher = bus.publisher();
    let mut acked = Vec::new();
    for round in 0..6 {
        // Sizes around a sector, so that records share them.
        let text = |i: usize| format!("round {round} record {i} {}", "x".repeat(97 * i + 150 * round));
        let results = if round % 2 == 0 {
            vec![block_on(publisher.publish(&topic(), record("key", &text(0))))]
        } else {
            let batch = (0..4).map(|i| record("key", &text(i))).collect();
            block_on(publisher.publish_batch(&topic(), batch))
        };
        let failed = results.iter().any(Result::is_err);
        acked.extend(results.into_iter().flatten());
        if failed {
            break;
        }
    }
    acked
}

fn read(disk: &FaultDisk) -> Result<Vec<Record>> {
    let reader = open(disk)?.reader();
    block_on(reader.read_to_head(&topic(), PartitionId(0), StartAt::Earliest))
}

fn texts(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|r| r.envelope.as_bytes()).collect()
}

#[test]
fn what_a_reader_has_shown_survives_the_writers_death_and_a_power_cut() {
    let fresh = || {
        let disk = FaultDisk::new(7);
        open(&disk).unwrap().create_topic(&topic(), 1).unwrap();
        disk
    };
    let steps = {
        let disk = fresh();
        let before = disk.operations(None);
        let bus = open(&disk).unwrap();
        write(&bus);
        disk.operations(None) - before
    };
    let seed = eb_testkit::seed();
    println!("seed: {seed}");
    let mut rng = Rng::new(seed);
    let mut shown = 0;
    for step in 0..steps {
        for fault in [Fault::Kill, Fault::Eio, Fault::Short] {
            let disk = fresh();
            let bus = open(&disk).unwrap();
            disk.plan(Plan::any(step, fault));
            let acked = write(&bus);
            disk.calm();
            let reader = disk.restart();
            let context = || format!("{fault:?} at operation {step}, seed {seed}\n{}", disk.trace());
            let records = read(&reader).unwrap_or_else(|e| panic!("{e}\n{}", context()));
            shown += records.len();
            assert!(records.len() >= acked.len(), "an ACKed record is not shown: {}", context());
            // Twice, by two readers.
            assert_eq!(texts(&read(&reader.new_process()).unwrap()), texts(&records), "{}", context());

            let after = reader.power_on(Survival::draw(&mut rng));
            let again = read(&after).unwrap_or_else(|e| panic!("after the power cut: {e}\n{}", context()));
            assert_eq!(texts(&again[..records.len()]), texts(&records), "{}", context());
            let recovered = open(&after).unwrap().publisher();
            block_on(recovered.recover(&topic())).unwrap_or_else(|e| panic!("{e}\n{}", context()));
            block_on(recovered.close()).unwrap();
            let kept = read(&after.restart()).unwrap();
            assert_eq!(texts(&kept[..records.len()]), texts(&records), "{}", context());
        }
    }
    assert!(shown > 0);
}

#[test]
fn a_reader_that_cannot_make_the_tail_durable_shows_none_of_it() {
    let disk = FaultDisk::new(3);
    let bus = open(&disk).unwrap();
    bus.create_topic(&topic(), 1).unwrap();
    let publisher = bus.publisher();
    block_on(publisher.publish(&topic(), record("key", "synced"))).unwrap();
    // The sync of the second group fails: its bytes may be in the cache and nowhere else.
    disk.plan(Plan::of(OpKind::SyncData, 0, Fault::Eio));
    block_on(publisher.publish(&topic(), record("key", "in doubt"))).unwrap_err();
    let reader = disk.restart();
    // The first write only notes in the lock file who holds it.
    for (kind, nth) in [(OpKind::Write, 1), (OpKind::SyncAll, 0)] {
        reader.plan(Plan::of(kind, nth, Fault::Eio));
        assert!(read(&reader).is_err(), "{kind:?}: {}", reader.trace());
        reader.calm();
    }
    let shown = read(&reader).unwrap();
    assert_eq!(shown.len(), 2);
    let after = reader.power_on(Survival::Nothing);
    assert_eq!(texts(&read(&after).unwrap()), texts(&shown));
}
