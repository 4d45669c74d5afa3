//! File checkpoints on a failing disk: each is the last one that was answered, or one that was attempted since and not denied; whole,
//! never older, never gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease};
use eb_contract::{BusIncarnation, ConsumerName, Cut, Effect, ErrorKind, Offset, OffsetKind, PartitionId};
use eb_file::FileCheckpointStore;
use eb_system_tests::{block_on, topic};
use eb_testkit::fault_disk::{Fault, FaultDisk, OpKind, Plan, Survival};
use eb_testkit::{Budget, Rng};

use super::session::{ROOT, suspicious};

const COMMITS: u64 = 6;

fn consumer() -> ConsumerName {
    ConsumerName::new("scorer").expect("letters")
}

fn checkpoint(partition: PartitionId, offset: u64, version: u64) -> Checkpoint {
    Checkpoint {
        consumer: consumer(),
        topic: topic(),
        partition_id: partition,
        cut: Cut::Next(Offset::from_u64(OffsetKind::FileLine, offset)),
        caught_up_at: None,
        version,
        bus_incarnation: BusIncarnation::new(&"a".repeat(32)).expect("hex"),
        lease: None,
        committed_at: None,
    }
}

fn offset_of(checkpoint: &Checkpoint) -> u64 {
    checkpoint.cut.offset().and_then(Offset::as_u64).expect("a cut at a number")
}

/// What may be stored for one partition.
#[derive(Default, Clone, Debug)]
struct Known {
    answered: u64,
    /// Attempted since, and not denied.
    open: Vec<u64>,
    version: u64,
}

impl Known {
    fn admits(&self, offset: u64) -> bool {
        offset == self.answered || self.open.contains(&offset)
    }
}

struct World {
    disk: FaultDisk,
    known: BTreeMap<PartitionId, Known>,
    next: u64,
}

impl World {
    fn store(&self) -> FileCheckpointStore {
        FileCheckpointStore::open_on(ROOT, Arc::new(self.disk.clone()))
    }

    /// Commits for both partitions in one call, until the process dies or all is done.
    fn commit(&mut self, store: &FileCheckpointStore) -> Result<(), String> {
        let lease = Lease { owner: "worker".to_owned(), epoch: 1 };
        for _ in 0..COMMITS {
            self.next += 1;
            let wanted: Vec<_> =
                self.known.iter().map(|(id, known)| checkpoint(*id, self.next, known.version)).collect();
            let answers = block_on(store.commit(&wanted, &lease));
            let alive = self.disk.is_alive();
            for (wanted, answer) in wanted.iter().zip(answers) {
                let known = self.known.get_mut(&wanted.partition_id).expect("one of ours");
                match answer {
                    Ok(stored) => {
                        *known =
                            Known { answered: offset_of(&stored), open: vec![], version: stored.version };
                    }
                    Err(e) if alive => {
                        suspicious(&e)?;
                        if e.effect() == Effect::Unknown {
                            known.open.push(self.next);
                        }
                    }
                    Err(_) => known.open.push(self.next),
                }
            }
            if !alive {
                return Ok(());
            }
            self.load(store)?;
        }
        Ok(())
    }

    /// Loads both, in a way that insists while the process lives.
    fn load(&mut self, store: &FileCheckpointStore) -> Result<(), String> {
        for (id, known) in &mut self.known {
            let mut answer = block_on(store.load(&consumer(), &topic(), *id));
            for _ in 0..3 {
                match &answer {
                    Err(_) if !self.disk.is_alive() => return Ok(()),
                    Err(e) => suspicious(e)?,
                    Ok(_) => break,
                }
                answer = block_on(store.load(&consumer(), &topic(), *id));
            }
            let loaded =
                answer.map_err(|e| format!("cannot be loaded although the disk works again: {e}"))?;
            let offset = loaded.as_ref().map_or(0, offset_of);
            if !known.admits(offset) {
                return Err(format!("partition {id}: {offset} is stored, expected {known:?}"));
            }
            known.version = loaded.map_or(0, |c| c.version);
        }
        Ok(())
    }
}

fn run_case(plan: Plan, second: Option<Plan>, seed: u64) -> Result<(u32, BTreeMap<OpKind, u64>), String> {
    let mut rng = Rng::new(seed);
    let disk = FaultDisk::new(rng.next_u64());
    disk.plan(plan);
    let known = [PartitionId(0), PartitionId(7)].map(|id| (id, Known::default())).into();
    let mut world = World { disk, known, next: 0 };
    world.commit(&world.store())?;
    let struck = u32::from(!world.disk.struck().is_empty());
    let counts = OpKind::ALL.map(|kind| (kind, world.disk.operations(Some(kind)))).into();
    for plan in [second, None] {
        world.disk.calm();
        world.disk = match (world.disk.is_powered(), rng.chance(30)) {
            (true, true) => world.disk.restart(),
            _ => world.disk.power_on(Survival::draw(&mut rng)),
        };
        if let Some(plan) = plan {
            world.disk.plan(plan);
        }
        let store = world.store();
        world.load(&store)?;
        world.commit(&store)?;
    }
    world.load(&world.store())?;
    let last = world.known.values().all(|known| known.answered == world.next && known.open.is_empty());
    if !last {
        return Err(format!("a calm disk stores the last commit: {:?}", world.known));
    }
    // What was answered outlives whatever a power cut takes.
    world.disk = world.disk.power_on(Survival::Nothing);
    world.load(&world.store())?;
    Ok((struck, counts))
}

#[test]
fn a_checkpoint_is_whole_and_never_older_than_its_last_answer_whatever_fails() {
    let mut budget = Budget::new(1, Duration::from_secs(4), 40);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let (mut cases, mut struck) = (0, 0);
    while budget.again() {
        let calm = Plan::any(u64::MAX, Fault::Eio);
        let (_, counts) = run_case(calm, None, rng.next_u64()).unwrap_or_else(|broken| panic!("{broken}"));
        for (kind, count) in counts {
            for nth in 0..count {
                for fault in Fault::ALL.into_iter().filter(|fault| fault.applies_to(kind)) {
                    let plan = Plan::of(kind, nth, fault);
                    let second = rng.chance(50).then(|| Plan::any(rng.range(0..40), *rng.pick(&Fault::ALL)));
                    let seed = rng.next_u64();
                    let case = run_case(plan, second, seed);
                    struck += case
                        .unwrap_or_else(|broken| panic!("{broken}\n{plan}, then {second:?}, seed {seed}"))
                        .0;
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} cases, {struck} faults struck");
    assert!(struck * 10 > cases * 9, "{struck} of {cases} struck");
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_an_error_and_never_none() {
    let disk = FaultDisk::new(1);
    let known = [(PartitionId(0), Known::default())].into();
    let mut world = World { disk, known, next: 0 };
    world.commit(&world.store()).unwrap();
    let (path, content) = world
        .disk
        .files()
        .into_iter()
        .find(|(path, _)| path.to_string_lossy().ends_with("partition=0.json"))
        .expect("it was committed");
    for byte in 0..content.len() {
        let mut damaged = content.clone();
        damaged[byte] ^= 1;
        world.disk.damage(&path, &damaged);
        let loaded = block_on(world.store().load(&consumer(), &topic(), PartitionId(0)));
        assert!(
            loaded
                .as_ref()
                .is_err_and(|e| matches!(e.kind(), ErrorKind::Corrupt { .. } | ErrorKind::WrongVersion)),
            "byte {byte}: {loaded:?}"
        );
    }
}
