//! Every operation of a workload, by kind and number, with every fault that can happen to it.

use std::collections::BTreeMap;
use std::time::Duration;

use eb_testkit::fault_disk::{Fault, FaultDisk, OpKind, Plan};
use eb_testkit::{Budget, Rng};

use super::aftermath::{End, end, examine};
use super::session::{Account, Manner, Session};
use super::workload::{Step, steps};

/// One case, as it is printed when it fails.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    steps: Vec<Step>,
    manner: Manner,
    first: Option<Plan>,
    second: Option<Plan>,
    end: End,
}

struct Outcome {
    counts: BTreeMap<OpKind, u64>,
    struck: bool,
    acks: usize,
}

/// Runs a case to its end and past it.
fn run_case(case: &Case) -> Result<Outcome, String> {
    let mut rng = Rng::new(case.seed);
    let disk = FaultDisk::new(rng.next_u64());
    let mut account = Account::default();
    let mut session = Session::new(disk.clone(), case.manner);
    if let Some(plan) = case.first {
        disk.plan(plan);
    }
    let mut evicted = false;
    for step in &case.steps {
        session.step(step, &mut account).map_err(|e| format!("{step:?}: {e}"))?;
        let struck = disk.struck();
        // After a failed sync the page cache shows what the disk lacks, until it is dropped: now, or never.
        if !evicted && struck.iter().any(|s| s.kind.is_sync()) && rng.chance(50) {
            disk.evict();
            evicted = true;
        }
        // The state right after a failure is worth a crash of its own.
        if !disk.is_alive() || (!struck.is_empty() && rng.chance(35)) {
            break;
        }
    }
    let counts = OpKind::ALL.map(|kind| (kind, disk.operations(Some(kind))));
    let struck = !disk.struck().is_empty();
    disk.calm();
    let how = match (disk.is_alive(), disk.is_powered()) {
        (true, _) => case.end,
        (false, true) if case.end == End::KillAndEvict => End::KillAndEvict,
        (false, true) => End::Kill,
        (false, false) => End::PowerCut,
    };
    let trace = disk.trace();
    let acks = account.ledger.acks();
    let next = end(session, how, &mut rng)?;
    let last = next.clone();
    examine(next, case.manner, &mut account, case.second, &mut rng)
        .map_err(|e| format!("{e}\nbefore the crash:\n{trace}\nafter it:\n{}", last.trace()))?;
    Ok(Outcome { counts: counts.into(), struck, acks })
}

fn run_or_tell(case: &Case) -> Outcome {
    let outcome = std::panic::catch_unwind(|| run_case(case));
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(broken)) => panic!("{broken}\n{case:?}"),
        Err(panicked) => {
            eprintln!("{case:?}");
            std::panic::resume_unwind(panicked)
        }
    }
}

fn any_second(rng: &mut Rng) -> Option<Plan> {
    rng.chance(40).then(|| Plan::any(rng.range(0..60), *rng.pick(&Fault::ALL)))
}

const ENDS: [End; 4] = [End::PowerCut, End::Kill, End::KillAndEvict, End::CloseThenPowerCut];

#[test]
fn whatever_operation_fails_however_no_promise_is_broken() {
    let mut budget = Budget::new(1, Duration::from_secs(15), 30);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let mut struck: BTreeMap<(OpKind, Fault), u32> = BTreeMap::new();
    let (mut cases, mut acks, mut more) = (0, 0, 20_i64);
    // Writer threads group what comes at once as it comes: the one operation of a kind that a calm run had, another may not have.
    while budget.again() || (struck.values().any(|n| *n == 0) && more > 0) {
        more -= 1;
        let (steps, manner) = (steps(&mut rng), Manner::draw(&mut rng));
        let calm = Case {
            manner,
            seed: rng.next_u64(),
            steps: steps.clone(),
            first: None,
            second: None,
            end: End::PowerCut,
        };
        let counts = run_or_tell(&calm).counts;
        assert!(counts.values().sum::<u64>() <= 400, "{counts:?}");
        for (kind, count) in counts {
            for nth in 0..count {
                for fault in Fault::ALL.into_iter().filter(|fault| fault.applies_to(kind)) {
                    let case = Case {
                        seed: rng.next_u64(),
                        steps: steps.clone(),
                        manner,
                        first: Some(Plan::of(kind, nth, fault)),
                        second: any_second(&mut rng),
                        end: *rng.pick(&ENDS),
                    };
                    let outcome = run_or_tell(&case);
                    *struck.entry((kind, fault)).or_default() += u32::from(outcome.struck);
                    cases += 1;
                    acks += outcome.acks;
                }
            }
        }
    }
    let fired: u32 = struck.values().sum();
    println!("{cases} cases, {fired} faults struck, {acks} ACKs held");
    assert!(struck.values().all(|n| *n > 0), "faults that never struck: {struck:?}");
    assert!(u64::from(fired) * 10 > cases * 9, "{fired} of {cases} struck");
}

#[test]
fn power_cuts_at_random_moments_break_no_promise() {
    let mut budget = Budget::new(100, Duration::from_secs(8), 8_000);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    while budget.again() {
        let case = Case {
            seed: rng.next_u64(),
            steps: [steps(&mut rng), steps(&mut rng)].concat(),
            manner: Manner::draw(&mut rng),
            first: Some(Plan::any(rng.range(0..300), *rng.pick(&[Fault::PowerCut, Fault::Kill, Fault::Eio]))),
            second: Some(Plan::any(rng.range(0..60), *rng.pick(&[Fault::PowerCut, Fault::Kill, Fault::Eio]))),
            end: *rng.pick(&ENDS),
        };
        run_or_tell(&case);
    }
    println!("{} cases", budget.cycles());
}

/// The disk fills up while the process publishes, stays full through several calls and at times through a crash, and is freed.
#[test]
fn a_disk_that_is_full_for_a_while_costs_no_record_but_those_that_were_refused() {
    let mut budget = Budget::new(60, Duration::from_secs(4), 4_000);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let mut refused = 0;
    while budget.again() {
        let seed = rng.next_u64();
        let mut rng = Rng::new(seed);
        let mut case = || -> Result<u32, String> {
            let mut disk = FaultDisk::new(rng.next_u64());
            let manner = Manner::draw(&mut rng);
            let mut account = Account::default();
            let mut session = Session::new(disk.clone(), manner);
            for step in steps(&mut rng) {
                session.step(&step, &mut account)?;
            }
            disk.set_capacity(Some(disk.used() + rng.range(0..3_000)));
            for step in steps(&mut rng) {
                session.step(&step, &mut account)?;
            }
            if rng.chance(50) {
                // Nothing can be published, and what was is still read.
                disk = end(session, *rng.pick(&ENDS), &mut rng)?;
                session = Session::new(disk.clone(), manner);
                for step in [Step::ReadOutside, Step::Publish(0, 5_000), Step::Read] {
                    session.step(&step, &mut account)?;
                }
            }
            disk.set_capacity(None);
            for step in steps(&mut rng) {
                session.step(&step, &mut account)?;
            }
            let next = end(session, *rng.pick(&ENDS), &mut rng)?;
            examine(next, manner, &mut account, None, &mut rng)?;
            Ok(account.refused)
        };
        refused += case().unwrap_or_else(|broken| panic!("{broken}\nseed {seed}"));
    }
    println!("{} cases, {refused} records refused", budget.cycles());
    assert!(u64::from(refused) > budget.cycles());
}
