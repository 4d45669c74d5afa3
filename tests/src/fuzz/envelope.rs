use canonical_envelope::Envelope;
use eb_contract::EnvelopeRef;
use serde::de::IgnoredAny;

/// The envelope parser, held against an independent one, and the canonical form: making it again changes nothing, it means the
/// same, and the bus takes it.
///
/// # Panics
/// When that does not hold.
pub fn envelope(data: &[u8]) {
    let envelope = match Envelope::parse(data) {
        Ok(envelope) => envelope,
        Err(invalid) => {
            assert!(!invalid.to_string().is_empty());
            return;
        }
    };
    let _: IgnoredAny = serde_json::from_slice(data).expect("what is taken is JSON");
    let value: serde_json::Value = match serde_json::from_slice(data) {
        Ok(value) => value,
        // Numbers beyond f64 are JSON all the same.
        Err(e) if e.to_string().contains("number out of range") => return,
        Err(e) => panic!("what is taken is JSON: {e}"),
    };
    assert_eq!(value["event_id"].as_str(), Some(envelope.event_id()));
    assert_eq!(value["event_type"].as_str(), Some(envelope.event_type()));
    assert_eq!(value["seed"].as_u64(), envelope.seed());
    assert_eq!(value.get("payload").is_some(), envelope.payload().is_some());

    let mut canonical = Vec::new();
    envelope.write_canonical(&mut canonical);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&canonical).ok(), Some(value), "means the same");
    let again = Envelope::parse(&canonical).expect("the canonical form is an envelope");
    assert!(again.is_canonical());
    assert_eq!(again.as_written().as_bytes(), canonical, "making it again changes nothing");
    assert_eq!(envelope.is_canonical(), canonical == envelope.as_written().as_bytes());
    let mut scratch = Vec::new();
    assert_eq!(envelope.dedupe_key(), again.dedupe_key());
    assert_eq!(envelope.payload_hash(&mut scratch), again.payload_hash(&mut scratch));
    EnvelopeRef::new(canonical).expect("the bus takes whatever the gate may publish");
}
