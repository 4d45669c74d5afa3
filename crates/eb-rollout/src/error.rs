//! The errors of this crate, classified.

use std::fmt::Display;

use eb_contract::{Effect, Error, ErrorKind, PartitionId, Retry, Topic};

pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "the handle was closed").advise("open a new one")
}

pub(crate) fn unavailable(op: &'static str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, op, what)
}

pub(crate) fn no_topic(op: &'static str, topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such topic").at(topic).advise("create it first")
}

pub(crate) fn no_partition(op: &'static str, topic: &Topic, partition: PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such partition").at(format!("{topic}/{partition}"))
}

/// The register did not tell in time.
pub(crate) fn no_lease(op: &'static str) -> Error {
    unavailable(op, "the rollout's state cannot be confirmed: its register does not answer")
        .advise("see to the store of the rollout's state")
}

/// A publish that waited in line for too long.
pub(crate) fn waited(topic: &Topic) -> Error {
    unavailable("publish", "no lease on the active bus could be had in time; nothing was sent").at(topic)
}

/// The record lies behind the end of its epoch.
pub(crate) fn behind_the_end(place: impl Display) -> Error {
    unavailable("publish", "the bus was switched while the record was under way; it is no part of the log")
        .at(place)
        .with_retry(Retry::Later)
}

/// Nobody knows yet on which side of the end the record lies.
pub(crate) fn unresolved(place: impl Display) -> Error {
    unavailable(
        "publish",
        "the bus was switched while the record was under way, and where its epoch ends is not known yet",
    )
    .at(place)
    .with_effect(Effect::Unknown)
    .advise("read the log before sending it again")
}

/// The key has a record whose fate is not decided.
pub(crate) fn held(topic: &Topic) -> Error {
    unavailable(
        "publish",
        "an earlier record of this key went to the bus that was left, and what becomes of it is not decided yet",
    )
    .at(topic)
    .advise("try again: it is decided when that bus has answered")
}

/// A segment whose end is pending was read to where its bus's log ends now.
pub(crate) fn pending(place: impl Display) -> Error {
    unavailable(
        "read",
        "the bus that holds this epoch cannot be reached, and where the epoch ends is not known yet",
    )
    .at(place)
}

pub(crate) fn wrong_incarnation(op: &'static str, topic: &Topic) -> Error {
    let what = "the topic was made anew on its bus: the rollout knows another life of it";
    Error::new(ErrorKind::WrongIncarnation, op, what).at(topic)
}

/// Waits at most this long.
pub(crate) async fn within<T>(
    op: &'static str,
    patience: std::time::Duration,
    work: impl Future<Output = eb_contract::Result<T>>,
) -> eb_contract::Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(ErrorKind::Timeout, op, format!("no answer within {patience:?}"))),
    }
}
