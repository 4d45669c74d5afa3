//! How long opening a long log for writing takes: closed in order, killed, and without its sidecar.
//!
//! `cargo run --release -p eb-file --example open_time -- [records] [folder]`

use std::time::Instant;

use eb_contract::{EnvelopeRef, EventBusPublisher, PartitionKey, PublishRecord, Topic};
use eb_file::{FileBus, FileBusConfig, RecoveryReport};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let records: usize = args.first().and_then(|a| a.parse().ok()).unwrap_or(10_000_000);
    let folder = args.get(1).cloned().unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(&folder).expect("the folder can be written");
    let root = dir.path().join("bus");
    let topic = Topic::new("t").expect("a good name");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be started");
    let open = || FileBus::open(FileBusConfig::new(&root)).expect("the bus opens");

    let bus = open();
    bus.create_topic(&topic, 1).expect("a fresh topic");
    let publisher = bus.publisher();
    let envelope = EnvelopeRef::new(format!("{{\"p\":\"{}\"}}", "x".repeat(60))).expect("it is one object");
    let record = PublishRecord::new(PartitionKey::new("merchant-1").expect("a good key"), envelope);
    for _ in 0..records.div_ceil(10_000) {
        let answers = runtime.block_on(publisher.publish_batch(&topic, vec![record.clone(); 10_000]));
        assert!(answers.iter().all(Result::is_ok));
    }
    runtime.block_on(publisher.close()).expect("it closes");
    drop((publisher, bus));

    let time = |what: &str, dirty: bool| {
        let start = Instant::now();
        let publisher = open().publisher();
        let report: RecoveryReport =
            runtime.block_on(publisher.recover(&topic)).expect("it recovers").remove(0);
        println!("{what}: {:.2} ms; {report}", start.elapsed().as_secs_f64() * 1000.0);
        if dirty {
            publisher.publish_blocking(&topic, record.clone()).expect("a publish succeeds");
            std::fs::copy(root.join("t/partition=0.idx"), root.join("killed")).expect("a copy");
        }
        runtime.block_on(publisher.close()).expect("it closes");
        if dirty {
            std::fs::copy(root.join("killed"), root.join("t/partition=0.idx")).expect("a copy");
        }
    };
    time("closed in order", true);
    time("killed", false);
    time("closed in order", false);
    std::fs::remove_file(root.join("t/partition=0.idx")).expect("it is there");
    time("without its sidecar", false);
}
