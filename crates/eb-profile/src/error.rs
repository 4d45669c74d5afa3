//! What can be wrong with a profile, and where.

use std::fmt;

/// A place in a text file, both 1-based; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A profile that cannot be used. Displayed as one line:
/// `<file>:<line>:<column>: <key>: <what is wrong>; <what to do next>`.
///
/// Values that came out of the environment or are secret never stand in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    file: String,
    at: Option<Place>,
    key: Option<String>,
    message: String,
    advice: Option<String>,
}

impl ProfileError {
    pub(crate) fn new(file: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { file: file.to_owned(), at: None, key: None, message, advice: None }))
    }

    pub(crate) fn at(mut self, at: Place) -> Self {
        self.0.at = Some(at);
        self
    }

    pub(crate) fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// The file, or what stands for it (`<built-in local>`, an environment variable).
    #[must_use]
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// Where in the file.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.0.at
    }

    /// The key with its path, such as `wiring.event_bus.root`.
    #[must_use]
    pub fn key_path(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What is wrong, without place, key and advice.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.file)?;
        if let Some(at) = self.0.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        if let Some(key) = &self.0.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.0.message)?;
        if let Some(advice) = &self.0.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ProfileError {}

/// A profile that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The profile is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// A policy file is wrong.
    #[error(transparent)]
    Policy(Box<ig_gate::yaml::ConfigError>),
    /// A backend or store said no.
    #[error(transparent)]
    Bus(#[from] eb_contract::Error),
    /// The gate could not finish.
    #[error(transparent)]
    Gate(#[from] ig_gate::GateError),
}

impl From<ig_gate::yaml::ConfigError> for OpenError {
    fn from(e: ig_gate::yaml::ConfigError) -> Self {
        Self::Policy(Box::new(e))
    }
}

impl OpenError {
    /// Whether opening again later can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Profile(_) | Self::Policy(_) => false,
            Self::Bus(e) => e.is_retryable(),
            Self::Gate(e) => e.is_retryable(),
        }
    }
}
