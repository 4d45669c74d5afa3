//! Certificates, passwords, rights, unsafe servers.

use std::path::PathBuf;

use eb_checkpoint_pg::{PgAdmissionIndex, PgCheckpointStore, PgConfig, PgIndexConfig, Tls};
use eb_contract::stores::{AdmissionIndex, CheckpointStore};
use eb_testkit::services::{Postgres, PostgresOptions, free_port};

use crate::support::{Schema, fresh, lease, next};

const PASSWORD: &str = "s3cr3t-\u{e4}%@/:";

/// A certificate for this host name, signed by itself, and its key.
fn certificate(host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_verified_and_passwords_are_never_told() {
    let (certificate_pem, key_pem) = certificate("localhost");
    let (other_pem, _) = certificate("localhost");
    let folder = tempfile::tempdir().unwrap();
    let (trusted, other) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    std::fs::write(&trusted, &certificate_pem).unwrap();
    std::fs::write(&other, other_pem).unwrap();
    let options = PostgresOptions {
        settings: vec![
            ("ssl".to_owned(), "on".to_owned()),
            ("ssl_cert_file".to_owned(), "server.crt".to_owned()),
            ("ssl_key_file".to_owned(), "server.key".to_owned()),
            ("fsync".to_owned(), "off".to_owned()),
        ],
        hba: vec![
            "hostssl all me 127.0.0.1/32 scram-sha-256".to_owned(),
            "host all me all reject".to_owned(),
        ],
        files: vec![
            ("server.crt".to_owned(), certificate_pem.into_bytes()),
            ("server.key".to_owned(), key_pem.into_bytes()),
        ],
    };
    let server = tokio::task::spawn_blocking(move || Postgres::start(&options)).await.unwrap().unwrap();
    let schema = Schema::on(&server.url());
    schema
        .sql(&format!("CREATE ROLE me LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE postgres TO me"));
    let config = |host: &str, password: &str, ca: &PathBuf| PgConfig {
        url: format!("postgres://me:{}@{host}:{}/postgres", encoded(password), server.port()),
        tls: Tls::Verified { ca_file: Some(ca.clone()) },
        allow_unsafe_server: true,
        ..schema.config()
    };
    let open = async |config: PgConfig| {
        let opened = PgCheckpointStore::open(&config).await;
        let told = match &opened {
            Ok(store) => format!("{store:?} {config:?}"),
            Err(e) => {
                let mut told = format!("{e} {e:?} {config:?}");
                let mut cause = std::error::Error::source(e);
                while let Some(c) = cause {
                    told.push_str(&format!(" {c} {c:?}"));
                    cause = c.source();
                }
                told
            }
        };
        for form in [PASSWORD.to_owned(), encoded(PASSWORD), "s3cr3t".to_owned(), encoded("s3cr3t")] {
            assert!(!told.contains(&form), "{told}");
        }
        opened
    };

    let store = open(config("localhost", PASSWORD, &trusted)).await.unwrap();
    store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    let encrypted = format!(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = '{}'",
        schema.name()
    );
    assert_eq!(schema.sql(&encrypted), ["t"]);

    let wrong_password = open(config("localhost", "s3cr3t", &trusted)).await.unwrap_err();
    assert_eq!(wrong_password.kind().code(), "invalid_input", "{wrong_password}");
    let wrong_authority = open(config("localhost", PASSWORD, &other)).await.unwrap_err();
    assert!(wrong_authority.to_string().contains("certificate"), "{wrong_authority}");
    let wrong_host = open(config("127.0.0.1", PASSWORD, &trusted)).await.unwrap_err();
    assert!(wrong_host.to_string().contains("certificate"), "{wrong_host}");
    let plain =
        open(PgConfig { tls: Tls::Off, ..config("localhost", PASSWORD, &trusted) }).await.unwrap_err();
    assert_eq!(plain.kind().code(), "invalid_input", "{plain}");
    let missing = open(config("localhost", PASSWORD, &folder.path().join("none.pem"))).await.unwrap_err();
    assert!(missing.to_string().contains("trusted certificates cannot be read"), "{missing}");

    // The server of this test gives up durability for speed, and that is not for ordinary use.
    let careful = PgConfig { allow_unsafe_server: false, ..config("localhost", PASSWORD, &trusted) };
    let unsafe_server = open(careful).await.unwrap_err();
    assert!(unsafe_server.to_string().contains("fsync"), "{unsafe_server}");

    drop((store, schema));
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let port = free_port().unwrap();
    let config = PgConfig::new(format!("postgres://me:s3cr3t@127.0.0.1:{port}/bus"));
    let refused = PgCheckpointStore::open(&config).await.unwrap_err();
    assert_eq!(refused.kind().code(), "unavailable", "{refused}");
    assert!(refused.is_retryable() && refused.to_string().contains(&port.to_string()), "{refused}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let schema = Schema::new();
    let url = schema.config().url;
    let url = format!("{}/no_such_database", url.rsplit_once('/').unwrap().0);
    let missing = PgCheckpointStore::open(&PgConfig::new(url)).await.unwrap_err();
    assert_eq!(missing.kind().code(), "not_found", "{missing}");
    assert!(missing.to_string().contains("no_such_database"), "{missing}");
}

#[tokio::test]
async fn a_user_with_the_listed_rights_can_do_all_and_one_without_is_told_so() {
    let schema = Schema::new();
    PgCheckpointStore::open(&schema.config()).await.unwrap();
    let (name, role) = (schema.name(), format!("app_{}", schema.name()));
    schema.sql(&format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {name} TO {role}"));
    schema.sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {role}"));
    let url = schema.config().url.replace("postgres@", &format!("{role}@"));
    let config = PgConfig { url, ..schema.config() };
    let store = PgCheckpointStore::open(&config).await.unwrap();
    for refused in [
        store.probe().await.unwrap_err(),
        store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap_err(),
        PgAdmissionIndex::open(&config, &PgIndexConfig::new("gate")).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind().code(), "invalid_input", "{refused}");
        assert!(refused.advice().is_some_and(|a| a.contains("SCHEMA.md")), "{refused}");
    }
    // The page's own words.
    let page = include_str!("../../SCHEMA.md");
    let grants = page.split_once("```sql").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    schema.sql(&grants.replace("event_bus", name).replace("TO app", &format!("TO {role}")));
    store.probe().await.unwrap();
    store.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap();
    let index = PgAdmissionIndex::open(&config, &PgIndexConfig::new("gate")).await.unwrap();
    index.probe().await.unwrap();
    let id = crate::support::fresh_id(&index.reserve(&[crate::support::request(1)]).await.unwrap()[0]);
    let entry = crate::support::entry(1, 0, 1);
    index.confirm(vec![crate::support::confirmation(id, entry)]).await.unwrap();
    schema.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_and_its_probe_says_so() {
    let schema = Schema::new();
    let store = PgCheckpointStore::open(&schema.config()).await.unwrap();
    let role = format!("reader_{}", schema.name());
    schema.sql(&format!(
        "CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET default_transaction_read_only = on"
    ));
    let url = schema.config().url.replace("postgres@", &format!("{role}@"));
    let reader = PgCheckpointStore::open(&PgConfig { url, ..schema.config() }).await.unwrap();
    store.probe().await.unwrap();
    for refused in [
        reader.probe().await.unwrap_err(),
        reader.commit(&[fresh("c", 0, next(1))], &lease("w", 1)).await.remove(0).unwrap_err(),
    ] {
        assert_eq!(refused.kind().code(), "unavailable", "{refused}");
        assert!(refused.to_string().contains("read only"), "{refused}");
    }
    reader.close();
    schema.sql(&format!("DROP ROLE {role}"));
}
