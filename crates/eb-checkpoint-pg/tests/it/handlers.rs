//! Handlers within transactions, when answers are lost, servers crash, and handlers misbehave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eb_checkpoint_pg::{PgConfig, PgProcessed};
use eb_contract::stores::{
    Checkpoint, CheckpointStore, EventIdentity, Mark, MarkScope, ProcessedStore, Progress, Seen,
    TransactionalStore,
};
use eb_contract::{Cut, Effect, ErrorKind};
use eb_testkit::services::{Postgres, PostgresOptions, Stop};
use eb_testkit::{Budget, Rng};

use crate::support::{Proxy, Schema, fresh, lease, line, next};

fn mark(n: u64) -> Mark {
    let mut dedupe = [7; 32];
    dedupe[..8].copy_from_slice(&n.to_be_bytes());
    Mark { offset: line(n), event: Some(EventIdentity { dedupe, event_id: format!("event-{n}").into() }) }
}

fn scope_of(c: &Checkpoint) -> MarkScope {
    MarkScope {
        subscriber: c.consumer.clone(),
        bus_incarnation: c.bus_incarnation.clone(),
        topic: c.topic.clone(),
        partition_id: c.partition_id,
    }
}

/// The step that handles the record at `n`, from what is stored.
fn step(stored: &Checkpoint, n: u64) -> Progress {
    let checkpoint = Checkpoint { cut: next(n + 1), ..stored.clone() };
    Progress { marks: vec![mark(n)], checkpoint, committed: stored.cut }
}

async fn store(config: &PgConfig, schema: &Schema) -> PgProcessed {
    let store = PgProcessed::open(config).await.expect("the store opens");
    schema.sql("CREATE TABLE IF NOT EXISTS effects (n bigint)");
    store
}

#[tokio::test]
async fn a_step_whose_answer_is_lost_has_an_unknown_outcome_that_the_checkpoint_tells() {
    let schema = Schema::new();
    let direct = store(&schema.config(), &schema).await;
    let proxy = Proxy::before(schema.port()).await;
    let config = PgConfig { max_connections: 1, ..proxy.config(&schema) };
    let lossy = PgProcessed::open(&config).await.unwrap();
    let first = step(&fresh("c", 0, Cut::Begin), 0);
    let mut stored = lossy.record(&first, &lease("w", 1)).await.unwrap().unwrap();
    // The answers to a step's statements, one after the other, are lost; whatever was, the checkpoint and the marks agree.
    let (mut unknown, mut none) = (0, 0);
    for n in 1..12 {
        let mut transaction = lossy.begin().await.unwrap();
        let insert = format!("INSERT INTO {}.effects VALUES ({n})", schema.name());
        transaction.client().unwrap().batch_execute(&insert).await.unwrap();
        proxy.lose_next_answer();
        let lost = lossy.record_and_commit(transaction, &step(&stored, n), &lease("w", 1)).await.unwrap_err();
        assert_eq!(*lost.kind(), ErrorKind::Unavailable, "{lost}");
        match lost.effect() {
            Effect::Unknown => unknown += 1,
            Effect::None => none += 1,
        }
        // As a consumer would: look, and repeat what is not there.
        let c = &stored;
        let told = direct.checkpoints().load(&c.consumer, &c.topic, c.partition_id).await.unwrap().unwrap();
        let there = told.cut == next(n + 1);
        let seen = direct.seen(&scope_of(c), &[mark(n)], false).await.unwrap();
        assert_eq!(seen == [Seen::Here], there, "marks and checkpoint after {lost}");
        let effects = schema.sql(&format!("SELECT n FROM effects WHERE n = {n}")).len();
        assert_eq!(effects, usize::from(there), "effect and checkpoint after {lost}");
        stored =
            if there { told } else { direct.record(&step(&told, n), &lease("w", 1)).await.unwrap().unwrap() };
    }
    assert!(none > 0, "{unknown} of unknown outcome, {none} without effect");
    // The commit's own answer: everything before it answered, then lost.
    let insert = "SELECT 1";
    let transaction = {
        let mut t = lossy.begin().await.unwrap();
        t.client().unwrap().batch_execute(insert).await.unwrap();
        t
    };
    schema.end_sessions();
    let ended = lossy.record_and_commit(transaction, &step(&stored, 50), &lease("w", 1)).await.unwrap_err();
    assert_eq!(ended.effect(), Effect::None, "the session had ended before the commit: {ended}");
}

#[tokio::test]
async fn a_handler_that_ends_the_transaction_it_was_lent_is_found_out() {
    let schema = Schema::new();
    let store = store(&schema.config(), &schema).await;
    for end in ["COMMIT", "ROLLBACK", "COMMIT; BEGIN"] {
        let mut transaction = store.begin().await.unwrap();
        store.save(&mut transaction).await.unwrap();
        transaction.client().unwrap().batch_execute(end).await.unwrap();
        let refused =
            store.record_and_commit(transaction, &step(&fresh("c", 0, Cut::Begin), 0), &lease("w", 1)).await;
        assert_eq!(*refused.unwrap_err().kind(), ErrorKind::ProtocolViolation, "after {end}");
    }
    let like = fresh("c", 0, Cut::Begin);
    assert_eq!(store.checkpoints().load(&like.consumer, &like.topic, like.partition_id).await.unwrap(), None);
    assert_eq!(store.seen(&scope_of(&like), &[mark(0)], true).await.unwrap(), [Seen::No]);
}

#[tokio::test]
async fn a_statement_that_failed_is_undone_alone_and_never_committed_by_oversight() {
    let schema = Schema::new();
    let store = store(&schema.config(), &schema).await;
    let wrong = "INSERT INTO no_such_table VALUES (1)";
    let like = fresh("c", 0, Cut::Begin);
    // A handler that swallows the failure of its statement: nothing of the step is committed.
    let mut transaction = store.begin().await.unwrap();
    store.save(&mut transaction).await.unwrap();
    transaction.client().unwrap().batch_execute(wrong).await.unwrap_err();
    let refused = store.record_and_commit(transaction, &step(&like, 0), &lease("w", 1)).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::None, "{refused}");
    assert_eq!(store.seen(&scope_of(&like), &[mark(0)], true).await.unwrap(), [Seen::No]);
    // One that is undone spoils nothing.
    let mut transaction = store.begin().await.unwrap();
    store.save(&mut transaction).await.unwrap();
    transaction.client().unwrap().batch_execute(wrong).await.unwrap_err();
    store.undo(&mut transaction).await.unwrap();
    store.record_and_commit(transaction, &step(&like, 0), &lease("w", 1)).await.unwrap();
    assert_eq!(store.seen(&scope_of(&like), &[mark(0)], true).await.unwrap(), [Seen::Here]);
}

#[tokio::test]
async fn dropped_transactions_and_calls_leave_no_lock_and_no_connection_behind() {
    let schema = Schema::new();
    let config = PgConfig { max_connections: 2, ..schema.config() };
    let store = store(&config, &schema).await;
    let mut stored =
        store.record(&step(&fresh("c", 0, Cut::Begin), 0), &lease("w", 1)).await.unwrap().unwrap();
    for n in 1..20_u64 {
        let transaction = store.begin().await.unwrap();
        let (going, holder) = (step(&stored, n), lease("w", 1));
        let committing = store.record_and_commit(transaction, &going, &holder);
        drop(tokio::time::timeout(Duration::from_micros(n * 150), committing).await);
        let c = &stored;
        // Committed or not: the row is free, and tells.
        let told = store.checkpoints().load(&c.consumer, &c.topic, c.partition_id).await.unwrap().unwrap();
        stored = match store.record(&step(&told, n + 100), &lease("w", 1)).await {
            Ok(stored) => stored.unwrap(),
            // The server was still at it when it was looked at.
            Err(e) => {
                assert_eq!(e.kind().code(), "version_conflict", "{e}");
                store.checkpoints().load(&c.consumer, &c.topic, c.partition_id).await.unwrap().unwrap()
            }
        };
        stored = store
            .checkpoints()
            .reset(&eb_contract::stores::ResetRequest {
                consumer: stored.consumer.clone(),
                topic: stored.topic.clone(),
                partition_id: stored.partition_id,
                cut: next(n),
                bus_incarnation: stored.bus_incarnation.clone(),
                reason: "the next round".to_owned(),
            })
            .await
            .unwrap();
    }
}

/// Handles one record after the other in transactions, through everything that happens to the server; `handled` is what was answered.
async fn work(config: PgConfig, table: String, handled: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> u64 {
    let mut unknown = 0;
    let Ok(store) = PgProcessed::open(&config).await else { panic!("the server is up at first") };
    let like = fresh("c", 0, Cut::Begin);
    while !stop.load(Ordering::SeqCst) {
        let loaded = store.checkpoints().load(&like.consumer, &like.topic, like.partition_id).await;
        let Ok(stored) = loaded else {
            tokio::task::yield_now().await;
            continue;
        };
        let stored = stored.unwrap_or_else(|| like.clone());
        let n = stored.cut.offset().and_then(eb_contract::Offset::as_u64).unwrap_or(0);
        assert!(n >= handled.load(Ordering::SeqCst), "an answered step is gone");
        let Ok(mut transaction) = store.begin().await else { continue };
        let Ok(client) = transaction.client() else { continue };
        if client.batch_execute(&format!("INSERT INTO {table} VALUES ({n})")).await.is_err() {
            continue;
        }
        match store.record_and_commit(transaction, &step(&stored, n), &lease("w", 1)).await {
            Ok(_) => handled.store(n + 1, Ordering::SeqCst),
            Err(e) => {
                assert!(e.is_retryable(), "{e}");
                unknown += u64::from(e.effect() == Effect::Unknown);
            }
        }
    }
    unknown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_come_exactly_once_through_crashes_of_the_server() {
    let mut server =
        tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions::default())).await.unwrap().unwrap();
    let schema = Schema::on(&server.url());
    store(&schema.config(), &schema).await.close();
    let (handled, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let table = format!("{}.effects", schema.name());
    let worker = tokio::spawn(work(schema.config(), table, handled.clone(), stop.clone()));
    let mut budget = Budget::new(3, Duration::from_secs(5), 100);
    println!("seed: {}", budget.seed);
    let mut rng = Rng::new(budget.seed);
    while budget.again() {
        let goal = handled.load(Ordering::SeqCst) + rng.range(1..60);
        while handled.load(Ordering::SeqCst) < goal {
            assert!(!worker.is_finished(), "the worker has given up");
            tokio::task::yield_now().await;
        }
        let how = *rng.pick(&[Stop::Immediate, Stop::Kill]);
        let restarted = move || server.stop(how).and_then(|()| server.restart()).map(|()| server);
        server = tokio::task::spawn_blocking(restarted).await.unwrap().unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let unknown = worker.await.unwrap();
    let effects: Vec<u64> =
        schema.sql("SELECT n FROM effects ORDER BY n").iter().map(|n| n.parse().unwrap()).collect();
    let once: BTreeSet<u64> = effects.iter().copied().collect();
    assert_eq!(effects.len(), once.len(), "an effect came twice");
    let handled = handled.load(Ordering::SeqCst);
    assert!(effects.len() as u64 >= handled && once.last().is_none_or(|n| n + 1 == effects.len() as u64));
    let marks = schema.sql("SELECT count(*) FROM processed_events");
    assert_eq!(marks, [effects.len().to_string()], "marks and effects");
    println!("{} effects, {unknown} commits of unknown outcome", effects.len());
    drop(schema);
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
