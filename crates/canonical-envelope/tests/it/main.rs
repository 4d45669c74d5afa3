//! The envelope as its users see it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in its helpers too")]

mod building;
mod canonical_form;
mod digests;
mod generated;
mod hostile;
mod lookup;
mod reading;
mod salvaging;
mod schema;

/// A valid envelope with every field, compact, in the order of the schema.
const FULL: &str = concat!(
    r#"{"event_id":"018f6b1e-9c7a-7d0f-8e2b-3c4d5e6f7081","event_type":"card.transaction.authorised","#,
    r#""ts_utc":"2026-01-29T09:30:00.000001Z","#,
    r#""manifest_fingerprint":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
    r#""parameter_hash":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","#,
    r#""seed":18446744073709551615,"scenario_id":"baseline","run_id":"cccccccccccccccccccccccccccccccc","#,
    r#""platform_run_id":"platform_20260129T093000Z","scenario_run_id":"dddddddddddddddddddddddddddddddd","#,
    r#""emitted_at_utc":"2026-01-29T09:30:00.500000Z","schema_version":"1.0.0","trace_id":"t","span_id":"s","#,
    r#""parent_event_id":"p","producer":"wsp","source_module":"wsp.cards","payload":{"merchant_id":"m-1"}}"#,
);

/// The smallest valid envelope but for `more`, which is put between its first fields and its last.
fn envelope_with(more: &str) -> String {
    format!(
        r#"{{"event_id":"e-1","event_type":"a.b.c","ts_utc":"2026-01-29T09:30:00.000001Z",{more}"manifest_fingerprint":"{}"}}"#,
        "a".repeat(64)
    )
}

/// `FULL` with the value of one field replaced by other JSON.
fn full_with(field: &str, json: &str) -> String {
    let start = FULL.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
    let raw = canonical_envelope::Envelope::parse(FULL.as_bytes())
        .unwrap()
        .raw(canonical_envelope::Field::from_name(field).unwrap())
        .unwrap()
        .len();
    format!("{}{json}{}", &FULL[..start], &FULL[start + raw..])
}
