//! Lost answers, ended sessions, a server that goes down and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eb_checkpoint_pg::{PgAdmissionIndex, PgCheckpointStore, PgConfig, PgIndexConfig};
use eb_contract::stores::{AdmissionIndex, Checkpoint, CheckpointStore, Reserved};
use eb_contract::{Effect, ErrorKind, Retry};
use eb_testkit::services::{Postgres, PostgresOptions, Stop};
use eb_testkit::{Budget, Rng};

use crate::support::{Proxy, Schema, confirmation, entry, fresh, fresh_id, key, lease, next, request};

#[tokio::test]
async fn a_commit_whose_answer_is_lost_has_an_unknown_outcome_that_loading_tells() {
    let schema = Schema::new();
    let direct = PgCheckpointStore::open(&schema.config()).await.unwrap();
    let proxy = Proxy::before(schema.port()).await;
    let config = PgConfig { max_connections: 1, ..proxy.config(&schema) };
    let store = PgCheckpointStore::open(&config).await.unwrap();
    let mut stored = store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    // So that what is lost is the answer to the statement, not to its preparation.
    stored = store.commit(&[stored], &lease("w", 1)).await.remove(0).unwrap();
    proxy.lose_next_answer();
    let on = Checkpoint { cut: next(2), ..stored.clone() };
    let lost = store.commit(std::slice::from_ref(&on), &lease("w", 1)).await.remove(0).unwrap_err();
    assert_eq!((lost.kind(), lost.effect()), (&ErrorKind::Unavailable, Effect::Unknown), "{lost}");
    assert_eq!(lost.retry(), Retry::Later);
    let told = direct.load(&on.consumer, &on.topic, on.partition_id).await.unwrap().unwrap();
    assert_eq!((told.cut, told.version), (next(2), stored.version + 1));
    // The store goes on by itself, on a new connection.
    store.commit(&[told], &lease("w", 1)).await.remove(0).unwrap();
}

#[tokio::test]
async fn a_lost_answer_to_a_read_has_no_effect() {
    let schema = Schema::new();
    let proxy = Proxy::before(schema.port()).await;
    let config = PgConfig { max_connections: 1, ..proxy.config(&schema) };
    let store = PgCheckpointStore::open(&config).await.unwrap();
    store.list(None).await.unwrap();
    proxy.lose_next_answer();
    let lost = store.list(None).await.unwrap_err();
    assert_eq!((lost.kind(), lost.effect()), (&ErrorKind::Unavailable, Effect::None), "{lost}");
    store.list(None).await.unwrap();
}

#[tokio::test]
async fn the_index_repeats_what_was_lost_and_comes_to_the_same() {
    let schema = Schema::new();
    let proxy = Proxy::before(schema.port()).await;
    let config = PgConfig { max_connections: 1, ..proxy.config(&schema) };
    let index = PgAdmissionIndex::open(&config, &PgIndexConfig::new("gate")).await.unwrap();
    for n in 0..6 {
        if n % 2 == 1 {
            proxy.lose_next_answer();
        }
        let id = fresh_id(&index.reserve(&[request(n)]).await.unwrap()[0]);
        if n % 3 == 2 {
            proxy.lose_next_answer();
            index.release(vec![id]).await.unwrap();
            continue;
        }
        if n % 2 == 0 {
            proxy.lose_next_answer();
        }
        index.confirm(vec![confirmation(id, entry(n, 0, n))]).await.unwrap();
        assert_eq!(index.get(key(n)).await.unwrap(), Some(entry(n, 0, n)));
    }
    assert!(index.open_reservations().await.unwrap().is_empty());
    assert_eq!(schema.sql("SELECT count(*) FROM admitted"), ["4"]);
}

#[tokio::test]
async fn ended_sessions_are_replaced() {
    let schema = Schema::new();
    let store = PgCheckpointStore::open(&schema.config()).await.unwrap();
    let index = PgAdmissionIndex::open(&schema.config(), &PgIndexConfig::new("gate")).await.unwrap();
    let mut wanted = fresh("c", 0, next(1));
    for n in 0..5 {
        wanted = store.commit(&[wanted], &lease("w", 1)).await.remove(0).unwrap();
        fresh_id(&index.reserve(&[request(n)]).await.unwrap()[0]);
        assert!(schema.end_sessions() >= 2);
        // What was under way when the sessions ended may fail once; nothing fails for long.
        while let Err(e) = store.probe().await {
            assert_eq!(e.retry(), Retry::Later, "{e}");
        }
    }
    assert_eq!(index.open_reservations().await.unwrap().len(), 5);
}

/// What was acknowledged, by writer.
struct Acknowledged {
    cut: AtomicU64,
    attempted: AtomicU64,
}

/// Commits one checkpoint after the other, and admits one event after the other, through everything that happens to the
/// server, until told to stop.
async fn work(config: PgConfig, writer: u64, acknowledged: Arc<Acknowledged>, stop: Arc<AtomicBool>) -> u64 {
    let consumer = format!("writer-{writer}");
    let (mut store, mut index) = (None, None);
    let mut unknown = 0;
    let mut stored: Option<Checkpoint> = None;
    while !stop.load(Ordering::SeqCst) {
        if store.is_none() {
            store = PgCheckpointStore::open(&config).await.ok();
            index = PgAdmissionIndex::open(&config, &PgIndexConfig::new(&consumer)).await.ok();
        }
        let (Some(store), Some(index)) = (&store, &index) else {
            store = None;
            tokio::task::yield_now().await;
            continue;
        };
        let like = fresh(&consumer, 0, next(0));
        let Ok(now) = store.load(&like.consumer, &like.topic, like.partition_id).await else { continue };
        let standing = now.as_ref().map_or(0, |c| c.version);
        let known = stored.as_ref().map_or(0, |c| c.version);
        assert!(standing == known || standing == known + 1, "version {standing} after {known}");
        let n = now.as_ref().and_then(|c| c.cut.offset()?.as_u64()).unwrap_or(0);
        assert!(n >= acknowledged.cut.load(Ordering::SeqCst), "an acknowledged commit is gone");
        stored = now;
        let event = writer << 32 | (n + 1);
        // The event first, then the checkpoint past it: as a consumer of a log does.
        match index.reserve(&[request(event)]).await.as_deref() {
            Ok([Reserved::Fresh(id)]) => {
                if index.confirm(vec![confirmation(*id, entry(event, 0, n + 1))]).await.is_err() {
                    continue;
                }
            }
            Ok([Reserved::Admitted(known)]) => assert_eq!(*known, entry(event, 0, n + 1)),
            // Held by this very gate, whose confirmation failed: it is confirmed again.
            Ok([Reserved::InFlight { .. }]) => {
                if index.apply(vec![entry(event, 0, n + 1)]).await.is_err() {
                    continue;
                }
            }
            Ok(other) => panic!("{other:?}"),
            Err(e) => {
                assert!(e.is_retryable(), "{e}");
                continue;
            }
        }
        acknowledged.attempted.store(n + 1, Ordering::SeqCst);
        let on = Checkpoint { cut: next(n + 1), ..stored.clone().unwrap_or(like) };
        match store.commit(&[on], &lease("w", 1)).await.remove(0) {
            Ok(c) => {
                acknowledged.cut.store(n + 1, Ordering::SeqCst);
                stored = Some(c);
            }
            Err(e) => {
                assert!(e.is_retryable(), "{e}");
                unknown += u64::from(e.effect() == Effect::Unknown);
            }
        }
    }
    unknown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_crash_of_the_server() {
    const WRITERS: u64 = 3;
    let mut server =
        tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions::default())).await.unwrap().unwrap();
    let schema = Schema::on(&server.url());
    // Made before the first crash, so that what fails later is never a schema half made.
    PgCheckpointStore::open(&schema.config()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let acknowledged = Arc::new(Acknowledged { cut: AtomicU64::new(0), attempted: AtomicU64::new(0) });
        let config = PgConfig { max_connections: 2, ..schema.config() };
        let task = tokio::spawn(work(config, writer, acknowledged.clone(), stop.clone()));
        writers.push((acknowledged, task));
    }
    let mut budget = Budget::new(3, Duration::from_secs(6), 100);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    let mut crash = 0u64;
    while budget.again() {
        crash += 1;
        // A random amount of work for everyone, so that the crash comes at a random moment of it.
        let goals: Vec<u64> =
            writers.iter().map(|(a, _)| a.attempted.load(Ordering::SeqCst) + rng.range(1..30)).collect();
        while writers.iter().zip(&goals).any(|((a, task), goal)| {
            assert!(!task.is_finished(), "a writer has given up");
            a.attempted.load(Ordering::SeqCst) < *goal
        }) {
            tokio::task::yield_now().await;
        }
        let how = *rng.pick(&[Stop::Immediate, Stop::Kill]);
        server = tokio::task::spawn_blocking(move || {
            server.stop(how).and_then(|()| server.restart()).map(|()| server)
        })
        .await
        .unwrap()
        .unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let mut unknown = 0;
    let store = PgCheckpointStore::open(&schema.config()).await.unwrap();
    for (writer, (acknowledged, task)) in (0u64..).zip(writers) {
        unknown += task.await.unwrap();
        let like = fresh(&format!("writer-{writer}"), 0, next(0));
        let stored = store.load(&like.consumer, &like.topic, like.partition_id).await.unwrap().unwrap();
        let at = stored.cut.offset().and_then(eb_contract::Offset::as_u64).unwrap();
        let acknowledged = acknowledged.cut.load(Ordering::SeqCst);
        assert!((acknowledged..=acknowledged + 1).contains(&at), "{at} after {acknowledged}");
        let admitted = schema.sql(&format!(
            "SELECT count(*) FROM admitted WHERE get_byte(key, 19) = {writer} AND offset_value <= {at}"
        ));
        assert_eq!(admitted, [at.to_string()], "the events before the checkpoint of writer {writer}");
    }
    println!("cycles: {crash} crashes of the server, {unknown} commits of unknown outcome");
    drop(schema);
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
