//! Several gates on one bus: those that share their index, and one alone.

use std::time::Duration;

use eb_contract::{Effect, Error, ErrorKind, EventBusAdmin, EventBusPublisher, Topic};
use eb_redis::{GateClaim, PublishConfig, RedisBus, RedisConfig, Timeouts};
use eb_testkit::services::Redis;

use crate::common::{config, record, server, topic};

/// A bus that does not wait long for anybody.
async fn hasty(server: &Redis) -> RedisBus {
    let publish = PublishConfig { give_up_after: Duration::from_millis(60), ..PublishConfig::default() };
    let timeouts = Timeouts { connect: Duration::from_millis(400), ..Timeouts::default() };
    let bus = RedisBus::open(RedisConfig { publish, timeouts, ..config(server.port()) }).await.unwrap();
    bus.admin().create_topic(&claimed(), 1).await.unwrap();
    bus
}

fn claimed() -> Topic {
    topic("claimed")
}

async fn publish(bus: &RedisBus, n: usize) -> Result<(), Error> {
    bus.publisher().publish(&claimed(), record("k", n)).await.map(drop)
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
    first.claim(GateClaim::Sole).await.unwrap();
    publish(&first, 1).await.unwrap();
    expect_locked(second.claim(GateClaim::Sole).await);
    expect_locked(second.claim(GateClaim::Shared).await);
    publish(&second, 2).await.unwrap();
    // Of the same gate nothing is left in the way, whether it says so or just goes.
    first.give_up_claim().await;
    second.claim(GateClaim::Sole).await.unwrap();
    expect_locked(first.claim(GateClaim::Sole).await);
    drop(second);
    first.claim(GateClaim::Sole).await.unwrap();
    publish(&first, 3).await.unwrap();
}

#[tokio::test]
async fn gates_that_share_an_index_are_let_in_together_and_exclude_one_alone() {
    let server = server(&[]);
    let (first, second, alone) = (hasty(&server).await, hasty(&server).await, hasty(&server).await);
    first.claim(GateClaim::Shared).await.unwrap();
    second.claim(GateClaim::Shared).await.unwrap();
    expect_locked(alone.claim(GateClaim::Sole).await);
    cut_all(&server);
    publish(&first, 1).await.unwrap();
    publish(&second, 2).await.unwrap();
    expect_locked(alone.claim(GateClaim::Sole).await);
    first.give_up_claim().await;
    second.give_up_claim().await;
    alone.claim(GateClaim::Sole).await.unwrap();
    expect_locked(first.claim(GateClaim::Shared).await);
}

#[tokio::test]
async fn a_gate_whose_connection_broke_goes_on_only_if_no_other_has_been_there() {
    let server = server(&[]);
    let (first, second) = (hasty(&server).await, hasty(&server).await);
    first.claim(GateClaim::Sole).await.unwrap();
    publish(&first, 1).await.unwrap();
    cut_all(&server);
    publish(&first, 2).await.unwrap();
    expect_locked(second.claim(GateClaim::Sole).await);

    cut_all(&server);
    second.claim(GateClaim::Sole).await.unwrap();
    expect_locked(publish(&first, 3).await);
    second.give_up_claim().await;
    let e = publish(&first, 3).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Fenced, Effect::None), "{e}");
    // Opened anew, it reads what the other has admitted.
    first.claim(GateClaim::Sole).await.unwrap();
    publish(&first, 3).await.unwrap();
}

#[tokio::test]
async fn shared_gates_do_not_go_on_behind_one_that_was_alone() {
    let server = server(&[]);
    let (shared, alone) = (hasty(&server).await, hasty(&server).await);
    shared.claim(GateClaim::Shared).await.unwrap();
    cut_all(&server);
    alone.claim(GateClaim::Sole).await.unwrap();
    alone.give_up_claim().await;
    let e = publish(&shared, 1).await.unwrap_err();
    assert_eq!(*e.kind(), ErrorKind::Fenced, "{e}");
}
