//! What is wrong with an input.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// One thing that is wrong with an envelope, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub(crate) path: String,
    pub(crate) fault: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A required field is not there.
    #[error("is required and missing")]
    Missing,
    /// The envelope has no such field.
    #[error("is not a field of the envelope; data of the event's own belongs into payload")]
    Unknown,
    /// The key stands twice in its object.
    #[error("stands more than once in its object")]
    Duplicate,
    /// A value of another type.
    #[error("must be {expected}, not {found}")]
    Type {
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A string without characters.
    #[error("must not be empty")]
    Empty,
    /// A string with too many characters.
    #[error("has {chars} characters, at most {max} are allowed")]
    TooLong {
        /// How many it has.
        chars: usize,
        /// How many it may have.
        max: usize,
    },
    /// A string of another form.
    #[error("must have the form {expected}")]
    Pattern {
        /// The form.
        expected: &'static str,
    },
    /// A number with a sign, fraction or exponent, or one out of range.
    #[error("must be {expected}, written in plain digits")]
    Number {
        /// The range.
        expected: &'static str,
    },
    /// A date or time of day that the calendar does not have.
    #[error("is no date and time of the calendar")]
    NoSuchTime,
    /// Objects and arrays are nested too deep.
    #[error("is nested too deep at byte {byte}, at most {limit} levels are allowed")]
    TooDeep {
        /// Where the first level too many is opened, 0-based.
        byte: usize,
        /// How many levels there may be.
        limit: usize,
    },
}

impl Violation {
    /// The field, in a payload with the keys that lead to it: `payload.items[].sku`. `$` is the envelope itself.
    /// Keys are unescaped and cut to 64 characters.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths hold foreign keys: control characters must not reach a terminal.
        write!(f, "{} {}", self.path.escape_debug(), self.fault)
    }
}

/// As `{"path": …, "problem": …}`.
impl Serialize for Violation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Violation", 2)?;
        out.serialize_field("path", &self.path)?;
        out.serialize_field("problem", &self.fault.to_string())?;
        out.end()
    }
}

/// Why an input is no canonical event envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// More bytes than [`Limits::max_bytes`](crate::Limits::max_bytes).
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// Not UTF-8 from this byte on.
    NotUtf8 {
        /// 0-based.
        byte: usize,
    },
    /// Not one JSON value.
    Malformed {
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        /// 0-based.
        byte: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// JSON, but no envelope. At least one, at most [`Reason::MAX_VIOLATIONS`]; those of the envelope's own fields
    /// in the order of their names, after the missing ones.
    Violations(Vec<Violation>),
}

impl Reason {
    /// How many violations are reported at most.
    pub const MAX_VIOLATIONS: usize = 32;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => write!(f, "{bytes} bytes, at most {limit} are allowed"),
            Self::NotUtf8 { byte } => write!(f, "not UTF-8 at byte {byte}"),
            Self::Malformed { line, column, byte, what } => {
                write!(f, "not JSON at line {line} column {column} (byte {byte}): {what}")
            }
            Self::Violations(violations) => {
                for (i, violation) in violations.iter().enumerate() {
                    write!(f, "{}{violation}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

/// What could be saved from an input that is no envelope: fields that are valid each by itself.
///
/// From an input that is malformed or nested too deep, those that came, complete, before the fault. A field that
/// stands twice counts as not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// `event_id`, if valid.
    pub event_id: Option<String>,
    /// `event_type`, if valid.
    pub event_type: Option<String>,
    /// `ts_utc`, if valid.
    pub ts_utc: Option<String>,
    /// `manifest_fingerprint`, if valid.
    pub manifest_fingerprint: Option<String>,
}

/// An input that is no canonical event envelope: why, and what could be saved from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEnvelope(Box<(Reason, Salvaged)>);

impl InvalidEnvelope {
    pub(crate) fn new(reason: Reason, salvaged: Salvaged) -> Self {
        Self(Box::new((reason, salvaged)))
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.0.0
    }

    /// The violations; empty if the input was not even read as JSON.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        match self.reason() {
            Reason::Violations(violations) => violations,
            _ => &[],
        }
    }

    /// What could be saved.
    #[must_use]
    pub fn salvaged(&self) -> &Salvaged {
        &self.0.1
    }

    /// Both, given up.
    #[must_use]
    pub fn into_parts(self) -> (Reason, Salvaged) {
        *self.0
    }
}

impl fmt::Display for InvalidEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a canonical event envelope: {}", self.reason())
    }
}

impl std::error::Error for InvalidEnvelope {}
