//! The ways in which an event can be invalid.

use super::json::{Object, Value};
use super::kinds::Class;
use super::word;
use crate::Rng;

macro_rules! flaws {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A way in which an event is invalid.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Flaw {
            $($(#[$doc])+ $name,)+
        }

        impl Flaw {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

flaws! {
    /// A required field is missing.
    FieldMissing,
    /// A field that the envelope does not know.
    FieldUnknown,
    /// The value of a field has another type.
    WrongType,
    /// A null instead of leaving a field out.
    NullField,
    /// A string without characters.
    EmptyString,
    /// A string with a character too many.
    StringTooLong,
    /// Hexadecimal digits in upper case, or too few.
    BadHex,
    /// A time in another form.
    BadTime,
    /// A day that the calendar does not have.
    NoSuchDay,
    /// A `platform_run_id` in another form.
    BadPlatformRun,
    /// A seed below 0, above 64 bits, or with a fraction.
    BadSeed,
    /// A `scenario_id` below 0 or with a fraction.
    BadScenario,
    /// A payload that is no object.
    BadPayload,
    /// A field that stands twice.
    FieldTwice,
    /// A key that stands twice in the payload.
    PayloadKeyTwice,
    /// A payload nested deeper than 120.
    TooDeep,
    /// A line that was cut off.
    Truncated,
    /// Something after the object.
    Trailing,
    /// Not JSON: single quotes, NaN, a comma too many.
    NotJson,
    /// A raw control character in a string.
    RawControl,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// JSON, but no object.
    NotAnObject,
    /// A valid envelope without a pin that its class needs.
    PinMissing,
}

impl Flaw {
    /// The reason code that a gate must answer with.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::PinMissing => "PINS_MISSING",
            _ => "ENVELOPE_INVALID",
        }
    }

    /// One that an event of this class can have.
    pub(super) fn choose(class: Class, rng: &mut Rng) -> Self {
        let flaw = *rng.pick(Self::ALL);
        // What an audit event must have, every envelope must have.
        if flaw == Self::PinMissing && class == Class::Audit { Self::FieldMissing } else { flaw }
    }

    /// Writes the event with this flaw.
    pub(super) fn apply(self, class: Class, mut envelope: Object, rng: &mut Rng) -> Vec<u8> {
        let raw = |text: &str| Value::Raw(text.to_owned());
        match self {
            Self::FieldMissing => {
                envelope.remove(word(rng, &["event_id", "event_type", "ts_utc", "manifest_fingerprint"]));
            }
            Self::FieldUnknown => {
                envelope.push(word(rng, &["merchant_id", "eventId", "Payload", ""]), raw("1"));
            }
            Self::WrongType => {
                let field =
                    word(rng, &["event_id", "event_type", "ts_utc", "run_id", "schema_version", "producer"]);
                envelope.set(field, raw(word(rng, &["7", "true", "[]", "{}"])));
            }
            Self::NullField => {
                envelope.set(
                    word(rng, &["event_id", "seed", "scenario_id", "run_id", "trace_id", "payload"]),
                    raw("null"),
                );
            }
            Self::EmptyString => {
                envelope.set(word(rng, &["event_id", "event_type", "producer", "scenario_id"]), "");
            }
            Self::StringTooLong => {
                let (field, max) = *rng.pick(&[
                    ("event_id", 256),
                    ("event_type", 256),
                    ("schema_version", 64),
                    ("source_module", 128),
                ]);
                envelope.set(field, "é".repeat(max + 1));
            }
            Self::BadHex => {
                let (field, digits) =
                    *rng.pick(&[("manifest_fingerprint", 64), ("parameter_hash", 64), ("run_id", 32)]);
                let bad = if rng.chance(50) { "AB".repeat(digits / 2) } else { "a".repeat(digits - 1) };
                envelope.set(field, bad);
            }
            Self::BadTime => {
                let times = [
                    "2026-01-29T09:30:00Z",
                    "2026-01-29T09:30:00.123Z",
                    "2026-01-29 09:30:00.123456Z",
                    "2026-01-29T09:30:00.123456+00:00",
                    "1769679000",
                    "yesterday",
                ];
                envelope.set(word(rng, &["ts_utc", "emitted_at_utc"]), word(rng, &times));
            }
            Self::NoSuchDay => {
                let times = [
                    "2026-02-29T09:30:00.123456Z",
                    "2026-13-01T09:30:00.123456Z",
                    "2026-01-01T24:00:00.000000Z",
                    "2026-01-01T00:00:60.000000Z",
                    "2026-00-00T00:00:00.000000Z",
                ];
                envelope.set("ts_utc", word(rng, &times));
            }
            Self::BadPlatformRun => {
                envelope.set(
                    "platform_run_id",
                    word(rng, &["platform_2026T01Z", "run_20260129T093000Z", "platform_20260129T093000"]),
                );
            }
            Self::BadSeed => {
                envelope.set("seed", raw(word(rng, &["-1", "18446744073709551616", "1.5", "1e3", "\"7\""])));
            }
            Self::BadScenario => envelope.set("scenario_id", raw(word(rng, &["-1", "2.5", "true"]))),
            Self::BadPayload => envelope.set("payload", raw(word(rng, &["[]", "\"{}\"", "0"]))),
            Self::FieldTwice => envelope.push(word(rng, &["event_id", "payload"]), raw("{}")),
            Self::PayloadKeyTwice => {
                envelope.payload_mut().push("note", raw("1"));
                envelope.payload_mut().push("note", raw("1"));
            }
            Self::TooDeep => {
                envelope
                    .payload_mut()
                    .push("deep", Value::Raw(format!("{}{}", "[".repeat(130), "]".repeat(130))));
            }
            Self::Truncated => {
                let mut bytes = envelope.compact();
                let keep = rng.index(bytes.len() - 1) + 1;
                bytes.truncate(keep);
                return bytes;
            }
            Self::Trailing => {
                return [envelope.compact(), word(rng, &["}", ",", " {}", "null", "#"]).as_bytes().to_vec()]
                    .concat();
            }
            Self::NotJson => {
                envelope.payload_mut().push(
                    "broken",
                    raw(word(rng, &["NaN", "'single'", "01", "+1", "1.", ".5", "True", "[1,]", "undefined"])),
                );
            }
            Self::RawControl => envelope.payload_mut().push("broken", raw("\"a\tb\u{1}\"")),
            Self::LoneSurrogate => {
                envelope.payload_mut().push("broken", raw(word(rng, &["\"\\ud83e\"", "\"\\udd5f\\ud83e\""])));
            }
            Self::NotUtf8 => {
                envelope.payload_mut().push("broken", raw("\"?\""));
                let mut bytes = envelope.compact();
                let at = bytes.len() - 4;
                bytes[at] = *rng.pick(&[0xff, 0xc0, 0x80]);
                return bytes;
            }
            Self::NotAnObject => {
                let whole = String::from_utf8(envelope.compact()).expect("parts are text");
                return match rng.range(0..3) {
                    0 => format!("[{whole}]").into_bytes(),
                    1 => b"42".to_vec(),
                    _ => b"\"event\"".to_vec(),
                };
            }
            Self::PinMissing => {
                // Without its fingerprint it would be no envelope at all.
                let pins: Vec<_> = class
                    .required_pins()
                    .iter()
                    .copied()
                    .filter(|pin| *pin != "manifest_fingerprint")
                    .collect();
                envelope.remove(word(rng, &pins));
            }
        }
        envelope.compact()
    }
}
