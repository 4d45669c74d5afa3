//! Inputs made to hurt.

use canonical_envelope::{Envelope, Fault, InvalidEnvelope, Limits, Reason};
use proptest::prelude::*;

use crate::generated::{object, style};
use crate::{FULL, envelope_with};

/// Reads the input and, where it is valid, does everything else.
fn exercise(input: &[u8]) -> Result<(), InvalidEnvelope> {
    let envelope = Envelope::parse(input)?;
    let mut out = Vec::new();
    envelope.write_canonical(&mut out);
    let again = Envelope::parse(&out).expect("the canonical form of a valid envelope is valid");
    assert_eq!(again.payload_hash(&mut Vec::new()), envelope.payload_hash(&mut Vec::new()));
    assert_eq!(again.dedupe_key(), envelope.dedupe_key());
    assert!(
        envelope.scalar(&"payload.a.b".parse().unwrap()).is_none_or(|scalar| scalar.into_key().is_some())
    );
    Ok(())
}

/// Whether this crate and serde_json agree on what is JSON, but for lone surrogates.
fn agrees_with_serde_json(input: &[u8]) {
    let theirs = std::str::from_utf8(input)
        .map_err(|e| e.to_string())
        .and_then(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| e.to_string()));
    let ours = exercise(input);
    let reason = ours.as_ref().map_err(InvalidEnvelope::reason);
    match reason {
        Err(Reason::Malformed { what, .. }) if what.contains("surrogate") => {}
        Err(Reason::Malformed { .. } | Reason::NotUtf8 { .. }) => {
            assert!(theirs.is_err(), "{}: only we refuse: {reason:?}", input.escape_ascii());
        }
        Ok(()) | Err(Reason::Violations(_)) => {
            assert!(theirs.is_ok(), "{}: only we accept: {theirs:?}", input.escape_ascii());
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_truncation_is_refused() {
    for end in 0..FULL.len() {
        assert!(exercise(&FULL.as_bytes()[..end]).is_err(), "at {end}");
    }
}

#[test]
fn every_flipped_bit_is_judged_as_serde_json_does() {
    for at in 0..FULL.len() {
        for bit in 0..8 {
            let mut bytes = FULL.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            agrees_with_serde_json(&bytes);
        }
    }
}

#[test]
fn endless_nesting_neither_overflows_nor_passes() {
    let limits = Limits::new(Limits::MAX_BYTES, 100);
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for levels in [101, 200_000] {
            let whole = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            for payload in [whole, open.repeat(levels)] {
                let input = envelope_with(&format!("\"payload\":{payload},"));
                assert!(Envelope::parse_with(input.as_bytes(), limits).is_err());
            }
        }
    }
}

#[test]
fn objects_of_many_members_are_read_in_reasonable_time_whatever_their_order() {
    let count = 25_000;
    let orders: [Box<dyn Fn(usize) -> usize>; 3] =
        [Box::new(|i| i), Box::new(move |i| count - i), Box::new(move |i| i * 7919 % count)];
    for order in orders {
        let members: Vec<String> =
            (0..count).map(|i| format!("\"a_common_beginning_{:06}\":{i}", order(i))).collect();
        exercise(envelope_with(&format!("\"payload\":{{{}}},", members.join(","))).as_bytes()).unwrap();
    }
    let same = vec!["\"k\":1"; count].join(",");
    let error = exercise(envelope_with(&format!("\"payload\":{{{same}}},")).as_bytes()).unwrap_err();
    assert_eq!(error.violations().len(), 1);
    // Each of these would have a path of 97 long keys.
    let deep = format!("{{\"{}\":", "\\u0041".repeat(64)).repeat(97);
    let twice = vec![r#"{"a":1,"a":1}"#; count].join(",");
    let text = format!("{{\"payload\":{deep}[{twice}]{}}}", "}".repeat(97));
    let error = exercise(text.as_bytes()).unwrap_err();
    assert_eq!(error.violations().iter().filter(|v| v.fault() == Fault::Duplicate).count(), 8);
    let unknown: Vec<String> = (0..count).map(|i| format!("\"u{i}\":1")).collect();
    let error = exercise(format!("{{{}}}", unknown.join(",")).as_bytes()).unwrap_err();
    assert_eq!(error.violations().len(), Reason::MAX_VIOLATIONS);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_as_serde_json_does(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        agrees_with_serde_json(&bytes);
    }

    #[test]
    fn any_text_of_json_signs_is_judged_as_serde_json_does(text in "[\\[\\]{}:,\"\\\\0-9eE.+tfnu \\-a-f]{0,24}") {
        agrees_with_serde_json(text.as_bytes());
    }

    #[test]
    fn damaged_envelopes_are_judged_as_serde_json_does(
        payload in object(),
        mut style in style(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..4),
    ) {
        let mut bytes = style.envelope("a.b.c", &payload).spaced.into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => _ = bytes.remove(at),
            }
        }
        agrees_with_serde_json(&bytes);
    }
}
