//! How a command fails: one line, and an exit code.

use std::fmt;
use std::io;

use eb_consumer::ConsumerError;
use eb_contract::{Effect, Error};
use eb_profile::{OpenError, ProfileError};
use ig_gate::GateError;
use serde_json::{Map, Value, json};

/// The exit codes of `eb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Quarantined = 3,
    /// `EX_TEMPFAIL` of sysexits.h.
    TryAgain = 75,
}

/// The result of a command.
pub(crate) type Outcome = Result<Exit, Failure>;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    exit: Exit,
    what: String,
    advice: Option<String>,
    /// More for machines.
    facts: Map<String, Value>,
    /// The reader of our output has gone: nobody is left to tell.
    broken_pipe: bool,
}

impl Failure {
    /// Of this kind (a word that does not change, for machines).
    pub(crate) fn new(exit: Exit, kind: &str, what: impl Into<String>) -> Self {
        let facts = Map::from_iter([("kind".to_owned(), json!(kind))]);
        Self(Box::new(Inner { exit, what: what.into(), advice: None, facts, broken_pipe: false }))
    }

    pub(crate) fn failed(kind: &str, what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, kind, what)
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", what)
    }

    /// What to do next.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Without what its kind usually says to do next.
    pub(crate) fn without_advice(mut self) -> Self {
        self.0.advice = None;
        self
    }

    /// What to do next, where nothing is said yet.
    pub(crate) fn advise_if_silent(self, advice: impl Into<String>) -> Self {
        if self.0.advice.is_some() { self } else { self.advise(advice) }
    }

    pub(crate) fn fact(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.facts.insert(key.to_owned(), value.into());
        self
    }

    /// With words before what is wrong.
    pub(crate) fn context(mut self, before: impl fmt::Display) -> Self {
        self.0.what = format!("{before}: {}", self.0.what);
        self
    }

    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        self.0.exit
    }

    /// What is wrong, without what to do next.
    pub(crate) fn what(&self) -> &str {
        &self.0.what
    }

    /// Whether another process has what is needed.
    pub(crate) fn is_in_use(&self) -> bool {
        self.0.facts.get("kind").is_some_and(|kind| kind == "locked")
    }

    /// Whether it came of writing to somebody who no longer reads.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.0.broken_pipe
    }

    /// Of writing results.
    pub(crate) fn output(error: &io::Error) -> Self {
        let mut failure = Self::failed("output", format!("cannot write the result: {error}"));
        failure.0.broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        failure
    }

    /// As one JSON object.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = self.0.facts.clone();
        error.insert("message".to_owned(), json!(self.0.what));
        if let Some(advice) = &self.0.advice {
            error.insert("advice".to_owned(), json!(advice));
        }
        error.insert("exit_code".to_owned(), json!(self.0.exit as u8));
        json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        self.0.advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let exit = if e.is_retryable() { Exit::TryAgain } else { Exit::Failed };
        // The error's own line, without the advice, which stands apart here.
        let line = e.to_string();
        let what = e.advice().and_then(|a| line.strip_suffix(&format!("; {a}"))).unwrap_or(&line);
        let failure = Self::new(exit, e.kind().code(), what)
            .fact("operation", e.operation())
            .fact("retryable", e.is_retryable())
            .fact("outcome_unknown", e.effect() == Effect::Unknown);
        let failure = match e.place() {
            Some(place) => failure.fact("place", place),
            None => failure,
        };
        match e.advice() {
            Some(advice) => failure.advise(advice),
            None if exit == Exit::TryAgain => failure.advise("try again"),
            None => failure,
        }
    }
}

impl From<ProfileError> for Failure {
    fn from(e: ProfileError) -> Self {
        let place = e.place();
        let what = ProfileError::to_string(&e);
        let what = e.advice().and_then(|a| what.strip_suffix(&format!("; {a}"))).unwrap_or(&what);
        let mut failure = Self::failed("profile", what).fact("file", e.file());
        if let Some(place) = place {
            failure = failure.fact("line", place.line).fact("column", place.column);
        }
        if let Some(key) = e.key_path() {
            failure = failure.fact("key", key);
        }
        match e.advice() {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }
}

impl From<GateError> for Failure {
    fn from(e: GateError) -> Self {
        let exit = if e.is_retryable() { Exit::TryAgain } else { Exit::Failed };
        let failure = Self::new(exit, &e.code().as_str().to_ascii_lowercase(), e.to_string())
            .fact("retryable", e.is_retryable());
        if exit == Exit::TryAgain { failure.advise("try again") } else { failure }
    }
}

impl From<ConsumerError> for Failure {
    fn from(e: ConsumerError) -> Self {
        let what = e.to_string();
        match e {
            ConsumerError::CannotStart { source, .. } => {
                let (exit, advice) =
                    (if source.is_retryable() { Exit::TryAgain } else { Exit::Failed }, source.advice());
                let what = advice.and_then(|a| what.strip_suffix(&format!("; {a}"))).unwrap_or(&what);
                let failure =
                    Self::new(exit, source.kind().code(), what).fact("retryable", source.is_retryable());
                match advice {
                    Some(advice) => failure.advise(advice),
                    None => failure,
                }
            }
            _ => Self::new(Exit::TryAgain, "unrecorded", what),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(e: OpenError) -> Self {
        match e {
            OpenError::Profile(e) => Self::from(e),
            OpenError::Policy(e) => Self::failed("policy", e.to_string()),
            OpenError::Bus(e) => Self::from(e),
            OpenError::Gate(e) => Self::from(e),
        }
    }
}
