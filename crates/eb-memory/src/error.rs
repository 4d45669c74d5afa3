//! The errors of this backend, classified.

use eb_contract::{Error, ErrorKind, Offset, PartitionId, Topic};

pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Closed, op, "the handle was closed").advise("open a new one")
}

pub(crate) fn no_topic(op: &'static str, topic: &Topic) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such topic").at(topic).advise("create it first")
}

pub(crate) fn no_partition(op: &'static str, topic: &Topic, partition: PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such partition").at(format!("{topic}/{partition}"))
}

pub(crate) fn too_large(topic: &Topic, size: usize, limit: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge { size, limit },
        "publish",
        format!("the envelope has {size} bytes, the limit is {limit}"),
    )
    .at(topic)
}

pub(crate) fn batch_too_large(topic: &Topic, size: usize, limit: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge { size, limit },
        "publish",
        format!("the batch has {size} records, the limit is {limit}"),
    )
    .at(topic)
    .advise("publish it in parts")
}

pub(crate) fn full(topic: &Topic, limit: usize) -> Error {
    Error::new(ErrorKind::StorageFull, "publish", format!("the bus would hold more than {limit} bytes"))
        .at(topic)
}

pub(crate) fn too_many_held(topic: &Topic, limit: usize) -> Error {
    Error::new(
        ErrorKind::Throttled { after: None },
        "publish",
        format!("publishes are held and {limit} records wait already"),
    )
    .at(topic)
}

pub(crate) fn not_attempted(topic: &Topic) -> Error {
    Error::new(ErrorKind::NotAttempted, "publish", "an earlier record of this key failed").at(topic)
}

pub(crate) fn out_of_range(place: &str, oldest: Option<Offset>) -> Error {
    let left = oldest.map_or("nothing is left".to_owned(), |o| format!("the oldest left is {o}"));
    Error::new(
        ErrorKind::OutOfRange { oldest },
        "read",
        format!("records after this cut were trimmed; {left}"),
    )
    .at(place)
    .advise("reset the checkpoint, or start at earliest")
}

pub(crate) fn invalid(op: &'static str, place: impl std::fmt::Display, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, op, message).at(place)
}

pub(crate) fn unsupported(op: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, op, message)
}
