//! One partition at one moment: what it is, what lies behind a cut, and what a start means.

use std::sync::Arc;

use eb_contract::{
    BusIncarnation, Cut, EbRef, EnvelopeRef, Error, ErrorKind, Offset, OffsetKind, PartitionId, PartitionKey,
    Record, Result, StartAt, Timestamp, Topic,
};
use redis::{Pipeline, Value};

use crate::bus::Shared;
use crate::error;
use crate::link::Session;
use crate::marks::Mark;
use crate::reply::{self, Entry, StreamInfo};
use crate::topics::Moment;

/// The stream of a partition, of one life of its topic.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    pub(crate) topic: Topic,
    pub(crate) partition: PartitionId,
    incarnation: BusIncarnation,
    pub(crate) place: String,
    pub(crate) key: String,
    pub(crate) hash: String,
    mark: Arc<Mark>,
}

/// What is asked for along with a look: at most so many entries from an id on.
pub(crate) struct Range {
    pub(super) from: String,
    pub(super) count: usize,
}

impl Stream {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        topic: &Topic,
        partition: PartitionId,
        incarnation: BusIncarnation,
    ) -> Self {
        Self {
            shared: shared.clone(),
            place: error::place(topic, partition),
            key: shared.keys.stream(topic, partition),
            hash: shared.keys.topic(topic),
            mark: shared.marks.of(topic, partition),
            topic: topic.clone(),
            partition,
            incarnation,
        }
    }

    /// The life of the topic.
    pub(crate) fn incarnation(&self) -> &BusIncarnation {
        &self.incarnation
    }

    /// Whether the partition can be trusted.
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        self.mark.check(op, &self.place)
    }

    /// The record that an entry is.
    pub(crate) fn record(&self, op: &'static str, entry: Entry) -> Result<Record> {
        let Entry { id, key, envelope } = entry;
        let partition_key = PartitionKey::from_bytes(key).map_err(|e| {
            error::corrupt(op, &self.key, format!("the entry {id} has no partition key"))
                .at(&self.place)
                .with_source(e)
        })?;
        Ok(Record {
            eb_ref: EbRef {
                topic: self.topic.clone(),
                partition_id: self.partition,
                offset: id,
                published_at_utc: reply::time_of(&id),
            },
            partition_key,
            envelope: EnvelopeRef::from_stored(envelope),
        })
    }

    /// Looks at the partition, and at the entries of a range, in one moment.
    pub(crate) async fn look(&self, op: &'static str, range: Option<Range>) -> Result<(Moment, Vec<Entry>)> {
        let session = self.session(op).await?;
        self.look_over(op, &session, range).await
    }

    /// The connection to look over, while the partition can be trusted.
    pub(super) async fn session(&self, op: &'static str) -> Result<Arc<Session>> {
        self.check(op)?;
        self.shared.reads.session(op).await
    }

    /// As [`Stream::look`], over this connection.
    pub(super) async fn look_over(
        &self,
        op: &'static str,
        session: &Session,
        range: Option<Range>,
    ) -> Result<(Moment, Vec<Entry>)> {
        let mut pipe = Pipeline::with_capacity(5);
        pipe.cmd("MULTI");
        pipe.cmd("XINFO").arg("STREAM").arg(&self.key);
        let n = self.partition;
        let fields = ["incarnation".to_owned(), format!("horizon:{n}"), format!("gone:{n}")];
        pipe.cmd("HMGET").arg(&self.hash).arg(&fields[..]);
        if let Some(Range { from, count }) = &range {
            pipe.cmd("XRANGE").arg(&self.key).arg(from).arg("+").arg("COUNT").arg(*count);
        }
        pipe.cmd("EXEC");
        let answers = session.pipeline(&pipe).await.map_err(|f| f.reading(op).at(&self.place))?;
        self.taken_apart(op, answers, range.is_some()).map_err(|e| match e.place() {
            Some(_) => e,
            None => e.at(&self.place),
        })
    }

    fn taken_apart(
        &self,
        op: &'static str,
        answers: Vec<Value>,
        ranged: bool,
    ) -> Result<(Moment, Vec<Entry>)> {
        let mut answers = answers;
        let Some(done) = answers.pop() else { return Err(error::violation(op, "no answer")) };
        // A command that is refused before it is queued says why; the transaction only says that it was not run.
        for queued in answers {
            reply::stated(op, queued)?;
        }
        let mut parts = reply::array(op, done)?.into_iter();
        let mut part = || parts.next().ok_or_else(|| error::violation(op, "a transaction without an answer"));
        let (info, hash) = (part()?, part()?);
        let moment = Moment::read(op, &self.place, info, hash, &self.incarnation)?;
        let entries = if ranged { reply::entries(op, part()?, &self.key)? } else { Vec::new() };
        Ok((moment, entries))
    }

    /// The cut that a start means now.
    pub(crate) async fn resolve(&self, op: &'static str, start: StartAt) -> Result<Cut> {
        let range = match start {
            StartAt::Timestamp(at) => Some(Range { from: first_id_at(at), count: 1 }),
            _ => None,
        };
        let (moment, found) = self.look(op, range).await?;
        let info = &moment.stream;
        let cut = match start {
            StartAt::Earliest => match (moment.horizon(), info.first) {
                (None, _) => return Ok(Cut::Begin),
                (Some(_), None) => head_cut(info),
                // Before a hole this is refused below.
                (Some(_), Some(first)) => Cut::Next(first),
            },
            StartAt::Latest => return Ok(head_cut(info)),
            StartAt::Timestamp(_) => found.first().map_or_else(|| head_cut(info), |e| Cut::Next(e.id)),
            // Exactly as far as only the bus has trimmed; beyond that nobody knows, and a time does not tell either.
            StartAt::Cut(cut) | StartAt::Resume { cut, .. } => self.taken(op, cut)?,
        };
        self.check_cut(op, &cut, &moment).await?;
        Ok(cut)
    }

    fn taken(&self, op: &'static str, cut: Cut) -> Result<Cut> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidInput, op, message).at(&self.place));
        match cut.offset_kind() {
            Some(kind) if kind != OffsetKind::RedisStreamId => {
                refused(format!("the cut is of kind {kind}, the bus's offsets are of kind redis_stream_id"))
            }
            _ if matches!(cut, Cut::End) => refused("the partition is open and has no end yet".to_owned()),
            _ => Ok(cut),
        }
    }

    /// Whether everything that lies behind a cut is still there.
    pub(crate) async fn check_cut(&self, op: &'static str, cut: &Cut, moment: &Moment) -> Result<()> {
        let info = &moment.stream;
        if let Cut::After(seen) = cut
            && *seen > info.last_id
        {
            let message = format!("the stream ends at {}, and {seen} was there", info.last_id);
            return Err(error::facts_missing(op, message).at(&self.place));
        }
        let Some(horizon) = moment.horizon() else { return Ok(()) };
        if cut.is_before(&horizon) != Some(true) {
            return Ok(());
        }
        let oldest = match info.first {
            Some(first) if first <= horizon => {
                let range = Range { from: format!("({horizon}"), count: 1 };
                self.look(op, Some(range)).await?.1.first().map(|entry| entry.id)
            }
            first => first,
        };
        Err(error::out_of_range(&self.place, oldest))
    }

    /// Whoever has read this far knows that it was there: nothing of the partition is trusted any more.
    pub(super) fn poison(&self, why: &Error) {
        self.mark.poison(&self.place, why.message());
    }
}

/// The cut behind the last record that there ever was.
pub(super) fn head_cut(info: &StreamInfo) -> Cut {
    if info.last_id == Offset::redis(0, 0) { Cut::Begin } else { Cut::After(info.last_id) }
}

/// The lowest id that an entry of this time or later can have.
fn first_id_at(at: Timestamp) -> String {
    let micros = u64::try_from(at.as_micros()).unwrap_or(0);
    format!("{}-0", micros.div_ceil(1000))
}

/// How `XRANGE` is told to begin at a cut.
pub(super) fn range_start(cut: &Cut) -> String {
    match cut {
        Cut::Begin | Cut::End => "-".to_owned(),
        Cut::Next(id) => id.to_string(),
        Cut::After(id) => format!("({id}"),
    }
}

/// The id behind which `XREAD` is to wait for a cut.
pub(crate) fn wait_start(cut: &Cut) -> Offset {
    match cut {
        Cut::Begin | Cut::End => Offset::redis(0, 0),
        Cut::Next(id) => reply::predecessor(id).unwrap_or(*id),
        Cut::After(id) => *id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_within_a_millisecond_starts_at_the_next_one() {
        let at = |micros| first_id_at(Timestamp::from_micros(micros).unwrap());
        assert_eq!(at(1_000), "1-0");
        assert_eq!(at(1_001), "2-0");
        assert_eq!(at(0), "0-0");
    }

    #[test]
    fn cuts_become_ranges() {
        let id = Offset::redis(7, 0);
        assert_eq!(range_start(&Cut::Begin), "-");
        assert_eq!(range_start(&Cut::Next(id)), "7-0");
        assert_eq!(range_start(&Cut::After(id)), "(7-0");
        assert_eq!(wait_start(&Cut::Next(id)), Offset::redis(6, u64::MAX));
        assert_eq!(wait_start(&Cut::After(id)), id);
    }
}
