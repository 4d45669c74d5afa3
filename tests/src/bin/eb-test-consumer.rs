//! A consumer as a process that is killed: `eb-test-consumer <root> <room> <seed>`.
//!
//! Consumes the file bus under `<root>` with embedded stores beside it. Its handler's effect is one line appended to `<root>/effects`,
//! `key call`, in one write; now and then it fails before that. Runs until it is killed.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use eb_consumer::{
    Backoff, CommitPolicy, ConsumerSource, EventConsumer, HandlerError, LeasePolicy, Limits, RetryPolicy,
    Stores,
};
use eb_file::{FileBus, FileBusConfig, FileCheckpointStore};
use eb_store_local::{EmbeddedDeadLetters, EmbeddedLeases, EmbeddedProcessed, MarksConfig};
use eb_system_tests::consumers::{CONSUMER, EFFECTS};
use eb_system_tests::topic;
use parking_lot::Mutex;
use serde::Deserialize;

#[derive(Deserialize)]
struct Payload {
    call: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, room, seed] = &args[..] else {
        eprintln!("usage: eb-test-consumer <root> <room> <seed>");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime needs threads, which a test machine has");
    let number = |text: &str| text.parse().expect("the argument is a number");
    match runtime.block_on(consume(Path::new(root), number(room), number(seed) as u64)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn consume(root: &Path, room: usize, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let ms = Duration::from_millis;
    let effects: Arc<File> = Arc::new(OpenOptions::new().append(true).create(true).open(root.join(EFFECTS))?);
    let folder = root.join("consumers");
    let stores = Stores {
        checkpoints: Arc::new(FileCheckpointStore::open(root)),
        processed: Arc::new(EmbeddedProcessed::open(&MarksConfig::new(&folder))),
        dead_letters: Arc::new(EmbeddedDeadLetters::open(&folder)),
        leases: Arc::new(EmbeddedLeases::open(&folder)),
    };
    let luck = Arc::new(Mutex::new(eb_testkit::Rng::new(seed)));
    let consumer = EventConsumer::builder(CONSUMER)
        .topic(topic())
        .source(ConsumerSource::Log(Arc::new(
            FileBus::open(FileBusConfig { create: false, ..FileBusConfig::new(root) })?.reader(),
        )))
        .stores(stores)
        .limits(Limits { partition_records: room, read_records: room / 3 + 1, ..Limits::default() })
        .commit(CommitPolicy { records: room / 4 + 1, interval: ms(5), ..CommitPolicy::default() })
        .leases(LeasePolicy {
            time_to_live: ms(400),
            heartbeat: ms(60),
            rebalance: ms(40),
            retry_failed: ms(50),
            ..LeasePolicy::default()
        })
        .retry(RetryPolicy {
            backoff: Backoff::Fixed { delay: ms(2) },
            max_attempts: None,
            ..RetryPolicy::default()
        })
        .on("test.call.made", move |event: eb_consumer::Event<Payload>| {
            let (effects, fails) = (Arc::clone(&effects), luck.lock().chance(10));
            async move {
                if fails {
                    return Err(HandlerError::transient("now and then"));
                }
                tokio::task::yield_now().await;
                (&*effects)
                    .write_all(format!("{} {}\n", event.partition_key(), event.payload.call).as_bytes())?;
                Ok(())
            }
        })
        .unhandled(eb_consumer::Unhandled::DeadLetter)
        .build()?;
    let worker = consumer.start().await?;
    println!("started {}", worker.owner());
    std::future::pending::<()>().await;
    Ok(())
}
