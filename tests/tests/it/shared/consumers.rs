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

/// What was taken, in the order in which it was.
fn taken(setup: &Setup) -> Vec<String> {
    sql(setup, &format!("SELECT at FROM {}.consumed ORDER BY seq", setup.schema))
}

fn check(setup: &Setup) {
    let wanted: Vec<String> = (0..setup.count).map(|n| n.to_string()).collect();
    assert_eq!(taken(setup), wanted, "records were skipped, or taken out of order");
}

/// Waits until the consumer takes more than was taken by now; whether there was more to take.
fn goes_on(setup: &Setup, child: &mut Spoken) -> bool {
    let before = taken(setup).len();
    while taken(setup).len() == before && child.line().is_some() {}
    assert!(before == setup.count || taken(setup).len() > before, "it has ended at {before}");
    before < setup.count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_killed_again_and_again_resumes_at_the_exact_cut() {
    let mut budget = Budget::new(2, Duration::from_secs(8), 40);
    let mut rng = Rng::new(budget.seed);
    let (mut kills, mut outlasted) = (0, 0);
    let mut server =
        tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions::default())).await.unwrap().unwrap();
    // How far consumers get is chance, and how much is left for the one under which the database goes down.
    while budget.again() || outlasted == 0 {
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
                // The one under which the database goes down is at work by then.
                for _ in 0..rng.range(0..30) + u64::from(kill == goes_down) {
                    if child.line().is_none() {
                        break;
                    }
                }
                if kill == goes_down {
                    server.stop(*rng.pick(&[Stop::Immediate, Stop::Kill])).unwrap();
                    server.restart().unwrap();
                    outlasted += u32::from(goes_on(setup, &mut child));
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
    println!("{kills} consumers killed, {outlasted} restarts of the database outlasted");
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_of_a_stale_owner_is_refused() {
    let mut place = place("stale", eb_testkit::seed());
    log(&mut place, 500).await;
    let setup = &place.setup;
    tokio::task::block_in_place(|| {
        // It stands still in the middle of its work, as on a machine that is halted.
        let mut stale = consumer(&Setup { hold_after: 5, ..setup.clone() }, 1, 1);
        let holding = Fact::Reached("holding".to_owned());
        while Fact::hear(&stale.line().expect("it commits, and holds")) != holding {}
        // The successor takes over, of which the old owner knows nothing.
        let mut successor = consumer(setup, 2, 1);
        let first = successor.line().expect("it commits");
        assert!(matches!(Fact::hear(&first), Fact::Reached(_)), "{first}");
        let (refused, went_through) = (to_its_end(stale), to_its_end(successor));
        assert!(!refused, "the old owner has gone on");
        assert!(went_through);
        check(setup);
    });
}
