//! What breaks the charter, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A rule of the charter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// Something publishes to a bus without the gate.
    PublishPastGate,
    /// An event type is not `<domain>.<resource>.<past-tense>`.
    EventType,
    /// An event is built without producer, source_module or schema_version.
    EventFields,
    /// A released schema changed, or the schemas are not in order.
    ReleasedSchema,
    /// A backend knows another backend.
    BackendImport,
    /// A file cannot be read, and so cannot be vouched for.
    Unreadable,
    /// The charter's own configuration speaks of what is not there.
    CharterConfig,
}

impl Rule {
    /// The word on the wire and in `charter.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublishPastGate => "publish-past-gate",
            Self::EventType => "event-type",
            Self::EventFields => "event-fields",
            Self::ReleasedSchema => "released-schema",
            Self::BackendImport => "backend-import",
            Self::Unreadable => "unreadable",
            Self::CharterConfig => "charter-config",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A place in a file, both 1-based; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl At {
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    pub(crate) fn of(span: proc_macro2::Span) -> Self {
        let start = span.start();
        Self { line: start.line, column: start.column + 1 }
    }

    /// The place of a byte of a text.
    pub(crate) fn byte(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// One thing that breaks the charter. Displayed as one line: `<file>:<line>:<column>: <rule>: <what>; <what to do>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The file, below the folder that was checked, with `/` on every system.
    pub file: String,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// Which rule.
    pub rule: Rule,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// Whether it stands in test code.
    #[serde(skip)]
    pub(crate) in_test: bool,
}

impl Violation {
    pub(crate) fn new(
        file: &str,
        at: At,
        rule: Rule,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let line = |text: String| text.replace(['\n', '\r'], " ");
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            rule,
            message: line(message.into()),
            advice: line(advice.into()),
            in_test: false,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, rule, message, advice, .. } = self;
        write!(f, "{file}:{line}:{column}: {rule}: {message}; {advice}")
    }
}

/// Why nothing could be checked. One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharterError(pub(crate) String);

impl fmt::Display for CharterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CharterError {}
