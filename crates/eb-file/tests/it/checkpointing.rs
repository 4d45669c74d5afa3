//! File checkpoints: crashes at every step, several processes, damaged files.

use std::collections::HashMap;
use std::sync::Arc;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, Effect, ErrorKind, Offset, OffsetKind, PartitionId, Result, Topic,
};
use eb_file::FileCheckpointStore;
use eb_testkit::Rng;
use eb_testkit::fault_disk::{Fault, FaultDisk, Plan, Survival};

use crate::common::{block_on, topic};

const PARTITIONS: u32 = 3;

fn consumer() -> ConsumerName {
    ConsumerName::new("scorer").unwrap()
}

fn incarnation() -> BusIncarnation {
    BusIncarnation::new("life-1").unwrap()
}

fn cut(n: u64) -> Cut {
    Cut::Next(Offset::from_u64(OffsetKind::FileLine, n))
}

fn checkpoint(partition: u32, n: u64, version: u64) -> Checkpoint {
    Checkpoint {
        consumer: consumer(),
        topic: topic(),
        partition_id: PartitionId(partition),
        cut: cut(n),
        caught_up_at: None,
        version,
        bus_incarnation: incarnation(),
        lease: None,
        committed_at: None,
    }
}

fn lease() -> Lease {
    Lease { owner: "one".to_owned(), epoch: 1 }
}

fn load(store: &FileCheckpointStore, partition: u32) -> Result<Option<Checkpoint>> {
    block_on(store.load(&consumer(), &topic(), PartitionId(partition)))
}

fn version_and_cut(c: Option<&Checkpoint>) -> (u64, Option<Cut>) {
    (c.map_or(0, |c| c.version), c.map(|c| c.cut))
}

/// What a partition's checkpoint may be: what was answered last, or any later one whose outcome is unknown.
#[derive(Default)]
struct Model(HashMap<u32, Vec<(u64, Option<Cut>)>>);

impl Model {
    fn took(&mut self, partition: u32, result: &Result<Checkpoint>, tried: (u64, Option<Cut>)) {
        let may = self.0.entry(partition).or_insert_with(|| vec![(0, None)]);
        match result {
            Ok(c) => *may = vec![version_and_cut(Some(c))],
            Err(e) if e.effect() == Effect::None => {}
            // A process that dies in the middle cannot say which it was.
            Err(_) => may.push(tried),
        }
    }

    fn holds(&self, partition: u32, found: (u64, Option<Cut>)) -> bool {
        self.0.get(&partition).map_or(found == (0, None), |may| may.contains(&found))
    }
}

/// Three rounds of commits of all partitions and a reset between them, as far as the disk lets it.
fn workload(store: &FileCheckpointStore, model: &mut Model, dies: bool) {
    for round in 1..=3u64 {
        let wanted: Vec<Checkpoint> = (0..PARTITIONS)
            .filter_map(|p| {
                let stood = load(store, p).ok()?;
                Some(checkpoint(p, round * 10, version_and_cut(stood.as_ref()).0))
            })
            .collect();
        let results = block_on(store.commit(&wanted, &lease()));
        for (c, result) in wanted.iter().zip(&results) {
            let tried = (c.version + 1, Some(c.cut));
            let unknown = result.clone().map_err(|e| if dies { e.with_effect(Effect::Unknown) } else { e });
            model.took(c.partition_id.0, &unknown, tried);
        }
        if round == 2 {
            let before = load(store, 0).map_or(0, |c| version_and_cut(c.as_ref()).0);
            let request = ResetRequest {
                consumer: consumer(),
                topic: topic(),
                partition_id: PartitionId(0),
                cut: cut(5),
                bus_incarnation: incarnation(),
                reason: "replay".to_owned(),
            };
            let result = block_on(store.reset(&request));
            let unknown = result.map_err(|e| if dies { e.with_effect(Effect::Unknown) } else { e });
            model.took(0, &unknown, (before + 1, Some(cut(5))));
        }
    }
}

#[test]
fn whatever_fails_at_any_step_each_checkpoint_is_the_old_or_the_new_one() {
    let root = "/data/bus";
    let steps = {
        let disk = FaultDisk::new(1);
        workload(&FileCheckpointStore::open_on(root, Arc::new(disk.clone())), &mut Model::default(), false);
        disk.operations(None)
    };
    assert!(steps > 50);
    let mut rng = Rng::new(eb_testkit::seed());
    for fault in Fault::ALL {
        for step in 0..steps {
            let disk = FaultDisk::new(rng.next_u64());
            disk.plan(Plan::any(step, fault));
            let dies = matches!(fault, Fault::PowerCut | Fault::Kill);
            let mut model = Model::default();
            workload(&FileCheckpointStore::open_on(root, Arc::new(disk.clone())), &mut model, dies);
            disk.calm();
            let after = match fault {
                Fault::PowerCut => disk.power_on(Survival::draw(&mut rng)),
                _ => disk.restart(),
            };
            let context = || format!("{fault:?} at operation {step}\n{}", disk.trace());
            let store = FileCheckpointStore::open_on(root, Arc::new(after.clone()));
            let mut next = Vec::new();
            for partition in 0..PARTITIONS {
                let found = load(&store, partition).unwrap_or_else(|e| panic!("{e}\n{}", context()));
                let found = version_and_cut(found.as_ref());
                assert!(model.holds(partition, found), "{partition} is {found:?}: {}", context());
                next.push(checkpoint(partition, 100, found.0));
            }
            for result in block_on(store.commit(&next, &lease())) {
                result.unwrap_or_else(|e| panic!("{e}\n{}", context()));
            }
            let cut_off = FileCheckpointStore::open_on(root, Arc::new(after.power_on(Survival::Nothing)));
            let listed = block_on(cut_off.list(None)).unwrap();
            assert_eq!(listed.len(), PARTITIONS as usize, "{}", context());
            assert!(listed.iter().all(|c| c.cut == cut(100)), "{}", context());
        }
    }
}

#[test]
fn of_several_processes_that_commit_the_same_version_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let racers: Vec<_> = (0..4)
        .map(|_| {
            // A store of its own has locks of its own, as another process has.
            let store = FileCheckpointStore::open(dir.path());
            std::thread::spawn(move || {
                let mut won = 0u64;
                while won < 10 {
                    let stood = version_and_cut(load(&store, 0).unwrap().as_ref()).0;
                    match block_on(store.commit(&[checkpoint(0, stood, stood)], &lease())).remove(0) {
                        Ok(c) => {
                            assert_eq!(c.version, stood + 1);
                            won += 1;
                        }
                        Err(e) => assert!(matches!(e.kind(), ErrorKind::VersionConflict { .. }), "{e}"),
                    }
                }
            })
        })
        .collect();
    racers.into_iter().for_each(|r| r.join().unwrap());
    let store = FileCheckpointStore::open(dir.path());
    assert_eq!(load(&store, 0).unwrap().unwrap().version, 40);
}

#[test]
fn a_damaged_file_is_an_error_that_names_it_and_a_reset_does_not_paper_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileCheckpointStore::open(dir.path());
    block_on(store.commit(&[checkpoint(0, 10, 0), checkpoint(1, 10, 0)], &lease()));
    let file = dir.path().join("checkpoints/scorer").join(topic().as_str()).join("partition=0.json");
    let good = std::fs::read_to_string(&file).unwrap();
    for bad in ["", "{}", &good.replace("\"10\"", "\"11\""), &good[..good.len() - 2]] {
        std::fs::write(&file, bad).unwrap();
        let request = ResetRequest {
            consumer: consumer(),
            topic: topic(),
            partition_id: PartitionId(0),
            cut: cut(0),
            bus_incarnation: incarnation(),
            reason: "try".to_owned(),
        };
        for error in [
            load(&store, 0).unwrap_err(),
            block_on(store.list(None)).unwrap_err(),
            block_on(store.reset(&request)).unwrap_err(),
            block_on(store.commit(&[checkpoint(0, 20, 1)], &lease())).remove(0).unwrap_err(),
        ] {
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt { file, .. } if file.ends_with("partition=0.json")),
                "{error}"
            );
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
        assert!(load(&store, 1).unwrap().is_some());
    }
}

#[test]
fn files_of_others_and_leftovers_of_crashes_are_no_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileCheckpointStore::open(dir.path());
    assert!(block_on(store.list(None)).unwrap().is_empty());
    block_on(store.commit(&[checkpoint(0, 10, 0)], &lease())).remove(0).unwrap();
    let folder = dir.path().join("checkpoints/scorer").join(topic().as_str());
    std::fs::write(folder.join("partition=0.json.tmp"), "{\"half").unwrap();
    std::fs::write(folder.join("partition=01.json"), "not ours").unwrap();
    std::fs::write(folder.join("notes.txt"), "not ours").unwrap();
    std::fs::write(dir.path().join("checkpoints/readme"), "not ours").unwrap();
    assert_eq!(block_on(store.list(None)).unwrap().len(), 1);
    assert_eq!(block_on(store.list(Some(&ConsumerName::new("other").unwrap()))).unwrap().len(), 0);
    block_on(store.commit(&[checkpoint(0, 20, 1)], &lease())).remove(0).unwrap();
    block_on(store.probe()).unwrap();
    assert!(!folder.join("partition=0.json.tmp").exists());
    let other = Topic::new("other").unwrap();
    assert!(block_on(store.load(&consumer(), &other, PartitionId(0))).unwrap().is_none());
}
