//! The gate as a process that is killed: `eb-test-gate <profile> <runs> <seed> <count> <concurrency>`.
//!
//! Opens the platform of the profile with everything it writes below `<runs>`, sends it the first `<count>` events of the
//! seed's stream, always from the first one, each until there is a receipt or no hope of one, and says every receipt.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use eb_profile::{Env, OpenError, Platform, Purpose};
use eb_system_tests::facts::Fact;
use eb_system_tests::gate_events;
use futures_util::{StreamExt, stream};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [profile, runs, seed, count, concurrency] = &args[..] else {
        eprintln!("usage: eb-test-gate <profile> <runs> <seed> <count> <concurrency>");
        return ExitCode::from(2);
    };
    let number = |text: &String| text.parse().expect("the argument is a number");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs threads, which a test machine has");
    let done = runtime.block_on(admit(profile, runs, number(seed), number(count), number(concurrency)));
    match done {
        Ok(()) => {
            Fact::Reached("end".to_owned()).say();
            ExitCode::SUCCESS
        }
        Err(text) => {
            Fact::Failed { code: String::new(), unknown: false, envelope: String::new(), text }.say();
            ExitCode::FAILURE
        }
    }
}

async fn admit(profile: &str, runs: &str, seed: u64, count: u64, concurrency: u64) -> Result<(), String> {
    let fail = |e: OpenError| e.to_string().replace(['\t', '\n'], " ");
    let env = Env::only([("EB_RUNS", runs)]);
    let platform = Platform::open_with(profile, Purpose::Writing, &env).await.map_err(fail)?;
    let gate = platform.gate().await.map_err(fail)?.clone();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let events: Vec<_> = gate_events(seed).take(count).map(|event| Bytes::from(event.bytes)).collect();
    let concurrency = usize::try_from(concurrency).unwrap_or(1);
    let mut answers = Box::pin(gate.admit_stream(stream::iter(events.clone()), concurrency).enumerate());
    while let Some((place, mut answer)) = answers.next().await {
        // What a busy machine could not do in time.
        while answer.as_ref().is_err_and(ig_gate::GateError::is_retryable) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = gate.admit(events[place].clone()).await;
        }
        let receipt = answer.map_err(|e| format!("event {place}: {e}"))?;
        let json = serde_json::to_string(&receipt).map_err(|e| e.to_string())?;
        Fact::Answered(place, json).say();
    }
    drop(answers);
    drop(gate);
    platform.close().await.map_err(fail)
}
