use canonical_envelope::{DedupeKey, Envelope, PayloadHash};
use proptest::prelude::*;

use crate::generated::{Json, object, style, text};
use crate::{FULL, envelope_with, full_with};

fn hash_input(text: &str) -> String {
    let mut out = Vec::new();
    Envelope::parse(text.as_bytes()).unwrap().write_payload_hash_input(&mut out);
    String::from_utf8(out).unwrap()
}

fn payload_hash(text: &str) -> PayloadHash {
    Envelope::parse(text.as_bytes()).unwrap().payload_hash(&mut Vec::new())
}

#[test]
fn the_dedupe_key_is_what_its_documentation_says() {
    // python3: sha256(struct.pack(">I", 1) + b"".join(struct.pack(">I", len(p)) + p for p in parts))
    let key = DedupeKey::of(Some("platform_20260101T000000Z"), "card.transaction.authorised", "é-1");
    assert_eq!(key.to_string(), "da349be89c452f9f85e12b4b1e24c9a81443558e821d2e06477b22dde6508d98");
    let of_envelope = Envelope::parse(FULL.as_bytes()).unwrap().dedupe_key();
    let of_parts = DedupeKey::of(
        Some("platform_20260129T093000Z"),
        "card.transaction.authorised",
        "018f6b1e-9c7a-7d0f-8e2b-3c4d5e6f7081",
    );
    assert_eq!(of_envelope, of_parts);
}

#[test]
fn the_dedupe_key_sees_characters_and_not_their_escapes() {
    let plain = envelope_with("");
    let escaped = plain.replace("e-1", r"\u0065-1");
    let key = |text: &str| Envelope::parse(text.as_bytes()).unwrap().dedupe_key();
    assert_eq!(key(&plain), key(&escaped));
}

#[test]
fn the_parts_of_a_dedupe_key_do_not_run_together() {
    assert_ne!(DedupeKey::of(None, "ab", "c"), DedupeKey::of(None, "a", "bc"));
    assert_ne!(DedupeKey::of(Some("a"), "b", "c"), DedupeKey::of(None, "ab", "c"));
}

#[test]
fn the_payload_hash_is_taken_over_the_sorted_form() {
    let written = envelope_with(
        r#""schema_version":"1\/2", "payload": {"é":1, "z":[{"b":1.0,"a":"\u0041\u001F\/"}], "\u0061":null, "":-0},"#,
    );
    let input = r#"{"event_type":"a.b.c","payload":{"":-0,"a":null,"z":[{"a":"A\u001f/","b":1.0}],"é":1},"schema_version":"1/2"}"#;
    assert_eq!(hash_input(&written), input);
    // printf %s … | sha256sum
    assert_eq!(
        payload_hash(&written).to_string(),
        "65940ff2797e100030536bd7371db9c2dbb4fa0270017ec6d06933dfcde28e07"
    );
}

#[test]
fn members_that_the_envelope_does_not_have_are_not_hashed() {
    assert_eq!(hash_input(&envelope_with("")), r#"{"event_type":"a.b.c"}"#);
    assert_eq!(hash_input(&envelope_with(r#""payload":{},"#)), r#"{"event_type":"a.b.c","payload":{}}"#);
}

#[test]
fn keys_are_sorted_by_code_points_and_not_by_utf16_units() {
    // U+FF01 comes before U+1D54F, whose UTF-16 surrogates would come first.
    let text = envelope_with(r#""payload":{"\ud835\udd4f":1,"！":2},"#);
    assert_eq!(hash_input(&text), r#"{"event_type":"a.b.c","payload":{"！":2,"𝕏":1}}"#);
}

#[test]
fn another_payload_type_or_version_is_another_hash_and_other_fields_do_not_count() {
    let base = payload_hash(FULL);
    for (field, other) in [
        ("payload", r#"{"merchant_id":"m-2"}"#),
        ("schema_version", r#""1.0.1""#),
        ("event_type", r#""a.b""#),
    ] {
        assert_ne!(payload_hash(&full_with(field, other)), base, "{field}");
    }
    for (field, other) in
        [("event_id", r#""x""#), ("emitted_at_utc", r#""2027-01-29T09:30:00.500000Z""#), ("seed", "1")]
    {
        assert_eq!(payload_hash(&full_with(field, other)), base, "{field}");
    }
}

#[test]
fn numbers_written_differently_are_different() {
    let of = |number: &str| payload_hash(&envelope_with(&format!(r#""payload":{{"a":{number}}},"#)));
    assert_ne!(of("1"), of("1.0"));
    assert_ne!(of("1e2"), of("100"));
}

#[test]
fn digests_are_written_and_read_as_hex() {
    let hash = payload_hash(FULL);
    assert_eq!(hash.to_string().parse::<PayloadHash>().unwrap(), hash);
    let json = serde_json::to_string(&hash).unwrap();
    assert_eq!(json, format!("\"{hash}\""));
    assert_eq!(serde_json::from_str::<PayloadHash>(&json).unwrap(), hash);
    assert_eq!(PayloadHash::from_bytes(*hash.as_bytes()), hash);
    for bad in ["", "ab", &hash.to_string().to_uppercase(), &hash.to_string()[1..]] {
        assert!(bad.parse::<PayloadHash>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn order_white_space_and_escapes_do_not_change_the_hash(
        payload in object(), name in text().prop_filter("not empty", |t| !t.is_empty()), mut a in style(), mut b in style(),
    ) {
        let expected = format!(
            "{{\"event_type\":{},\"payload\":{}}}",
            serde_json::to_string(&name).unwrap(),
            payload.sorted()
        );
        for written in [a.envelope(&name, &payload), b.envelope(&name, &payload)] {
            prop_assert_eq!(&hash_input(&written.spaced), &expected);
            prop_assert_eq!(&hash_input(&written.compact), &expected);
        }
    }

    #[test]
    fn different_payloads_have_different_hash_inputs(x in object(), y in object(), mut style in style()) {
        let same = x.sorted() == y.sorted();
        let of = |style: &mut crate::generated::Style, json: &Json| hash_input(&style.envelope("a", json).spaced);
        prop_assert_eq!(of(&mut style, &x) == of(&mut style, &y), same);
    }
}
