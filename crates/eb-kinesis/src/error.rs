//! What the service and the way to it answer, classified.
//!
//! | what came back | kind | effect of a write |
//! |---|---|---|
//! | no connection (refused, no name), no credentials, a request that could not be built | `Unavailable` / `InvalidInput` | none |
//! | the connection broke later, or the answer cannot be read | `Unavailable` | unknown |
//! | no answer in time | `Timeout` | unknown |
//! | `ProvisionedThroughputExceeded`, `LimitExceeded`, `Throttling…`, `KMSThrottling`, 429 | `Throttled` | none |
//! | `ResourceNotFound` | `NotFound` | none |
//! | `ResourceInUse` | `AlreadyExists` where a stream is made, else `Unavailable` | none |
//! | `InvalidArgument`, `ValidationException`, `SerializationException` | `InvalidInput` | none |
//! | `AccessDenied`, a wrong signature, `KMS…` but throttling | `InvalidInput`, never retry | none |
//! | an expired token, a signature of another time, an iterator or a page of a list that expired | `Unavailable` | none |
//! | `InternalFailure`, any other 5xx | `Unavailable` | unknown |
//! | any other 4xx | `InvalidInput` | none |
//!
//! For reads the effect is always none.

use aws_credential_types::provider::error::CredentialsError;
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
    in_use(writing(op, &place, e).with_effect(Effect::None)).at(place)
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
            let cause = failure.as_connector_error().map(|e| e as &(dyn std::error::Error + 'static));
            if cause.is_some_and(no_credentials) {
                let message = format!("there are no credentials: {}", DisplayErrorContext(e));
                let error = plain(ErrorKind::Unavailable, one_line(&message));
                return error.at(place).advise("check where the credentials come from");
            }
            let never_sent = failure.is_user() || cause.is_some_and(never_connected);
            let message = format!("the service cannot be reached: {}", DisplayErrorContext(e));
            let effect = if never_sent { Effect::None } else { Effect::Unknown };
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

/// The error of a `PutRecords` call.
pub(crate) fn publishing<E>(op: &'static str, topic: &Topic, e: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    in_use(missing_stream(writing(op, topic, e), topic)).at(topic)
}

/// Some engines say of a stream that is being made or deleted that it is in use: a while later it is not. To who reads or
/// publishes nothing can exist already.
fn in_use(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => Error::new(ErrorKind::Unavailable, error.operation(), error.message()),
        _ => error,
    }
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
        "ExpiredIterator" | "ExpiredNextToken" => {
            error(ErrorKind::Unavailable).advise("ask again: it took more than five minutes")
        }
        // The service names a signature of another time as it names a wrong one.
        "InvalidSignature" if message.is_some_and(is_of_another_time) => {
            error(ErrorKind::Unavailable).advise("check the clock")
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
        // A proxy's.
        _ if status == 429 => error(ErrorKind::Throttled { after: None }),
        _ if (400..500).contains(&status) => error(ErrorKind::InvalidInput),
        _ => error(ErrorKind::Unavailable).with_effect(Effect::Unknown),
    }
}

/// What the service says of a signature when one of the two clocks is off by more than five minutes.
fn is_of_another_time(message: &str) -> bool {
    message.starts_with("Signature expired") || message.starts_with("Signature not yet current")
}

/// The first error of this type on the way to the cause.
fn find<'a, E: std::error::Error + 'static>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(e), |e| e.source()).find_map(|e| e.downcast_ref())
}

/// Whether no connection ever stood, so that nothing can have been sent.
fn never_connected(e: &(dyn std::error::Error + 'static)) -> bool {
    find::<HttpError>(e).is_some_and(HttpError::is_connect)
}

/// Whether the call ended before it could be signed.
fn no_credentials(e: &(dyn std::error::Error + 'static)) -> bool {
    find::<CredentialsError>(e).is_some()
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
        assert_eq!(seen("ExpiredIteratorException", 400), ("unavailable", none, true));
        assert_eq!(seen("ExpiredNextTokenException", 400), ("unavailable", none, true));
        assert_eq!(seen("", 429), ("throttled", none, true));
        assert_eq!(seen("SomethingNew", 503), ("unavailable", Unknown, true));
    }

    #[test]
    fn a_clock_that_is_off_is_told_from_a_wrong_secret() {
        for said in [
            "Signature expired: 20261121T210000Z is now earlier than 20261121T211000Z (20261121T211500Z - 5 min.)",
            "Signature not yet current: 20261121T220000Z is still later than 20261121T212000Z",
        ] {
            let e = by_code("publish", Some("InvalidSignatureException"), Some(said), 400);
            assert_eq!((e.kind().code(), e.effect(), e.is_retryable()), ("unavailable", Effect::None, true));
            assert!(e.advice().is_some_and(|advice| advice.contains("clock")), "{e}");
        }
        let wrong = "The request signature we calculated does not match the signature you provided.";
        let e = by_code("publish", Some("InvalidSignatureException"), Some(wrong), 400);
        assert_eq!((e.kind().code(), e.is_retryable()), ("invalid_input", false));
    }

    /// Credentials that have run out and cannot be had again: nothing was signed, so nothing was sent.
    #[tokio::test]
    async fn a_call_without_credentials_has_no_effect() {
        use aws_credential_types::Credentials;
        use aws_credential_types::provider::error::CredentialsError;
        use aws_credential_types::provider::{ProvideCredentials, future};

        #[derive(Debug)]
        struct RunOut;
        impl ProvideCredentials for RunOut {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                let none: Result<Credentials, _> = Err(CredentialsError::provider_error("the role is gone"));
                future::ProvideCredentials::ready(none)
            }
        }

        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(aws_config::Region::new("us-east-1"))
            .credentials_provider(RunOut)
            .endpoint_url("http://127.0.0.1:1")
            .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
            .build();
        let client = aws_sdk_kinesis::Client::from_conf(config);
        let failed = client.put_records().stream_name("s").set_records(Some(vec![])).send().await;
        let e = writing("publish", "t", &failed.unwrap_err());
        assert_eq!(
            (e.kind().code(), e.effect(), e.is_retryable()),
            ("unavailable", Effect::None, true),
            "{e}"
        );
        assert!(e.message().contains("the role is gone"), "{e}");
        assert!(e.advice().is_some_and(|advice| advice.contains("credentials")), "{e}");
    }

    #[test]
    fn an_answer_that_is_no_line_becomes_one() {
        let e = by_code("publish", Some("X"), Some("a\nb\r\u{1b}[31m"), 400);
        assert!(!e.to_string().contains(char::is_control), "{e:?}");
    }
}
