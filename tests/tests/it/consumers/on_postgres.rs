//! Handlers within transactions of Postgres: effects exactly once, whoever dies.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eb_checkpoint_pg::{PgCheckpointStore, PgConfig};
use eb_contract::PublishRecord;
use eb_testkit::Budget;
use eb_testkit::services::TestDatabase;
use tokio_postgres::NoTls;

use super::on_files::Log;
use super::{World, until_the_budget_ends};

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
