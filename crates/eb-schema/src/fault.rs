//! What is wrong with a schema, a lock, or their place.

use std::fmt;

use serde::Serialize;

/// Which promise a [`Fault`] breaks. A word that does not change, for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// It cannot be read, or is too large or too many.
    Unreadable,
    /// It does not lie where a schema lies.
    Place,
    /// It is not strict JSON within the limits.
    Json,
    /// It is no JSON Schema of draft 2020-12, or has a keyword that the draft does not know.
    Schema,
    /// `$schema` or `$id` does not agree with its place.
    Identity,
    /// The lock file itself is not in order.
    Lock,
    /// It is not released: the lock has no line for it.
    Unlocked,
    /// A released version changed.
    Changed,
    /// A released version, or its line in the lock, is gone.
    Vanished,
    /// It lacks the compatibility with the version before it that is required.
    Incompatible,
}

impl Rule {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Place => "place",
            Self::Json => "json",
            Self::Schema => "schema",
            Self::Identity => "identity",
            Self::Lock => "lock",
            Self::Unlocked => "unlocked",
            Self::Changed => "changed",
            Self::Vanished => "vanished",
            Self::Incompatible => "incompatible",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that is wrong. Displayed as one line: `<file>[:<line>][#<JSON pointer>]: <what>[; <what to do>]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, as a person would open it.
    pub file: String,
    /// The 1-based line, where it is known (in a lock, and where JSON ends to be JSON).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Where in the file, as a JSON pointer; empty is the whole document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Which promise it breaks.
    pub rule: Rule,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Fault {
    pub(crate) fn new(file: impl Into<String>, rule: Rule, message: impl Into<String>) -> Self {
        // Names and library messages may hold anything; a fault is one line all the same.
        let message = message.into().replace(['\n', '\r'], " ");
        Self { file: file.into(), line: None, pointer: None, rule, message, advice: None }
    }

    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    pub(crate) fn line(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(pointer) = self.pointer.as_deref().filter(|p| !p.is_empty()) {
            write!(f, "#{pointer}")?;
        }
        write!(f, ": {}", self.message)?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl std::error::Error for Fault {}
