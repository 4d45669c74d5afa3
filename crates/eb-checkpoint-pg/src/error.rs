//! What a failed statement means: kind, retry, effect, by SQLSTATE and by where in a transaction it failed.
//!
//! | what the database says | kind | retry | effect of a commit |
//! |---|---|---|---|
//! | nothing: the connection broke, or no answer came in time | `Unavailable`, `Timeout` | later | unknown |
//! | 08xxx, 57P01…57P05 (shut down, terminated) | `Unavailable` | later | unknown |
//! | 40003 (completion unknown) | `Unavailable` | later | unknown |
//! | 57014, 55P03, 25P03 (a timeout of the server's) | `Timeout` | later | none |
//! | 40001, 40P01, other 40xxx (rolled back for another's sake) | `Unavailable` | later | none |
//! | 53100 (disk full) | `StorageFull` | later | none |
//! | 53300, 53400 (too many connections) | `Throttled` | later | none |
//! | 53xxx (memory …) | `Unavailable` | later | none |
//! | 25006 (read only: a standby) | `Unavailable` | later | none |
//! | 28xxx, 42501 (who are you, may you) | `InvalidInput` | never | none |
//! | 3D000, 3F000, 42P01, 42703 (no such database, schema, table, column) | `NotFound` | never | none |
//! | 22xxx (bad data) | `InvalidInput` | never | none |
//! | 0A000, 26000 (a plan that a migration outdated) | `Unavailable` | later | none |
//! | 58xxx (the server's disk) | `Io` | never | none |
//! | XX001, XX002 (damaged pages) | `Corrupt` | never | none |
//! | anything else | `ProtocolViolation` | never | none |
//!
//! "Effect of a commit" is what a write answers that may already have been committed. Within a transaction that was
//! not yet told to commit, the effect is none whatever happens: the server rolls it back.

use std::error::Error as StdError;
use std::time::Duration;

use deadpool_postgres::{PoolError, TimeoutType};
use eb_contract::{Effect, Error, ErrorKind, Retry};

/// What a statement that fails may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It reads, or lies in a transaction that was not told to commit: nothing, whatever happens.
    Harmless,
    /// It commits: if the answer is lost, nobody knows.
    Commit,
}

/// The error of a statement.
pub(crate) fn classify(op: &'static str, place: &str, step: Step, error: tokio_postgres::Error) -> Error {
    let Some(state) = error.code().map(|s| s.code().to_owned()) else {
        let unsent = error.source().is_some_and(<dyn StdError>::is::<tokio_postgres::types::WrongType>);
        let kind = if unsent { ErrorKind::ProtocolViolation } else { ErrorKind::Unavailable };
        let message = if unsent {
            "a parameter does not fit the statement"
        } else {
            "the connection to the database failed"
        };
        let classified = Error::new(kind, op, message).at(place);
        return with_step(classified, step, !unsent).with_source(Cause::of(error));
    };
    let (kind, message, advice) = meaning(&state, place);
    let lost = state.starts_with("08") || state.starts_with("57P") || state == "40003";
    let mut classified = Error::new(kind, op, message).at(place);
    if let Some(advice) = advice {
        classified = classified.advise(advice);
    }
    with_step(classified, step, lost).with_source(Cause::of(error))
}

fn with_step(error: Error, step: Step, lost: bool) -> Error {
    if lost && step == Step::Commit { error.with_effect(Effect::Unknown) } else { error }
}

fn meaning(state: &str, place: &str) -> (ErrorKind, &'static str, Option<&'static str>) {
    match state {
        "57014" | "55P03" | "25P03" => (ErrorKind::Timeout, "the database gave the statement up", None),
        "53100" => (
            ErrorKind::StorageFull,
            "the database has no space left",
            Some("free space on the database server"),
        ),
        "53300" | "53400" => (
            ErrorKind::Throttled { after: None },
            "the database takes no more connections",
            Some("raise max_connections on the server or lower it here"),
        ),
        "25006" => {
            (ErrorKind::Unavailable, "the database is read only", Some("use the address of the primary"))
        }
        "42501" => (
            ErrorKind::InvalidInput,
            "the database user may not do that",
            Some("grant it the rights that SCHEMA.md lists"),
        ),
        "3D000" => (ErrorKind::NotFound, "there is no such database", Some("create it")),
        "3F000" | "42P01" | "42703" => (
            ErrorKind::NotFound,
            "the schema is not there, or not in this version",
            Some("open the store with migrations applied"),
        ),
        "0A000" | "26000" => (ErrorKind::Unavailable, "the statement was outdated by a migration", None),
        "XX001" | "XX002" => (
            ErrorKind::Corrupt { file: place.to_owned(), line: None, byte: None },
            "the database's own files are damaged",
            Some("restore the database"),
        ),
        _ => match &state[..2] {
            "08" | "57" => (ErrorKind::Unavailable, "the database is not there for now", None),
            "40" => (ErrorKind::Unavailable, "the transaction was rolled back in favour of another", None),
            "53" => (ErrorKind::Unavailable, "the database is out of a resource", None),
            "28" => (
                ErrorKind::InvalidInput,
                "the database does not let this user in",
                Some("check user and password of the address"),
            ),
            "22" => (ErrorKind::InvalidInput, "the database does not take a value", None),
            "58" => (ErrorKind::Io, "the database server cannot read or write its files", None),
            _ => (ErrorKind::ProtocolViolation, "the database refused a statement", None),
        },
    }
}

/// The error of getting a connection. Nothing was sent on the caller's behalf.
pub(crate) fn no_connection(op: &'static str, place: &str, error: PoolError) -> Error {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => Error::new(
            ErrorKind::Throttled { after: Some(Duration::from_millis(100)) },
            op,
            "all connections of the pool are in use",
        )
        .at(place)
        .advise("raise max_connections of the store"),
        PoolError::Timeout(_) => {
            Error::new(ErrorKind::Timeout, op, "connecting to the database took too long").at(place)
        }
        PoolError::Closed => closed(op).at(place),
        PoolError::Backend(error) => classify(op, place, Step::Harmless, error),
        PoolError::PostCreateHook(deadpool_postgres::HookError::Backend(error)) => {
            classify(op, place, Step::Harmless, error)
        }
        other => Error::new(ErrorKind::Unavailable, op, format!("no connection to the database: {other}"))
            .at(place),
    }
}

/// No answer came in the time that the client waits.
pub(crate) fn no_answer(op: &'static str, place: &str, step: Step, waited: Duration) -> Error {
    let error = Error::new(ErrorKind::Timeout, op, format!("no answer came within {waited:?}")).at(place);
    with_step(error, step, true)
}

pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "the store was closed").advise("open it anew")
}

pub(crate) fn invalid(op: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, op, message)
}

pub(crate) fn again(error: Error) -> Error {
    error.with_retry(Retry::Later)
}

/// A database error with its causes on one line: the library shows the kind alone.
#[derive(Debug)]
struct Cause {
    text: String,
    error: tokio_postgres::Error,
}

impl Cause {
    fn of(error: tokio_postgres::Error) -> Self {
        let text = match error.as_db_error() {
            Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
            None => {
                let mut text = error.to_string();
                let mut cause = error.source();
                while let Some(e) = cause {
                    text.push_str(&format!(": {e}"));
                    cause = e.source();
                }
                text
            }
        };
        Self { text, error }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.error)
    }
}
