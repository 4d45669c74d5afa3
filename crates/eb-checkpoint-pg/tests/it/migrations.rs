//! The schema's versions.

use std::time::Duration;

use eb_checkpoint_pg::{
    Migrations, PgAdmissionIndex, PgCheckpointStore, PgConfig, PgIndexConfig, PgLeases, SchemaState, check,
};
use eb_contract::stores::{
    AdmissionIndex, CheckpointStore, Claim, LeaseKey, LeaseStore, Renewal, WorkPhase, WorkReport,
};

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
    assert_eq!(schema.sql("SELECT version FROM migrations"), ["1", "2", "3", "4", "5"]);
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
async fn leases_of_the_time_before_reports_are_held_on_and_reported_of() {
    let schema = Schema::new();
    let old = PgLeases::open(&schema.config()).await.unwrap();
    let like = fresh("c", 0, next(1));
    let key = LeaseKey { consumer: like.consumer, topic: like.topic, partition_id: like.partition_id };
    let minute = Duration::from_secs(60);
    let Claim::Held(lease) = old.claim(&key, "w", minute).await.unwrap() else { panic!("it is free") };
    schema.sql(
        "ALTER TABLE consumer_leases DROP COLUMN phase, DROP COLUMN in_flight, DROP COLUMN keys_retrying, \
             DROP COLUMN retries, DROP COLUMN reported_at; \
         DELETE FROM migrations WHERE version > 4",
    );
    let new = PgLeases::open(&schema.config()).await.unwrap();
    let info = new.list(None).await.unwrap().remove(0);
    assert_eq!((&info.lease, info.left.is_some(), info.reported), (&lease, true, None));
    let work = WorkReport { phase: WorkPhase::Halted, in_flight: 3, keys_retrying: 1, retries: u64::MAX };
    let renewal = Renewal { partition_id: key.partition_id, lease, report: Some(work) };
    let beat = new.heartbeat(&key.consumer, &key.topic, "w", minute, &[renewal]).await.unwrap();
    assert!(beat.renewed[0].is_ok());
    let reported = new.list(None).await.unwrap().remove(0).reported.unwrap();
    assert_eq!(reported.work, WorkReport { retries: i64::MAX as u64, ..work });
}

#[tokio::test]
async fn the_schema_of_another_program_is_refused_and_left_alone() {
    let schema = Schema::new();
    let store = open(&schema.config()).await.unwrap();
    let stored = store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    let steps = [
        "INSERT INTO migrations VALUES (6, '0006_newer', 'x', now())",
        "DELETE FROM migrations WHERE version = 6; UPDATE migrations SET md5 = 'changed'",
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
