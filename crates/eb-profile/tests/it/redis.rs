//! The section `redis` of a profile.

use std::time::Duration;

use eb_profile::{ProfileError, RedisSettings, RedisTls};

use crate::{GOOD, parse};

/// A profile of kind `redis` with this section, indented as it stands.
fn profile(section: &str) -> String {
    let text = GOOD.replace("event_bus_kind: file", "event_bus_kind: redis");
    text.replace("    topics:\n", &format!("{section}    topics:\n"))
}

fn settings(section: &str) -> RedisSettings {
    parse(&profile(section), &[]).unwrap().wiring.event_bus.redis.unwrap()
}

fn error(section: &str) -> ProfileError {
    parse(&profile(section), &[]).unwrap_err()
}

#[test]
fn an_address_is_enough_and_nothing_is_weakened() {
    let settings = settings("    redis:\n      url: redis://db\n      stream_prefix: ${NOT_SET:-}\n");
    assert_eq!((settings.url.expose(), settings.stream_prefix.as_str()), ("redis://db", "eb"));
    assert!(!settings.accept_weaker_ack);
    assert_eq!(settings.tls, RedisTls::default());
    assert_eq!((settings.connect_timeout, settings.answer_timeout), (secs(3), secs(10)));
    assert_eq!(settings.gate_timeout, secs(30));
    assert_eq!((settings.publish.max_records_per_group, settings.publish.give_up_after), (512, secs(5)));
    assert_eq!(settings.read.waiting_connections, 16);
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn every_setting_is_read() {
    let settings = settings(
        "    redis:\n      url: rediss://gate:geheim@db:7000/2\n      stream_prefix: dev-\n      accept_weaker_ack: true\n      ca_file: ca.pem\n      client_certificate_file: /etc/me.pem\n      client_key_file: me.key\n      connect_timeout_ms: 1000\n      answer_timeout_ms: 2000\n      gate_timeout_ms: 4000\n      publish:\n        max_records_per_group: 100\n        max_bytes_per_group: 2000000\n        max_buffered_bytes: 5000000\n        give_up_after_ms: 0\n      read:\n        waiting_connections: 0\n        poll_every_ms: 7\n",
    );
    assert_eq!(settings.stream_prefix, "dev-");
    assert!(settings.accept_weaker_ack);
    let tls = RedisTls {
        ca_file: Some("/base/ca.pem".into()),
        client_certificate_file: Some("/etc/me.pem".into()),
        client_key_file: Some("/base/me.key".into()),
    };
    assert_eq!(settings.tls, tls, "relative to the base");
    assert_eq!((settings.connect_timeout, settings.answer_timeout), (secs(1), secs(2)));
    assert_eq!(settings.gate_timeout, secs(4));
    let publish = &settings.publish;
    assert_eq!((publish.max_records_per_group, publish.max_bytes_per_group), (100, 2_000_000));
    assert_eq!((publish.max_buffered_bytes, publish.give_up_after), (5_000_000, Duration::ZERO));
    assert_eq!((settings.read.waiting_connections, settings.read.poll_every.as_millis()), (0, 7));
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let key = "wiring.event_bus.redis";
    let at = |more: &str| format!("    redis:\n      url: redis://db\n{more}");
    let cases = [
        (String::new(), format!("p.yaml:9:3: {key}: missing; write its `url: redis://host:6379` below it")),
        ("    redis: {}\n".to_owned(), format!("p.yaml:11:5: {key}.url: missing")),
        (
            "    redis:\n      url: localhost:6379\n".to_owned(),
            format!("p.yaml:12:12: {key}.url: it must begin with redis://, rediss:// or unix://"),
        ),
        (
            at("      stream_prefx: a\n"),
            format!("p.yaml:13:7: {key}.stream_prefx: unknown key; did you mean `stream_prefix`?"),
        ),
        (
            at("      accept_weaker_acks: true\n"),
            format!("p.yaml:13:7: {key}.accept_weaker_acks: unknown key; did you mean `accept_weaker_ack`?"),
        ),
        (
            at("      accept_weaker_ack: yes\n"),
            format!("p.yaml:13:26: {key}.accept_weaker_ack: `yes` is neither true nor false"),
        ),
        (
            at("      stream_prefix: \"{eb}\"\n"),
            format!("p.yaml:13:22: {key}.stream_prefix: use 1 to 64 of A-Z a-z 0-9 . _ -"),
        ),
        (
            at("      ca_file: ca.pem\n"),
            format!("p.yaml:13:16: {key}.ca_file: it is looked at with a rediss:// address only"),
        ),
        (
            "    redis:\n      url: rediss://db\n      client_key_file: k\n".to_owned(),
            format!("p.yaml:11:5: {key}.client_certificate_file: missing, and client_key_file needs it"),
        ),
        (
            at("      publish:\n        max_record_per_group: 1\n"),
            format!(
                "p.yaml:14:9: {key}.publish.max_record_per_group: unknown key; did you mean `max_records_per_group`?"
            ),
        ),
        (
            at("      publish:\n        max_records_per_group: 10001\n"),
            format!(
                "p.yaml:14:32: {key}.publish.max_records_per_group: `10001` is not a whole number from 1 to 10000"
            ),
        ),
        (
            at("      gate_timeout_ms: 999\n"),
            format!("p.yaml:13:24: {key}.gate_timeout_ms: `999` is not a whole number from 1000 to 3600000"),
        ),
        (
            at("      answer_timeout_ms: 0\n"),
            format!("p.yaml:13:26: {key}.answer_timeout_ms: `0` is not a whole number from 1 to 300000"),
        ),
    ];
    for (section, expected) in cases {
        assert_eq!(error(&section).to_string(), expected);
    }
}

#[cfg(feature = "redis")]
#[test]
fn an_address_that_is_wrong_is_refused_at_its_place_and_never_quoted() {
    for wrong in [
        "redis://:geheim@db:port",
        "redis://:geheim@db/notanumber",
        "rediss://:geheim@db/#insecure",
        "http://:geheim@db",
    ] {
        let e = error(&format!("    redis:\n      url: \"{wrong}\"\n")).to_string();
        assert!(e.starts_with("p.yaml:12:12: wiring.event_bus.redis.url: "), "{e}");
        assert!(!e.contains("geheim"), "{e}");
    }
}

#[test]
fn the_address_is_masked_everywhere() {
    let text = profile("    redis:\n      url: redis://gate:geheim@db\n");
    let profile = parse(&text, &[]).unwrap();
    assert!(!format!("{profile:?}").contains("geheim"));
    let shown = profile.settings.iter().find(|s| s.key == "wiring.event_bus.redis.url").unwrap();
    assert_eq!((shown.value.as_str(), shown.secret), ("•••", true));
}

#[test]
fn a_weaker_ack_is_told_by_the_profile_and_only_where_redis_is_the_bus() {
    let weak = profile("    redis:\n      url: redis://db\n      accept_weaker_ack: true\n");
    let notices = parse(&weak, &[]).unwrap().notices;
    assert!(notices.len() == 1 && notices[0].contains("can take records that were ACKed"), "{notices:?}");
    let elsewhere = parse(&weak, &[("EVENT_BUS_KIND", "file")]).unwrap().notices;
    assert!(elsewhere.len() == 1 && elsewhere[0].starts_with("EVENT_BUS_KIND=file"), "{elsewhere:?}");
    let strict = profile("    redis:\n      url: redis://db\n");
    assert!(parse(&strict, &[]).unwrap().notices.is_empty());
}

#[test]
fn the_section_may_stand_beside_another_kind_and_the_switch_takes_it() {
    let beside = profile("    redis:\n      url: redis://db\n")
        .replace("event_bus_kind: redis", "event_bus_kind: file");
    assert!(parse(&beside, &[]).unwrap().wiring.event_bus.redis.is_some());
    let switched = parse(&beside, &[("EVENT_BUS_KIND", "redis")]).unwrap();
    assert_eq!(switched.wiring.event_bus_kind.as_str(), "redis");
    let eb_profile::AdmissionIndexConfig::Embedded { path, .. } = &switched.wiring.admission_index else {
        panic!()
    };
    assert!(path.ends_with("index/redis"), "an index of its own: {}", path.display());
    let without = parse(GOOD, &[("EVENT_BUS_KIND", "redis")]).unwrap_err().to_string();
    assert!(without.contains("wiring.event_bus.redis: missing (EVENT_BUS_KIND=redis needs it)"), "{without}");
}
