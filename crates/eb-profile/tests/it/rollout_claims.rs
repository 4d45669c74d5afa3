//! Gates over a rollout whose buses are Redis: who else may admit.

use std::path::Path;
use std::time::Duration;

use eb_contract::ErrorKind;
use eb_profile::{Env, OpenError, Platform, Profile, ProfileSource, Purpose};
use eb_rollout::Phase;
use eb_testkit::services::{Redis, RedisOptions, Signal};
use ig_gate::Decision;

use crate::opening::{LOCAL, event};

fn server() -> Redis {
    Redis::start(&RedisOptions::default()).expect("a Redis to test with")
}

/// The local profile over two Redis, with stores of its own below `name`; the register is everybody's.
async fn open(folder: &Path, name: &str, old: &Redis, new: &Redis) -> Platform {
    open_waiting(folder, name, old, new, 500).await
}

/// The same; the new bus is given so long to take a connection, and as long to answer, at least the usual time.
async fn open_waiting(folder: &Path, name: &str, old: &Redis, new: &Redis, wait_ms: u64) -> Platform {
    let answer_ms = wait_ms.max(10_000);
    let sides = format!(
        "    rollout:\n      old: {{kind: redis, redis: {{url: \"{}\", connect_timeout_ms: 500}}}}\n      \
         new: {{kind: redis, redis: {{url: \"{}\", connect_timeout_ms: {wait_ms}, answer_timeout_ms: {answer_ms}}}}}\n      \
         state: {{kind: file, root: \"{}\"}}\n      rest_ms: 0\n",
        old.url(),
        new.url(),
        folder.join("state").display()
    );
    let text = LOCAL
        .replace("event_bus_kind: file", "event_bus_kind: rollout")
        .replace("    root: ${EB_RUNS:-runs/fraud-platform}/event_bus\n", &sides)
        .replace(
            "checkpoint_store:\n    kind: file",
            "checkpoint_store:\n    kind: file\n    root: ${EB_RUNS}/checkpoints",
        );
    let runs = folder.join(name);
    std::fs::create_dir_all(&runs).unwrap();
    let env = Env::only([("EB_RUNS", runs.to_str().unwrap())]);
    let profile = Profile::parse(ProfileSource::built_in(folder), &text, &env).unwrap();
    let platform = Platform::open(profile, Purpose::Writing).await.unwrap();
    platform.ensure_topics().await.unwrap();
    platform
}

async fn refused(platform: &Platform) -> eb_contract::Error {
    match platform.gate().await {
        Err(OpenError::Bus(e)) => e,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("two gates that do not know of each other"),
    }
}

async fn advance_to(platform: &Platform, to: Phase) {
    let control = platform.rollout().unwrap();
    while control.status().await.unwrap().state.phase < to {
        control.advance("a test").await.unwrap();
    }
}

async fn admit(platform: &Platform, id: &str) -> Decision {
    platform.gate().await.unwrap().admit(event(id)).await.unwrap().decision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gate_with_an_index_of_its_own_is_refused_whichever_bus_takes_the_records() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), server(), server());
    let first = open(folder.path(), "first", &old, &new).await;
    let second = open(folder.path(), "second", &old, &new).await;
    for (n, phase) in
        [Phase::Baseline, Phase::DualWrite, Phase::NewPrimary, Phase::NewOnly].into_iter().enumerate()
    {
        advance_to(&first, phase).await;
        assert_eq!(admit(&first, &format!("e{n}")).await, Decision::Admit);
        let error = refused(&second).await;
        assert!(matches!(error.kind(), ErrorKind::Locked { .. }), "{phase}: {error}");
    }
    first.close().await.unwrap();
    // Given up on both; the next one has read what lies on both.
    for n in 0..4 {
        assert_eq!(admit(&second, &format!("e{n}")).await, Decision::Duplicate);
    }
    assert_eq!(admit(&second, "e4").await, Decision::Admit);
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_did_not_answer_when_the_gate_was_opened_is_claimed_once_it_does() {
    let (folder, old, mut new) = (tempfile::tempdir().unwrap(), server(), server());
    new.stop(Signal::Kill).unwrap();
    let first = open(folder.path(), "first", &old, &new).await;
    assert_eq!(admit(&first, "e0").await, Decision::Admit);
    new.restart().unwrap();
    advance_to(&first, Phase::NewPrimary).await;
    assert_eq!(admit(&first, "e1").await, Decision::Admit);
    let clients = new.wire().unwrap().must(&["CLIENT", "LIST"]).unwrap().text().unwrap();
    assert!(clients.contains(":sole"), "{clients}");
    first.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_hangs_holds_up_neither_the_opening_nor_the_gate() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), server(), server());
    let halted = new.pause().unwrap();
    let opening = async {
        let platform = open_waiting(folder.path(), "first", &old, &new, 300_000).await;
        assert_eq!(admit(&platform, "e0").await, Decision::Admit);
        platform
    };
    // Whoever waited for the bus would wait for minutes.
    let platform = tokio::time::timeout(Duration::from_secs(60), opening).await.expect("it does not wait");
    drop(halted);
    platform.close().await.unwrap();
}
