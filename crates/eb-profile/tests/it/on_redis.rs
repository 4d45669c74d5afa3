//! Profiles on a real Redis: each setting takes effect.

use eb_contract::{Durability, Effect, EnvelopeRef, Error, ErrorKind, PartitionKey, PublishRecord, Topic};
use eb_profile::{Env, OpenError, Platform, Profile, ProfileSource, Purpose};
use eb_testkit::services::{Redis, RedisOptions, RedisReply, Signal, free_port};
use ig_gate::Decision;

use crate::opening::{LOCAL, event};

/// The local profile on Redis with these lines in its section, `LOCAL`'s stores and all.
/// Where they say nothing else, it is patient with a machine that is busy with everything else.
fn profile(folder: &tempfile::TempDir, section: &str) -> Profile {
    let mut patient = String::new();
    for (timeout, ms) in [("connect_timeout_ms", 10_000), ("answer_timeout_ms", 60_000)] {
        if !section.contains(timeout) {
            patient += &format!("      {timeout}: {ms}\n");
        }
    }
    let text = LOCAL.replace("event_bus_kind: file", "event_bus_kind: redis").replace(
        "    create_topics: true\n",
        &format!("    create_topics: true\n    max_envelope_bytes: 2000\n    redis:\n{section}{patient}"),
    );
    let env = Env::only([("EB_RUNS", folder.path().to_str().unwrap())]);
    Profile::parse(ProfileSource::built_in(folder.path()), &text, &env).unwrap()
}

async fn open(profile: &Profile) -> Result<Platform, OpenError> {
    let platform = Platform::open(profile.clone(), Purpose::Writing).await?;
    platform.ensure_topics().await?;
    Ok(platform)
}

async fn refused(profile: &Profile) -> Error {
    match open(profile).await {
        Err(OpenError::Bus(e)) => e,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it opened"),
    }
}

fn server(settings: &[(&str, &str)]) -> Redis {
    let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Redis::start(&RedisOptions { settings, ..RedisOptions::default() }).expect("a Redis to test with")
}

fn audit() -> Topic {
    Topic::new("fp.bus.audit.v1").unwrap()
}

fn record(n: usize) -> PublishRecord {
    let envelope = EnvelopeRef::new(format!(r#"{{"n":{n}}}"#)).unwrap();
    PublishRecord::new(PartitionKey::new("k".to_owned()).unwrap(), envelope)
}

/// How often a command was run.
fn calls(server: &Redis, command: &str) -> usize {
    let stats = server.wire().unwrap().must(&["INFO", "commandstats"]).unwrap().text().unwrap();
    let line = stats.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|l| l.split(',').next()).map_or(0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn events_are_admitted_once_and_all_keys_lie_below_the_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[]);
    let profile = profile(&folder, &format!("      url: {}\n      stream_prefix: mine\n", server.url()));
    let platform = open(&profile).await.unwrap();
    assert_eq!(platform.capabilities().durability, Durability::PowerCut);
    let first = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    platform.close().await.unwrap();
    let platform = open(&profile).await.unwrap();
    let again = platform.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!(again.eb_ref, first.eb_ref);
    assert_ne!(again.decision, first.decision);
    platform.close().await.unwrap();
    let RedisReply::List(keys) = server.wire().unwrap().must(&["KEYS", "*"]).unwrap() else { panic!() };
    assert!(keys.len() > 6 && keys.iter().all(|k| k.text().unwrap().starts_with("{mine}:")), "{keys:?}");
}

#[tokio::test]
async fn a_second_gate_with_an_index_of_its_own_is_refused_while_the_first_is_open_and_not_after() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = server(&[]);
    let section = format!("      url: {}\n      connect_timeout_ms: 500\n", server.url());
    let first = open(&profile(&here, &section)).await.unwrap();
    let second = open(&profile(&there, &section)).await.unwrap();
    let admitted = first.gate().await.unwrap().admit(event("e1")).await.unwrap();
    let Err(refused) = second.gate().await else { panic!("two gates that do not know of each other") };
    assert!(refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("another gate is open on this bus, at 127.0.0.1:"), "{refused}");
    first.close().await.unwrap();
    let known = second.gate().await.unwrap().admit(event("e1")).await.unwrap();
    assert_eq!(
        (known.decision, &known.eb_ref),
        (Decision::Duplicate, &admitted.eb_ref),
        "it has read the log"
    );
    second.close().await.unwrap();
}

#[tokio::test]
async fn an_envelope_beyond_the_profiles_limit_is_too_large_for_the_bus() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[]);
    let platform = open(&profile(&folder, &format!("      url: {}\n", server.url()))).await.unwrap();
    let large = EnvelopeRef::new(format!(r#"{{"n":"{}"}}"#, "x".repeat(2_000))).unwrap();
    let record = PublishRecord::new(PartitionKey::new("k".to_owned()).unwrap(), large);
    let e = platform.publisher().publish(&audit(), record).await.unwrap_err();
    assert_eq!(e.kind().code(), "too_large", "{e}");
}

#[tokio::test]
async fn a_server_that_may_lose_an_ack_is_refused_with_what_to_set_or_told_as_weaker() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[("appendfsync", "everysec")]);
    let section = format!("      url: {}\n", server.url());
    let e = refused(&profile(&folder, &section)).await.to_string();
    assert!(e.contains("appendfsync is everysec") && !e.contains('\n'), "{e}");
    assert!(
        e.contains("set appendonly yes, appendfsync always and no-appendfsync-on-rewrite no, or set accept_weaker_ack"),
        "{e}"
    );
    let weak = profile(&folder, &format!("{section}      accept_weaker_ack: true\n"));
    let platform = open(&weak).await.unwrap();
    let capabilities = platform.capabilities();
    assert_eq!(capabilities.durability, Durability::Weaker);
    let told = "appendfsync is everysec: a power cut takes what was not synced yet";
    assert!(capabilities.notes.iter().any(|note| note.contains(told)), "{capabilities:?}");
}

#[tokio::test]
async fn user_and_password_are_those_of_the_address_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[]);
    let mut wire = server.wire().unwrap();
    wire.must(&["ACL", "SETUSER", "gate", "on", ">geheim", "~{eb}:*", "+@all"]).unwrap();
    wire.must(&["ACL", "SETUSER", "default", "off"]).unwrap();
    let at = |who: &str| format!("      url: redis://{who}127.0.0.1:{}\n", server.port());
    open(&profile(&folder, &at("gate:geheim@"))).await.unwrap();
    for wrong in ["gate:falsch@", "gaet:geheim@", ":geheim@", ""] {
        let e = refused(&profile(&folder, &at(wrong))).await;
        let text = e.to_string();
        assert!(!e.is_retryable() && text.contains("check user and password"), "{wrong}: {text}");
        assert!(!text.contains("geheim") && !text.contains("falsch"), "{text}");
        assert!(text.contains(&format!("redis://127.0.0.1:{}", server.port())), "{text}");
    }
}

#[tokio::test]
async fn an_encrypted_connection_is_made_with_the_certificates_of_the_profile() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let me = rcgen::generate_simple_self_signed(["gate".to_owned()]).unwrap();
    let port = free_port().expect("a free port");
    // Both sign themselves: the server trusts ours and we trust its.
    let settings = [
        ("tls-port", port.to_string().as_str()),
        ("tls-cert-file", "cert.pem"),
        ("tls-key-file", "key.pem"),
        ("tls-ca-cert-file", "me.pem"),
        ("tls-auth-clients", "yes"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec();
    let files = [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("me.pem", me.cert.pem()),
        ("me.key", me.signing_key.serialize_pem()),
    ];
    for (name, text) in &files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let files = files.map(|(name, text)| (name.to_owned(), text.into_bytes())).to_vec();
    let _server = Redis::start(&RedisOptions { settings, files, port: None }).expect("a Redis to test with");
    let url = format!("      url: rediss://localhost:{port}\n");
    let trusted = format!("{url}      ca_file: cert.pem\n");
    let known = format!("{trusted}      client_certificate_file: me.pem\n      client_key_file: me.key\n");
    open(&profile(&folder, &known)).await.unwrap();
    let e = refused(&profile(&folder, &trusted)).await;
    assert!(!e.to_string().contains('\n'), "without our certificate: {e}");
    let e = refused(&profile(&folder, &url)).await;
    assert!(e.to_string().contains("certificate"), "trusted by nobody: {e}");
    let absent = refused(&profile(&folder, &trusted.replace("cert.pem", "absent.pem"))).await.to_string();
    assert!(absent.contains("absent.pem"), "{absent}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_after_the_connect_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let section = format!("      url: redis://127.0.0.1:{port}\n      connect_timeout_ms: 37\n");
    let e = refused(&profile(&folder, &section)).await;
    assert_eq!(*e.kind(), ErrorKind::Timeout, "{e}");
    assert!(e.to_string().contains("not connected within 37ms"), "{e}");
}

#[tokio::test]
async fn an_append_that_is_not_answered_within_the_timeout_has_an_unknown_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[]);
    let section = format!("      url: {}\n      answer_timeout_ms: 3000\n", server.url());
    let platform = open(&profile(&folder, &section)).await.unwrap();
    let publisher = platform.publisher();
    publisher.publish(&audit(), record(0)).await.unwrap();
    // Longer than any test waits; the server goes on at UNPAUSE.
    let mut wire = server.wire().unwrap();
    wire.must(&["CLIENT", "PAUSE", "600000", "WRITE"]).unwrap();
    let e = publisher.publish(&audit(), record(1)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Timeout, Effect::Unknown), "{e}");
    wire.must(&["CLIENT", "UNPAUSE"]).unwrap();
    publisher.publish(&audit(), record(2)).await.unwrap();
}

#[tokio::test]
async fn appends_are_grouped_as_deep_as_the_profile_says() {
    for (limit, groups) in [
        ("max_records_per_group: 10", 10),
        ("max_records_per_group: 100", 1),
        // A record and its key: 9 bytes, or 10 from the eleventh on.
        ("max_bytes_per_group: 20", 50),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = server(&[]);
        let section = format!("      url: {}\n      publish:\n        {limit}\n", server.url());
        let platform = open(&profile(&folder, &section)).await.unwrap();
        let publisher = platform.publisher();
        publisher.publish(&audit(), record(0)).await.unwrap();
        let before = calls(&server, "evalsha");
        for answer in publisher.publish_batch(&audit(), (0..100).map(record).collect()).await {
            answer.unwrap();
        }
        assert_eq!(calls(&server, "evalsha") - before, groups, "{limit}");
    }
}

#[tokio::test]
async fn more_than_the_buffer_holds_is_throttled() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[]);
    let section = format!("      url: {}\n      publish:\n        max_buffered_bytes: 1\n", server.url());
    let platform = open(&profile(&folder, &section)).await.unwrap();
    let publisher = platform.publisher();
    let (first, second) = (publisher.publish(&audit(), record(0)), publisher.publish(&audit(), record(1)));
    assert_eq!(second.await.unwrap_err().kind().code(), "throttled");
    first.await.unwrap();
}

#[tokio::test]
async fn a_publish_waits_for_a_server_that_is_away_as_long_as_the_profile_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&[]);
    let section =
        |ms: u32| format!("      url: {}\n      publish:\n        give_up_after_ms: {ms}\n", server.url());
    let (hasty, patient) = (profile(&folder, &section(0)), profile(&folder, &section(3_600_000)));
    let (hasty, patient) = (open(&hasty).await.unwrap(), open(&patient).await.unwrap());
    let stopped = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.stop(Signal::Kill).map(|()| server)
    });
    let mut server = stopped.await.unwrap().unwrap();
    let waiting = patient.publisher().publish(&audit(), record(0));
    let e = hasty.publisher().publish(&audit(), record(1)).await.unwrap_err();
    assert_eq!((e.kind(), e.effect()), (&ErrorKind::Unavailable, Effect::None), "{e}");
    let restarted = tokio::task::spawn_blocking(move || server.restart().map(|()| server));
    let _server = restarted.await.unwrap().unwrap();
    waiting.await.unwrap();
}
