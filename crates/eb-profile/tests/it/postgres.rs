//! Stores in Postgres, by the profile.

use eb_contract::stores::{Checkpoint, Lease};
use eb_contract::{ConsumerName, Cut, ErrorKind};
use eb_profile::{
    AdmissionIndexConfig, Env, OpenError, Platform, PostgresTls, Profile, ProfileSource, Purpose,
};
use eb_testkit::services::{PgWire, TestDatabase};
use ig_gate::Decision;

use crate::opening::{LOCAL, event};
use crate::{parse, spoilt};

/// The local profile with both stores in a database. Indented lines go to both stores.
fn text(url: &str, more: &str) -> String {
    let embedded = LOCAL.find("    kind: embedded").unwrap();
    let path = LOCAL[embedded..].find("    path:").unwrap() + embedded;
    let line = LOCAL[path..].find('\n').unwrap() + path;
    let postgres = format!("    kind: postgres\n    url: {url}\n{more}");
    let text = format!("{}{postgres}{}", &LOCAL[..embedded], &LOCAL[line + 1..]);
    text.replacen("    kind: file\n", &postgres, 1)
}

fn profile(folder: &tempfile::TempDir, url: &str, more: &str) -> Profile {
    let env = Env::only([("EB_RUNS", folder.path().to_str().unwrap())]);
    Profile::parse(ProfileSource::built_in(folder.path()), &text(url, more), &env).unwrap()
}

async fn open(profile: &Profile) -> Platform {
    let platform = Platform::open(profile.clone(), Purpose::Writing).await.unwrap();
    platform.ensure_topics().await.unwrap();
    platform
}

fn sql(database: &TestDatabase, sql: &str) -> Vec<String> {
    let url = database.url();
    let (rest, name) = url.rsplit_once('/').unwrap();
    let port = rest.rsplit_once(':').unwrap().1.parse().unwrap();
    PgWire::connect(port, "postgres", name).unwrap().query(sql).unwrap()
}

#[tokio::test]
async fn gate_and_checkpoints_live_in_a_database_and_are_there_again() {
    let (folder, database) = (tempfile::tempdir().unwrap(), TestDatabase::create().unwrap());
    let profile = profile(&folder, &database.url(), "");
    let platform = open(&profile).await;
    let first = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!(first.decision, Decision::Admit);
    let place = first.eb_ref.clone().unwrap();
    let checkpoint = Checkpoint {
        consumer: ConsumerName::new("c").unwrap(),
        topic: place.topic.clone(),
        partition_id: place.partition_id,
        cut: Cut::past(place.offset),
        caught_up_at: None,
        version: 0,
        bus_incarnation: platform.reader().partitions(&place.topic).await.unwrap().incarnation,
        lease: None,
        committed_at: None,
    };
    let lease = Lease { owner: "c-1".to_owned(), epoch: 1 };
    platform.checkpoints().commit(std::slice::from_ref(&checkpoint), &lease).await.remove(0).unwrap();
    platform.close().await.unwrap();

    let platform = open(&profile).await;
    let again = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!((again.decision, &again.eb_ref), (Decision::Duplicate, &first.eb_ref));
    let listed = platform.checkpoints().list(None).await.unwrap();
    assert_eq!((listed.len(), listed[0].cut), (1, checkpoint.cut));
    platform.close().await.unwrap();

    assert!(!folder.path().join("event_bus/checkpoints").exists());
    assert!(!folder.path().join("ig/admission_index").exists());
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'event_bus%'";
    assert_eq!(sql(&database, schemas), ["event_bus_file"], "each kind of bus has tables of its own");
}

#[tokio::test]
async fn looking_at_a_database_changes_nothing_and_reading_the_bus_needs_none() {
    let (folder, database) = (tempfile::tempdir().unwrap(), TestDatabase::create().unwrap());
    let profile = profile(&folder, &database.url(), "    migrations: apply\n");
    open(&profile).await.close().await.unwrap();
    let platform = Platform::open(profile.clone(), Purpose::Reading).await.unwrap();
    platform.reader().topics().await.unwrap();
    let found = platform.profile().look_at_databases().await.unwrap();
    let to_come = "connected; its tables are made when it is first used".to_owned();
    assert_eq!(found, [("checkpoint_store", to_come.clone()), ("admission_index", to_come)]);
    let schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'event_bus%'";
    assert!(sql(&database, schemas).is_empty());
    assert!(platform.checkpoints().list(None).await.unwrap().is_empty());
    let found = platform.profile().look_at_databases().await.unwrap();
    assert!(found.iter().all(|(_, how)| how == "connected"), "{found:?}");
}

#[tokio::test]
async fn a_database_that_may_not_be_changed_is_refused_until_somebody_has_made_the_tables() {
    let (folder, database) = (tempfile::tempdir().unwrap(), TestDatabase::create().unwrap());
    let strict = profile(&folder, &database.url(), "    migrations: verify\n    schema: mine\n");
    let platform = open(&strict).await;
    let refused = platform.checkpoints().list(None).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::WrongVersion, "{refused}");
    let Err(OpenError::Bus(looked)) = platform.profile().look_at_databases().await else {
        panic!("there are no tables")
    };
    assert_eq!(*looked.kind(), ErrorKind::WrongVersion, "{looked}");

    let making = open(&profile(&folder, &database.url(), "    schema: mine\n")).await;
    making.checkpoints().list(None).await.unwrap();
    assert!(platform.checkpoints().list(None).await.unwrap().is_empty(), "a failed attempt is not kept");
}

#[tokio::test]
async fn a_database_that_is_not_there_or_not_understood_is_named_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens on the discard port.
    let platform = open(&profile(&folder, "postgres://me:hunter2@127.0.0.1:9/bus", "")).await;
    let gone = platform.checkpoints().list(None).await.unwrap_err();
    assert_eq!(*gone.kind(), ErrorKind::Unavailable, "{gone}");
    assert!(gone.is_retryable() && gone.to_string().contains("127.0.0.1:9/bus.event_bus_file"), "{gone}");
    let Err(OpenError::Bus(looked)) = platform.profile().look_at_databases().await else {
        panic!("nobody is there")
    };
    assert!(!format!("{gone} {looked} {:?}", platform.profile()).contains("hunter2"));
    let Err(refused) = platform.gate().await else { panic!("a gate without its index") };
    assert!(refused.is_retryable(), "{refused}");

    let profile = profile(&folder, "nonsense-hunter2", "");
    let line = 1 + text("", "").lines().position(|l| l.starts_with("    url:")).unwrap();
    let refused = open(&profile).await.checkpoints().list(None).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::InvalidInput);
    let place = format!("<built-in local>:{line}:10: wiring.checkpoint_store.url");
    assert!(refused.to_string().contains(&place) && !refused.to_string().contains("hunter2"), "{refused}");
}

#[cfg(feature = "kinesis")]
#[tokio::test]
async fn the_switch_to_another_kind_of_bus_finds_tables_of_its_own() {
    let (folder, database) = (tempfile::tempdir().unwrap(), TestDatabase::create().unwrap());
    let written =
        text(&database.url(), "").replace("event_bus_kind: file", "event_bus_kind: kinesis").replace(
            "    create_topics: true\n",
            "    create_topics: true\n    kinesis:\n      endpoint_url: http://127.0.0.1:9\n",
        );
    let runs = ("EB_RUNS", folder.path().to_str().unwrap());
    let source = || ProfileSource::built_in(folder.path());
    let profile = Profile::parse(source(), &written, &Env::only([runs, ("EVENT_BUS_KIND", "file")])).unwrap();
    let platform = open(&profile).await;
    let receipt = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!(receipt.decision, Decision::Admit);
    platform.close().await.unwrap();
    let topics = sql(&database, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'event_bus%'");
    assert_eq!(topics, ["event_bus_file"]);
    let other = Profile::parse(source(), &written, &Env::only([runs])).unwrap();
    let eb_profile::CheckpointStoreConfig::Postgres(database) = &other.wiring.checkpoint_store else {
        panic!()
    };
    assert_eq!(database.schema, "event_bus_kinesis");
}

#[test]
fn settings_of_a_database_have_limits_and_defaults() {
    let with = |more: &str| {
        spoilt(
            "kind: embedded\n    path: ${RUNS:-runs}/ig/index",
            &format!("kind: postgres\n    url: postgres://db/bus\n{more}"),
        )
    };
    let profile = parse(&with(""), &[]).unwrap();
    let AdmissionIndexConfig::Postgres { database, gate, lease, max_lag } = &profile.wiring.admission_index
    else {
        panic!()
    };
    assert_eq!((gate.as_str(), lease.as_secs(), *max_lag), ("test", 30, 100_000));
    assert_eq!((database.schema.as_str(), database.max_connections), ("event_bus_file", 8));
    assert_eq!(database.statement_timeout.as_secs(), 10);
    assert_eq!(database.tls, PostgresTls::ByAddress);
    assert!(database.apply_migrations && !database.allow_unsafe_server);

    let profile =
        parse(&with("    ca_file: ca.pem\n    statement_timeout_ms: 250\n    gate: g1"), &[]).unwrap();
    let AdmissionIndexConfig::Postgres { database, gate, .. } = &profile.wiring.admission_index else {
        panic!()
    };
    assert_eq!(gate, "g1");
    assert_eq!(database.tls, PostgresTls::Verified { ca_file: Some("/base/ca.pem".into()) });
    assert_eq!(database.statement_timeout.as_millis(), 250);

    for (more, expected) in [
        (
            "    tls: of",
            "p.yaml:19:10: wiring.admission_index.tls: `of` is not one of them; did you mean `off`?",
        ),
        (
            "    tls: off\n    ca_file: ca.pem",
            "p.yaml:20:14: wiring.admission_index.ca_file: it is looked at with `tls: verified` only",
        ),
        (
            "    schema: pg_x",
            "p.yaml:19:13: wiring.admission_index.schema: use a-z 0-9 _, not a digit or pg_ at the beginning",
        ),
        (
            "    max_connections: 0",
            "p.yaml:19:22: wiring.admission_index.max_connections: `0` is not a whole number from 1 to 1000",
        ),
    ] {
        assert_eq!(parse(&with(more), &[]).unwrap_err().to_string(), expected);
    }
}
