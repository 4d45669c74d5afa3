//! The canonical event envelope: reading, checking, canonical form, digests, and making one.
//!
//! # The envelope
//! One JSON object (RFC 8259) in UTF-8, closed: it has these fields and no others.
//!
//! | field | holds | required |
//! |---|---|---|
//! | `event_id` | string of 1–256 characters | yes |
//! | `event_type` | string of 1–256 | yes |
//! | `ts_utc` | `YYYY-MM-DDTHH:MM:SS.ffffffZ`, exactly six digits, in the calendar | yes |
//! | `manifest_fingerprint` | 64 lower-case hexadecimal digits | yes |
//! | `parameter_hash` | 64 lower-case hexadecimal digits | |
//! | `seed` | integer from 0 to 2⁶⁴ − 1 | |
//! | `scenario_id` | string of 1–256, or an integer from 0 up, of any size | |
//! | `run_id`, `scenario_run_id` | 32 lower-case hexadecimal digits | |
//! | `platform_run_id` | `platform_YYYYMMDDTHHMMSSZ` (digits, not checked against the calendar) | |
//! | `emitted_at_utc` | as `ts_utc` | |
//! | `schema_version` | string of 1–64 | |
//! | `trace_id`, `span_id` | string of 1–128 | |
//! | `parent_event_id` | as `event_id` | |
//! | `producer`, `source_module` | string of 1–128 | |
//! | `payload` | an object, open | |
//!
//! Characters are Unicode code points, counted after unescaping. A field that is not known is left out, never null.
//! `config/schemas/canonical_event_envelope.schema.json` says the same as a JSON Schema. This code is stricter where
//! a schema cannot speak:
//!
//! - times must be in the calendar;
//! - integers are written in plain digits: `1.0`, `1e2` and `-0` are integers to a schema, but not here;
//! - no key may stand twice in an object, **in the payload neither**: readers disagree on which of the two counts, so
//!   a hash over them would mean nothing;
//! - an escaped surrogate needs its other half, in the payload too: alone it stands for no character;
//! - [`Limits`] on bytes and nesting.
//!
//! # The canonical form
//! What the gate publishes and readers get: the envelope **as it was written, but for white space outside strings**.
//! The order of keys is kept; numbers keep every byte (`1.0` stays `1.0`, `1e5` stays `1e5`, and 18446744073709551615
//! loses no digit); strings keep every byte too, so an escape stays the escape that it was. The form has no line
//! break, and making it again changes nothing. [`Envelope::write_canonical`] appends it; where
//! [`Envelope::is_canonical`], it already stands in the input.
//!
//! # The digests
//! - [`DedupeKey`] tells whether two inputs are the same event. Its bytes are laid down at [`DedupeKey::of`].
//! - [`PayloadHash`] tells whether two inputs with the same identity say the same. It does not depend on the order of
//!   keys, white space or the choice of escapes; see [`Envelope::write_payload_hash_input`].
//!
//! # Failure
//! [`Envelope::parse`] answers every input and never panics: an [`InvalidEnvelope`] lists what is wrong ([`Violation`])
//! or where the input stops being JSON, and carries the fields that are valid each by itself ([`Salvaged`]), which a
//! quarantine receipt needs. Time is at most `n log n` in the input's length, memory at most about 10 times its length,
//! whatever the input; nothing recurses deeper than [`Limits::MAX_DEPTH`].
//!
//! # Example
//! ```
//! use canonical_envelope::{Envelope, KeyPath};
//!
//! let input = br#"{ "event_type": "card.transaction.authorised", "event_id": "e-1",
//!     "ts_utc": "2026-01-29T09:30:00.000001Z", "payload": {"amount": 1.0, "merchant_id": 7},
//!     "manifest_fingerprint": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }"#;
//! let envelope = Envelope::parse(input)?;
//!
//! let mut canonical = Vec::new();
//! envelope.write_canonical(&mut canonical);
//! assert!(canonical.starts_with(br#"{"event_type":"card.transaction.authorised","event_id":"e-1","#));
//!
//! let merchant: KeyPath = "payload.merchant_id".parse()?;
//! assert_eq!(envelope.scalar(&merchant).and_then(|s| s.into_key()).as_deref(), Some("7"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod digest;
mod envelope;
mod field;
mod json;
mod limits;
mod path;
mod timestamp;
mod violation;

pub use builder::{BuildError, EnvelopeBuilder};
pub use digest::{DedupeKey, NotADigest, PayloadHash};
pub use envelope::{Envelope, ScenarioId};
pub use field::Field;
pub use limits::Limits;
pub use path::{KeyPath, KeyPathError, Scalar};
pub use timestamp::{format_time, parse_time};
pub use violation::{Fault, InvalidEnvelope, Reason, Salvaged, Violation};
