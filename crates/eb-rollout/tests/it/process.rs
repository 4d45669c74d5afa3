//! Two processes, one of which is stopped in the middle of publishing while the other switches, and then goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eb_contract::{EventBusAdmin, EventBusPublisher};
use eb_rollout::{Phase, RolloutBus, RolloutConfig, RolloutParts, SideBus};
use eb_store_local::FileRegisterStore;

use crate::files::file_side;
use crate::support::{event, quick, read_chain, topic};

/// Names the child's folder, and so tells it that it is one.
const FOLDER: &str = "EB_ROLLOUT_TEST_CHILD";

async fn open(folder: &Path, workers: bool) -> RolloutBus {
    let parts = RolloutParts {
        old: file_side(&folder.join("old")),
        new: SideBus { name: "other files".to_owned(), ..file_side(&folder.join("new")) },
        registers: Arc::new(FileRegisterStore::open(folder)),
    };
    let config = RolloutConfig { lease: Duration::from_millis(100), workers, ..quick() };
    RolloutBus::open(parts, config).await.unwrap()
}

/// Publishes with many calls under way at once, and says each ACK. Does nothing unless it is the child of the other test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let bus = open(Path::new(&folder), false).await;
    let publisher = Arc::new(bus.publisher());
    let mut tasks = Vec::new();
    for key in 0..8 {
        let publisher = publisher.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0.. {
                // What fails is not sent again: only an ACK is a promise.
                if let Ok(at) = publisher.publish(&topic(), event(&format!("k{key}"), n)).await {
                    println!("\nACK k{key}-{n} {at}");
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

struct Running {
    child: Child,
    acks: Receiver<(String, String)>,
}

impl Running {
    fn spawn(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::child", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (send, acks) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((id, at)) = line.strip_prefix("ACK ").and_then(|rest| rest.split_once(' '))
                    && send.send((id.to_owned(), at.to_owned())).is_err()
                {
                    break;
                }
            }
        });
        Self { child, acks }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// The next ACKs, at least so many.
    fn take(&self, at_least: usize, all: &mut BTreeMap<String, String>) {
        for _ in 0..at_least {
            let (id, at) = self.acks.recv_timeout(Duration::from_secs(60)).unwrap();
            all.insert(id, at);
        }
        all.extend(self.acks.try_iter());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next step, as soon as nothing is missing for it, while the child goes on.
async fn advance(bus: &RolloutBus, child: &Running, acked: &mut BTreeMap<String, String>) {
    while let Err(missing) = bus.control().advance("on").await {
        assert!(missing.is_retryable(), "{missing}");
        child.take(1, acked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_stopped_across_a_switch_never_gives_a_wrong_ack() {
    let folder = tempfile::tempdir().unwrap();
    let bus = open(folder.path(), true).await;
    bus.admin().create_topic(&topic(), 1).await.unwrap();
    let child = Running::spawn(folder.path());
    let mut acked = BTreeMap::new();
    child.take(50, &mut acked);
    for _ in 0..2 {
        advance(&bus, &child, &mut acked).await;
        child.take(50, &mut acked);
    }
    child.take(200, &mut acked);
    for _ in 0..2 {
        // Stopped with calls under way on the new bus; back to the old, and forward again by those that remain.
        child.signal("-STOP");
        bus.control().rollback(Phase::Baseline, "the other is stopped").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.signal("-CONT");
        child.take(200, &mut acked);
        for _ in 0..2 {
            advance(&bus, &child, &mut acked).await;
        }
        child.take(200, &mut acked);
    }
    child.signal("-KILL");
    acked.extend(child.acks.iter());
    let read = read_chain(&bus.reader(), &topic()).await;
    let mut there: BTreeMap<String, String> = BTreeMap::new();
    for record in &read {
        let value: serde_json::Value = serde_json::from_slice(record.envelope.as_bytes()).unwrap();
        there.insert(record.eb_ref.to_string(), value["event_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(there.len(), read.len(), "a place was read twice");
    for (id, at) in &acked {
        assert_eq!(there.get(at), Some(id), "{id} was promised at {at}");
    }
    let epochs = bus.control().status().await.unwrap().state.epoch;
    assert_eq!(epochs, 5);
    bus.control().close().await;
}
