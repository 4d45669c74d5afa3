use canonical_envelope::{
    BuildError, Envelope, EnvelopeBuilder, Fault, Limits, ScenarioId, format_time, parse_time,
};
use time::OffsetDateTime;

fn minimal() -> EnvelopeBuilder {
    EnvelopeBuilder::new("a.b.c")
        .event_id("e-1")
        .ts_utc(OffsetDateTime::UNIX_EPOCH)
        .manifest_fingerprint("a".repeat(64))
}

#[test]
fn what_is_built_is_canonical_and_says_what_was_set() {
    #[derive(serde::Serialize)]
    struct Payload {
        merchant: &'static str,
        amount: u64,
    }
    let bytes = minimal()
        .event_id("quote \" backslash \\ line\n é")
        .parameter_hash("b".repeat(64))
        .seed(u64::MAX)
        .scenario_number(7)
        .run_id("c".repeat(32))
        .platform_run_id("platform_20260129T093000Z")
        .scenario_run_id("d".repeat(32))
        .emitted_at_utc(OffsetDateTime::UNIX_EPOCH)
        .schema_version("1")
        .trace("t", "s")
        .parent_event_id("p")
        .producer("wsp")
        .source_module("m")
        .payload(&Payload { merchant: "é", amount: 5 })
        .build()
        .unwrap();
    let envelope = Envelope::parse(&bytes).unwrap();
    assert!(envelope.is_canonical());
    assert_eq!(envelope.event_id(), "quote \" backslash \\ line\n é");
    assert_eq!(envelope.ts_utc(), "1970-01-01T00:00:00.000000Z");
    assert_eq!(envelope.seed(), Some(u64::MAX));
    assert_eq!(envelope.scenario_id(), Some(ScenarioId::Number("7")));
    assert_eq!(envelope.payload(), Some(r#"{"merchant":"é","amount":5}"#));
    assert!(canonical_envelope::Field::ALL.into_iter().all(|field| envelope.has(field)));
}

#[test]
fn an_invalid_envelope_is_not_built() {
    let error = EnvelopeBuilder::new("").run_id("XYZ").payload(&[1, 2]).build().unwrap_err();
    let BuildError::Invalid(invalid) = error else { panic!("{error}") };
    let paths: Vec<&str> = invalid.violations().iter().map(canonical_envelope::Violation::path).collect();
    assert_eq!(paths, ["event_id", "ts_utc", "manifest_fingerprint", "event_type", "payload", "run_id"]);
}

#[test]
fn payload_text_cannot_reach_out_of_the_payload() {
    for text in ["{},\"seed\":1", "{\"a\":1}}", "{", "", "{\"a\":1},{\"b\":2}"] {
        let error = minimal().payload_json(text).build().unwrap_err();
        assert!(matches!(error, BuildError::PayloadText { .. }), "{text:?}: {error}");
    }
    assert!(matches!(minimal().payload_json("[1]").build(), Err(BuildError::Invalid(_))));
    assert!(matches!(minimal().payload_json("{\"a\":1,\"a\":2}").build(), Err(BuildError::Invalid(_))));
    let bytes = minimal().payload_json(" { \"z\" : 1.0 ,\n \"a\":\"\\u0041\" } ").build().unwrap();
    assert!(bytes.ends_with(br#""payload":{"z":1.0,"a":"\u0041"}}"#));
}

#[test]
fn limits_count_for_the_whole_envelope() {
    let small = Limits::new(300, 3);
    assert!(minimal().limits(small).payload_json("{}").build().is_ok());
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(200));
    assert!(matches!(minimal().limits(small).payload_json(&large).build(), Err(BuildError::Invalid(_))));
    assert!(matches!(
        minimal().limits(small).payload_json("x".repeat(400)).build(),
        Err(BuildError::Invalid(_))
    ));
    assert!(matches!(
        minimal().limits(small).payload_json("{\"a\":[[]]}").build(),
        Err(BuildError::Invalid(_))
    ));
}

#[test]
fn a_payload_that_is_no_json_is_an_error() {
    let keyed_by_lists = std::collections::BTreeMap::from([(vec![1], 1)]);
    let error = minimal().payload(&keyed_by_lists).build().unwrap_err();
    assert!(matches!(error, BuildError::Payload(_)), "{error}");
}

#[test]
fn times_are_written_in_utc_and_cut_to_microseconds() {
    let at = OffsetDateTime::from_unix_timestamp_nanos(1_769_679_000_123_456_999).unwrap();
    assert_eq!(format_time(at).unwrap(), "2026-01-29T09:30:00.123456Z");
    let east = at.to_offset(time::UtcOffset::from_hms(5, 30, 0).unwrap());
    assert_eq!(format_time(east).unwrap(), "2026-01-29T09:30:00.123456Z");
    assert_eq!(
        parse_time("2026-01-29T09:30:00.123456Z").unwrap().unix_timestamp_nanos(),
        1_769_679_000_123_456_000
    );
    assert_eq!(parse_time("2026-01-29T09:30:00Z").unwrap_err().to_string().split(' ').next(), Some("must"));
    let before_the_year_0 =
        time::Date::from_calendar_date(-1, time::Month::May, 1).unwrap().midnight().assume_utc();
    assert_eq!(format_time(before_the_year_0), Err(Fault::NoSuchTime));
    assert!(minimal().ts_utc(before_the_year_0).build().is_err());
}

#[cfg(feature = "uuid")]
#[test]
fn fresh_ids_are_uuids_and_differ() {
    let id = |builder: EnvelopeBuilder| {
        let bytes = builder.build().unwrap();
        Envelope::parse(&bytes).unwrap().event_id().to_owned()
    };
    let (a, b) = (id(minimal().random_event_id()), id(minimal().random_event_id()));
    assert!(a != b && a.len() == 36 && a.as_bytes()[14] == b'4');
    let (a, b) = (id(minimal().time_ordered_event_id()), id(minimal().time_ordered_event_id()));
    assert!(a < b && a.as_bytes()[14] == b'7');
}
