//! Why an event was not admitted.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an input was quarantined or answered as a duplicate. The names on the wire do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReasonCode {
    /// Not a canonical event envelope.
    EnvelopeInvalid,
    /// Fields that the event's class requires are missing.
    PinsMissing,
    /// The event type has no schema policy, and the default is to quarantine.
    SchemaPolicyMissing,
    /// The event type needs a `schema_version`.
    SchemaVersionRequired,
    /// The event type does not come in this `schema_version`.
    SchemaVersionNotAllowed,
    /// The payload does not fit its schema.
    SchemaFail,
    /// No path of the partitioning profile leads to a key.
    PartitionKeyMissing,
    /// The input is larger than what is taken.
    PayloadTooLarge,
    /// An event of the same identity was admitted with another payload.
    PayloadHashMismatch,
    /// The event was admitted before.
    Duplicate,
}

impl ReasonCode {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::EnvelopeInvalid,
        Self::PinsMissing,
        Self::SchemaPolicyMissing,
        Self::SchemaVersionRequired,
        Self::SchemaVersionNotAllowed,
        Self::SchemaFail,
        Self::PartitionKeyMissing,
        Self::PayloadTooLarge,
        Self::PayloadHashMismatch,
        Self::Duplicate,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EnvelopeInvalid => "ENVELOPE_INVALID",
            Self::PinsMissing => "PINS_MISSING",
            Self::SchemaPolicyMissing => "SCHEMA_POLICY_MISSING",
            Self::SchemaVersionRequired => "SCHEMA_VERSION_REQUIRED",
            Self::SchemaVersionNotAllowed => "SCHEMA_VERSION_NOT_ALLOWED",
            Self::SchemaFail => "SCHEMA_FAIL",
            Self::PartitionKeyMissing => "PARTITION_KEY_MISSING",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::PayloadHashMismatch => "PAYLOAD_HASH_MISMATCH",
            Self::Duplicate => "DUPLICATE",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that is wrong with an input, as its evidence keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// Where: a field, a path into the payload, or `$` for the whole. At most 256 characters, `…` where it was cut.
    pub path: String,
    /// What is wrong there. At most 256 characters, `…` where it was cut.
    pub problem: String,
}

impl Detail {
    /// Either text is cut to 256 characters: names within an input may be as long as the input, and the evidence has
    /// room for it once.
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: cut(path.into()), problem: cut(problem.into()) }
    }
}

/// The most characters of a [`Detail`]'s text.
const MAX_CHARS: usize = 256;

fn cut(mut text: String) -> String {
    // The last one that is kept makes room for the mark.
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
        text.truncate(end - last);
        text.push('…');
    }
    text
}
