//! One recovery, cut off at each of its operations in turn: running it again gives the same log, and at every moment a torn tail is
//! either still in the log or durably set aside.

use std::path::{Path, PathBuf};

use eb_file::RecoveryReport;
use eb_system_tests::{block_on, topic};
use eb_testkit::fault_disk::{Fault, FaultDisk, OpKind, Plan, Survival};
use eb_testkit::{Rng, is_long, seed};

use super::session::{Account, Manner, ROOT, Session};
use super::workload::Step;

/// A machine that lost power while it published, and what a recovery makes of it.
struct Wreck {
    dead: FaultDisk,
    survival: u64,
    before: Vec<(PathBuf, Vec<u8>)>,
    after: Vec<(PathBuf, Vec<u8>)>,
    operations: u64,
    torn: bool,
}

fn logs(disk: &FaultDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let is_log = |path: &Path| path.extension().is_some_and(|e| e == "jsonl");
    disk.files().into_iter().filter(|(path, _)| is_log(path)).collect()
}

fn recover(disk: &FaultDisk) -> eb_contract::Result<Vec<RecoveryReport>> {
    let mut session = Session::new(disk.clone(), Manner::default());
    let reports = session.publisher().and_then(|publisher| block_on(publisher.recover(&topic())));
    // Without it the sidecar would be closed in order, later and unobserved.
    disk.kill();
    let _ = session.close();
    reports
}

impl Wreck {
    fn new(rng: &mut Rng) -> Self {
        let disk = FaultDisk::new(rng.next_u64());
        let mut account = Account::default();
        let mut session = Session::new(disk.clone(), Manner::draw(rng));
        // Two records that are synced, then groups of which the power cut takes parts.
        let quiet = [Step::Publish(0, 50), Step::Publish(1, 900)];
        for step in &quiet {
            session.step(step, &mut account).expect("a calm disk");
        }
        let torn = Step::Batch((0..6).map(|n| (n % 2, rng.index(1500))).collect());
        disk.plan(Plan::of(OpKind::SyncData, rng.range(0..2), Fault::PowerCut));
        session.step(&torn, &mut account).expect("errors of a dead process say nothing");
        assert!(!disk.is_powered());
        let _ = session.close();

        let survival = rng.next_u64();
        let mut wreck =
            Self { dead: disk, survival, before: vec![], after: vec![], operations: 0, torn: false };
        let calm = wreck.switch_on();
        wreck.before = logs(&calm);
        let reports = recover(&calm).expect("a calm disk");
        wreck.torn = reports.iter().any(|report| report.torn.is_some());
        (wreck.after, wreck.operations) = (logs(&calm), calm.operations(None));
        wreck
    }

    /// The same machine in the same state, as often as it is asked for.
    fn switch_on(&self) -> FaultDisk {
        self.dead.power_on(Survival::Chance(Rng::new(self.survival)))
    }

    fn strike(&self, plan: Plan, rng: &mut Rng) -> Result<(), String> {
        let disk = self.switch_on();
        disk.plan(plan);
        let _ = recover(&disk);
        let next = if !disk.is_powered() || rng.chance(70) {
            disk.power_on(Survival::draw(rng))
        } else {
            disk.restart()
        };
        self.kept(&next)?;
        recover(&next).map_err(|e| format!("refused: {e}"))?;
        if logs(&next) != self.after {
            return Err("another log than an undisturbed recovery's".to_owned());
        }
        self.kept(&next)
    }

    /// Whatever an undisturbed recovery cuts off is still in the log, or set aside.
    fn kept(&self, disk: &FaultDisk) -> Result<(), String> {
        let files = disk.files();
        for ((path, before), (_, after)) in self.before.iter().zip(&self.after) {
            let cut = before[after.len()..].trim_ascii_end();
            let in_the_log = files.iter().any(|(p, bytes)| p == path && bytes == before);
            let aside = |p: &Path| p.starts_with(ROOT) && p.to_string_lossy().contains(".torn-2");
            let set_aside = files.iter().any(|(p, bytes)| aside(p) && bytes.trim_ascii_end() == cut);
            if !cut.is_empty() && !in_the_log && !set_aside {
                return Err(format!("{} bytes of {} are in no file", cut.len(), path.display()));
            }
        }
        Ok(())
    }
}

#[test]
fn a_recovery_that_is_cut_off_anywhere_and_run_again_gives_the_same_log_and_loses_no_byte() {
    let seed = seed();
    println!("seed: {seed}");
    let mut rng = Rng::new(seed);
    let wanted = if is_long() { 150 } else { 6 };
    let mut torn = 0;
    while torn < wanted {
        let wreck = Wreck::new(&mut rng);
        if !wreck.torn {
            continue;
        }
        torn += 1;
        for nth in 0..wreck.operations {
            for fault in [Fault::PowerCut, Fault::PowerCut, Fault::Kill, Fault::Eio, Fault::ShortThenFull] {
                let plan = Plan::any(nth, fault);
                wreck.strike(plan, &mut rng).unwrap_or_else(|broken| panic!("seed {seed}, {plan}: {broken}"));
            }
        }
    }
}

/// The cut shows in the page cache, and the medium may know nothing of it: the next recovery must not take the log's length for durable.
#[test]
fn a_cut_whose_sync_failed_is_made_again_by_the_next_recovery() {
    let mut uncut = 0;
    for seed in 0..32 {
        let disk = FaultDisk::new(seed);
        let manner = Manner { preallocate: 5000, ..Manner::default() };
        let mut session = Session::new(disk.clone(), manner);
        let everywhere = Step::Together((0..5).map(|key| (key, 50)).collect());
        session.step(&everywhere, &mut Account::default()).expect("a calm disk");
        let before = logs(&disk);
        let disk = disk.restart();
        let _ = session.close();

        disk.plan(Plan::of(OpKind::SyncAll, 0, Fault::Eio));
        recover(&disk).expect_err("the sync of the cut fails");
        let log = PathBuf::from(&disk.struck()[0].path);
        let len =
            |files: &[(PathBuf, Vec<u8>)]| files.iter().find(|(path, _)| *path == log).map(|(_, b)| b.len());
        assert!(len(&before) > len(&logs(&disk)), "{} looks cut", log.display());
        uncut += u32::from(len(&disk.media()) == len(&before));

        let again = disk.restart();
        recover(&again).unwrap();
        let after = logs(&again);
        let next = again.power_on(Survival::Nothing);
        assert!(logs(&next) == after, "seed {seed}: the power cut undid a cut that was called durable");
        let reports = recover(&next).unwrap();
        assert!(reports.iter().all(|report| report.torn.is_none()), "seed {seed}: {reports:?}");
        assert!(logs(&next) == after, "seed {seed}");
    }
    assert!(uncut > 0, "no failed sync left the medium with the length that it had");
}
