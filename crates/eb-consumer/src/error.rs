//! How a handler fails, and how a consumer does.

use std::error::Error as StdError;
use std::fmt;

use eb_contract::Error;

type Cause = Box<dyn StdError + Send + Sync>;

/// What a handler answers.
pub type HandlerResult = Result<(), HandlerError>;

/// What may be done about a handler's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It will never succeed: the record becomes a dead letter.
    Permanent,
    /// It may succeed later: it is tried again.
    Transient,
    /// Nobody said. Counts as transient.
    Unknown,
}

/// A handler's failure. Any error becomes one by `?`, as [`Verdict::Unknown`]; say more where more is known:
///
/// ```
/// use eb_consumer::{HandlerError, HandlerResult};
///
/// async fn book(amount: String) -> HandlerResult {
///     let amount: i64 = amount.parse().map_err(HandlerError::permanent)?;
///     if amount < 0 {
///         return Err(HandlerError::permanent("a negative amount"));
///     }
///     tokio::task::spawn_blocking(move || std::fs::write("/ledger", amount.to_string())).await??;
///     Ok(())
/// }
/// ```
pub struct HandlerError {
    verdict: Verdict,
    cause: Cause,
}

impl HandlerError {
    /// One that no further attempt can mend.
    pub fn permanent(cause: impl Into<Cause>) -> Self {
        Self { verdict: Verdict::Permanent, cause: cause.into() }
    }

    /// One that may be gone at the next attempt.
    pub fn transient(cause: impl Into<Cause>) -> Self {
        Self { verdict: Verdict::Transient, cause: cause.into() }
    }

    /// What may be done about it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What went wrong.
    #[must_use]
    pub fn cause(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self.cause.as_ref()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(cause: E) -> Self {
        Self { verdict: Verdict::Unknown, cause: Box::new(cause) }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.verdict, self.cause)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

/// A consumer that is put together wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("consumer `{consumer}`: {what}")]
pub struct BuildError {
    /// Its name.
    pub consumer: String,
    /// What is wrong and what to do.
    pub what: String,
}

/// Why a consumer did not start, or did not end well.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// What it needs cannot be used. A consumer in mode `required` does not start without its bus.
    #[error("consumer `{consumer}` cannot start: {what}: {source}")]
    CannotStart {
        /// Its name.
        consumer: String,
        /// What is missing.
        what: &'static str,
        /// Why.
        source: Error,
    },
    /// It ended with records handled whose marks could not be stored: they will be handled again.
    #[error(
        "consumer `{consumer}` stopped with {unrecorded} handled records whose marks could not be stored; they will be handled again"
    )]
    Unrecorded {
        /// Its name.
        consumer: String,
        /// How many.
        unrecorded: u64,
    },
}
