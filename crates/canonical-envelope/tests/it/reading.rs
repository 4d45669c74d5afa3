use canonical_envelope::{Envelope, Fault, Field, Limits, Reason, ScenarioId};

use crate::{FULL, envelope_with, full_with};

/// The violations as `path: what is wrong`.
fn violations(input: &str) -> Vec<(String, Fault)> {
    let error = Envelope::parse(input.as_bytes()).expect_err(input);
    error.violations().iter().map(|v| (v.path().to_owned(), v.fault())).collect()
}

#[test]
fn every_field_is_read() {
    let envelope = Envelope::parse(FULL.as_bytes()).unwrap();
    assert_eq!(envelope.event_id(), "018f6b1e-9c7a-7d0f-8e2b-3c4d5e6f7081");
    assert_eq!(envelope.event_type(), "card.transaction.authorised");
    assert_eq!(envelope.ts_utc(), "2026-01-29T09:30:00.000001Z");
    assert_eq!(envelope.manifest_fingerprint(), "a".repeat(64));
    assert_eq!(envelope.parameter_hash(), Some("b".repeat(64).as_str()));
    assert_eq!(envelope.seed(), Some(u64::MAX));
    assert_eq!(envelope.scenario_id(), Some(ScenarioId::Name("baseline")));
    assert_eq!(envelope.run_id(), Some("c".repeat(32).as_str()));
    assert_eq!(envelope.platform_run_id(), Some("platform_20260129T093000Z"));
    assert_eq!(envelope.scenario_run_id(), Some("d".repeat(32).as_str()));
    assert_eq!(envelope.emitted_at_utc(), Some("2026-01-29T09:30:00.500000Z"));
    assert_eq!(envelope.schema_version(), Some("1.0.0"));
    assert_eq!(envelope.trace_id(), Some("t"));
    assert_eq!(envelope.span_id(), Some("s"));
    assert_eq!(envelope.parent_event_id(), Some("p"));
    assert_eq!(envelope.producer(), Some("wsp"));
    assert_eq!(envelope.source_module(), Some("wsp.cards"));
    assert_eq!(envelope.payload(), Some(r#"{"merchant_id":"m-1"}"#));
    assert!(Field::ALL.into_iter().all(|field| envelope.has(field)));
    assert!(Field::ALL.into_iter().all(|field| Field::from_name(field.name()) == Some(field)));
}

#[test]
fn what_is_not_there_is_none() {
    let text = envelope_with("");
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    assert!(Field::ALL.into_iter().all(|field| envelope.has(field) == field.is_required()));
    assert_eq!((envelope.seed(), envelope.scenario_id(), envelope.payload()), (None, None, None));
}

#[test]
fn a_scenario_is_a_name_or_a_number_of_any_size() {
    let digits = "123456789012345678901234567890";
    let text = full_with("scenario_id", digits);
    assert_eq!(Envelope::parse(text.as_bytes()).unwrap().scenario_id(), Some(ScenarioId::Number(digits)));
    let text = full_with("scenario_id", "\"7\"");
    assert_eq!(Envelope::parse(text.as_bytes()).unwrap().scenario_id(), Some(ScenarioId::Name("7")));
}

#[test]
fn all_violations_are_reported_at_once() {
    let input =
        r#"{"event_id":"","seed":-1,"extra":1,"payload":[],"ts_utc":"2026-01-29T09:30:00Z","producer":null}"#;
    let found = violations(input);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["event_type", "manifest_fingerprint", "event_id", "extra", "payload", "producer", "seed", "ts_utc"]
    );
    assert_eq!(found[0].1, Fault::Missing);
    assert_eq!(found[2].1, Fault::Empty);
    assert_eq!(found[3].1, Fault::Unknown);
    assert!(matches!(found[4].1, Fault::Type { expected: "an object", found: "an array" }));
    assert!(matches!(found[5].1, Fault::Type { .. }));
    assert!(matches!(found[6].1, Fault::Number { .. }));
    assert!(matches!(found[7].1, Fault::Pattern { .. }));
}

#[test]
fn each_field_refuses_what_it_may_not_hold() {
    let long = |n: usize| format!("\"{}\"", "é".repeat(n));
    let cases: Vec<(&str, Vec<String>, Vec<String>)> = vec![
        ("event_id", vec![long(1), long(256)], vec![long(0), long(257), "7".into()]),
        ("event_type", vec![long(256)], vec![long(257), "{}".into()]),
        ("schema_version", vec![long(64)], vec![long(65), "1".into()]),
        ("producer", vec![long(128)], vec![long(129)]),
        ("source_module", vec![long(128)], vec![long(129)]),
        ("trace_id", vec![long(128)], vec![long(129)]),
        ("span_id", vec![long(128)], vec![long(129), "false".into()]),
        ("parent_event_id", vec![long(256)], vec![long(257), long(0)]),
        (
            "scenario_id",
            vec![long(256), "0".into()],
            vec![long(257), long(0), "-1".into(), "1.5".into(), "1.0".into()],
        ),
        (
            "seed",
            vec!["0".into(), "18446744073709551615".into()],
            vec!["18446744073709551616".into(), "-0".into(), "1e2".into(), "1.0".into(), "\"1\"".into()],
        ),
        (
            "manifest_fingerprint",
            vec![format!("\"{}\"", "0f".repeat(32)), format!("\"{}\\u0030\"", "a".repeat(63))],
            vec![
                format!("\"{}\"", "0F".repeat(32)),
                format!("\"{}\"", "0".repeat(63)),
                format!("\"{}\"", "0".repeat(65)),
                format!("\"{}g\"", "0".repeat(63)),
            ],
        ),
        ("run_id", vec![format!("\"{}\"", "9".repeat(32))], vec![format!("\"{}\"", "9".repeat(64))]),
        (
            "platform_run_id",
            vec!["\"platform_99999999T999999Z\"".into()],
            vec!["\"platform_20260129T093000\"".into(), "\"platform_20260129T093000Z\\n\"".into()],
        ),
        (
            "ts_utc",
            ["2024-02-29T23:59:59.999999Z", "0000-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"]
                .map(|t| format!("\"{t}\""))
                .to_vec(),
            [
                "2023-02-29T00:00:00.000000Z",
                "2026-13-01T00:00:00.000000Z",
                "2026-00-01T00:00:00.000000Z",
                "2026-04-31T00:00:00.000000Z",
                "2026-01-01T24:00:00.000000Z",
                "2026-01-01T00:60:00.000000Z",
                "2026-01-01T00:00:60.000000Z",
                "2026-01-01T00:00:00.00000Z",
                "2026-01-01T00:00:00.0000000Z",
                "2026-01-01T00:00:00.000000+00:00",
                "2026-01-01 00:00:00.000000Z",
                "٢026-01-01T00:00:00.000000Z",
            ]
            .map(|t| format!("\"{t}\""))
            .to_vec(),
        ),
        ("payload", vec!["{}".into(), "{\"\":null}".into()], vec!["null".into(), "\"{}\"".into()]),
    ];
    for (field, good, bad) in cases {
        for json in good {
            let text = full_with(field, &json);
            assert!(Envelope::parse(text.as_bytes()).is_ok(), "{field} = {json}");
        }
        for json in bad {
            let found = violations(&full_with(field, &json));
            assert_eq!(found.len(), 1, "{field} = {json}: {found:?}");
            assert_eq!(found[0].0, field);
        }
    }
}

#[test]
fn a_key_that_stands_twice_is_refused_at_every_level() {
    for (more, path) in [
        (r#""event_id":"e-1","#, "event_id"),
        (r#""event\u005fid":"e-1","#, "event_id"),
        (r#""payload":{"a":1,"b":2,"a":1},"#, "payload.a"),
        (r#""payload":{"a":1,"\u0061":1},"#, "payload.a"),
        (r#""payload":{"x":[1,{"deep":{"k":1,"j":0,"k":1}}]},"#, "payload.x[].deep.k"),
        (r#""payload":{"":1,"":1},"#, "payload."),
    ] {
        assert_eq!(violations(&envelope_with(more)), [(path.to_owned(), Fault::Duplicate)], "{more}");
    }
    let thrice = envelope_with(r#""payload":{"a":1,"a":2,"a":3,"b":1,"b":1},"#);
    assert_eq!(violations(&thrice).len(), 2, "a key is reported once however often it stands");
    assert!(
        Envelope::parse(envelope_with(r#""payload":{"a":{"a":1},"b":[{"a":1},{"a":1}]},"#).as_bytes())
            .is_ok()
    );
}

#[test]
fn what_is_no_object_is_no_envelope() {
    for input in ["[]", "1", "null", "\"text\"", "true", " [ {} ] "] {
        let found = violations(input);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "$");
    }
}

#[test]
fn malformed_input_names_the_place() {
    for (input, at) in [
        ("", (1, 1, 0)),
        ("{", (1, 2, 1)),
        ("{\n  \"event_id\": \"é\", x}", (2, 20, 22)),
        ("{\"a\":01}", (1, 7, 6)),
        ("{\"a\":1}}", (1, 8, 7)),
        ("{\"a\":\"\\x\"}", (1, 7, 6)),
        ("{\"a\":\"\\ud800\"}", (1, 7, 6)),
        ("{\"a\":\"\\udc00\\ud800\"}", (1, 7, 6)),
        ("{\"a\":\"\t\"}", (1, 7, 6)),
        ("{\"a\":tru}", (1, 6, 5)),
        ("{\"a\" 1}", (1, 6, 5)),
        ("[1,]", (1, 4, 3)),
        ("{\"a\":1,}", (1, 8, 7)),
        ("{'a':1}", (1, 2, 1)),
        ("\u{feff}{}", (1, 1, 0)),
        ("{} {}", (1, 4, 3)),
    ] {
        match Envelope::parse(input.as_bytes()).unwrap_err().reason() {
            Reason::Malformed { line, column, byte, .. } => {
                assert_eq!((*line, *column, *byte), at, "{input:?}");
            }
            other => panic!("{input:?}: {other}"),
        }
    }
    let broken = [b"{\"event_id\":\"".as_slice(), &[0xff], b"\"}"].concat();
    assert_eq!(*Envelope::parse(&broken).unwrap_err().reason(), Reason::NotUtf8 { byte: 13 });
}

#[test]
fn limits_hold_to_the_byte_and_to_the_level() {
    let text = envelope_with("");
    let size = |max| Limits::new(max, 100);
    assert!(Envelope::parse_with(text.as_bytes(), size(text.len())).is_ok());
    let error = Envelope::parse_with(text.as_bytes(), size(text.len() - 1)).unwrap_err();
    assert_eq!(*error.reason(), Reason::TooLarge { bytes: text.len(), limit: text.len() - 1 });

    let nested = |depth: usize| {
        envelope_with(&format!(r#""payload":{{"a":{}{}}},"#, "[".repeat(depth - 2), "]".repeat(depth - 2)))
    };
    for (limit, depth) in [(100, 100), (10, 10), (usize::MAX, Limits::MAX_DEPTH)] {
        let limits = Limits::new(1 << 20, limit);
        assert!(Envelope::parse_with(nested(depth).as_bytes(), limits).is_ok());
        let error = Envelope::parse_with(nested(depth + 1).as_bytes(), limits).unwrap_err();
        let [violation] = error.violations() else { panic!("{error}") };
        assert_eq!(violation.path(), "payload");
        assert!(matches!(violation.fault(), Fault::TooDeep { limit, .. } if limit == depth));
    }
}

#[test]
fn messages_say_what_to_do_and_let_no_control_character_through() {
    let input = envelope_with("\"bad\\u001b[31m\":1,");
    let message = Envelope::parse(input.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        message,
        "not a canonical event envelope: bad\\u{1b}[31m is not a field of the envelope; data of the event's own belongs into payload"
    );
    let long = envelope_with(&format!("\"{}\":1,", "k".repeat(100_000)));
    assert!(Envelope::parse(long.as_bytes()).unwrap_err().to_string().len() < 300);
}
