//! What is written of a partition's crashes: one line of JSON in the register `crashes-<hash of consumer, topic and partition>`.
//!
//! `format` (1), `consumer`, `topic`, `partition_id`, `bus_incarnation`; `epoch` and `holder` of who holds it, no holder where it was given back; `cut`, which was stored
//! when it was taken; `crashes` in a row at that cut; the record on `trial`; `suspects`, records that were on trial when a holder ended, and how often.

use bytes::Bytes;
use eb_contract::stores::{Lease, LeaseKey};
use eb_contract::{
    BusIncarnation, ConsumerName, Cut, EbRef, Error, ErrorKind, PartitionId, RegisterName, Result, Topic,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

const FORMAT: u32 = 1;

/// How many suspects are remembered; those with the fewest deaths are forgotten first.
const SUSPECTS: usize = 64;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    format: u32,
    consumer: ConsumerName,
    topic: Topic,
    partition_id: PartitionId,
    bus_incarnation: BusIncarnation,
    pub(super) epoch: u64,
    pub(super) holder: Option<String>,
    cut: Cut,
    pub(super) crashes: u32,
    pub(super) trial: Option<EbRef>,
    suspects: Vec<Suspect>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suspect {
    record: EbRef,
    deaths: u32,
}

/// The register of a partition.
pub(super) fn name(key: &LeaseKey) -> Result<RegisterName> {
    let hash = xxh3_128(format!("{}/{}/{}", key.consumer, key.topic, key.partition_id).as_bytes());
    RegisterName::new(&format!("crashes-{hash:032x}"))
        .map_err(|e| Error::new(ErrorKind::InvalidInput, "note crash", e.to_string()))
}

impl Note {
    /// As it was stored.
    pub(super) fn parse(name: &RegisterName, value: &[u8]) -> Result<Self> {
        let bad = |kind, what: String| {
            let advice = "remove the register to forget the crashes of its partition";
            Error::new(kind, "read crashes", what).at(name).advise(advice)
        };
        let damaged =
            |what: String| bad(ErrorKind::Corrupt { file: name.to_string(), line: None, byte: None }, what);
        let note: Self = serde_json::from_slice(value).map_err(|e| damaged(format!("not a note: {e}")))?;
        if note.format != FORMAT {
            return Err(bad(
                ErrorKind::WrongVersion,
                format!("format {}, this program knows {FORMAT}", note.format),
            ));
        }
        Ok(note)
    }

    /// The note of this partition.
    pub(super) fn read(name: &RegisterName, key: &LeaseKey, value: &[u8]) -> Result<Self> {
        let note = Self::parse(name, value)?;
        let of = (&note.consumer, &note.topic, note.partition_id);
        if of == (&key.consumer, &key.topic, key.partition_id) {
            return Ok(note);
        }
        let what = format!("the note is of {} on {}/{}", note.consumer, note.topic, note.partition_id);
        Err(Error::new(ErrorKind::InvalidInput, "read crashes", what).at(name))
    }

    /// The note of a new holder, who finds the one before and this cut.
    pub(super) fn taken(
        before: Option<Self>,
        key: &LeaseKey,
        lease: &Lease,
        incarnation: &BusIncarnation,
        cut: Cut,
    ) -> Self {
        let mut note = Self {
            format: FORMAT,
            consumer: key.consumer.clone(),
            topic: key.topic.clone(),
            partition_id: key.partition_id,
            bus_incarnation: incarnation.clone(),
            epoch: lease.epoch,
            holder: Some(lease.owner.clone()),
            cut,
            crashes: 0,
            trial: None,
            suspects: Vec::new(),
        };
        let Some(before) = before.filter(|before| before.bus_incarnation == *incarnation) else {
            return note;
        };
        // One that takes it anew has not died.
        let died = before.holder.is_some_and(|holder| holder != lease.owner);
        if before.cut.compare(&cut).is_some_and(std::cmp::Ordering::is_eq) {
            note.crashes = before.crashes;
        }
        note.suspects = before.suspects;
        if died {
            note.crashes = note.crashes.saturating_add(1);
            before.trial.into_iter().for_each(|record| note.suspect(record));
        }
        note.suspects.retain(|s| cut.is_before(&s.record.offset) != Some(false));
        note
    }

    fn suspect(&mut self, record: EbRef) {
        if let Some(known) = self.suspects.iter_mut().find(|s| s.record == record) {
            known.deaths = known.deaths.saturating_add(1);
            return;
        }
        if self.suspects.len() == SUSPECTS
            && let Some((least, _)) = self.suspects.iter().enumerate().min_by_key(|(_, s)| s.deaths)
        {
            self.suspects.remove(least);
        }
        self.suspects.push(Suspect { record, deaths: 1 });
    }

    pub(super) fn calls_for_care(&self, limit: u32) -> bool {
        self.crashes >= limit || !self.suspects.is_empty()
    }

    /// How many holders ended, one after the other, while this record was on trial.
    pub(super) fn deaths(&self, record: &EbRef) -> u32 {
        self.suspects.iter().find(|s| s.record == *record).map_or(0, |s| s.deaths)
    }

    /// It survived.
    pub(super) fn acquit(&mut self, record: &EbRef) {
        self.suspects.retain(|s| s.record != *record);
    }

    /// Everything is forgotten but who holds it.
    pub(super) fn clear(&mut self) {
        (self.crashes, self.trial) = (0, None);
        self.suspects.clear();
    }

    pub(super) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("names, numbers and positions always serialise").into()
    }

    /// What the register's history says of it.
    pub(super) fn reason(&self) -> String {
        match &self.trial {
            Some(record) => format!("on trial: {record}"),
            None => "nothing on trial".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    fn key() -> LeaseKey {
        LeaseKey {
            consumer: ConsumerName::new("ledger").unwrap(),
            topic: Topic::new("t").unwrap(),
            partition_id: PartitionId(0),
        }
    }

    fn at(n: u64) -> EbRef {
        record(n, "k", "{}").eb_ref
    }

    fn life() -> BusIncarnation {
        BusIncarnation::new("life").unwrap()
    }

    /// The next holder, `n`, at this cut.
    fn next(before: Option<Note>, n: u64, cut: Cut) -> Note {
        let lease = Lease { owner: format!("w{n}"), epoch: n };
        let note = Note::taken(before, &key(), &lease, &life(), cut);
        Note::read(&name(&key()).unwrap(), &key(), &note.bytes()).unwrap()
    }

    #[test]
    fn crashes_count_as_long_as_the_cut_stays_and_only_those() {
        let cut = |n| Cut::Next(at(n).offset);
        let mut note = next(None, 0, cut(5));
        for n in 1..4 {
            note = next(Some(note), n, cut(5));
            assert_eq!(note.crashes, u32::try_from(n).unwrap());
        }
        note = next(Some(Note { holder: None, ..note }), 4, cut(5));
        assert_eq!(note.crashes, 3, "it was given back, and got nowhere");
        note = next(Some(note), 4, cut(5));
        assert_eq!(note.crashes, 3, "the same holder has not died");
        note = next(Some(note), 5, cut(6));
        assert_eq!(note.crashes, 1, "it got on");
        let lease = Lease { owner: "w9".to_owned(), epoch: 9 };
        let other = BusIncarnation::new("another").unwrap();
        assert_eq!(Note::taken(Some(note), &key(), &lease, &other, cut(6)).crashes, 0, "another life");
    }

    #[test]
    fn deaths_count_for_the_record_on_trial_until_it_survives_or_lies_behind_the_cut() {
        let mut note = next(None, 0, Cut::Begin);
        for n in 1..4 {
            note.trial = Some(at(7));
            note = next(Some(note), n, Cut::Begin);
        }
        note.trial = Some(at(3));
        note = next(Some(note), 5, Cut::Begin);
        assert_eq!((note.deaths(&at(7)), note.deaths(&at(3)), note.trial.clone()), (3, 1, None));
        let passed = next(Some(note.clone()), 6, Cut::Next(at(4).offset));
        assert_eq!((passed.deaths(&at(7)), passed.deaths(&at(3))), (3, 0));
        note.acquit(&at(7));
        assert_eq!((note.deaths(&at(7)), note.calls_for_care(100)), (0, true));
        for n in 0..200 {
            note.trial = Some(at(1000 + n));
            note = next(Some(note), 10 + n, Cut::Begin);
        }
        assert_eq!(note.suspects.len(), SUSPECTS);
    }

    #[test]
    fn a_note_that_cannot_be_read_or_is_anothers_is_an_error() {
        let (name, note) = (name(&key()).unwrap(), next(None, 1, Cut::Begin));
        assert!(Note::parse(&name, b"{}").is_err());
        let newer = Note { format: 2, ..note.clone() };
        assert_eq!(*Note::parse(&name, &newer.bytes()).unwrap_err().kind(), ErrorKind::WrongVersion);
        let other = LeaseKey { partition_id: PartitionId(1), ..key() };
        assert!(Note::read(&name, &other, &note.bytes()).is_err());
    }
}
