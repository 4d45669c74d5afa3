//! Commits of several checkpoints, within a consumer's own transaction, and against the reference store.

use eb_checkpoint_pg::{PgCheckpointStore, PgConfig};
use eb_contract::stores::{Checkpoint, CheckpointStore, ResetRequest};
use eb_contract::{BusIncarnation, Cut, Effect, ErrorKind, Offset, OffsetKind, Retry, Timestamp};
use eb_memory::{CommitMode, MemoryCheckpointStore};
use proptest::prelude::*;

use crate::support::{Schema, fresh, lease, line, next};

async fn open(schema: &Schema) -> PgCheckpointStore {
    PgCheckpointStore::open(&schema.config()).await.expect("the store opens")
}

async fn load(store: &dyn CheckpointStore, like: &Checkpoint) -> Option<Checkpoint> {
    store.load(&like.consumer, &like.topic, like.partition_id).await.expect("the store answers")
}

#[tokio::test]
async fn a_consumers_own_writes_and_its_checkpoint_are_one() {
    let schema = Schema::new();
    let store = open(&schema).await;
    let table = format!("{}.totals", schema.name());
    schema.sql("CREATE TABLE totals (n int)");
    let mut wanted = fresh("totals", 0, next(1));
    for (n, outcome) in ["commit", "roll back", "drop", "commit"].into_iter().enumerate() {
        let before = load(&store, &wanted).await;
        let mut client = store.pool().get().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(&format!("INSERT INTO {table} VALUES ({n})")).await.unwrap();
        let answers = store.commit_in(&transaction, std::slice::from_ref(&wanted), &lease("w", 1)).await;
        let stored = answers.into_iter().next().unwrap().unwrap();
        assert_eq!(
            load(&store, &wanted).await,
            before,
            "nothing is there before the transaction is committed"
        );
        match outcome {
            "commit" => {
                transaction.commit().await.unwrap();
                assert_eq!(load(&store, &wanted).await, Some(stored.clone()));
                wanted = Checkpoint { cut: next(n as u64 + 2), ..stored };
            }
            "roll back" => transaction.rollback().await.unwrap(),
            _ => drop(transaction),
        }
        if outcome != "commit" {
            assert_eq!(load(&store, &wanted).await, before, "{outcome}");
        }
    }
    assert_eq!(schema.sql("SELECT n FROM totals ORDER BY n"), ["0", "3"]);
}

#[tokio::test]
async fn a_refused_commit_within_a_transaction_leaves_it_usable_and_writes_nothing() {
    let schema = Schema::new();
    let store = open(&schema).await;
    let stored = store.commit(&[fresh("c", 1, next(5))], &lease("w", 2)).await.remove(0).unwrap();
    let mut client = store.pool().get().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let back = Checkpoint { cut: next(4), ..stored.clone() };
    let both = [fresh("c", 0, next(1)), back];
    let answers = store.commit_in(&transaction, &both, &lease("w", 2)).await;
    let codes: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap_err().kind().code()).collect();
    assert_eq!(codes, ["not_attempted", "backward_commit"]);
    let fenced = store.commit_in(&transaction, &both, &lease("w", 1)).await;
    assert_eq!(fenced[1].as_ref().unwrap_err().kind().code(), "fenced");
    transaction.commit().await.unwrap();
    assert_eq!(store.list(None).await.unwrap(), [stored]);
}

#[tokio::test]
async fn of_two_first_commits_in_open_transactions_one_wins() {
    let schema = Schema::new();
    let store = open(&schema).await;
    let mut first = store.pool().get().await.unwrap();
    let first = first.transaction().await.unwrap();
    let won = store.commit_in(&first, &[fresh("c", 0, next(1))], &lease("w", 1)).await;
    let racing = {
        let store = store.clone();
        tokio::spawn(async move {
            let both = [fresh("c", 0, next(2)), fresh("c", 1, next(2))];
            store.commit(&both, &lease("w", 1)).await
        })
    };
    // The other waits for the row that is not there for it yet.
    while schema
        .sql(&format!(
            "SELECT FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
            schema.name()
        ))
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
    first.commit().await.unwrap();
    let codes: Vec<_> = racing.await.unwrap().iter().map(|a| a.as_ref().unwrap_err().kind().code()).collect();
    assert_eq!(codes, ["version_conflict", "not_attempted"]);
    assert_eq!(store.list(None).await.unwrap(), [won[0].clone().unwrap()]);
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_a_timeout_without_effect() {
    let schema = Schema::new();
    let short = std::time::Duration::from_millis(100);
    let config = PgConfig { lock_timeout: short, ..schema.config() };
    let store = PgCheckpointStore::open(&config).await.unwrap();
    let stored = store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    let mut holder = schema.session();
    holder.query("BEGIN; SELECT * FROM checkpoints FOR UPDATE").unwrap();
    let on = Checkpoint { cut: next(2), ..stored.clone() };
    for wanted in [vec![on.clone()], vec![on.clone(), fresh("c", 1, next(1))]] {
        let late = store.commit(&wanted, &lease("w", 1)).await.remove(0).unwrap_err();
        assert_eq!((late.kind().code(), late.effect()), ("timeout", Effect::None), "{late}");
        assert_eq!(late.retry(), Retry::Later);
    }
    holder.query("ROLLBACK").unwrap();
    store.commit(&[on], &lease("w", 1)).await.remove(0).unwrap();
}

#[tokio::test]
async fn texts_with_nul_and_backslash_come_back_as_they_were() {
    let schema = Schema::new();
    let store = open(&schema).await;
    let odd = "a\0b\\0c\\";
    let stored = store.commit(&[fresh("c", 0, next(1))], &lease(odd, u64::MAX)).await.remove(0).unwrap();
    assert_eq!(stored.lease, Some(lease(odd, u64::MAX)));
    assert_eq!(load(&store, &stored).await, Some(stored.clone()));
    store.commit(std::slice::from_ref(&stored), &lease(odd, u64::MAX)).await.remove(0).unwrap();
    let reset = ResetRequest {
        consumer: stored.consumer.clone(),
        topic: stored.topic.clone(),
        partition_id: stored.partition_id,
        cut: Cut::Begin,
        bus_incarnation: stored.bus_incarnation.clone(),
        reason: odd.to_owned(),
    };
    store.reset(&reset).await.unwrap();
    let history = store.history(&stored.consumer, &stored.topic, stored.partition_id).await.unwrap();
    assert_eq!((history.len(), history[0].reason.as_str(), history[0].from), (1, odd, Some(next(1))));
}

#[tokio::test]
async fn a_row_that_nobody_of_ours_wrote_is_corrupt_and_never_none() {
    let schema = Schema::new();
    let store = open(&schema).await;
    let stored = store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    schema.sql("UPDATE checkpoints SET offset_kind = 'tape_block'");
    let damaged = store.load(&stored.consumer, &stored.topic, stored.partition_id).await.unwrap_err();
    assert_eq!(damaged.kind().code(), "corrupt");
    assert!(damaged.to_string().contains("checkpoint c fp.bus.traffic.v1/0"), "{damaged}");
    assert!(store.list(None).await.is_err());
    assert!(store.commit(&[stored], &lease("w", 1)).await.remove(0).is_err());
}

/// One operation on both stores.
#[derive(Debug, Clone)]
enum Op {
    Commit { places: Vec<(u32, Cut, bool)>, epoch: u64, owner: bool, life: bool, caught_up: Option<i64> },
    Reset { partition: u32, cut: Cut, life: bool },
}

fn any_cut() -> impl Strategy<Value = Cut> {
    let kinesis = |d: &str| Offset::parse(OffsetKind::KinesisSequence, d).expect("canonical");
    let wide = format!("1{}", "0".repeat(60));
    prop_oneof![
        1 => Just(Cut::Begin),
        1 => Just(Cut::End),
        6 => (0..12u64).prop_map(next),
        2 => (0..12u64).prop_map(|n| Cut::After(line(n))),
        1 => Just(Cut::After(line(u64::MAX))),
        2 => (8..12u64).prop_map(move |n| Cut::After(kinesis(&n.to_string()))),
        1 => (8..12u64).prop_map(move |n| Cut::Next(kinesis(&n.to_string()))),
        1 => Just(Cut::After(kinesis(&wide))),
        1 => (9..11u64, 9..11u64).prop_map(|(ms, n)| Cut::After(Offset::redis(ms, n))),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let places = prop::collection::vec((0..3u32, any_cut(), prop::bool::weighted(0.1)), 1..4);
    let often = prop::bool::weighted(0.85);
    prop_oneof![
        8 => (places, 1..4u64, often, often, prop::option::of(0..9i64)).prop_map(
            |(places, epoch, owner, life, caught_up)| Op::Commit { places, epoch, owner, life, caught_up }
        ),
        1 => (0..3u32, any_cut(), often).prop_map(|(partition, cut, life)| Op::Reset { partition, cut, life }),
    ]
}

fn life(usual: bool) -> BusIncarnation {
    BusIncarnation::new(if usual { "life-1" } else { "life-2" }).expect("printable ASCII")
}

type Told = Result<(Checkpoint, String), ErrorKind>;

/// What an answer says, without what two stores may say differently: times, and the words of errors.
fn told(answer: eb_contract::Result<Checkpoint>) -> Told {
    match answer {
        Ok(c) => {
            let cut = c.cut.canonical().to_string();
            Ok((Checkpoint { committed_at: None, ..c }, cut))
        }
        Err(e) => Err(e.kind().clone()),
    }
}

async fn do_it(store: &dyn CheckpointStore, consumer: &str, op: &Op) -> Vec<Told> {
    match op {
        Op::Commit { places, epoch, owner, life: usual, caught_up } => {
            let mut wanted = Vec::new();
            for (partition, cut, stale) in places {
                let mut c = fresh(consumer, *partition, *cut);
                c.bus_incarnation = life(*usual);
                c.caught_up_at = caught_up.and_then(Timestamp::from_micros);
                c.version = load(store, &c).await.map_or(0, |s| s.version) + u64::from(*stale);
                wanted.push(c);
            }
            let lease = lease(if *owner { "w" } else { "v" }, *epoch);
            store.commit(&wanted, &lease).await.into_iter().map(told).collect()
        }
        Op::Reset { partition, cut, life: usual } => {
            let like = fresh(consumer, *partition, *cut);
            let request = ResetRequest {
                consumer: like.consumer,
                topic: like.topic,
                partition_id: like.partition_id,
                cut: *cut,
                bus_incarnation: life(*usual),
                reason: "as told".to_owned(),
            };
            vec![told(store.reset(&request).await)]
        }
    }
}

#[test]
fn random_commits_and_resets_agree_with_the_reference_store() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let schema = Schema::new();
    let store = runtime.block_on(open(&schema));
    let mut config = ProptestConfig::with_cases(if eb_testkit::is_long() { 2_000 } else { 40 });
    config.failure_persistence = None;
    let case = std::cell::Cell::new(0);
    proptest!(config, |(ops in prop::collection::vec(any_op(), 1..20))| {
        case.set(case.get() + 1);
        let consumer = format!("case-{}", case.get());
        let reference = MemoryCheckpointStore::with_mode(CommitMode::AllOrNone);
        runtime.block_on(async {
            for (n, op) in ops.iter().enumerate() {
                let expected = do_it(&reference, &consumer, op).await;
                let got = do_it(&store, &consumer, op).await;
                prop_assert_eq!(got, expected, "operation {}: {:?}", n, op);
            }
            Ok(())
        })?;
    });
}
