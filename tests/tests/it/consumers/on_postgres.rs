//! Handlers within transactions of Postgres: effects exactly once, whoever dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use eb_checkpoint_pg::{PgCheckpointStore, PgConfig};
use eb_contract::PublishRecord;
use eb_system_tests::consumers::call;
use eb_testkit::process::Spoken;
use eb_testkit::services::TestDatabase;
use eb_testkit::{Budget, Rng};
use tokio_postgres::NoTls;

use super::on_files::Log;
use super::{LOOK, PATIENCE, World, deadly_until_the_budget_ends, until_the_budget_ends};

const SCHEMA: &str = "event_bus";

struct OnPostgres {
    log: Log,
    database: TestDatabase,
    client: tokio_postgres::Client,
    checkpoints: PgCheckpointStore,
}

impl OnPostgres {
    fn new() -> Self {
        let log = Log::new();
        let database = TestDatabase::create().expect("a Postgres to test with");
        let url = database.url();
        let (client, checkpoints) = log.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("CREATE TABLE effects (seq bigserial, key text, call int8)").await.unwrap();
            let config =
                PgConfig { schema: SCHEMA.to_owned(), allow_unsafe_server: true, ..PgConfig::new(&url) };
            (client, PgCheckpointStore::open(&config).await.unwrap())
        });
        Self { log, database, client, checkpoints }
    }
}

impl World for OnPostgres {
    fn publish(&mut self, records: Vec<PublishRecord>) {
        self.log.publish(records);
    }

    fn arguments(&self) -> Vec<String> {
        vec!["postgres".to_owned(), self.database.url(), SCHEMA.to_owned()]
    }

    fn root(&self) -> &Path {
        self.log.dir.path()
    }

    fn effects(&self) -> BTreeMap<String, Vec<u64>> {
        let rows =
            self.log.runtime.block_on(self.client.query("SELECT key, call FROM effects ORDER BY seq", &[]));
        let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for row in rows.unwrap() {
            by_key.entry(row.get(0)).or_default().push(u64::try_from(row.get::<_, i64>(1)).unwrap());
        }
        by_key
    }

    fn finished(&self) -> bool {
        !self.log.is_behind(&self.checkpoints)
    }

    fn close(&mut self) {
        self.log.close();
    }
}

fn exactly_once(_kills: u64, _room: u64) -> u64 {
    0
}

#[test]
fn every_event_has_its_effect_exactly_once_where_the_handler_works_within_the_transaction() {
    until_the_budget_ends(Budget::new(1, Duration::from_secs(12), 40), OnPostgres::new, exactly_once);
}

#[test]
fn an_event_that_aborts_its_process_is_given_up_and_the_effects_of_all_others_are_there_once() {
    let letters = |world: &OnPostgres| {
        let query = world.client.query("SELECT event_id FROM event_bus.dead_letters ORDER BY id", &[]);
        world.log.runtime.block_on(query).unwrap().iter().map(|row| row.get(0)).collect()
    };
    deadly_until_the_budget_ends(OnPostgres::new, letters, exactly_once);
}

impl OnPostgres {
    fn child(&self, kind: &str, seed: u64) -> Spoken {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eb-test-consumer"));
        command.arg(self.root()).arg("40").arg(seed.to_string()).arg(kind);
        Spoken::spawn(command.args([&self.database.url(), SCHEMA])).expect("the consumer starts")
    }

    /// Open letters, letters in all, and records that have one.
    fn letters(&self) -> (i64, i64, i64) {
        let count = "SELECT count(*) FILTER (WHERE resolved_at IS NULL), count(*), \
                         count(DISTINCT (partition_id, \"offset\")) FROM event_bus.dead_letters";
        let row = self.log.runtime.block_on(self.client.query_one(count, &[])).unwrap();
        (row.get(0), row.get(1), row.get(2))
    }

    /// Lets children of this sort work and kills them at random, until `done`; how many were killed.
    fn kill_until(&self, kind: &str, rng: &mut Rng, done: impl Fn(&Self) -> bool) -> u64 {
        let (mut stands, mut got_on, mut kills) = (self.letters(), Instant::now(), 0);
        let mut children = Vec::new();
        while !done(self) {
            let now = self.letters();
            if now != stands {
                (stands, got_on) = (now, Instant::now());
            }
            assert!(got_on.elapsed() < PATIENCE, "{kind} comes to no end: {stands:?}");
            while children.len() < 2 {
                children.push(self.child(kind, rng.next_u64()));
            }
            let moment = Instant::now() + Duration::from_millis(rng.range(30..350));
            while Instant::now() < moment && !done(self) {
                std::thread::sleep(LOOK);
            }
            let words = children.swap_remove(rng.index(2)).kill().unwrap();
            assert!(words.errors.is_empty(), "{}", words.errors);
            kills += 1;
        }
        for child in children {
            child.kill().unwrap();
        }
        kills
    }
}

#[test]
fn every_dead_letter_has_its_effect_exactly_once_when_retries_are_killed_and_run_side_by_side() {
    let seed = eb_testkit::seed();
    println!("seed: {seed}");
    let (mut rng, mut world) = (Rng::new(seed), OnPostgres::new());
    let calls = rng.range(10..25);
    let records = i64::try_from(calls * 9).unwrap();
    world.publish((0..calls).flat_map(|n| (0..9).map(move |k| call(&format!("k{k}"), n))).collect());
    let buried = world.kill_until("graves", &mut rng, |w| w.letters().1 >= records && w.finished());
    assert_eq!((world.letters(), world.effects().len()), ((records, records, records), 0));
    let retried = world.kill_until("retry", &mut rng, |w| w.letters().0 == 0);
    assert_eq!(world.letters(), (0, records, records), "one letter for each record");
    for (key, mut effects) in world.effects() {
        effects.sort_unstable();
        assert_eq!(effects, (0..calls).collect::<Vec<_>>(), "effects of {key}, seed {seed}");
    }
    println!("{records} letters, {buried} consumers and {retried} retries killed");
    // Nothing is left to do, for workers and for those who retry.
    assert!(world.child("retry", 1).wait().unwrap().status.success());
    world.close();
}
