//! Errors as the service words them.

use serde_json::{Value, json};

/// An error answer: status, `__type` and message. In a `PutRecords` answer it is an entry's `ErrorCode` and
/// `ErrorMessage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// The error's type, such as `ProvisionedThroughputExceededException`.
    pub code: String,
    /// What a person reads.
    pub message: String,
}

impl Fault {
    /// Any error.
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// `ProvisionedThroughputExceededException`, 400: a shard's rate is used up.
    #[must_use]
    pub fn throttled() -> Self {
        Self::new(400, "ProvisionedThroughputExceededException", "Rate exceeded for shard.")
    }

    /// `InternalFailure`, 500: what the service's front answers, and what an entry of `PutRecords` carries.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(500, "InternalFailure", "Internal service failure.")
    }

    /// `InternalFailureException`, 500: the modelled form of the same.
    #[must_use]
    pub fn internal_exception() -> Self {
        Self::new(500, "InternalFailureException", "Internal service failure.")
    }

    /// `ServiceUnavailable`, 503.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(503, "ServiceUnavailable", "The service is temporarily unavailable.")
    }

    /// `LimitExceededException`, 400: a quota of the account, or too many calls of the control plane.
    #[must_use]
    pub fn limit_exceeded() -> Self {
        Self::new(400, "LimitExceededException", "Rate exceeded.")
    }

    /// `ThrottlingException`, 400: too many calls, said by the service's front.
    #[must_use]
    pub fn throttling() -> Self {
        Self::new(400, "ThrottlingException", "Rate exceeded")
    }

    /// `ResourceNotFoundException`, 400.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(400, "ResourceNotFoundException", message)
    }

    /// `ResourceInUseException`, 400.
    #[must_use]
    pub fn in_use(message: impl Into<String>) -> Self {
        Self::new(400, "ResourceInUseException", message)
    }

    /// `InvalidArgumentException`, 400.
    #[must_use]
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidArgumentException", message)
    }

    /// `ValidationException`, 400: the request breaks the interface's own constraints.
    #[must_use]
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationException", message)
    }

    /// `SerializationException`, 400: the request cannot be parsed.
    #[must_use]
    pub fn serialization(message: impl Into<String>) -> Self {
        Self::new(400, "SerializationException", message)
    }

    /// `ExpiredIteratorException`, 400.
    #[must_use]
    pub fn expired_iterator() -> Self {
        Self::new(
            400,
            "ExpiredIteratorException",
            "Iterator expired. It is older than the tolerated delay of 300000 milliseconds.",
        )
    }

    /// `ExpiredNextTokenException`, 400.
    #[must_use]
    pub fn expired_next_token() -> Self {
        Self::new(400, "ExpiredNextTokenException", "The pagination token has expired.")
    }

    /// `AccessDeniedException`, 400: the caller lacks an IAM action.
    #[must_use]
    pub fn access_denied() -> Self {
        Self::new(
            400,
            "AccessDeniedException",
            "User: arn:aws:iam::000000000000:user/test is not authorized to perform this action",
        )
    }

    /// `UnrecognizedClientException`, 400: the credentials are unknown.
    #[must_use]
    pub fn unrecognized_client() -> Self {
        Self::new(
            400,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    }

    /// `ExpiredTokenException`, 400: the session's credentials have run out.
    #[must_use]
    pub fn expired_token() -> Self {
        Self::new(400, "ExpiredTokenException", "The security token included in the request is expired")
    }

    /// `KMSThrottlingException`, 400: the key service throttles the stream's encryption.
    #[must_use]
    pub fn kms_throttling() -> Self {
        Self::new(400, "KMSThrottlingException", "The request was denied due to request throttling.")
    }

    /// `KMSDisabledException`, 400: the stream's key is disabled.
    #[must_use]
    pub fn kms_disabled() -> Self {
        Self::new(400, "KMSDisabledException", "The specified KMS key isn't enabled.")
    }

    /// The same error with another message.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub(super) fn body(&self) -> Value {
        json!({"__type": self.code, "message": self.message})
    }
}
