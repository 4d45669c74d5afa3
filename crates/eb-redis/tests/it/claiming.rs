//! Several gates on one bus: those that share their index, and one alone.

use std::time::{Duration, Instant};

use eb_contract::{Effect, Error, ErrorKind, EventBusAdmin, EventBusPublisher, Topic};
use eb_redis::{GateClaim, PublishConfig, RedisBus, RedisConfig, RedisUrl, Timeouts};
use eb_testkit::services::Redis;

use crate::common::{PATIENCE, config, patient, record, server, topic};

/// A bus that does not wait long for anybody.
async fn hasty(server: &Redis) -> RedisBus {
    let publish = PublishConfig { give_up_after: Duration::from_millis(60), ..PublishConfig::default() };
    let config = RedisConfig { publish, timeouts: brief(), ..config(server.port()) };
    let bus = settled(async || RedisBus::open(config.clone()).await).await.unwrap();
    bus.admin().create_topic(&claimed(), 1).await.unwrap();
    bus
}

/// Who waits so briefly may get no answer of a server that is there, on a busy machine: that says nothing of the claims.
async fn settled<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let no_answer = |e: &Error| {
            matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) && e.effect() == Effect::None
        };
        match attempt().await {
            Err(e) if no_answer(&e) && Instant::now() < deadline => {}
            settled => return settled,
        }
    }
}

async fn claim(bus: &RedisBus, kind: GateClaim) -> Result<(), Error> {
    settled(async || bus.claim(kind).await).await
}

fn claimed() -> Topic {
    topic("claimed")
}

async fn publish(bus: &RedisBus, n: usize) -> Result<(), Error> {
    settled(async || bus.publisher().publish(&claimed(), record("k", n)).await.map(drop)).await
}

fn expect_locked(refused: Result<(), Error>) {
    let e = refused.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Locked { .. }), "{e}");
    assert_eq!(e.effect(), Effect::None);
    assert!(
        e.is_retryable() && e.to_string().contains("another gate is open on this bus, at 127.0.0.1:"),
        "{e}"
    );
}

/// Cuts everybody's connections but the wire's own.
fn cut_all(server: &Redis) {
    server.wire().unwrap().must(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
}

#[tokio::test]
async fn one_gate_alone_excludes_every_other_until_it_is_gone() {
    let server = server(&[]);
    let (first, second) = (hasty(&server).await, hasty(&server).await);
    claim(&first, GateClaim::Sole).await.unwrap();
    publish(&first, 1).await.unwrap();
    expect_locked(claim(&second, GateClaim::Sole).await);
    expect_locked(claim(&second, GateClaim::Shared).await);
    publish(&second, 2).await.unwrap();
    // Of the same gate nothing is left in the way, whether it says so or just goes.
    first.give_up_claim().await;
    claim(&second, GateClaim::Sole).await.unwrap();
    expect_locked(claim(&first, GateClaim::Sole).await);
    drop(second);
    claim(&first, GateClaim::Sole).await.unwrap();
    publish(&first, 3).await.unwrap();
}

#[tokio::test]
async fn gates_that_share_an_index_are_let_in_together_and_exclude_one_alone() {
    let server = server(&[]);
    let (first, second, alone) = (hasty(&server).await, hasty(&server).await, hasty(&server).await);
    claim(&first, GateClaim::Shared).await.unwrap();
    claim(&second, GateClaim::Shared).await.unwrap();
    expect_locked(claim(&alone, GateClaim::Sole).await);
    cut_all(&server);
    publish(&first, 1).await.unwrap();
    publish(&second, 2).await.unwrap();
    expect_locked(claim(&alone, GateClaim::Sole).await);
    first.give_up_claim().await;
    second.give_up_claim().await;
    claim(&alone, GateClaim::Sole).await.unwrap();
    expect_locked(claim(&first, GateClaim::Shared).await);
}

#[tokio::test]
async fn a_gate_whose_connection_broke_goes_on_only_if_no_other_has_been_there() {
    let server = server(&[]);
    let (first, second) = (hasty(&server).await, hasty(&server).await);
    claim(&first, GateClaim::Sole).await.unwrap();
    publish(&first, 1).await.unwrap();
    cut_all(&server);
    publish(&first, 2).await.unwrap();
    expect_locked(claim(&second, GateClaim::Sole).await);

    cut_all(&server);
    claim(&second, GateClaim::Sole).await.unwrap();
    expect_locked(publish(&first, 3).await);
    second.give_up_claim().await;
    let e = publish(&first, 3).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Fenced, Effect::None), "{e}");
    // Opened anew, it reads what the other has admitted.
    claim(&first, GateClaim::Sole).await.unwrap();
    publish(&first, 3).await.unwrap();
}

#[tokio::test]
async fn shared_gates_do_not_go_on_behind_one_that_was_alone() {
    let server = server(&[]);
    let (shared, alone) = (hasty(&server).await, hasty(&server).await);
    claim(&shared, GateClaim::Shared).await.unwrap();
    cut_all(&server);
    claim(&alone, GateClaim::Sole).await.unwrap();
    alone.give_up_claim().await;
    let e = publish(&shared, 1).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Fenced, "{e}");
}

#[tokio::test]
async fn gates_of_one_prefix_in_different_databases_have_nothing_to_do_with_each_other() {
    let server = server(&[]);
    let at = |db: u32| RedisUrl::parse(&format!("redis://127.0.0.1:{}/{db}", server.port())).unwrap();
    let on = |db: u32| RedisConfig { timeouts: patient(), ..RedisConfig::new(at(db)) };
    let here = RedisBus::open(on(0)).await.unwrap();
    let there = RedisBus::open(on(1)).await.unwrap();
    claim(&here, GateClaim::Sole).await.unwrap();
    claim(&there, GateClaim::Sole).await.unwrap();
    let brief = RedisConfig { timeouts: brief(), ..RedisConfig::new(at(0)) };
    let here_too = settled(async || RedisBus::open(brief.clone()).await).await.unwrap();
    expect_locked(claim(&here_too, GateClaim::Sole).await);
}

fn brief() -> Timeouts {
    Timeouts { connect: Duration::from_millis(400), ..Timeouts::default() }
}

#[tokio::test]
async fn a_gate_that_says_nothing_any_more_is_shut_out_and_can_append_nothing_late() {
    let server = server(&[]);
    // A gate whose machine stands still: its connection is there, and nothing comes.
    let mut halted = server.wire().unwrap();
    halted.must(&["CLIENT", "SETNAME", "eb-gate:0:eb:sole"]).unwrap();
    let hour = RedisConfig {
        timeouts: Timeouts { claim: Duration::from_secs(3600), ..brief() },
        ..config(server.port())
    };
    let bus = settled(async || RedisBus::open(hour.clone()).await).await.unwrap();
    expect_locked(claim(&bus, GateClaim::Sole).await);

    let timeouts = Timeouts { claim: Duration::from_secs(1), ..patient() };
    let second = RedisConfig { timeouts, ..config(server.port()) };
    let bus = RedisBus::open(second).await.unwrap();
    bus.admin().create_topic(&claimed(), 1).await.unwrap();
    claim(&bus, GateClaim::Sole).await.unwrap();
    assert!(
        halted.send(&["XADD", "{eb}:s:claimed:0", "*", "k", "k", "e", "{}"]).is_err(),
        "its connection is gone"
    );
    publish(&bus, 1).await.unwrap();
}

#[tokio::test]
async fn a_gate_with_nothing_to_do_says_often_enough_that_it_is_there() {
    let server = server(&[]);
    let timeouts = Timeouts { claim: Duration::from_secs(1), ..patient() };
    let bus = RedisBus::open(RedisConfig { timeouts, ..config(server.port()) }).await.unwrap();
    claim(&bus, GateClaim::Sole).await.unwrap();
    let mut wire = server.wire().unwrap();
    let mut said = || {
        let stats = wire.must(&["INFO", "commandstats"]).unwrap().text().unwrap();
        let calls =
            stats.lines().find_map(|l| l.strip_prefix("cmdstat_config|get:calls=")).unwrap().to_owned();
        calls.split(',').next().unwrap().parse::<usize>().unwrap()
    };
    let before = said();
    let again = async {
        while said() < before + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it says something");
    // Also when its connection broke while nobody used it.
    cut_all(&server);
    let mut wire = server.wire().unwrap();
    let back = async {
        while !wire.must(&["CLIENT", "LIST"]).unwrap().text().unwrap().contains("name=eb-gate:0:eb:sole") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("it takes its name again");
    // One that is closed says nothing any more, and keeps nobody out.
    bus.give_up_claim().await;
    let other = RedisBus::open(config(server.port())).await.unwrap();
    claim(&other, GateClaim::Sole).await.unwrap();
}
