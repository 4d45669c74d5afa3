//! Real processes over a real folder, killed at random moments (`SIGKILL`).
//!
//! The parent counts an ACK or a read record once it has heard it whole, and holds the log to it afterwards. What would break these
//! suites: ACKing before the write, giving an offset out again after a crash, glueing an append to a torn line, a lock that
//! does not exclude, a reader that goes past what is synced.

mod crash;
mod full_disk;
mod gate;
mod two_writers;

use std::path::Path;
use std::process::Command;

use eb_contract::EventBusReader;
use eb_file::{FileBus, FileBusConfig};
use eb_system_tests::facts::Fact;
use eb_system_tests::ledger::Ledger;
use eb_system_tests::{block_on, read_all, topic};
use eb_testkit::process::Spoken;

/// The command line of a child; see `eb-test-child`.
fn command(job: &str, root: &Path, options: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-child"));
    command.arg(job).arg(root).args(options);
    command
}

fn child(job: &str, root: &Path, options: &[String]) -> Spoken {
    Spoken::spawn(&mut command(job, root, options)).expect("the child starts")
}

/// Enters what a child said. Failures are handed back: most suites want none.
fn enter(ledger: &mut Ledger, lines: impl IntoIterator<Item = String>) -> Vec<Fact> {
    let mut failures = Vec::new();
    for line in lines {
        match Fact::hear(&line) {
            Fact::Acked(at, said) => ledger.ack(at, said),
            Fact::Seen(at, said) => ledger.see(at, said),
            Fact::Reached(_) | Fact::Answered(..) => {}
            failed @ Fact::Failed { .. } => {
                if let Fact::Failed { unknown: false, envelope, .. } = &failed {
                    ledger.leave_out(envelope);
                }
                failures.push(failed);
            }
        }
    }
    failures
}

/// Reads the whole log in this process and holds it to everything that was said. Gives the number of records.
fn check(root: &Path, ledger: &Ledger) -> Result<usize, String> {
    let bus = FileBus::open(FileBusConfig::new(root)).map_err(|e| e.to_string())?;
    let reader = bus.reader();
    let all = block_on(read_all(&reader, &topic())).map_err(|e| e.to_string())?;
    block_on(reader.close()).map_err(|e| e.to_string())?;
    all.iter().try_for_each(|(partition, records)| ledger.check(*partition, records))?;
    Ok(all.iter().map(|(_, records)| records.len()).sum())
}
