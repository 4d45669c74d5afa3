//! The envelope's fields and what each may hold.

use std::borrow::Cow;

use crate::json::{Document, Kind, Node};
use crate::timestamp;
use crate::violation::Fault;

/// One field of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `event_id`: identity, stable across a producer's retries.
    EventId,
    /// `event_type`: type name.
    EventType,
    /// `ts_utc`: domain time.
    TsUtc,
    /// `manifest_fingerprint`: the world that the event belongs to.
    ManifestFingerprint,
    /// `parameter_hash`: parameter bundle.
    ParameterHash,
    /// `seed`: generator seed.
    Seed,
    /// `scenario_id`: scenario.
    ScenarioId,
    /// `run_id`: run correlation.
    RunId,
    /// `platform_run_id`: platform run.
    PlatformRunId,
    /// `scenario_run_id`: scenario run.
    ScenarioRunId,
    /// `emitted_at_utc`: emission time.
    EmittedAtUtc,
    /// `schema_version`: version of the payload's schema.
    SchemaVersion,
    /// `trace_id`: tracing.
    TraceId,
    /// `span_id`: tracing.
    SpanId,
    /// `parent_event_id`: causal parent.
    ParentEventId,
    /// `producer`: who emitted it.
    Producer,
    /// `source_module`: module of the producer.
    SourceModule,
    /// `payload`: opaque but for its own versioned schema.
    Payload,
}

/// What a field may hold.
enum Rule {
    /// A string of 1 to so many characters.
    Text(usize),
    /// So many lower-case hexadecimal digits.
    Hex(usize),
    Time,
    PlatformRun,
    Unsigned64,
    TextOrInteger(usize),
    Object,
}

impl Field {
    /// How many fields there are.
    pub const COUNT: usize = 18;

    /// All fields, in the order in which the schema lists them and [`EnvelopeBuilder`](crate::EnvelopeBuilder)
    /// writes them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::EventId,
        Self::EventType,
        Self::TsUtc,
        Self::ManifestFingerprint,
        Self::ParameterHash,
        Self::Seed,
        Self::ScenarioId,
        Self::RunId,
        Self::PlatformRunId,
        Self::ScenarioRunId,
        Self::EmittedAtUtc,
        Self::SchemaVersion,
        Self::TraceId,
        Self::SpanId,
        Self::ParentEventId,
        Self::Producer,
        Self::SourceModule,
        Self::Payload,
    ];

    /// The key in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventId => "event_id",
            Self::EventType => "event_type",
            Self::TsUtc => "ts_utc",
            Self::ManifestFingerprint => "manifest_fingerprint",
            Self::ParameterHash => "parameter_hash",
            Self::Seed => "seed",
            Self::ScenarioId => "scenario_id",
            Self::RunId => "run_id",
            Self::PlatformRunId => "platform_run_id",
            Self::ScenarioRunId => "scenario_run_id",
            Self::EmittedAtUtc => "emitted_at_utc",
            Self::SchemaVersion => "schema_version",
            Self::TraceId => "trace_id",
            Self::SpanId => "span_id",
            Self::ParentEventId => "parent_event_id",
            Self::Producer => "producer",
            Self::SourceModule => "source_module",
            Self::Payload => "payload",
        }
    }

    /// The field with this key.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "event_id" => Self::EventId,
            "event_type" => Self::EventType,
            "ts_utc" => Self::TsUtc,
            "manifest_fingerprint" => Self::ManifestFingerprint,
            "parameter_hash" => Self::ParameterHash,
            "seed" => Self::Seed,
            "scenario_id" => Self::ScenarioId,
            "run_id" => Self::RunId,
            "platform_run_id" => Self::PlatformRunId,
            "scenario_run_id" => Self::ScenarioRunId,
            "emitted_at_utc" => Self::EmittedAtUtc,
            "schema_version" => Self::SchemaVersion,
            "trace_id" => Self::TraceId,
            "span_id" => Self::SpanId,
            "parent_event_id" => Self::ParentEventId,
            "producer" => Self::Producer,
            "source_module" => Self::SourceModule,
            "payload" => Self::Payload,
            _ => return None,
        })
    }

    /// Whether every envelope has it.
    #[must_use]
    pub const fn is_required(self) -> bool {
        matches!(self, Self::EventId | Self::EventType | Self::TsUtc | Self::ManifestFingerprint)
    }

    fn rule(self) -> Rule {
        match self {
            Self::EventId | Self::EventType | Self::ParentEventId => Rule::Text(256),
            Self::TsUtc | Self::EmittedAtUtc => Rule::Time,
            Self::ManifestFingerprint | Self::ParameterHash => Rule::Hex(64),
            Self::Seed => Rule::Unsigned64,
            Self::ScenarioId => Rule::TextOrInteger(256),
            Self::RunId | Self::ScenarioRunId => Rule::Hex(32),
            Self::PlatformRunId => Rule::PlatformRun,
            Self::SchemaVersion => Rule::Text(64),
            Self::TraceId | Self::SpanId | Self::Producer | Self::SourceModule => Rule::Text(128),
            Self::Payload => Rule::Object,
        }
    }

    /// The field's content, if it is one that the field may hold: a string unescaped, everything else as written.
    pub(crate) fn check<'a>(self, document: &Document<'a>, node: &Node) -> Result<Cow<'a, str>, Fault> {
        let rule = self.rule();
        let expected = match rule {
            Rule::Unsigned64 => "an integer from 0 to 18446744073709551615",
            Rule::TextOrInteger(_) => "a string or an integer from 0 up",
            Rule::Object => "an object",
            _ => "a string",
        };
        let fits = match rule {
            Rule::Unsigned64 => node.kind == Kind::Number,
            Rule::TextOrInteger(_) => matches!(node.kind, Kind::Number | Kind::String),
            Rule::Object => node.kind == Kind::Object,
            _ => node.kind == Kind::String,
        };
        if !fits {
            return Err(Fault::Type { expected, found: node.kind.name() });
        }
        let content = if node.kind == Kind::Object { Cow::Borrowed("") } else { document.content(node) };
        let fault = match rule {
            Rule::Text(max) => check_length(&content, max),
            Rule::Hex(64) => unless(is_hex(&content, 64), "64 lower-case hexadecimal digits"),
            Rule::Hex(digits) => unless(is_hex(&content, digits), "32 lower-case hexadecimal digits"),
            Rule::Time => timestamp::check(&content).err(),
            Rule::PlatformRun => unless(is_platform_run(content.as_bytes()), "platform_YYYYMMDDTHHMMSSZ"),
            Rule::Unsigned64 => {
                let fits = is_integer(&content) && content.parse::<u64>().is_ok();
                (!fits).then_some(Fault::Number { expected })
            }
            Rule::TextOrInteger(max) if node.kind == Kind::String => check_length(&content, max),
            Rule::TextOrInteger(_) => (!is_integer(&content)).then_some(Fault::Number { expected }),
            Rule::Object => None,
        };
        fault.map_or(Ok(content), Err)
    }
}

fn unless(fits: bool, expected: &'static str) -> Option<Fault> {
    (!fits).then_some(Fault::Pattern { expected })
}

fn is_hex(text: &str, digits: usize) -> bool {
    // Without a way out in the middle, this is a handful of vector instructions.
    text.len() == digits && text.bytes().fold(true, |all, b| all & matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_length(text: &str, max: usize) -> Option<Fault> {
    // A text of so few bytes has no more characters; only others are counted.
    let chars = if text.len() > max { text.chars().count() } else { text.len() };
    match chars {
        0 => Some(Fault::Empty),
        chars if chars > max => Some(Fault::TooLong { chars, max }),
        _ => None,
    }
}

/// Whether a JSON number is written as plain digits: no sign, fraction or exponent.
fn is_integer(number: &str) -> bool {
    number.bytes().all(|b| b.is_ascii_digit())
}

fn is_platform_run(text: &[u8]) -> bool {
    const PATTERN: &[u8] = b"platform_00000000T000000Z";
    text.len() == PATTERN.len()
        && text.iter().zip(PATTERN).all(|(b, p)| if *p == b'0' { b.is_ascii_digit() } else { b == p })
}
