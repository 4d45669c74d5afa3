//! What the server must be, who may use it, and what is said where an ACK is weaker.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eb_contract::{
    Cut, Durability, Effect, ErrorKind, EventBusAdmin, EventBusPublisher, EventBusReader, PartitionId,
    ReadLimit, Result, StartAt,
};
use eb_redis::{GateClaim, PublishConfig, RedisBus, RedisConfig, RedisUrl, TlsConfig};
use eb_testkit::services::{Redis, RedisOptions, free_port};

use crate::common::{PATIENCE, config, patient, read_all, record, server, topic};

async fn refused(config: RedisConfig) -> eb_contract::Error {
    match RedisBus::open(config).await {
        Ok(_) => panic!("it opened"),
        Err(e) => e,
    }
}

/// Everything that a user of the bus does, once.
async fn use_all(config: RedisConfig) -> Result<()> {
    let bus = RedisBus::open(config).await?;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic = topic(&format!("all-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    bus.claim(GateClaim::Sole).await?;
    bus.admin().create_topic(&topic, 2).await?;
    let (publisher, reader) = (bus.publisher(), bus.reader());
    publisher.probe(&topic).await?;
    let at = publisher.publish(&topic, record("k", 1)).await?;
    let next = publisher.publish(&topic, record("k", 2)).await?;
    assert!(reader.topics().await?.contains(&topic));
    reader.head(&topic, at.partition_id).await?;
    let mut cursor = reader.cursor(&topic, at.partition_id, StartAt::Earliest).await?;
    assert_eq!(cursor.next(ReadLimit::default()).await?.records.len(), 2);
    let waiting = ReadLimit::default().waiting(Duration::from_millis(20));
    assert!(cursor.next(waiting).await?.records.is_empty());
    assert_eq!(bus.admin().trim(&topic, at.partition_id, &Cut::Next(next.offset)).await?, 1);
    publisher.close().await
}

#[tokio::test]
async fn a_server_whose_answers_are_no_acks_is_refused_with_what_to_set() {
    let server = server(&[]);
    let mut wire = server.wire().unwrap();
    let good = [
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("maxmemory", "0"),
    ];
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("appendfsync", "everysec")], "appendfsync is everysec"),
        (&[("no-appendfsync-on-rewrite", "yes")], "no-appendfsync-on-rewrite is yes"),
        (
            &[("maxmemory", "1000000000"), ("maxmemory-policy", "allkeys-lru")],
            "maxmemory-policy is allkeys-lru",
        ),
        (&[("appendonly", "no")], "appendonly is no"),
    ];
    for (changed, named) in cases {
        for (name, value) in good.iter().chain(changed) {
            wire.must(&["CONFIG", "SET", name, value]).unwrap();
        }
        let e = refused(config(server.port())).await;
        assert_eq!(*e.kind(), ErrorKind::InvalidInput, "{e}");
        let text = e.to_string();
        assert!(text.contains(named) && text.ends_with("or set accept_weaker_ack"), "{text}");
    }
}

#[tokio::test]
async fn a_weaker_ack_that_is_accepted_is_said_to_be_weaker() {
    let server = server(&[("appendfsync", "everysec")]);
    let config = RedisConfig { accept_weaker_ack: true, ..config(server.port()) };
    assert_eq!(eb_redis::capabilities(&config).durability, Durability::Weaker);
    let bus = RedisBus::open(config.clone()).await.unwrap();
    let capabilities = bus.capabilities();
    assert_eq!(capabilities.durability, Durability::Weaker);
    assert!(
        capabilities.notes.iter().any(|n| n.contains("appendfsync is everysec: a power cut takes")),
        "{capabilities:?}"
    );
    use_all(config).await.unwrap();
}

#[tokio::test]
async fn settings_that_change_while_the_bus_is_open_stop_the_acks() {
    let server = server(&[]);
    let publish = PublishConfig { give_up_after: Duration::from_millis(100), ..PublishConfig::default() };
    let bus = RedisBus::open(RedisConfig { publish, ..config(server.port()) }).await.unwrap();
    let topic = topic("changing");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 1)).await.unwrap();
    let mut wire = server.wire().unwrap();
    wire.must(&["CONFIG", "SET", "appendfsync", "everysec"]).unwrap();
    let e = publisher.probe(&topic).await.unwrap_err();
    assert!(e.is_retryable() && e.to_string().contains("appendfsync is everysec"), "asked anew: {e}");
    let e = publisher.publish(&topic, record("k", 2)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Unavailable, Effect::Unknown), "{e}");
    assert!(e.to_string().contains("appendfsync is everysec"), "{e}");
    let e = publisher.publish(&topic, record("k", 3)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Unavailable, Effect::None), "{e}");
    assert!(e.is_retryable(), "{e}");
    let e = publisher.probe(&topic).await.unwrap_err();
    assert!(e.is_retryable() && e.to_string().contains("appendfsync is everysec"), "{e}");
    wire.must(&["CONFIG", "SET", "appendfsync", "always"]).unwrap();
    publisher.probe(&topic).await.unwrap();
    publisher.publish(&topic, record("k", 4)).await.unwrap();
    let numbers: Vec<_> =
        read_all(&bus.reader(), &topic, 0).await.iter().map(|r| crate::common::number(&r.envelope)).collect();
    assert_eq!(numbers, [1, 2, 4], "the unknown one was appended, the refused one was not");
}

#[tokio::test]
async fn a_replica_is_refused_and_so_is_a_primary_that_has_one() {
    let primary = server(&[]);
    let replica = server(&[("replicaof", &format!("127.0.0.1 {}", primary.port()))]);
    let e = refused(config(replica.port())).await;
    assert!(e.is_retryable() && e.to_string().contains("replica"), "{e}");
    let mut wire = primary.wire().unwrap();
    let connected =
        || wire.must(&["INFO", "replication"]).unwrap().text().unwrap().contains("connected_slaves:1");
    tokio::time::timeout(PATIENCE, async move {
        let mut connected = connected;
        while !connected() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let e = refused(config(primary.port())).await;
    assert!(e.to_string().contains("1 replicas"), "{e}");
}

/// As the crate's documentation lists them, for the prefix `eb`.
const RIGHTS: &str = "~{eb}:* +@connection +info +config|get +client|id +client|kill +eval +evalsha +script|load +multi +exec +hget +hmget +hset +sadd +smembers +exists +xadd +xtrim +xrange +xrevrange +xread +xlen +xinfo|stream +xgroup|create +xgroup|destroy";

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything_and_without_one_is_told_which() {
    let server = server(&[]);
    let mut wire = server.wire().unwrap();
    let mut user = |name: &str, rights: &str| {
        let words = ["ACL", "SETUSER", name, "on", ">geheim"].into_iter().chain(rights.split(' '));
        wire.must(&words.collect::<Vec<_>>()).unwrap();
        let url = format!("redis://{name}:geheim@127.0.0.1:{}", server.port());
        RedisConfig { url: RedisUrl::parse(&url).unwrap(), ..config(server.port()) }
    };
    use_all(user("whole", RIGHTS)).await.unwrap();

    let blind = user("blind", &RIGHTS.replace(" +config|get", ""));
    let e = refused(blind.clone()).await;
    assert!(e.to_string().contains("+config|get"), "{e}");
    use_all(RedisConfig { accept_weaker_ack: true, ..blind }).await.unwrap();

    let e = use_all(user("weak", &RIGHTS.replace(" +xadd", ""))).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::InvalidInput, Effect::None), "{e}");
    assert!(e.to_string().contains("can't run this command") && e.to_string().contains("rights"), "{e}");

    let e =
        refused(user("harmless", &RIGHTS.replace(" +client|kill", "").replace("+@connection ", ""))).await;
    assert!(e.to_string().contains("client|kill"), "{e}");

    let wrong = RedisUrl::parse(&format!("redis://whole:falsch@127.0.0.1:{}", server.port())).unwrap();
    let e = refused(RedisConfig { url: wrong, ..config(server.port()) }).await;
    assert_eq!(*e.kind(), ErrorKind::InvalidInput, "{e}");
    assert!(!e.to_string().contains("falsch") && !e.is_retryable(), "{e}");
}

#[tokio::test]
async fn an_encrypted_connection_trusts_the_named_certificate_and_no_other() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let port = free_port().unwrap();
    let settings = [
        ("tls-port", port.to_string()),
        ("tls-cert-file", "cert.pem".to_owned()),
        ("tls-key-file", "key.pem".to_owned()),
        ("tls-ca-cert-file", "cert.pem".to_owned()),
        ("tls-auth-clients", "no".to_owned()),
    ];
    let options = RedisOptions {
        settings: settings.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        files: vec![
            ("cert.pem".to_owned(), made.cert.pem().into_bytes()),
            ("key.pem".to_owned(), made.signing_key.serialize_pem().into_bytes()),
        ],
        port: None,
    };
    let server = Redis::start(&options).unwrap();
    let ca_file = Some(server.data().join("cert.pem"));
    let at = |host: &str| {
        let url = RedisUrl::parse(&format!("rediss://{host}:{port}")).unwrap();
        RedisConfig { timeouts: patient(), ..RedisConfig::new(url) }
    };
    let trusting = TlsConfig { ca_file, ..TlsConfig::default() };
    use_all(RedisConfig { tls: trusting.clone(), ..at("localhost") }).await.unwrap();
    let e = refused(RedisConfig { tls: trusting.clone(), ..at("127.0.0.1") }).await;
    assert!(e.to_string().contains("certificate"), "another name: {e}");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = server.data().join("other.pem");
    std::fs::write(&file, other.cert.pem()).unwrap();
    let tls = TlsConfig { ca_file: Some(file), ..TlsConfig::default() };
    let e = refused(RedisConfig { tls, ..at("localhost") }).await;
    assert!(e.to_string().contains("certificate"), "another certificate: {e}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let port = free_port().unwrap();
    let e = refused(config(port)).await;
    assert_eq!(*e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.is_retryable() && e.to_string().contains(&format!("redis://127.0.0.1:{port}")), "{e}");
    assert!(e.to_string().ends_with("see that it runs at this address, then try again"), "{e}");
}

#[tokio::test]
async fn a_full_server_refuses_records_and_takes_them_again_once_there_is_room() {
    let server = server(&[]);
    // Patience is for a server that is away, not for one that has no room.
    let publish = PublishConfig { give_up_after: Duration::from_secs(3_600), ..PublishConfig::default() };
    let bus = RedisBus::open(RedisConfig { publish, ..config(server.port()) }).await.unwrap();
    let topic = topic("full");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 1)).await.unwrap();
    let mut wire = server.wire().unwrap();
    wire.must(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let answers = publisher.publish_batch(&topic, vec![record("k", 2), record("k", 3), record("j", 4)]).await;
    let codes: Vec<_> = answers
        .iter()
        .map(|a| {
            let e = a.as_ref().unwrap_err();
            assert_eq!(e.effect(), Effect::None, "{e}");
            e.kind().code()
        })
        .collect();
    assert_eq!(codes, ["storage_full", "not_attempted", "storage_full"]);
    wire.must(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    publisher.publish(&topic, record("k", 2)).await.unwrap();
    assert_eq!(read_all(&bus.reader(), &topic, 0).await.len(), 2);
    assert!(bus.reader().cursor(&topic, PartitionId(0), StartAt::Latest).await.is_ok());
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_loaded_again() {
    let server = server(&[]);
    let bus = RedisBus::open(config(server.port())).await.unwrap();
    let topic = topic("flushed");
    bus.admin().create_topic(&topic, 1).await.unwrap();
    let publisher = bus.publisher();
    publisher.publish(&topic, record("k", 1)).await.unwrap();
    server.wire().unwrap().must(&["SCRIPT", "FLUSH"]).unwrap();
    publisher.publish(&topic, record("k", 2)).await.unwrap();
    assert_eq!(read_all(&bus.reader(), &topic, 0).await.len(), 2);
}

#[tokio::test]
async fn a_server_that_hides_its_settings_is_refused_or_taken_as_weaker() {
    let server = server(&[("rename-command", "CONFIG HIDDEN")]);
    let e = refused(config(server.port())).await;
    assert_eq!(*e.kind(), ErrorKind::InvalidInput, "{e}");
    assert!(e.to_string().contains("CONFIG GET is refused"), "{e}");
    use_all(RedisConfig { accept_weaker_ack: true, ..config(server.port()) }).await.unwrap();
}

#[tokio::test]
async fn a_database_that_the_server_does_not_have_is_a_wrong_address() {
    let server = server(&[]);
    let url = RedisUrl::parse(&format!("redis://127.0.0.1:{}/99", server.port())).unwrap();
    let e = refused(RedisConfig { timeouts: patient(), ..RedisConfig::new(url) }).await;
    assert_eq!(*e.kind(), ErrorKind::InvalidInput, "{e}");
    assert!(e.to_string().contains("name a database that the server has"), "{e}");
}
