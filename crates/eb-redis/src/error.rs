//! What the server and the way to it answer, classified.
//!
//! | what came back | kind | effect of an append |
//! |---|---|---|
//! | no connection, or one that broke before a byte of the call was written | `Unavailable` | none |
//! | the connection broke later, or the answer cannot be read | `Unavailable` | unknown |
//! | no answer in time | `Timeout` | unknown |
//! | `LOADING`, `BUSY`, `MISCONF`, `READONLY`, `MASTERDOWN`, `CLUSTERDOWN`, `TRYAGAIN`, `NOREPLICAS`, too many clients | `Unavailable` | none |
//! | `OOM` | `StorageFull` | none |
//! | `NOAUTH`, `WRONGPASS`, `NOPERM` | `InvalidInput`, never retry | none |
//! | `DENIED` (protected mode), a database that is not there | `InvalidInput`, never retry | none |
//! | `MOVED`, `ASK`, `CROSSSLOT`, a command that the server hides | `Unsupported` | none |
//! | `WRONGTYPE`, and anything else | `ProtocolViolation` | none |
//!
//! An error that the server states is always about a call that it did not run.

use std::fmt;

use eb_contract::{Effect, Error, ErrorKind, Offset, PartitionId, Topic};
use redis::{ErrorKind as RedisKind, RedisError, ServerError};

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// Whether the server may have got it.
    pub(crate) sent: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Cause {
    Timeout,
    Broken(RedisError),
}

impl Failure {
    /// The error of a call that changes nothing.
    pub(crate) fn reading(&self, op: &'static str) -> Error {
        match &self.cause {
            Cause::Timeout => Error::new(ErrorKind::Timeout, op, "the server did not answer in time"),
            Cause::Broken(e) => {
                unavailable(op, format!("the connection to the server broke: {}", one_line(e)))
            }
        }
    }

    /// The error of a call that may have changed something.
    pub(crate) fn writing(&self, op: &'static str) -> Error {
        let effect = if self.sent { Effect::Unknown } else { Effect::None };
        self.reading(op).with_effect(effect)
    }
}

/// An error that the server states.
pub(crate) fn stated(op: &'static str, e: &ServerError) -> Error {
    by_text(op, e.code(), e.details().unwrap_or_default())
}

/// An error that the server states within an answer: its code is the first word.
pub(crate) fn stated_text(op: &'static str, text: &str) -> Error {
    let text = text.trim_start_matches('-');
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    by_text(op, code, rest)
}

/// Whether a command is refused to this user, or to all.
pub(crate) fn is_withheld(e: &ServerError) -> bool {
    let unknown = || e.details().is_some_and(|text| text.starts_with("unknown command"));
    e.code() == "NOPERM" || e.code() == "ERR" && unknown()
}

fn by_text(op: &'static str, code: &str, text: &str) -> Error {
    let said = one_line(format!("{code} {text}"));
    let error = |kind| Error::new(kind, op, said.clone());
    match code {
        "LOADING" | "BUSY" | "MISCONF" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"
        | "NOREPLICAS" => error(ErrorKind::Unavailable),
        "ERR" if text.contains("max number of clients") => error(ErrorKind::Unavailable),
        // What `NOPERM` is called when a script is refused a command.
        "ERR" if text.contains("user executing the script") => no_right(error(ErrorKind::InvalidInput)),
        "DENIED" => error(ErrorKind::InvalidInput)
            .advise("give the server's user a password, or connect from its own machine"),
        "ERR" if text.starts_with("DB index") || text.starts_with("invalid DB index") => {
            error(ErrorKind::InvalidInput).advise("name a database that the server has")
        }
        "ERR" if text.starts_with("unknown command") => {
            error(ErrorKind::Unsupported).advise("the bus needs a server that does not hide this command")
        }
        "OOM" => error(ErrorKind::StorageFull).advise("trim topics, or raise the server's maxmemory"),
        "NOAUTH" | "WRONGPASS" => error(ErrorKind::InvalidInput).advise(CREDENTIALS),
        "NOPERM" => no_right(error(ErrorKind::InvalidInput)),
        "MOVED" | "ASK" | "CROSSSLOT" => error(ErrorKind::Unsupported)
            .advise("name the node that has the bus's slot: redirections are not followed"),
        _ => error(ErrorKind::ProtocolViolation),
    }
}

fn no_right(e: Error) -> Error {
    e.advise("grant the user the rights that the documentation of eb-redis lists")
}

const CREDENTIALS: &str = "check user and password of the address";

/// What to do about a server that is not there.
pub(crate) const REACH: &str = "see that it runs at this address, then try again";

/// The server is not there.
pub(crate) fn unreachable(op: &'static str, why: impl fmt::Display) -> Error {
    unavailable(op, format!("the server cannot be reached: {}", one_line(why))).advise(REACH)
}

/// Why a connection could not be made.
pub(crate) fn connecting(op: &'static str, e: &RedisError) -> Error {
    match e.kind() {
        RedisKind::AuthenticationFailed => {
            Error::new(ErrorKind::InvalidInput, op, "the server refuses user or password").advise(CREDENTIALS)
        }
        RedisKind::Io => unreachable(op, e),
        _ => match e.code() {
            Some(code) => by_text(op, code, e.detail().unwrap_or_default()),
            None => unreachable(op, e),
        },
    }
}

/// At most 300 characters on one line.
fn one_line(text: impl fmt::Display) -> String {
    let text = text.to_string();
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

pub(crate) fn unavailable(op: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, op, message)
}

pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "the handle was closed").advise("open a new one")
}

pub(crate) fn no_topic(op: &'static str, topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such topic")
        .at(topic)
        .advise(format!("`eb topics create {topic} --shards N` makes it"))
}

pub(crate) fn no_partition(op: &'static str, topic: &Topic, partition: PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such partition").at(place(topic, partition))
}

pub(crate) fn place(topic: &Topic, partition: PartitionId) -> String {
    format!("{topic}/{partition}")
}

pub(crate) fn violation(op: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::ProtocolViolation, op, message)
}

pub(crate) fn facts_missing(op: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::FactsMissing, op, message)
        .advise("restore the server's data, or take the loss and open the bus anew")
}

/// What a key holds that is not what the bus keeps there.
pub(crate) fn corrupt(op: &'static str, key: impl Into<String>, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt { file: key.into(), line: None, byte: None }, op, message)
}

pub(crate) fn out_of_range(place: &str, oldest: Option<Offset>) -> Error {
    let left = oldest.map_or("nothing is left behind them".to_owned(), |o| format!("the oldest left is {o}"));
    let message = format!("records behind this cut were deleted, or may have been; {left}");
    Error::new(ErrorKind::OutOfRange { oldest }, "read", message)
        .at(place)
        .advise("reset the checkpoint, or start at the oldest left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use eb_contract::Retry;

    #[test]
    fn what_the_server_states_is_classified_and_had_no_effect() {
        let cases = [
            ("OOM command not allowed when used memory > 'maxmemory'.", "storage_full", true),
            ("-READONLY You can't write against a read only replica.", "unavailable", true),
            ("LOADING Redis is loading the dataset in memory", "unavailable", true),
            ("MISCONF Errors writing to the AOF file: No space left on device", "unavailable", true),
            ("ERR max number of clients reached", "unavailable", true),
            ("NOPERM this user has no permissions to run the 'xadd' command", "invalid_input", false),
            ("WRONGPASS invalid username-password pair or user is disabled.", "invalid_input", false),
            (
                "ERR The user executing the script can't run this command or subcommand",
                "invalid_input",
                false,
            ),
            ("DENIED Redis is running in protected mode because", "invalid_input", false),
            ("ERR DB index is out of range", "invalid_input", false),
            ("ERR unknown command 'CONFIG', with args beginning with: 'GET' ", "unsupported", false),
            ("BUSY Redis is busy running a script.", "unavailable", true),
            ("NOREPLICAS Not enough good replicas to write.", "unavailable", true),
            ("MASTERDOWN Link with MASTER is down", "unavailable", true),
            ("NOAUTH Authentication required.", "invalid_input", false),
            ("MOVED 3999 127.0.0.1:6381", "unsupported", false),
            ("ERR something new", "protocol_violation", false),
        ];
        for (text, code, retryable) in cases {
            let e = stated_text("publish", text);
            assert_eq!(e.kind().code(), code, "{e}");
            assert_eq!(e.retry() != Retry::Never, retryable, "{e}");
            assert_eq!(e.effect(), Effect::None, "{e}");
        }
    }

    #[test]
    fn an_error_is_one_line_of_bounded_length() {
        let e = stated_text("publish", &format!("ERR a\nb{}", "x".repeat(1000)));
        assert!(!e.to_string().contains('\n') && e.to_string().len() < 400, "{e}");
    }
}
