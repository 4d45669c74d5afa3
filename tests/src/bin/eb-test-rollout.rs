//! A process on a rollout that is killed and halted: `eb-test-rollout publish|consume <profile> <runs> …`.
//!
//! - `publish … <name> <next>,<next>,…`: sends the events of its lanes through the gate of the profile, beginning with these numbers, each until there
//!   is a receipt for it. Says every receipt, and every answer that was none. Ends in order once its standard input is closed; what has no receipt
//!   a while later is left as it is.
//! - `consume … <effects>`: handles every event of the topic by appending `partition offset event_id` to the file, in one write. Runs until
//!   it is killed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eb_consumer::{CommitPolicy, HandlerError, LeasePolicy, Limits, RawEvent, RunningConsumer};
use eb_contract::Topic;
use eb_profile::{Env, OpenError, Platform, Profile, Purpose};
use eb_system_tests::facts::Fact;
use eb_system_tests::rollout::{CONSUMER, LANES, PER_LANE, TOPIC, event, lane_key};
use ig_gate::{Gate, GateErrorCode};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Before an event is sent again, or a gate opened again.
const AGAIN: Duration = Duration::from_millis(20);
/// For how long an event without a receipt is sent again once the process is to end.
const LAST_TRIES: Duration = Duration::from_secs(5);
/// Between two events of a lane.
const REST: Duration = Duration::from_millis(4);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime needs threads, which a test machine has");
    let done = runtime.block_on(async {
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["publish", profile, runs, name, next] => publish(profile, runs, name, next).await,
            ["consume", profile, runs, effects] => consume(profile, runs, effects).await,
            _ => Err("usage: eb-test-rollout publish|consume <profile> <runs> …".into()),
        }
    });
    match done {
        Ok(()) => {
            Fact::Reached("end".to_owned()).say();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A gate; while where an epoch ends is not known, or a lock is just given up, there is none yet.
async fn open(profile: &str, runs: &str) -> Result<(Platform, Gate), Failed> {
    let env = Env::only([("EB_RUNS", runs)]);
    loop {
        let opened = async {
            let platform = Platform::open(Profile::load_with(profile, &env)?, Purpose::Writing).await?;
            platform.ensure_topics().await?;
            let gate = platform.gate().await?.clone();
            Ok::<_, OpenError>((platform, gate))
        };
        match opened.await {
            Ok(open) => return Ok(open),
            Err(error) if error.is_retryable() => {
                failed("closed", false, "", &error.to_string());
                tokio::time::sleep(AGAIN * 5).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// `event` is the id of the one that was not admitted.
fn failed(code: &str, unknown: bool, event: &str, text: &str) {
    let text = text.replace(['\t', '\n'], " ");
    Fact::Failed { code: code.to_owned(), unknown, envelope: event.to_owned(), text }.say();
}

async fn publish(profile: &str, runs: &str, name: &str, next: &str) -> Result<(), Failed> {
    let next: Vec<u64> = next.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let (platform, gate) = open(profile, runs).await?;
    Fact::Reached("open".to_owned()).say();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    std::thread::spawn(move || {
        // Nothing is ever sent; the end is what counts.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stopping.store(true, Ordering::Relaxed);
    });
    let lanes: Vec<_> = (0..LANES)
        .zip(next)
        .map(|(lane, next)| tokio::spawn(send(gate.clone(), lane_key(name, lane), lane, next, stop.clone())))
        .collect();
    for lane in lanes {
        lane.await??;
    }
    drop(gate);
    platform.close().await?;
    Ok(())
}

async fn send(gate: Gate, key: String, lane: u64, next: u64, stop: Arc<AtomicBool>) -> Result<(), Failed> {
    let mut n = next;
    while !stop.load(Ordering::Relaxed) {
        let bytes = event(&key, n);
        let mut stopped = None;
        let receipt = loop {
            match gate.admit(bytes.clone()).await {
                Ok(receipt) => break receipt,
                // What a Kinesis may still apply stays unknown for longer than this.
                Err(_) if stopped.is_some_and(|since: Instant| since.elapsed() >= LAST_TRIES) => {
                    return Ok(());
                }
                Err(error) if error.is_retryable() => {
                    let unknown = error.code() == GateErrorCode::PublishOutcomeUnknown;
                    failed(error.code().as_str(), unknown, &format!("{key}-{n}"), &error.to_string());
                    if stop.load(Ordering::Relaxed) {
                        stopped.get_or_insert_with(Instant::now);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let place = usize::try_from(lane * PER_LANE + n)?;
        Fact::Answered(place, serde_json::to_string(&receipt)?).say();
        n += 1;
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

async fn consume(profile: &str, runs: &str, effects: &str) -> Result<(), Failed> {
    let env = Env::only([("EB_RUNS", runs)]);
    let file = Arc::new(OpenOptions::new().append(true).create(true).open(effects)?);
    // Without its bus a consumer does not start; whoever keeps it running starts it again.
    let running = loop {
        match start(profile, &env, file.clone()).await {
            Ok(running) => break running,
            Err(error) => {
                failed("closed", false, "", &error.to_string());
                tokio::time::sleep(AGAIN * 5).await;
            }
        }
    };
    Fact::Reached(format!("started {}", running.owner())).say();
    std::future::pending::<()>().await;
    Ok(())
}

async fn start(profile: &str, env: &Env, file: Arc<File>) -> Result<RunningConsumer, Failed> {
    let consumers = eb_profile::open_consumers_with(profile, env).await?;
    let ms = Duration::from_millis;
    let consumer = consumers
        .builder(CONSUMER)
        .await?
        .topic(Topic::new(TOPIC)?)
        .limits(Limits { partition_records: 200, read_records: 64, ..Limits::default() })
        .commit(CommitPolicy { records: 50, interval: ms(20), ..CommitPolicy::default() })
        .leases(LeasePolicy {
            time_to_live: ms(600),
            heartbeat: ms(100),
            rebalance: ms(60),
            retry_failed: ms(100),
            ..LeasePolicy::default()
        })
        .otherwise(move |event: RawEvent| {
            let file = file.clone();
            async move {
                let at = event.eb_ref();
                let line = format!("{} {} {}\n", at.partition_id.0, at.offset, event.event_id());
                (&*file).write_all(line.as_bytes())?;
                Ok::<_, HandlerError>(())
            }
        })
        .build()?;
    Ok(consumer.start().await?)
}
