//! What the scenarios publish.

use eb_contract::{EnvelopeLimits, EnvelopeRef, PartitionKey, PublishRecord};

/// A key.
pub(crate) fn key(text: impl Into<String>) -> PartitionKey {
    PartitionKey::new(text.into()).expect("the suite's keys have 1 to 256 characters")
}

/// A small envelope that says which one it is.
pub(crate) fn envelope(n: usize) -> EnvelopeRef {
    raw(format!("{{\"event_id\":\"{n:08x}\",\"n\":{n}}}"))
}

/// An envelope of exactly `len` bytes (at least 30), different for different `n`.
pub(crate) fn envelope_of(len: usize, n: usize) -> EnvelopeRef {
    let head = format!("{{\"n\":{n},\"x\":\"");
    let fill = len.saturating_sub(head.len() + 2);
    raw(format!("{head}{}\"}}", "x".repeat(fill)))
}

/// An envelope nested `depth` levels deep.
pub(crate) fn nested(depth: usize) -> EnvelopeRef {
    let inner = depth.saturating_sub(1);
    raw(format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner)))
}

/// An envelope with this text, also above the usual size limit.
pub(crate) fn raw(text: impl Into<String>) -> EnvelopeRef {
    let limits = EnvelopeLimits { max_bytes: usize::MAX, ..EnvelopeLimits::default() };
    EnvelopeRef::with_limits(text.into(), limits).expect("the suite's envelopes are single JSON objects")
}

/// A record to publish.
pub(crate) fn record(key_text: impl Into<String>, n: usize) -> PublishRecord {
    PublishRecord::new(key(key_text), envelope(n))
}

/// The number that [`envelope`] or [`envelope_of`] put into an envelope.
pub(crate) fn number(envelope: &EnvelopeRef) -> Option<usize> {
    let text = envelope.as_str().ok()?;
    let digits = text.split("\"n\":").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Envelopes that tell bytes from what somebody thinks they mean.
pub(crate) fn odd_envelopes() -> Vec<EnvelopeRef> {
    let texts = [
        r#"{}"#,
        r#"{ "a" :  1 ,	"b":[ ] }"#,
        r#"{"n":18446744073709551615,"m":-0,"e":1E+2,"f":1.10,"huge":1e400,"long":0.1234567890123456789012345}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"escapes":"\"\\\/\b\f\n\r\t\u0000\u001f\u00e4\uD834\uDD1E"}"#,
        "{\"plain\":\"ä ß 漢字 𝕏 👩‍👩‍👧‍👦 é e\u{301} \u{202e}rtl\u{202c} \u{feff}bom \u{2028}\u{2029}\u{7f}\u{fffd}\u{10ffff}\"}",
        r#"{"looks_like":"{\"offset\":0}\\\\n","line":"\\n","key":"\"}"}"#,
        "{\"\u{0080}\":\"\u{85}\u{a0}\u{200b}\"}",
        r#"{"payload":{"a":{"b":[[],{},null,true,false,""]}},"seed":9223372036854775808}"#,
        r#"{"offset":"7","partition_id":3,"crc":"00000000","envelope":{"envelope":{}}}"#,
    ];
    texts.into_iter().map(raw).collect()
}

/// Keys that tell text from what somebody thinks it means.
pub(crate) fn odd_keys() -> Vec<PartitionKey> {
    let texts: [String; 14] = [
        "k".into(),
        "\"".into(),
        "\\".into(),
        "\"\\\"\\\\".into(),
        "\u{0}".into(),
        "a\nb\r\nc\td\u{1b}[0m\u{7f}".into(),
        "\u{1}\u{2}\u{1f}".into(),
        " leading and trailing ".into(),
        "null".into(),
        "../../etc/passwd".into(),
        "👩‍👩‍👧‍👦 ä 漢字 \u{2028}".into(),
        "k".repeat(256),
        "𝕏".repeat(256),
        "\u{1f}".repeat(256),
    ];
    texts.into_iter().map(key).collect()
}
