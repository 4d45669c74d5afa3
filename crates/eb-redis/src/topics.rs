//! Topics as their hashes describe them.

use eb_contract::{BusIncarnation, Offset, PartitionId, Result, Topic};
use redis::{Cmd, Value};

use crate::error;
use crate::keys::Keys;
use crate::link::Session;
use crate::reply::{self, StreamInfo};

/// A topic that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) incarnation: BusIncarnation,
    pub(crate) partitions: u32,
}

impl Described {
    /// Whether it has such a partition.
    pub(crate) fn has(&self, op: &'static str, topic: &Topic, partition: PartitionId) -> Result<()> {
        if partition.0 < self.partitions { Ok(()) } else { Err(error::no_partition(op, topic, partition)) }
    }
}

/// Asks for a topic.
///
/// # Errors
/// `NotFound`; `Corrupt` for a hash that no topic has.
pub(crate) async fn describe(
    op: &'static str,
    session: &Session,
    keys: &Keys,
    topic: &Topic,
) -> Result<Described> {
    let key = keys.topic(topic);
    let mut cmd = Cmd::new();
    cmd.arg("HMGET").arg(&key).arg("incarnation").arg("partitions");
    let answer = session.command(&cmd).await.map_err(|f| f.reading(op).at(topic))?;
    let [incarnation, partitions] = reply::items(op, answer).map_err(|e| e.at(topic))?;
    let incarnation = reply::optional_text(op, incarnation)?;
    let partitions = reply::optional_text(op, partitions)?;
    let (Some(incarnation), Some(partitions)) = (incarnation, partitions) else {
        return Err(error::no_topic(op, topic));
    };
    let described = BusIncarnation::new(&incarnation).ok().zip(partitions.parse().ok().filter(|n| *n > 0));
    match described {
        Some((incarnation, partitions)) => Ok(Described { incarnation, partitions }),
        None => Err(error::corrupt(op, key, "it does not describe a topic").at(topic)),
    }
}

/// The names of all topics, sorted.
///
/// # Errors
/// `Corrupt` where the list has what cannot be a topic.
pub(crate) async fn list(op: &'static str, session: &Session, keys: &Keys) -> Result<Vec<Topic>> {
    let key = keys.topics();
    let mut cmd = Cmd::new();
    cmd.arg("SMEMBERS").arg(&key);
    let answer = session.command(&cmd).await.map_err(|f| f.reading(op))?;
    let names = reply::array(op, answer)?.into_iter().map(|name| {
        let name = reply::text(op, name)?;
        Topic::new(&name).map_err(|e| error::corrupt(op, &key, "it lists what is no topic").with_source(e))
    });
    let mut topics = names.collect::<Result<Vec<_>>>()?;
    topics.sort();
    Ok(topics)
}

/// What a partition is at one moment: its stream, and what its topic's hash says of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moment {
    pub(crate) stream: StreamInfo,
    /// The last entry that a trim of ours deleted, and how many were gone in all then.
    trimmed: Option<(Offset, u64)>,
}

impl Moment {
    /// From the answers to `XINFO STREAM` and to `HMGET incarnation horizon gone`.
    ///
    /// # Errors
    /// `FactsMissing` for a stream that is not there, or another incarnation than `of`.
    pub(crate) fn read(
        op: &'static str,
        place: &str,
        stream: Value,
        hash: Value,
        of: &BusIncarnation,
    ) -> Result<Self> {
        let [incarnation, horizon, gone] = reply::items(op, hash)?;
        match reply::optional_text(op, incarnation)? {
            Some(found) if found == of.as_str() => {}
            Some(_) => return Err(error::facts_missing(op, "the topic was deleted and made anew").at(place)),
            None => return Err(error::facts_missing(op, "the topic was deleted").at(place)),
        }
        if matches!(&stream, Value::ServerError(e) if e.details().is_some_and(|d| d.contains("no such key")))
        {
            return Err(error::facts_missing(op, "the partition's stream is gone").at(place));
        }
        let stream = StreamInfo::read(op, stream)?;
        let trimmed = match (horizon, reply::optional_text(op, gone)?) {
            (Value::Nil, _) | (_, None) => None,
            (horizon, Some(gone)) => Some((reply::id(op, horizon)?, gone.parse().unwrap_or(0))),
        };
        Ok(Self { stream, trimmed })
    }

    /// The highest offset of a record that was deleted, or may have been.
    pub(crate) fn horizon(&self) -> Option<Offset> {
        let s = &self.stream;
        if s.gone == 0 {
            return None;
        }
        let front = match self.trimmed {
            Some((last, gone)) if gone == s.gone => Some(last),
            // Somebody else has deleted: anything before the first that is left.
            _ => s.first.map_or(Some(s.last_id), |first| reply::predecessor(&first)),
        };
        let middle = (s.max_deleted > Offset::redis(0, 0)).then_some(s.max_deleted);
        // Both are ids of streams, so they compare.
        if front < middle { middle } else { front }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(
        gone: u64,
        first: Option<Offset>,
        max_deleted: Offset,
        trimmed: Option<(Offset, u64)>,
    ) -> Moment {
        let last_id = Offset::redis(9, 0);
        Moment { stream: StreamInfo { last_id, max_deleted, gone, first, last: first }, trimmed }
    }

    #[test]
    fn the_horizon_is_exact_as_long_as_only_we_have_trimmed() {
        let (zero, first) = (Offset::redis(0, 0), Some(Offset::redis(5, 2)));
        assert_eq!(moment(0, first, zero, None).horizon(), None);
        let ours = Some((Offset::redis(3, 7), 4));
        assert_eq!(moment(4, first, zero, ours).horizon(), Some(Offset::redis(3, 7)));
        assert_eq!(moment(5, first, zero, ours).horizon(), Some(Offset::redis(5, 1)), "one more is gone");
        assert_eq!(moment(2, first, zero, None).horizon(), Some(Offset::redis(5, 1)));
        assert_eq!(moment(2, None, zero, None).horizon(), Some(Offset::redis(9, 0)), "nothing is left");
    }

    #[test]
    fn a_hole_in_the_middle_lies_before_the_horizon() {
        let hole = Offset::redis(7, 0);
        let first = Some(Offset::redis(5, 2));
        assert_eq!(moment(1, first, hole, None).horizon(), Some(hole));
        assert_eq!(moment(4, first, hole, Some((Offset::redis(3, 7), 4))).horizon(), Some(hole));
    }
}
