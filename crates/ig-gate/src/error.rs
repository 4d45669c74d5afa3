//! When the gate has no answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eb_contract::{Effect, Error, ErrorKind, Retry};
use serde::Serialize;

/// Why the gate could not answer with a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GateErrorCode {
    /// The bus did not take the event. It is not in the log.
    EbUnavailable,
    /// Too much at once, for the bus or for the gate. The event is not in the log.
    EbThrottled,
    /// The event may be in the log or not. The gate finds out from the log; the same call made later is answered
    /// with ADMIT, DUPLICATE or an error as ever, and never admits it a second time.
    PublishOutcomeUnknown,
    /// The admission index cannot say whether the event was admitted before. It was not published.
    IndexUnavailable,
    /// The evidence for a quarantine could not be made durable, so there is no receipt that cites it.
    EvidenceUnavailable,
    /// The gate cannot keep its promises at present and admits nothing.
    GateUnhealthy,
    /// The gate was closed.
    GateClosed,
}

impl GateErrorCode {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EbUnavailable => "EB_UNAVAILABLE",
            Self::EbThrottled => "EB_THROTTLED",
            Self::PublishOutcomeUnknown => "PUBLISH_OUTCOME_UNKNOWN",
            Self::IndexUnavailable => "INDEX_UNAVAILABLE",
            Self::EvidenceUnavailable => "EVIDENCE_UNAVAILABLE",
            Self::GateUnhealthy => "GATE_UNHEALTHY",
            Self::GateClosed => "GATE_CLOSED",
        }
    }
}

impl fmt::Display for GateErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An admission without an answer: never a receipt. One line when displayed. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct GateError(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    code: GateErrorCode,
    retry: Retry,
    message: String,
    source: Option<Error>,
}

impl GateError {
    pub(crate) fn new(code: GateErrorCode, retry: Retry, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { code, retry, message: message.into(), source: None }))
    }

    fn caused(code: GateErrorCode, retry: Retry, message: &str, source: Error) -> Self {
        Self(Arc::new(Inner { code, retry, message: message.to_owned(), source: Some(source) }))
    }

    /// Of a failed publish.
    pub(crate) fn publish(source: Error) -> Self {
        if source.effect() == Effect::Unknown {
            // A key whose outcome only a reopened bus can tell stays blocked until then.
            let retry = match source.retry() {
                Retry::AfterReopen => Retry::AfterReopen,
                _ => Retry::Later,
            };
            return Self::caused(
                GateErrorCode::PublishOutcomeUnknown,
                retry,
                "the event may be in the log or not; send it again, it is not admitted twice",
                source,
            );
        }
        let retry = source.retry();
        if matches!(source.kind(), ErrorKind::Throttled { .. }) {
            return Self::caused(GateErrorCode::EbThrottled, retry, "the bus is throttling", source);
        }
        Self::caused(GateErrorCode::EbUnavailable, retry, "the bus did not take the event", source)
    }

    /// Of a log that cannot be read.
    pub(crate) fn log(source: Error) -> Self {
        let retry = source.retry();
        Self::caused(GateErrorCode::EbUnavailable, retry, "the log could not be asked", source)
    }

    pub(crate) fn index(source: Error) -> Self {
        // What the index says of itself may be final; the event is fit to be sent again all the same.
        let retry = match source.retry() {
            Retry::Never => Retry::AfterReopen,
            other => other,
        };
        Self::caused(GateErrorCode::IndexUnavailable, retry, "the admission index cannot answer", source)
    }

    pub(crate) fn evidence(source: Error) -> Self {
        let retry = match source.retry() {
            Retry::Never => Retry::AfterReopen,
            other => other,
        };
        let message = "the evidence for a quarantine could not be stored";
        Self::caused(GateErrorCode::EvidenceUnavailable, retry, message, source)
    }

    pub(crate) fn unhealthy(message: impl Into<String>) -> Self {
        Self::new(GateErrorCode::GateUnhealthy, Retry::Later, message)
    }

    pub(crate) fn throttled(message: impl Into<String>, after: Duration) -> Self {
        Self::new(GateErrorCode::EbThrottled, Retry::After(after), message)
    }

    pub(crate) fn closed() -> Self {
        Self::new(GateErrorCode::GateClosed, Retry::AfterReopen, "the gate is closed")
    }

    /// Why.
    #[must_use]
    pub fn code(&self) -> GateErrorCode {
        self.0.code
    }

    /// May the same event be sent again?
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether sending the same event again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retry != Retry::Never
    }

    /// The bus's or store's own error.
    #[must_use]
    pub fn cause(&self) -> Option<&Error> {
        self.0.source.as_ref()
    }
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        self.0.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl std::error::Error for GateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Display` prints the cause already; what lies below it is for those who walk the chain.
        self.0.source.as_ref().and_then(std::error::Error::source)
    }
}

/// As `{"code": …, "retryable": …, "message": …}`.
impl Serialize for GateError {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = s.serialize_struct("GateError", 3)?;
        out.serialize_field("code", &self.0.code)?;
        out.serialize_field("retryable", &self.is_retryable())?;
        out.serialize_field("message", &self.to_string())?;
        out.end()
    }
}
