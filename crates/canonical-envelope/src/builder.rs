//! Making an envelope.

use serde::Serialize;
use time::OffsetDateTime;

use crate::envelope::Envelope;
use crate::field::Field;
use crate::json::{self, string};
use crate::limits::Limits;
use crate::timestamp;
use crate::violation::{Fault, InvalidEnvelope, Reason, Violation};

/// Makes one envelope, for producers.
///
/// Nothing is checked before [`EnvelopeBuilder::build`], which then checks everything that
/// [`Envelope::parse`] checks. Fields that are not set are left out.
///
/// ```
/// use canonical_envelope::{Envelope, EnvelopeBuilder};
///
/// let bytes = EnvelopeBuilder::new("card.transaction.authorised")
///     .event_id("018f6b1e9c7a7d0f8e2b3c4d5e6f7081")
///     .ts_utc(time::OffsetDateTime::UNIX_EPOCH)
///     .manifest_fingerprint("0".repeat(64))
///     .seed(u64::MAX)
///     .schema_version("1.0.0")
///     .payload_json(r#"{ "merchant_id": "m-1", "amount": 12.50 }"#)
///     .build()?;
/// assert!(bytes.ends_with(br#""seed":18446744073709551615,"schema_version":"1.0.0","payload":{"merchant_id":"m-1","amount":12.50}}"#));
/// assert!(Envelope::parse(&bytes)?.is_canonical());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder makes nothing before `build`"]
pub struct EnvelopeBuilder {
    /// The values as JSON, by field.
    values: [Option<Vec<u8>>; Field::COUNT],
    /// The first thing that went wrong while setting values.
    failure: Option<BuildError>,
    limits: Limits,
}

/// Why no envelope could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A value of the payload cannot be written as JSON.
    #[error("the payload cannot be written as JSON: {0}")]
    Payload(#[source] serde_json::Error),
    /// The payload given as text is not one JSON value within the limits.
    #[error("the payload is not JSON: {what} at byte {byte}")]
    PayloadText {
        /// 0-based byte of the payload's text.
        byte: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The values make no valid envelope.
    #[error(transparent)]
    Invalid(#[from] InvalidEnvelope),
}

impl Clone for BuildError {
    fn clone(&self) -> Self {
        match self {
            // The source cannot be cloned; its message can.
            Self::Payload(error) => Self::Payload(serde::ser::Error::custom(error)),
            Self::PayloadText { byte, what } => Self::PayloadText { byte: *byte, what },
            Self::Invalid(invalid) => Self::Invalid(invalid.clone()),
        }
    }
}

impl EnvelopeBuilder {
    /// Starts an envelope for an event of this type, named `<domain>.<resource>.<past-tense>`.
    pub fn new(event_type: impl AsRef<str>) -> Self {
        Self::default().set(Field::EventType, event_type.as_ref())
    }

    /// Limits other than the default.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    fn set(mut self, field: Field, text: &str) -> Self {
        let mut value = Vec::with_capacity(text.len() + 2);
        string::write_str(text, &mut value);
        self.values[field as usize] = Some(value);
        self
    }

    fn set_time(mut self, field: Field, at: OffsetDateTime) -> Self {
        match timestamp::format_time(at) {
            Ok(text) => self.set(field, &text),
            Err(fault) => {
                self.fail(invalid(field, fault));
                self
            }
        }
    }

    fn fail(&mut self, error: BuildError) {
        self.failure.get_or_insert(error);
    }

    /// Identity. A producer keeps it when it sends the same event again.
    pub fn event_id(self, id: impl AsRef<str>) -> Self {
        self.set(Field::EventId, id.as_ref())
    }

    /// A fresh random identity (UUID version 4).
    #[cfg(feature = "uuid")]
    pub fn random_event_id(self) -> Self {
        self.event_id(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut [0; 36]))
    }

    /// A fresh identity that starts with the clock's time (UUID version 7), so that ids made later sort later.
    #[cfg(feature = "uuid")]
    pub fn time_ordered_event_id(self) -> Self {
        self.event_id(uuid::Uuid::now_v7().hyphenated().encode_lower(&mut [0; 36]))
    }

    /// Domain time, cut to microseconds.
    pub fn ts_utc(self, at: OffsetDateTime) -> Self {
        self.set_time(Field::TsUtc, at)
    }

    /// The world that the event belongs to: 64 lower-case hexadecimal digits.
    pub fn manifest_fingerprint(self, hex: impl AsRef<str>) -> Self {
        self.set(Field::ManifestFingerprint, hex.as_ref())
    }

    /// The parameter bundle: 64 lower-case hexadecimal digits.
    pub fn parameter_hash(self, hex: impl AsRef<str>) -> Self {
        self.set(Field::ParameterHash, hex.as_ref())
    }

    /// The generator's seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.values[Field::Seed as usize] = Some(seed.to_string().into_bytes());
        self
    }

    /// The scenario by name.
    pub fn scenario_id(self, name: impl AsRef<str>) -> Self {
        self.set(Field::ScenarioId, name.as_ref())
    }

    /// The scenario by number.
    pub fn scenario_number(mut self, number: u64) -> Self {
        self.values[Field::ScenarioId as usize] = Some(number.to_string().into_bytes());
        self
    }

    /// Run correlation: 32 lower-case hexadecimal digits.
    pub fn run_id(self, hex: impl AsRef<str>) -> Self {
        self.set(Field::RunId, hex.as_ref())
    }

    /// The platform run: `platform_YYYYMMDDTHHMMSSZ`.
    pub fn platform_run_id(self, id: impl AsRef<str>) -> Self {
        self.set(Field::PlatformRunId, id.as_ref())
    }

    /// The scenario run: 32 lower-case hexadecimal digits.
    pub fn scenario_run_id(self, hex: impl AsRef<str>) -> Self {
        self.set(Field::ScenarioRunId, hex.as_ref())
    }

    /// Emission time, cut to microseconds.
    pub fn emitted_at_utc(self, at: OffsetDateTime) -> Self {
        self.set_time(Field::EmittedAtUtc, at)
    }

    /// Version of the payload's schema.
    pub fn schema_version(self, version: impl AsRef<str>) -> Self {
        self.set(Field::SchemaVersion, version.as_ref())
    }

    /// Trace and span.
    pub fn trace(self, trace_id: impl AsRef<str>, span_id: impl AsRef<str>) -> Self {
        self.set(Field::TraceId, trace_id.as_ref()).set(Field::SpanId, span_id.as_ref())
    }

    /// The event that caused this one; a correction points to what it corrects.
    pub fn parent_event_id(self, id: impl AsRef<str>) -> Self {
        self.set(Field::ParentEventId, id.as_ref())
    }

    /// Who emits it.
    pub fn producer(self, name: impl AsRef<str>) -> Self {
        self.set(Field::Producer, name.as_ref())
    }

    /// The producer's module.
    pub fn source_module(self, name: impl AsRef<str>) -> Self {
        self.set(Field::SourceModule, name.as_ref())
    }

    /// The payload, from anything that serialises as a JSON object.
    pub fn payload(mut self, payload: &impl Serialize) -> Self {
        match serde_json::to_vec(payload) {
            Ok(json) => self.values[Field::Payload as usize] = Some(json),
            Err(error) => self.fail(BuildError::Payload(error)),
        }
        self
    }

    /// The payload, as JSON text; its numbers and the order of its members are kept.
    pub fn payload_json(mut self, json: impl AsRef<str>) -> Self {
        let text = json.as_ref();
        if text.len() > self.limits.max_bytes() {
            let reason = Reason::TooLarge { bytes: text.len(), limit: self.limits.max_bytes() };
            self.fail(InvalidEnvelope::new(reason, Default::default()).into());
            return self;
        }
        // Read by itself, so that no text can reach out of the payload into the envelope's own fields.
        match json::scan(text, self.limits.max_depth()) {
            Ok((document, _)) => {
                let mut value = Vec::with_capacity(text.len());
                document.write_compact(&mut value);
                self.values[Field::Payload as usize] = Some(value);
            }
            Err(partial) => {
                let (byte, what) = match partial.fault {
                    json::Fault::Malformed { byte, what } => (byte, what),
                    json::Fault::TooDeep { byte } => (byte, "nested too deep"),
                };
                self.fail(BuildError::PayloadText { byte, what });
            }
        }
        self
    }

    /// The envelope's canonical bytes: fields in the order of [`Field::ALL`], no white space.
    ///
    /// # Errors
    /// [`BuildError`]: the first value that could not be taken, or everything that makes the envelope invalid.
    pub fn build(self) -> Result<Vec<u8>, BuildError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let size: usize = self.values.iter().flatten().map(|value| value.len() + 24).sum();
        let mut out = Vec::with_capacity(size + 2);
        out.push(b'{');
        for (field, value) in Field::ALL.into_iter().zip(&self.values) {
            let Some(value) = value else { continue };
            if out.len() > 1 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value);
        }
        out.push(b'}');
        Envelope::parse_with(&out, self.limits)?;
        Ok(out)
    }
}

fn invalid(field: Field, fault: Fault) -> BuildError {
    let violation = Violation { path: field.name().to_owned(), fault };
    InvalidEnvelope::new(Reason::Violations(vec![violation]), Default::default()).into()
}
