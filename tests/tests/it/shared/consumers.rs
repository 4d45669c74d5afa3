//! Consumers whose checkpoints lie in Postgres, killed again and again, and Postgres with them.
//!
//! A consumer writes what it took and its checkpoint in one transaction, into a table where a record that comes twice is
//! an error. So at the end the table shows each cut that was ever resumed from: a record too many, or one too few.

use std::process::Command;
use std::time::Duration;

use eb_contract::EventBusPublisher as _;
use eb_file::{FileBus, FileBusConfig};
use eb_system_tests::facts::Fact;
use eb_system_tests::shared::Setup;
use eb_system_tests::{record, topic};
use eb_testkit::process::Spoken;
use eb_testkit::services::{PgWire, Postgres, PostgresOptions, Stop};
use eb_testkit::{Budget, Rng};

use super::{Place, place};

fn consumer(setup: &Setup, epoch: u64, window: usize) -> Spoken {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-shared"));
    command.arg("consume");
    Setup { seed: epoch, window, ..setup.clone() }.tell(&mut command);
    Spoken::spawn(&mut command).expect("the child starts")
}

fn sql(setup: &Setup, text: &str) -> Vec<String> {
    let port = setup.postgres.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse().ok());
    let mut wire = PgWire::connect(port.expect("a port"), "postgres", "postgres").expect("a connection");
    wire.query(text).expect("the statement is right")
}

/// A log of so many records, and an empty table for what was taken from it.
async fn log(place: &mut Place, records: u64) {
    let setup = &mut place.setup;
    setup.count = usize::try_from(records).unwrap();
    setup.name = "totals".to_owned();
    let bus = FileBus::open(FileBusConfig::new(&setup.folder)).unwrap();
    bus.create_topic(&topic(), 1).unwrap();
    let publisher = bus.publisher();
    let all = (0..records).map(|n| record("k", n, 10)).collect();
    for answer in publisher.publish_batch(&topic(), all).await {
        answer.unwrap();
    }
    publisher.close().await.unwrap();
    let schema = &setup.schema;
    sql(setup, &format!("CREATE SCHEMA {schema}"));
    sql(setup, &format!("CREATE TABLE {schema}.consumed (at int8 PRIMARY KEY, taken_by int8, seq serial)"));
}

/// Hears a consumer to its end; `false` when it was refused as stale.
fn to_its_end(child: Spoken) -> bool {
    let words = child.wait().unwrap();
    let failed = words.lines.iter().find_map(|line| match Fact::hear(line) {
        Fact::Failed { code, text, .. } => Some((code, text)),
        _ => None,
    });
    match failed {
        None => assert!(words.status.success(), "{words:?}"),
        Some((code, text)) => assert_eq!(code, "fenced", "{text}"),
    }
    words.status.success()
}

fn check(setup: &Setup) {
    let schema = &setup.schema;
    let taken = sql(setup, &format!("SELECT at FROM {schema}.consumed ORDER BY seq"));
    let wanted: Vec<String> = (0..setup.count).map(|n| n.to_string()).collect();
    assert_eq!(taken, wanted, "records were skipped, or taken out of order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_killed_again_and_again_resumes_at_the_exact_cut() {
    let mut budget = Budget::new(2, Duration::from_secs(8), 40);
    let mut rng = Rng::new(budget.seed);
    let mut kills = 0;
    let mut server =
        tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions::default())).await.unwrap().unwrap();
    while budget.again() {
        let mut place = place("consumer", rng.next_u64());
        place.setup.postgres = server.url();
        log(&mut place, 3_000).await;
        let setup = &place.setup;
        // The database goes down once in each round, under a consumer that is at work.
        let goes_down = rng.range(0..5);
        server = tokio::task::block_in_place(|| {
            let mut epoch = 0;
            for kill in 0..rng.range(5..12) {
                epoch += 1;
                let mut child = consumer(setup, epoch, 1 + rng.index(40));
                for _ in 0..rng.range(0..30) {
                    if child.line().is_none() {
                        break;
                    }
                }
                if kill == goes_down {
                    server.stop(*rng.pick(&[Stop::Immediate, Stop::Kill])).unwrap();
                    server.restart().unwrap();
                    // It goes on by itself.
                    assert!(child.line().is_some(), "seed {}", budget.seed);
                }
                let words = child.kill().unwrap();
                let failed = words.lines.iter().find(|line| line.starts_with("failed"));
                assert!(failed.is_none(), "seed {}: {failed:?}", budget.seed);
                kills += 1;
            }
            assert!(to_its_end(consumer(setup, epoch + 1, 100)));
            check(setup);
            server
        });
    }
    println!("{kills} consumers killed");
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_of_a_stale_owner_is_refused() {
    let mut place = place("stale", eb_testkit::seed());
    log(&mut place, 4_000).await;
    let setup = &place.setup;
    tokio::task::block_in_place(|| {
        let mut stale = consumer(setup, 1, 1);
        for _ in 0..5 {
            stale.line().expect("it commits");
        }
        // The successor takes over while the old owner is at work and knows nothing of it.
        let mut successor = consumer(setup, 2, 1);
        let first = successor.line().expect("it commits");
        assert!(matches!(Fact::hear(&first), Fact::Reached(_)), "{first}");
        let (refused, went_through) = (to_its_end(stale), to_its_end(successor));
        assert!(!refused, "the old owner has gone on");
        // A commit of the old owner's that came just before the takeover is a conflict that the successor resumes from.
        assert!(went_through);
        check(setup);
    });
}
