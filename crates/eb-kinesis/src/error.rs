//! What the service and the way to it answer, classified.
//!
//! | what came back | kind | effect of a write |
//! |---|---|---|
//! | no connection (refused, no name, no credentials, a request that could not be built) | `Unavailable` / `InvalidInput` | none |
//! | the connection broke later, or the answer cannot be read | `Unavailable` | unknown |
//! | no answer in time | `Timeout` | unknown |
//! | `ProvisionedThroughputExceeded`, `LimitExceeded`, `Throttling…`, `KMSThrottling` | `Throttled` | none |
//! | `ResourceNotFound` | `NotFound` | none |
//! | `ResourceInUse` | `AlreadyExists` | none |
//! | `InvalidArgument`, `ValidationException`, `SerializationException` | `InvalidInput` | none |
//! | `AccessDenied`, a wrong or expired signature or token, `KMS…` but throttling | `InvalidInput`, never retry (an expired token: later) | none |
//! | `InternalFailure`, any other 5xx | `Unavailable` | unknown |
//! | any other 4xx | `InvalidInput` | none |
//!
//! For reads the effect is always none.

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use eb_contract::{Effect, Error, ErrorKind, Offset, Retry, Topic};
use hyper_util::client::legacy::Error as HttpError;

/// The error of a call that changes nothing.
pub(crate) fn reading<E>(
    op: &'static str,
    place: impl std::fmt::Display,
    e: &SdkError<E, HttpResponse>,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let error = writing(op, &place, e).with_effect(Effect::None);
    match error.kind() {
        // Some engines say so of a stream that is being deleted; nothing that is read can exist already.
        ErrorKind::AlreadyExists => Error::new(ErrorKind::Unavailable, op, error.message()).at(place),
        _ => error,
    }
}

/// The error of a call that may have written.
pub(crate) fn writing<E>(
    op: &'static str,
    place: impl std::fmt::Display,
    e: &SdkError<E, HttpResponse>,
) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let plain = |kind, message: String| Error::new(kind, op, message);
    let error = match e {
        SdkError::ConstructionFailure(_) => plain(
            ErrorKind::InvalidInput,
            format!("the request could not be built: {}", DisplayErrorContext(e)),
        )
        .advise("check region, endpoint and credentials"),
        SdkError::TimeoutError(_) => {
            plain(ErrorKind::Timeout, "the service did not answer in time".to_owned())
                .with_effect(Effect::Unknown)
        }
        SdkError::DispatchFailure(failure) => {
            let never_sent =
                failure.is_user() || failure.as_connector_error().is_some_and(|e| never_connected(e));
            let no_credentials = failure.as_connector_error().is_none();
            let message = format!("the service cannot be reached: {}", DisplayErrorContext(e));
            let effect = if never_sent || no_credentials { Effect::None } else { Effect::Unknown };
            plain(ErrorKind::Unavailable, message).with_effect(effect)
        }
        SdkError::ResponseError(_) => {
            plain(ErrorKind::Unavailable, format!("the answer cannot be read: {}", DisplayErrorContext(e)))
                .with_effect(Effect::Unknown)
        }
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            return by_code(op, answer.err().code(), answer.err().message(), status).at(place);
        }
        other => {
            plain(ErrorKind::Unavailable, DisplayErrorContext(other).to_string()).with_effect(Effect::Unknown)
        }
    };
    error.at(place)
}

/// The error of one entry of a `PutRecords` answer, or of a whole call, by its code.
pub(crate) fn by_code(op: &'static str, code: Option<&str>, message: Option<&str>, status: u16) -> Error {
    // Some answers carry the namespace before `#`, or an address after `:`.
    let code = code.unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or(code).split(':').next().unwrap_or_default();
    let name = code.strip_suffix("Exception").unwrap_or(code);
    let said = match (code, message) {
        ("", None) => format!("the service answered {status}"),
        ("", Some(m)) => format!("the service answered {status}: {m}"),
        (c, None) => c.to_owned(),
        (c, Some(m)) => format!("{c}: {m}"),
    };
    let error = |kind| Error::new(kind, op, one_line(&said));
    match name {
        "ProvisionedThroughputExceeded"
        | "LimitExceeded"
        | "Throttling"
        | "ThrottlingError"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "KMSThrottling" => error(ErrorKind::Throttled { after: None }),
        "ResourceNotFound" => error(ErrorKind::NotFound),
        "ResourceInUse" => error(ErrorKind::AlreadyExists),
        "ExpiredToken" | "RequestExpired" | "RequestTimeTooSkewed" => {
            error(ErrorKind::Unavailable).advise("renew the credentials and check the clock")
        }
        "AccessDenied"
        | "UnrecognizedClient"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "IncompleteSignature"
        | "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "NotAuthorized" => {
            error(ErrorKind::InvalidInput).advise("check the credentials and their IAM actions")
        }
        _ if name.starts_with("KMS") => {
            error(ErrorKind::InvalidInput).advise("check the stream's KMS key and the rights to it")
        }
        "InternalFailure" | "InternalServerError" | "InternalError" | "ServiceUnavailable" => {
            error(ErrorKind::Unavailable).with_effect(Effect::Unknown)
        }
        _ if (400..500).contains(&status) => error(ErrorKind::InvalidInput),
        _ => error(ErrorKind::Unavailable).with_effect(Effect::Unknown),
    }
}

/// Whether no connection ever stood, so that nothing can have been sent.
fn never_connected(e: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(http) = e.downcast_ref::<HttpError>() {
            return http.is_connect();
        }
        next = e.source();
    }
    false
}

fn one_line(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same error with what to do where a stream is missing.
pub(crate) fn missing_stream(e: Error, topic: &Topic) -> Error {
    match e.kind() {
        ErrorKind::NotFound => e.advise(format!(
            "create the stream (in development: `eb topics create {topic} --shards N`), or check region and prefix"
        )),
        _ => e,
    }
}

pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "the handle was closed").advise("open a new one")
}

pub(crate) fn out_of_range(place: impl std::fmt::Display, oldest: Option<Offset>) -> Error {
    let left = oldest.map_or("nothing is left".to_owned(), |o| format!("the oldest left is {o}"));
    Error::new(
        ErrorKind::OutOfRange { oldest },
        "read",
        format!("records after this cut may have expired unread; {left}"),
    )
    .at(place)
    .advise("reset the checkpoint, or start at earliest")
}

/// The service did what its documentation excludes.
pub(crate) fn violation(
    op: &'static str,
    place: impl std::fmt::Display,
    message: impl Into<String>,
) -> Error {
    Error::new(ErrorKind::ProtocolViolation, op, message).at(place).with_retry(Retry::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified_by_what_they_leave_behind() {
        let seen = |code: &str, status| {
            let e = by_code("publish", Some(code), None, status);
            (e.kind().code(), e.effect(), e.is_retryable())
        };
        use Effect::Unknown;
        let none = Effect::None;
        assert_eq!(seen("ProvisionedThroughputExceededException", 400), ("throttled", none, true));
        assert_eq!(seen("com.amazonaws.kinesis#LimitExceededException", 400), ("throttled", none, true));
        assert_eq!(seen("ResourceNotFoundException", 400), ("not_found", none, false));
        assert_eq!(seen("AccessDeniedException", 400), ("invalid_input", none, false));
        assert_eq!(seen("ExpiredTokenException", 400), ("unavailable", none, true));
        assert_eq!(seen("KMSThrottlingException", 400), ("throttled", none, true));
        assert_eq!(seen("KMSDisabledException", 400), ("invalid_input", none, false));
        assert_eq!(seen("InternalFailure", 200), ("unavailable", Unknown, true));
        assert_eq!(seen("InternalFailureException", 500), ("unavailable", Unknown, true));
        assert_eq!(seen("SomethingNew", 400), ("invalid_input", none, false));
        assert_eq!(seen("SomethingNew", 503), ("unavailable", Unknown, true));
    }

    #[test]
    fn an_answer_that_is_no_line_becomes_one() {
        let e = by_code("publish", Some("X"), Some("a\nb\r\u{1b}[31m"), 400);
        assert!(!e.to_string().contains(char::is_control), "{e:?}");
    }
}
