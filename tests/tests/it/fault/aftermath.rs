//! After the end of a process or machine: recovery, and the questions that every case must answer.
//!
//! 1. Recovery succeeds once the disk works, whatever struck before and during it.
//! 2. Every ACK is where it was given out, with its bytes; so is everything that a reader ever handed out, also what it handed out
//!    after the crash, and also through another power cut.
//! 3. What failed without effect is absent, now and after every later crash. Nothing lies in the log twice; the records of a key
//!    lie in the order of their calls; nothing that was never published is there.
//! 4. A torn tail is set aside byte for byte, not deleted, and outlives power cuts from then on.
//! 5. Recovering again gives identical bytes.
//! 6. The next record's offset is above all of them.

use std::path::{Path, PathBuf};

use eb_contract::{EventBusPublisher, PartitionId};
use eb_file::RecoveryReport;
use eb_system_tests::ledger::Found;
use eb_system_tests::{block_on, topic};
use eb_testkit::Rng;
use eb_testkit::fault_disk::{FaultDisk, Plan, Survival};

use super::session::{Account, Manner, PARTITIONS, ROOT, Session};
use super::workload::Step;

/// How a case ends before it is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    PowerCut,
    Kill,
    /// As `Kill`; then the system takes the memory of the page cache back.
    KillAndEvict,
    /// The publisher is closed in order, then the power is cut.
    CloseThenPowerCut,
}

pub(super) fn end(mut session: Session, end: End, rng: &mut Rng) -> Result<FaultDisk, String> {
    if end == End::CloseThenPowerCut {
        session.close()?;
    }
    let disk = session.disk.clone();
    let next = match end {
        End::PowerCut | End::CloseThenPowerCut => disk.power_on(Survival::draw(rng)),
        End::Kill => disk.restart(),
        End::KillAndEvict => {
            let next = disk.restart();
            next.evict();
            next
        }
    };
    // The dead process can do nothing any more; this only waits for its threads.
    let _ = session.close();
    Ok(next)
}

/// Brings a dead machine or process back.
fn revive(disk: FaultDisk, rng: &mut Rng) -> FaultDisk {
    if disk.is_alive() {
        disk
    } else if disk.is_powered() {
        disk.restart()
    } else {
        disk.power_on(Survival::draw(rng))
    }
}

/// Recovers with `second` striking, then without, and asks the questions.
pub(super) fn examine(
    mut disk: FaultDisk,
    manner: Manner,
    account: &mut Account,
    second: Option<Plan>,
    rng: &mut Rng,
) -> Result<(), String> {
    if let Some(plan) = second {
        disk.plan(plan);
        let mut session = Session::new(disk.clone(), manner);
        if rng.chance(50) {
            session.step(&Step::ReadOutside, account)?;
        }
        let recovered = session.insist(|session| block_on(session.publisher()?.recover(&topic())))?;
        disk.calm();
        disk = match recovered {
            // The last thing that it does, a note in the lock file, may fail without failing it.
            Some(_) if session.disk.is_alive() => end(session, *rng.pick(&[End::Kill, End::PowerCut]), rng)?,
            _ => {
                let dead = session.disk.clone();
                let next = revive(dead, rng);
                let _ = session.close();
                next
            }
        };
    }

    // Whoever reads first after the crash must not be shown what recovery then takes away.
    let mut session = Session::new(disk.clone(), manner);
    if rng.chance(50) {
        session.step(&Step::ReadOutside, account)?;
        if rng.chance(50) {
            disk = disk.power_on(Survival::draw(rng));
            session = Session::new(disk.clone(), manner);
        }
    }
    let before = logs(&disk);
    let reports = recover(&mut session)?;
    let after = logs(&disk);
    set_aside_not_deleted(&disk, &before, &after, &reports)?;
    let aside = set_aside(&disk);
    check(&disk, account)?;
    session.step(&Step::Read, account)?;
    check(&disk, account)?;

    // Recovering again changes nothing; neither does a power cut, for what was recovered counts as read.
    let disk = end(session, *rng.pick(&[End::Kill, End::KillAndEvict, End::PowerCut]), rng)?;
    let mut session = Session::new(disk.clone(), manner);
    let reports = recover(&mut session)?;
    if let Some(torn) = reports.iter().find_map(|report| report.torn.as_ref()) {
        return Err(format!("the second recovery set aside {torn:?}"));
    }
    if logs(&disk) != after {
        return Err("the second recovery changed the log".to_owned());
    }

    // Life goes on, above everything that was there.
    for key in 0..5 {
        let record = account.next_record(key, 30);
        let publisher = session.insist(Session::publisher)?.ok_or("a calm disk kills nobody")?;
        let eb_ref = block_on(publisher.publish(&topic(), record.clone())).map_err(|e| e.to_string())?;
        account.ledger.ack(eb_system_tests::facts::At::of(&eb_ref), (&record).into());
    }
    let last = if rng.chance(50) { End::CloseThenPowerCut } else { End::PowerCut };
    let disk = end(session, last, rng)?;
    if set_aside(&disk) != aside {
        return Err("what was set aside did not outlive the power cuts".to_owned());
    }
    check(&disk, account).or_else(|_| {
        // Torn bytes of unsynced groups are recovery's to remove first.
        recover(&mut Session::new(disk.clone(), manner))?;
        check(&disk, account)
    })
}

fn recover(session: &mut Session) -> Result<Vec<RecoveryReport>, String> {
    let reports = session.insist(|session| block_on(session.publisher()?.recover(&topic())))?;
    reports.ok_or_else(|| "a calm disk kills nobody".to_owned())
}

fn log_path(partition: u32) -> PathBuf {
    Path::new(ROOT).join(topic().as_str()).join(format!("partition={partition}.jsonl"))
}

/// All files of bytes that recoveries have set aside.
fn set_aside(disk: &FaultDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let named = |path: &Path| path.to_string_lossy().contains(".torn-2");
    disk.files().into_iter().filter(|(path, _)| named(path)).collect()
}

/// The logs' bytes as processes see them, by partition.
fn logs(disk: &FaultDisk) -> Vec<Vec<u8>> {
    let files = disk.files();
    let bytes = |partition| {
        files.iter().find(|(path, _)| *path == log_path(partition)).map(|(_, bytes)| bytes.clone())
    };
    (0..PARTITIONS).map(|partition| bytes(partition).unwrap_or_default()).collect()
}

/// Holds the logs, read by the format page alone, to everything that was said.
fn check(disk: &FaultDisk, account: &Account) -> Result<(), String> {
    for (partition, bytes) in (0..).zip(logs(disk)) {
        let found = Found::in_log(partition, &bytes)?;
        account.ledger.check(PartitionId(partition), &found)?;
    }
    Ok(())
}

fn set_aside_not_deleted(
    disk: &FaultDisk,
    before: &[Vec<u8>],
    after: &[Vec<u8>],
    reports: &[RecoveryReport],
) -> Result<(), String> {
    for (partition, (before, after)) in before.iter().zip(after).enumerate() {
        let Some(cut) = before.strip_prefix(&after[..]) else {
            return Err(format!("recovery of partition {partition} changed records"));
        };
        let cut = cut.trim_ascii_end();
        let torn = reports.get(partition).and_then(|report| report.torn.as_ref());
        match torn {
            None if cut.is_empty() => {}
            None => return Err(format!("partition {partition}: {} bytes are gone, unreported", cut.len())),
            Some(torn) => {
                let files = disk.files();
                let aside = files.iter().find(|(path, _)| *path == torn.file).map(|(_, bytes)| &bytes[..]);
                if aside.map(<[u8]>::trim_ascii_end) != Some(cut) {
                    return Err(format!("partition {partition}: {torn:?} does not hold what was cut off"));
                }
            }
        }
    }
    Ok(())
}
