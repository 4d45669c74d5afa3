//! One error for every backend and store: what, may I retry, what happened.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Cut, Offset};

/// The result of a bus or store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input is wrong; the same call fails again.
    InvalidInput,
    /// The record or batch is larger than the backend takes.
    TooLarge {
        /// Its size in bytes (or records, for a batch with too many).
        size: usize,
        /// The most that is taken, in the same unit.
        limit: usize,
    },
    /// The topic, partition, checkpoint or file does not exist.
    NotFound,
    /// It exists already, and differs from what was asked for.
    AlreadyExists,
    /// Too much was asked for at once.
    Throttled {
        /// How long to wait, where the backend says so.
        after: Option<Duration>,
    },
    /// The backend cannot be reached, or cannot serve at present.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The position lies below what is still kept.
    OutOfRange {
        /// The oldest offset left; `None` when nothing is.
        oldest: Option<Offset>,
    },
    /// Not tried, because an earlier record of the same key or group failed. It was not written.
    NotAttempted,
    /// Another owner with a newer lease has taken over, or the writer's claim has ended.
    Fenced,
    /// A commit expected another version of what is stored.
    VersionConflict {
        /// The version that is stored; 0 for none.
        current: u64,
    },
    /// A commit would go back. Going back is what `reset` is for.
    BackwardCommit {
        /// The cut that is stored.
        current: Cut,
    },
    /// A position or checkpoint of another life of the bus.
    WrongIncarnation,
    /// What is stored is damaged.
    Corrupt {
        /// The file.
        file: String,
        /// The 1-based line, where known.
        line: Option<u64>,
        /// The 0-based byte in the file, where known.
        byte: Option<u64>,
    },
    /// Facts that were ACKed, or that an index holds, are missing from the log.
    FactsMissing,
    /// After a failed sync nobody knows what is on disk; reopen before going on.
    Poisoned,
    /// Another process holds it.
    Locked {
        /// Who, as far as it is known (such as `pid 4711 on host-a since …`).
        holder: String,
    },
    /// No space left on the device or within the quota.
    StorageFull,
    /// An operation of the operating system failed.
    Io,
    /// The handle was closed.
    Closed,
    /// The backend does not offer it (see its capabilities).
    Unsupported,
    /// A format, protocol or key version that this program does not know.
    WrongVersion,
    /// The backend broke its own protocol (such as a sequence number that did not rise).
    ProtocolViolation,
}

impl ErrorKind {
    /// A short name that does not change, for metrics and machine-readable output.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::TooLarge { .. } => "too_large",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::OutOfRange { .. } => "out_of_range",
            Self::NotAttempted => "not_attempted",
            Self::Fenced => "fenced",
            Self::VersionConflict { .. } => "version_conflict",
            Self::BackwardCommit { .. } => "backward_commit",
            Self::WrongIncarnation => "wrong_incarnation",
            Self::Corrupt { .. } => "corrupt",
            Self::FactsMissing => "facts_missing",
            Self::Poisoned => "poisoned",
            Self::Locked { .. } => "locked",
            Self::StorageFull => "storage_full",
            Self::Io => "io",
            Self::Closed => "closed",
            Self::Unsupported => "unsupported",
            Self::WrongVersion => "wrong_version",
            Self::ProtocolViolation => "protocol_violation",
        }
    }

    /// The answer to "may I retry" unless the backend knows better.
    const fn usual_retry(&self) -> Retry {
        match self {
            Self::Throttled { after: Some(after) } => Retry::After(*after),
            Self::Throttled { after: None }
            | Self::Unavailable
            | Self::Timeout
            | Self::NotAttempted
            | Self::Locked { .. }
            | Self::StorageFull => Retry::Later,
            Self::Poisoned => Retry::AfterReopen,
            _ => Retry::Never,
        }
    }
}

/// May the same call be made again?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// Yes, with a back-off of the caller's own.
    Later,
    /// Yes, after this long.
    After(Duration),
    /// Yes, once the bus or store has been opened anew.
    AfterReopen,
}

/// What the failed call has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing: the record is not in the log and never will be by this call.
    None,
    /// Nobody knows: it may be in the log, or may still get there. Reconcile from the log before deciding.
    Unknown,
}

/// A failed bus or store call. One line when displayed: operation, place, what is wrong, what to do next.
///
/// Cloning is cheap, so that one failed group can answer each of its records.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    retry: Option<Retry>,
    effect: Effect,
    op: &'static str,
    place: Option<String>,
    message: String,
    advice: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in the operation `op` (a verb such as `publish`), with what is wrong in words.
    /// Its effect is [`Effect::None`] and its retry the kind's usual one unless set otherwise.
    #[must_use]
    pub fn new(kind: ErrorKind, op: &'static str, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            retry: None,
            effect: Effect::None,
            op,
            place: None,
            message: message.into(),
            advice: None,
            source: None,
        }))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// With the place: a topic and partition, a file and line, an address.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        let place = place.to_string();
        self.edit(|i| i.place = Some(place))
    }

    /// With what to do next, as an imperative.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        let advice = advice.into();
        self.edit(|i| i.advice = Some(advice))
    }

    /// With another effect.
    #[must_use]
    pub fn with_effect(self, effect: Effect) -> Self {
        self.edit(|i| i.effect = effect)
    }

    /// With another answer to "may I retry".
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        self.edit(|i| i.retry = Some(retry))
    }

    /// With the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Arc<dyn StdError + Send + Sync> = Arc::from(source.into());
        self.edit(|i| i.source = Some(source))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// May the same call be made again? With [`Effect::Unknown`] a retry may leave a copy.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry.unwrap_or(self.0.kind.usual_retry())
    }

    /// Whether any retry can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retry() != Retry::Never
    }

    /// What the call has left behind.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.op
    }

    /// Where it failed.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// What is wrong, without operation, place and advice.
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op)?;
        if let Some(place) = &self.0.place {
            write!(f, " {place}")?;
        }
        write!(f, ": {}", self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        if self.0.effect == Effect::Unknown {
            f.write_str(" (the outcome is unknown)")?;
        }
        if let Some(advice) = &self.0.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("retry", &self.retry())
            .field("effect", &self.0.effect)
            .field("text", &format_args!("{self}"))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // `Display` already prints the direct cause; what lies below it is for those who walk the chain.
        self.0.source.as_deref().and_then(StdError::source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_operation_place_cause_and_advice() {
        let e = Error::new(ErrorKind::StorageFull, "publish", "no space left")
            .at("fp.bus.traffic.v1/0")
            .with_source(std::io::Error::from_raw_os_error(28))
            .advise("free space and publish again");
        let text = e.to_string();
        assert!(text.starts_with("publish fp.bus.traffic.v1/0: no space left: "), "{text}");
        assert!(text.ends_with("; free space and publish again"), "{text}");
        assert_eq!((e.retry(), e.effect()), (Retry::Later, Effect::None));
        assert_eq!(e.clone().with_retry(Retry::Never).retry(), Retry::Never);
        assert!(e.with_effect(Effect::Unknown).to_string().contains("outcome is unknown"));
    }
}
