//! Reading the log as the ledger of admissions: from cuts to the head, as index entries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use canonical_envelope::{Envelope, Limits};
use eb_contract::stores::AdmissionEntry;
use eb_contract::{
    Cursor, Cut, EnvelopeRef, Error, ErrorKind, EventBusReader, PartitionId, PartitionInfo, PartitionKey,
    ReadLimit, ReadState, Record, Result, StartAt, Timestamp, Topic,
};

use crate::admission::entry_of;

/// What is read at a time.
const LIMIT: ReadLimit = ReadLimit { max_records: 1000, max_bytes: 4 << 20, wait: std::time::Duration::ZERO };

/// Where to read a partition from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) cut: Cut,
    /// What is wanted of that which lies after the cut has come at this time or later. With it a stream that forgets can
    /// tell records that were read before they expired from ones that were not.
    pub(crate) since: Option<Timestamp>,
}

impl From<Start> for StartAt {
    fn from(Start { cut, since }: Start) -> Self {
        match (cut, since) {
            (Cut::Begin, _) => Self::Earliest,
            (cut, Some(caught_up_at)) => Self::Resume { cut, caught_up_at },
            (cut, None) => Self::Cut(cut),
        }
    }
}

/// Reads the partitions of a topic one after the other, parents before their children, each from its cut to its head.
pub(crate) struct TopicScan<'s> {
    reader: &'s dyn EventBusReader,
    topic: &'s Topic,
    from: BTreeMap<PartitionId, Start>,
    todo: VecDeque<PartitionId>,
    current: Option<Box<dyn Cursor>>,
}

/// Some of a partition's records, as entries.
pub(crate) struct Scanned {
    pub(crate) partition: PartitionId,
    /// In the order of the log.
    pub(crate) entries: Vec<AdmissionEntry>,
    /// What the entries were made from, one by one.
    pub(crate) records: Vec<Record>,
    /// The cut behind them.
    pub(crate) next: Cut,
    /// The last of the records.
    pub(crate) last: Option<(PartitionKey, EnvelopeRef)>,
    /// The cut was the head at this time.
    pub(crate) caught_up_at: Option<Timestamp>,
}

impl<'s> TopicScan<'s> {
    /// Partitions that `from` does not name are read from their beginning.
    pub(crate) async fn open(
        reader: &'s dyn EventBusReader,
        topic: &'s Topic,
        from: BTreeMap<PartitionId, Start>,
    ) -> Result<Self> {
        let listed = reader.partitions(topic).await?.partitions;
        Ok(Self { reader, topic, from, todo: parents_first(&listed), current: None })
    }

    /// The next records; `None` when every partition was read to its head.
    ///
    /// # Errors
    /// When the log cannot be read, or holds a record that is no canonical envelope.
    pub(crate) async fn next(&mut self) -> Result<Option<Scanned>> {
        loop {
            let mut cursor = match self.current.take() {
                Some(cursor) => cursor,
                None => match self.todo.pop_front() {
                    None => return Ok(None),
                    Some(partition) => {
                        open_cursor(self.reader, self.topic, partition, self.from.get(&partition)).await?
                    }
                },
            };
            let asked_at = Timestamp::now();
            let batch = cursor.next(LIMIT).await?;
            let partition = cursor.partition_id();
            if batch.state == ReadState::More {
                self.current = Some(cursor);
            }
            let entries = batch.records.iter().map(entry).collect::<Result<Vec<_>>>()?;
            // A log is longer than what one turn on a runtime's thread should take.
            tokio::task::yield_now().await;
            if entries.is_empty() && self.current.is_some() {
                continue;
            }
            return Ok(Some(Scanned {
                partition,
                entries,
                last: batch.records.last().and_then(own_copy),
                records: batch.records,
                next: batch.next,
                caught_up_at: (batch.state == ReadState::CaughtUp).then_some(asked_at),
            }));
        }
    }
}

/// Cuts at or before all of these. A partition that one of them does not name is read from its beginning.
pub(crate) fn oldest(
    mut starts: impl Iterator<Item = BTreeMap<PartitionId, Cut>>,
) -> BTreeMap<PartitionId, Cut> {
    let mut all = starts.next().unwrap_or_default();
    for start in starts {
        all.retain(|partition, cut| match start.get(partition) {
            Some(other) => {
                if other.compare(cut).is_none_or(std::cmp::Ordering::is_lt) {
                    *cut = *other;
                }
                true
            }
            None => false,
        });
    }
    all
}

/// Key and envelope of a record on their own: the record may be a slice of a large block.
pub(crate) fn own_copy(record: &Record) -> Option<(PartitionKey, EnvelopeRef)> {
    let key = own_key(record)?;
    let bytes = bytes::Bytes::copy_from_slice(record.envelope.as_bytes());
    Some((key, EnvelopeRef::from_stored(bytes)))
}

/// A record's key on its own.
pub(crate) fn own_key(record: &Record) -> Option<PartitionKey> {
    PartitionKey::new(record.partition_key.as_str().to_owned()).ok()
}

async fn open_cursor(
    reader: &dyn EventBusReader,
    topic: &Topic,
    partition: PartitionId,
    from: Option<&Start>,
) -> Result<Box<dyn Cursor>> {
    let start = from.map_or(StartAt::Earliest, |from| StartAt::from(*from));
    match reader.cursor(topic, partition, start).await {
        // Of a stream that forgets: what lies below its horizon is the index's alone, by the dedupe horizon.
        Err(error)
            if matches!(error.kind(), ErrorKind::OutOfRange { .. }) && reader.capabilities().retention =>
        {
            tracing::warn!(%error, "the index's cut lies below the retention horizon; reading from the oldest left");
            reader.cursor(topic, partition, StartAt::Earliest).await
        }
        other => other,
    }
}

/// Partitions in an order in which none comes before a parent of its own that is listed too.
fn parents_first(listed: &[PartitionInfo]) -> VecDeque<PartitionId> {
    let all: BTreeSet<PartitionId> = listed.iter().map(|p| p.id).collect();
    let mut done = BTreeSet::new();
    let mut order = VecDeque::new();
    while order.len() < listed.len() {
        let before = order.len();
        for info in listed {
            let free = info.parents.iter().all(|p| !all.contains(p) || done.contains(p));
            if free && done.insert(info.id) {
                order.push_back(info.id);
            }
        }
        if order.len() == before {
            // A circle of parents is nothing that a backend reports; order then means nothing.
            order.extend(all.difference(&done).copied().collect::<Vec<_>>());
        }
    }
    order
}

/// The envelope of a record that the gate admitted.
///
/// # Errors
/// For one that is no canonical envelope: the gate never published it.
pub(crate) fn envelope_of(record: &Record) -> Result<Envelope<'_>> {
    // Limits may have been wider when it was admitted.
    let limits = Limits::new(Limits::MAX_BYTES, Limits::MAX_DEPTH);
    Envelope::parse_with(record.envelope.as_bytes(), limits).map_err(|invalid| {
        let kind = ErrorKind::Corrupt { file: record.eb_ref.topic.to_string(), line: None, byte: None };
        Error::new(kind, "read admissions", "the record is no canonical envelope, so no gate has admitted it")
            .at(&record.eb_ref)
            .with_source(invalid)
            .advise("find out who else writes to this log; only the gate may")
    })
}

fn entry(record: &Record) -> Result<AdmissionEntry> {
    Ok(entry_of(&envelope_of(record)?, record.eb_ref.clone()))
}
