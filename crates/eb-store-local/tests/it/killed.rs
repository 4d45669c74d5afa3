//! A process that is killed while it writes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use eb_contract::ErrorKind;
use eb_contract::stores::AdmissionIndex;
use eb_store_local::{AdmissionIndexConfig, EmbeddedAdmissionIndex};

use crate::support::*;

const DIR: &str = "EB_STORE_LOCAL_KILLED_DIR";

/// Not a test: what the killed process does. It tells each checkpoint when it is stored.
#[tokio::test]
#[ignore = "run by the tests of this file, in a process of its own"]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let index =
        EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(PathBuf::from(dir)).with_max_lag(200))
            .unwrap();
    let mut line = index.checkpoint().await.unwrap().as_ref().map_or(0, line_of);
    loop {
        // Those past the checkpoint may be there from the last life: as the gate does, apply, do not reserve.
        index.apply((line..line + 50).map(|e| entry(e, e)).collect()).await.unwrap();
        line += 50;
        index.commit_checkpoint(checkpoint(line)).await.unwrap();
        println!("\nstored {line}");
    }
}

/// Runs the child until it has told `tellings` checkpoints, does `meanwhile`, and kills it; the last one it told.
fn kill_after(dir: &Path, tellings: usize, meanwhile: impl FnOnce(u32)) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["killed::child", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("stored ")?.parse::<u64>().ok());
    let mut last = told.nth(tellings - 1).expect("the child tells of its checkpoints");
    meanwhile(child.id());
    child.kill().unwrap();
    // What it said before it died counts.
    last = told.last().unwrap_or(last);
    child.wait().unwrap();
    last
}

#[tokio::test]
async fn a_killed_process_leaves_every_stored_checkpoint_with_all_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    for tellings in [1, 3, 10, 2, 25, 7] {
        let told = kill_after(dir.path(), tellings, |_| {});
        let index = open(dir.path());
        let cut = index.checkpoint().await.unwrap().as_ref().map_or(0, line_of);
        assert!(cut >= told, "checkpoint {told} was stored, and {cut} is there");
        for event in 0..cut {
            assert_eq!(get(&index, event).await, Some(entry(event, event)));
        }
    }
}

#[test]
fn a_second_process_is_refused_naming_the_first_and_may_come_when_that_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    kill_after(dir.path(), 1, |pid| {
        let refused = EmbeddedAdmissionIndex::open(&AdmissionIndexConfig::new(dir.path())).unwrap_err();
        let ErrorKind::Locked { holder } = refused.kind() else { panic!("{refused}") };
        assert!(holder.starts_with(&format!("pid {pid} ")), "{holder}");
    });
    drop(open(dir.path()));
}
