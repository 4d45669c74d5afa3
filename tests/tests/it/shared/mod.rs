//! Several processes on one bus and one Postgres: gates that share the admission index, consumers with checkpoints.
//!
//! The bus of the gates is Kinesis, by the engine that LocalStack runs: it takes many writers, and a killed process's request
//! may or may not have landed. That of the consumers is the file bus, whose log is exact.

mod consumers;
mod gates;
mod lost_answers;
mod outage;
mod slow;

use eb_contract::{EventBusAdmin as _, EventBusReader as _, EventBusReaderExt as _, Record, StartAt};
use eb_system_tests::shared::{Setup, policy};
use eb_testkit::services::{kinesis_url, postgres_url};

/// Streams, a schema and a folder of its own.
struct Place {
    setup: Setup,
    _folder: tempfile::TempDir,
}

fn place(name: &str, seed: u64) -> Place {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let own = format!("{name}-{}-{seed:x}", std::process::id());
    let setup = Setup {
        kinesis: kinesis_url().expect("a Kinesis engine to test with"),
        prefix: format!("{own}-"),
        postgres: postgres_url().expect("a Postgres to test with"),
        schema: own.replace('-', "_"),
        name: "a".to_owned(),
        folder: folder.path().display().to_string(),
        seed,
        count: 0,
        window: 64,
        hold_after: 0,
        lease_ms: 400,
        deadline_ms: 3_000,
        patience_ms: 10_000,
    };
    Place { setup, _folder: folder }
}

/// Makes the streams of the shipped policy.
async fn create_streams(setup: &Setup, shards: u32) {
    let bus = setup.bus().await.expect("the bus opens");
    for stream in policy().expect("the shipped policy").streams() {
        bus.admin().create_topic(&stream, shards).await.expect("the stream is made");
    }
}

/// Everything that lies on the streams.
async fn all_records(setup: &Setup) -> Vec<Record> {
    let reader = setup.bus().await.expect("the bus opens").reader();
    let mut all = Vec::new();
    for stream in policy().expect("the shipped policy").streams() {
        for partition in reader.partitions(&stream).await.expect("the stream is there").partitions {
            let records = reader.read_to_head(&stream, partition.id, StartAt::Earliest).await;
            all.extend(records.expect("the log can be read"));
        }
    }
    all
}
