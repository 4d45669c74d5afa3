//! The schema's versions.

use eb_checkpoint_pg::{
    Migrations, PgAdmissionIndex, PgCheckpointStore, PgConfig, PgIndexConfig, SchemaState, check,
};
use eb_contract::stores::{AdmissionIndex, CheckpointStore};

use crate::support::{Schema, fresh, fresh_id, lease, next, request};

async fn open(config: &PgConfig) -> eb_contract::Result<PgCheckpointStore> {
    PgCheckpointStore::open(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_programs_that_open_at_once_make_one_schema() {
    let schema = Schema::new();
    let mut opening = Vec::new();
    for n in 0..8 {
        let config = PgConfig { max_connections: 1, ..schema.config() };
        opening.push(tokio::spawn(async move {
            if n % 2 == 0 {
                open(&config).await.map(drop)
            } else {
                PgAdmissionIndex::open(&config, &PgIndexConfig::new("gate")).await.map(drop)
            }
        }));
    }
    for opened in opening {
        opened.await.unwrap().unwrap();
    }
    assert_eq!(schema.sql("SELECT version FROM migrations"), ["1", "2", "3", "4"]);
    assert_eq!(schema.sql("SELECT count(*) FROM gates"), ["4"]);
}

#[tokio::test]
async fn a_schema_that_may_only_be_verified_must_be_there() {
    let schema = Schema::new();
    let verify = PgConfig { migrations: Migrations::Verify, ..schema.config() };
    let refused = open(&verify).await.unwrap_err();
    assert_eq!(refused.kind().code(), "wrong_version", "{refused}");
    open(&schema.config()).await.unwrap();
    open(&verify).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_an_older_version_is_brought_up_to_date_with_what_it_holds() {
    let schema = Schema::new();
    let old = PgAdmissionIndex::open(&schema.config(), &PgIndexConfig::new("old")).await.unwrap();
    let reserved = fresh_id(&old.reserve(&[request(1)]).await.unwrap()[0]);
    schema.sql(
        "ALTER TABLE reservations DROP COLUMN renewed_at; \
         DROP TABLE registers, register_changes, processed_events, consumer_leases, consumer_members, dead_letters; \
         DELETE FROM migrations WHERE version > 1",
    );
    assert_eq!(check(&schema.config()).await.unwrap(), SchemaState::Older);
    let verify = PgConfig { migrations: Migrations::Verify, ..schema.config() };
    let refused = open(&verify).await.unwrap_err();
    assert_eq!(refused.kind().code(), "wrong_version", "{refused}");
    let new = PgAdmissionIndex::open(&schema.config(), &PgIndexConfig::new("new")).await.unwrap();
    assert_eq!(check(&schema.config()).await.unwrap(), SchemaState::Current);
    let open = new.open_reservations().await.unwrap().remove(0);
    assert_eq!((open.reservation, open.renewed_at), (reserved, open.reserved_at));
}

#[tokio::test]
async fn the_schema_of_another_program_is_refused_and_left_alone() {
    let schema = Schema::new();
    let store = open(&schema.config()).await.unwrap();
    let stored = store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    let steps = [
        "INSERT INTO migrations VALUES (5, '0005_newer', 'x', now())",
        "DELETE FROM migrations WHERE version = 5; UPDATE migrations SET md5 = 'changed'",
    ];
    for step in steps {
        schema.sql(step);
        for migrations in [Migrations::Apply, Migrations::Verify] {
            let refused = open(&PgConfig { migrations, ..schema.config() }).await.unwrap_err();
            assert_eq!(refused.kind().code(), "wrong_version", "{refused}");
            assert!(!refused.is_retryable());
        }
    }
    let consumer = &stored.consumer;
    assert_eq!(store.load(consumer, &stored.topic, stored.partition_id).await.unwrap(), Some(stored.clone()));
}
