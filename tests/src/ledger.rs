//! Everything that was ever said about the records of a topic, and the check that the log bears it out.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use eb_contract::{PartitionId, Record, Timestamp};
use eb_file::format::line::decode_line;

use crate::call_of;
use crate::facts::{At, Said};

/// A record that lies in the log now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub at: At,
    /// What.
    pub said: Said,
    /// When it was published.
    pub published_at: Timestamp,
}

impl From<&Record> for Found {
    fn from(record: &Record) -> Self {
        let published_at = record.eb_ref.published_at_utc;
        Self { at: At::of(&record.eb_ref), said: Said::from(record), published_at }
    }
}

impl Found {
    /// Reads the bytes of a log by the format page alone, without the bus's own reader. All of them must be records, but for blank
    /// lines at the end.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn in_log(partition: u32, bytes: &[u8]) -> Result<Vec<Self>, String> {
        let whole = bytes.trim_ascii_end();
        if whole.is_empty() {
            return Ok(Vec::new());
        }
        if !bytes[whole.len()..].starts_with(b"\n") {
            return Err(format!("partition {partition}: the last line has no end"));
        }
        let mut found = Vec::new();
        for line in whole.split(|byte| *byte == b'\n') {
            let n = found.len();
            let line = decode_line(line).map_err(|e| format!("partition {partition}, record {n}: {e}"))?;
            let said = Said {
                key: line.key.unescape().into_owned(),
                envelope: String::from_utf8_lossy(line.envelope).into_owned(),
            };
            found.push(Self {
                at: At { partition, offset: line.offset },
                said,
                published_at: line.published_at,
            });
        }
        Ok(found)
    }
}

/// What ACKs and reads promised, whoever received them.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    acked: BTreeMap<At, Said>,
    seen: BTreeMap<At, Said>,
    absent: BTreeSet<String>,
}

impl Ledger {
    /// An ACK.
    ///
    /// # Panics
    /// When the place was given out before.
    pub fn ack(&mut self, at: At, said: Said) {
        match self.acked.entry(at) {
            Entry::Vacant(place) => _ = place.insert(said),
            Entry::Occupied(before) => {
                panic!("{at} was ACKed twice: for {:?}, then for {said:?}", before.get())
            }
        }
    }

    /// A record that a reader handed out.
    ///
    /// # Panics
    /// When something else was handed out there before.
    pub fn see(&mut self, at: At, said: Said) {
        match self.seen.get(&at) {
            Some(before) => assert_eq!(*before, said, "{at} was read twice and differs"),
            None => _ = self.seen.insert(at, said),
        }
    }

    /// A publish that failed with the word that it left nothing behind, now or ever.
    pub fn leave_out(&mut self, envelope: &str) {
        self.absent.insert(envelope.to_owned());
    }

    /// How many ACKs there were.
    #[must_use]
    pub fn acks(&self) -> usize {
        self.acked.len()
    }

    /// How many places were read.
    #[must_use]
    pub fn sights(&self) -> usize {
        self.seen.len()
    }

    /// Holds what a partition holds now, from its first record to its last, against everything that was said.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn check(&self, partition: PartitionId, records: &[Found]) -> Result<(), String> {
        let mut places = BTreeMap::new();
        let mut last_call = BTreeMap::new();
        let mut last_time = None;
        for (n, record) in records.iter().enumerate() {
            let Found { at, said, published_at } = record;
            if at.offset != n as u64 || PartitionId(at.partition) != partition {
                return Err(format!("record {n} of partition {partition} says it is {at}"));
            }
            if self.absent.contains(&said.envelope) {
                return Err(format!("{at} holds a record whose publish failed without effect: {said:?}"));
            }
            if Some(published_at) < last_time {
                return Err(format!("{at} is older than the record before it"));
            }
            last_time = Some(published_at);
            let call = call_of(said.envelope.as_bytes())
                .ok_or_else(|| format!("{at} holds something nobody published: {said:?}"))?;
            if let Some(before) = places.insert(&said.envelope, at) {
                return Err(format!("{said:?} lies at {before} and at {at}, and was published once"));
            }
            if last_call.insert(&said.key, call).is_some_and(|last| last >= call) {
                return Err(format!("{at}: call {call} of key {} lies behind a later one", said.key));
            }
        }
        let of_partition = |(at, _): &(&At, &Said)| PartitionId(at.partition) == partition;
        let promises = self.acked.iter().filter(of_partition).map(|p| ("ACKed", p));
        for (what, (at, said)) in promises.chain(self.seen.iter().filter(of_partition).map(|p| ("read", p))) {
            match records.get(at.offset as usize).map(|record| &record.said) {
                None => {
                    let len = records.len();
                    return Err(format!("{at} was {what} and is gone: {said:?}; the log has {len} records"));
                }
                Some(there) if there != said => {
                    return Err(format!("{at} was {what} as {said:?} and now holds {there:?}"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
