//! One envelope, read and checked.

use std::borrow::Cow;

use crate::field::Field;
use crate::json::{self, Document, Kind, Node, Partial};
use crate::limits::Limits;
use crate::violation::{Fault, InvalidEnvelope, Reason, Salvaged, Violation};

/// The scenario that an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScenarioId<'e> {
    /// A name.
    Name(&'e str),
    /// A number from 0 up, of any size, as its digits.
    Number(&'e str),
}

/// One valid canonical event envelope, borrowed from the bytes that it was read from.
///
/// Strings are unescaped; only those that were written with escapes are copied.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    pub(crate) document: Document<'a>,
    fields: [Option<Cow<'a, str>>; Field::COUNT],
    seed: Option<u64>,
    payload: Option<Node>,
    scenario_is_number: bool,
}

impl<'a> Envelope<'a> {
    /// Reads and checks one envelope within the default limits. White space around it is accepted.
    ///
    /// # Errors
    /// [`InvalidEnvelope`], with everything that is wrong or, for what is not JSON, the place.
    pub fn parse(input: &'a [u8]) -> Result<Self, InvalidEnvelope> {
        Self::parse_with(input, Limits::default())
    }

    /// Reads and checks one envelope within `limits`.
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    pub fn parse_with(input: &'a [u8], limits: Limits) -> Result<Self, InvalidEnvelope> {
        if input.len() > limits.max_bytes() {
            let reason = Reason::TooLarge { bytes: input.len(), limit: limits.max_bytes() };
            return Err(InvalidEnvelope::new(reason, Salvaged::default()));
        }
        let text = match std::str::from_utf8(input) {
            Ok(text) => text,
            Err(error) => return Err(not_utf8(input, error.valid_up_to(), limits)),
        };
        match json::scan(text, limits.max_depth()) {
            Ok((document, duplicates)) => {
                let mut violations = Vec::new();
                let envelope = Self::check(document, &mut violations);
                violations.extend(
                    duplicates.into_iter().map(|d| Violation { path: d.path, fault: Fault::Duplicate }),
                );
                if violations.is_empty() {
                    return Ok(envelope);
                }
                violations.truncate(Reason::MAX_VIOLATIONS);
                Err(InvalidEnvelope::new(Reason::Violations(violations), salvage(&envelope.document)))
            }
            Err(partial) => Err(unread(text, partial, limits)),
        }
    }

    /// Applies the closed schema.
    fn check(document: Document<'a>, violations: &mut Vec<Violation>) -> Self {
        let mut fields = [const { None }; Field::COUNT];
        let mut payload = None;
        let mut scenario_is_number = false;
        let root = document.root();
        if root.kind != Kind::Object {
            let fault = Fault::Type { expected: "an object", found: root.kind.name() };
            violations.push(Violation { path: "$".to_owned(), fault });
        } else {
            for member in document.members(root) {
                let key = document.key(member);
                let Some(field) = Field::from_name(&key) else {
                    if violations.len() < Reason::MAX_VIOLATIONS {
                        violations.push(Violation { path: shortened(&key), fault: Fault::Unknown });
                    }
                    continue;
                };
                match field.check(&document, member) {
                    Ok(_) if field == Field::Payload => payload = Some(*member),
                    Ok(content) => {
                        if field == Field::ScenarioId {
                            scenario_is_number = member.kind == Kind::Number;
                        }
                        fields[field as usize] = Some(content);
                    }
                    Err(fault) => violations.push(Violation { path: field.name().to_owned(), fault }),
                }
            }
            let missing = Field::ALL.into_iter().filter(|field| {
                field.is_required()
                    && fields[*field as usize].is_none()
                    && document.member(document.root(), field.name()).is_none()
            });
            let missing =
                missing.map(|field| Violation { path: field.name().to_owned(), fault: Fault::Missing });
            violations.splice(0..0, missing);
        }
        let seed = fields[Field::Seed as usize].as_deref().and_then(|digits| digits.parse().ok());
        Self { document, fields, seed, payload, scenario_is_number }
    }

    /// A field's content: a string unescaped, a number as its digits. `None` where the envelope does not have it,
    /// and for the payload.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<&str> {
        self.fields[field as usize].as_deref()
    }

    fn required(&self, field: Field) -> &str {
        self.text(field).expect("an envelope exists only with all its required fields")
    }

    /// Whether the envelope has this field.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        if field == Field::Payload { self.payload.is_some() } else { self.fields[field as usize].is_some() }
    }

    /// Identity, stable across a producer's retries: 1 to 256 characters.
    #[must_use]
    pub fn event_id(&self) -> &str {
        self.required(Field::EventId)
    }

    /// Type name: 1 to 256 characters.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.required(Field::EventType)
    }

    /// Domain time, as `YYYY-MM-DDTHH:MM:SS.ffffffZ`; [`parse_time`](crate::parse_time) reads it.
    #[must_use]
    pub fn ts_utc(&self) -> &str {
        self.required(Field::TsUtc)
    }

    /// The world that the event belongs to: 64 hexadecimal digits.
    #[must_use]
    pub fn manifest_fingerprint(&self) -> &str {
        self.required(Field::ManifestFingerprint)
    }

    /// The parameter bundle: 64 hexadecimal digits.
    #[must_use]
    pub fn parameter_hash(&self) -> Option<&str> {
        self.text(Field::ParameterHash)
    }

    /// The generator's seed.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The scenario.
    #[must_use]
    pub fn scenario_id(&self) -> Option<ScenarioId<'_>> {
        let text = self.text(Field::ScenarioId)?;
        Some(if self.scenario_is_number { ScenarioId::Number(text) } else { ScenarioId::Name(text) })
    }

    /// Run correlation: 32 hexadecimal digits.
    #[must_use]
    pub fn run_id(&self) -> Option<&str> {
        self.text(Field::RunId)
    }

    /// The platform run: `platform_YYYYMMDDTHHMMSSZ`.
    #[must_use]
    pub fn platform_run_id(&self) -> Option<&str> {
        self.text(Field::PlatformRunId)
    }

    /// The scenario run: 32 hexadecimal digits.
    #[must_use]
    pub fn scenario_run_id(&self) -> Option<&str> {
        self.text(Field::ScenarioRunId)
    }

    /// Emission time, in the form of [`Envelope::ts_utc`].
    #[must_use]
    pub fn emitted_at_utc(&self) -> Option<&str> {
        self.text(Field::EmittedAtUtc)
    }

    /// Version of the payload's schema: 1 to 64 characters.
    #[must_use]
    pub fn schema_version(&self) -> Option<&str> {
        self.text(Field::SchemaVersion)
    }

    /// Trace: 1 to 128 characters.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.text(Field::TraceId)
    }

    /// Span: 1 to 128 characters.
    #[must_use]
    pub fn span_id(&self) -> Option<&str> {
        self.text(Field::SpanId)
    }

    /// Causal parent: 1 to 256 characters.
    #[must_use]
    pub fn parent_event_id(&self) -> Option<&str> {
        self.text(Field::ParentEventId)
    }

    /// Who emitted it: 1 to 128 characters.
    #[must_use]
    pub fn producer(&self) -> Option<&str> {
        self.text(Field::Producer)
    }

    /// Module of the producer: 1 to 128 characters.
    #[must_use]
    pub fn source_module(&self) -> Option<&str> {
        self.text(Field::SourceModule)
    }

    /// The payload, one JSON object as it was written.
    #[must_use]
    pub fn payload(&self) -> Option<&'a str> {
        self.payload.as_ref().map(|node| self.document.raw(node))
    }

    pub(crate) fn payload_node(&self) -> Option<&Node> {
        self.payload.as_ref()
    }

    /// A field's value as it was written, in JSON.
    #[must_use]
    pub fn raw(&self, field: Field) -> Option<&'a str> {
        let node = self.document.member(self.document.root(), field.name())?;
        Some(self.document.raw(node))
    }

    /// Whether the envelope already stands in its canonical form in the input, which then is
    /// [`Envelope::as_written`].
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.document.is_compact()
    }

    /// The envelope as it was written, without white space around it.
    #[must_use]
    pub fn as_written(&self) -> &'a str {
        self.document.raw(self.document.root())
    }

    /// Appends the canonical form: as written but for white space outside strings. It has no line break.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        self.document.write_compact(out);
    }
}

/// An unknown key, as it is shown.
fn shortened(key: &str) -> String {
    const MAX_CHARS: usize = 64;
    match key.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

#[cold]
fn not_utf8(input: &[u8], byte: usize, limits: Limits) -> InvalidEnvelope {
    let before = std::str::from_utf8(&input[..byte]).unwrap_or_default();
    let salvaged = match json::scan(before, limits.max_depth()) {
        Ok((document, _)) => salvage(&document),
        Err(partial) => partial.read.as_ref().map(salvage).unwrap_or_default(),
    };
    InvalidEnvelope::new(Reason::NotUtf8 { byte }, salvaged)
}

#[cold]
fn unread(text: &str, partial: Partial<'_>, limits: Limits) -> InvalidEnvelope {
    let salvaged = partial.read.as_ref().map(salvage).unwrap_or_default();
    let reason = match partial.fault {
        json::Fault::Malformed { byte, what } => {
            let before = &text.as_bytes()[..byte];
            let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            // Every byte but the continuation bytes of UTF-8 starts a character.
            let chars = before[line_start..].iter().filter(|b| **b & 0xc0 != 0x80).count();
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            Reason::Malformed { line, column: chars + 1, byte, what }
        }
        json::Fault::TooDeep { byte } => {
            let fault = Fault::TooDeep { byte, limit: limits.max_depth() };
            Reason::Violations(vec![Violation {
                path: partial.inside.unwrap_or_else(|| "$".to_owned()),
                fault,
            }])
        }
    };
    InvalidEnvelope::new(reason, salvaged)
}

#[cold]
fn salvage(document: &Document<'_>) -> Salvaged {
    let valid = |field: Field| {
        let mut named = document.members(document.root()).iter().filter(|m| document.key(m) == field.name());
        match (named.next(), named.next()) {
            (Some(member), None) => field.check(document, member).ok().map(Cow::into_owned),
            _ => None,
        }
    };
    Salvaged {
        event_id: valid(Field::EventId),
        event_type: valid(Field::EventType),
        ts_utc: valid(Field::TsUtc),
        manifest_fingerprint: valid(Field::ManifestFingerprint),
    }
}
