use canonical_envelope::{Envelope, Field, KeyPath, KeyPathError, Scalar};
use proptest::prelude::*;

use crate::generated::{Json, object, style};
use crate::{FULL, envelope_with};

fn key(text: &str, path: &str) -> Option<String> {
    let path: KeyPath = path.parse().unwrap();
    Envelope::parse(text.as_bytes())
        .unwrap()
        .scalar(&path)
        .and_then(Scalar::into_key)
        .map(std::borrow::Cow::into_owned)
}

#[test]
fn scalars_become_keys_as_they_are_written() {
    let text = envelope_with(
        r#""seed":18446744073709551615,"payload":{"m":"a\u0041\"","n":1.50,"t":true,"f":false,"z":null,"e":"","o":{"i":{"d":7},"l":[1]}},"#,
    );
    for (path, expected) in [
        ("payload.m", Some("aA\"")),
        ("payload.n", Some("1.50")),
        ("payload.t", Some("true")),
        ("payload.f", Some("false")),
        ("payload.o.i.d", Some("7")),
        ("seed", Some("18446744073709551615")),
        ("event_id", Some("e-1")),
        ("payload.z", None),
        ("payload.e", None),
        ("payload.o", None),
        ("payload.o.l", None),
        ("payload.o.l.0", None),
        ("payload.n.x", None),
        ("payload.missing", None),
        ("run_id", None),
    ] {
        assert_eq!(key(&text, path).as_deref(), expected, "{path}");
    }
}

#[test]
fn keys_written_with_escapes_are_found() {
    let text = envelope_with(r#""payload":{"\u006derchant_id":"m","merchant_i\u0065":"other"},"#);
    assert_eq!(key(&text, "payload.merchant_id").as_deref(), Some("m"));
}

#[test]
fn a_path_that_names_no_place_is_refused() {
    for (path, error) in [
        ("payload", KeyPathError::WholePayload),
        ("merchant_id", KeyPathError::UnknownField("merchant_id".into())),
        ("run_id.x", KeyPathError::NotInside("run_id")),
        ("payload..x", KeyPathError::EmptyPart("payload..x".into())),
        ("", KeyPathError::EmptyPart(String::new())),
    ] {
        assert_eq!(path.parse::<KeyPath>().unwrap_err(), error);
    }
    let path: KeyPath = "payload.a.b".parse().unwrap();
    assert_eq!((path.as_str(), path.field()), ("payload.a.b", Field::Payload));
}

#[test]
fn every_field_but_the_payload_can_be_named() {
    let envelope = Envelope::parse(FULL.as_bytes()).unwrap();
    for field in Field::ALL.into_iter().filter(|field| *field != Field::Payload) {
        let scalar = envelope.scalar(&field.name().parse().unwrap()).unwrap();
        assert_eq!(scalar.into_key().as_deref(), envelope.text(field));
    }
}

proptest! {
    #[test]
    fn every_member_of_a_payload_is_found_under_its_key(payload in object(), mut style in style()) {
        let written = style.envelope("a", &payload);
        let envelope = Envelope::parse(written.spaced.as_bytes()).unwrap();
        let Json::Object(members) = &payload else { unreachable!() };
        for (name, value) in members.iter().filter(|(name, _)| !name.is_empty() && !name.contains('.')) {
            let found = envelope.scalar(&format!("payload.{name}").parse().unwrap());
            let expected = match value {
                Json::String(text) => Some(Scalar::String(text.into())),
                Json::Plain(text) => match text.as_str() {
                    "null" => None,
                    "true" => Some(Scalar::Bool(true)),
                    "false" => Some(Scalar::Bool(false)),
                    number => Some(Scalar::Number(number)),
                },
                Json::Array(_) | Json::Object(_) => None,
            };
            prop_assert_eq!(found, expected);
        }
    }
}
