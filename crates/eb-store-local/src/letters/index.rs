//! What is in memory of the letters.

use std::collections::{BTreeMap, HashMap};

use eb_contract::stores::{DeadLetter, DeadLetterId, NewDeadLetter};
use eb_contract::{BusIncarnation, ConsumerName, EbRef, PartitionKey, Topic};
use xxhash_rust::xxh3::xxh3_128;

/// Where letters lie, and what is open. Letters are numbered from 1, without gaps.
#[derive(Default)]
pub(super) struct Index {
    letters: Vec<Lines>,
    /// Open letters by the hash of their place.
    open: HashMap<u128, u64>,
    counts: HashMap<ConsumerName, u64>,
    /// How many open letters park a key.
    parked: HashMap<(ConsumerName, Topic), BTreeMap<String, (PartitionKey, u64)>>,
    /// Resolutions that were read, whose letters are yet to be closed: their number, and where the letter lies.
    pending: Vec<(DeadLetterId, u64)>,
}

#[derive(Clone, Copy)]
struct Lines {
    letter: u64,
    /// 0 while it is open: the file's first line is never a resolution.
    resolution: u64,
}

/// A hash of the place that a letter is for.
pub(super) fn hash(consumer: &ConsumerName, incarnation: &BusIncarnation, at: &EbRef) -> u128 {
    let (kind, offset) = (at.offset.kind(), at.offset);
    let text = format!("{consumer}/{}/{}/{kind}/{offset}/{incarnation}", at.topic, at.partition_id);
    xxh3_128(text.as_bytes())
}

fn place(letter: &NewDeadLetter) -> u128 {
    hash(&letter.consumer, &letter.bus_incarnation, &letter.record.eb_ref)
}

impl Index {
    /// The number of the newest letter, 0 for none.
    pub(super) fn last(&self) -> u64 {
        self.letters.len() as u64
    }

    fn entry(&self, id: DeadLetterId) -> Option<&Lines> {
        let at = usize::try_from(id.0.checked_sub(1)?).ok()?;
        self.letters.get(at)
    }

    /// Where a letter and its resolution lie.
    pub(super) fn lines(&self, id: DeadLetterId) -> Option<(u64, Option<u64>)> {
        self.entry(id).map(|l| (l.letter, Some(l.resolution).filter(|at| *at != 0)))
    }

    pub(super) fn is_open(&self, id: DeadLetterId) -> bool {
        self.entry(id).is_some_and(|l| l.resolution == 0)
    }

    /// The open letter with this hash.
    pub(super) fn open_at(&self, hash: u128) -> Option<DeadLetterId> {
        self.open.get(&hash).copied().map(DeadLetterId)
    }

    /// Notes a letter that lies at this byte.
    pub(super) fn letter(&mut self, letter: &DeadLetter, at: u64) -> Result<(), String> {
        if letter.id.0 != self.last() + 1 {
            return Err(format!("letter {} follows letter {}", letter.id.0, self.last()));
        }
        self.letters.push(Lines { letter: at, resolution: 0 });
        let new = &letter.letter;
        self.open.insert(place(new), letter.id.0);
        *self.counts.entry(new.consumer.clone()).or_default() += 1;
        if new.parks_key {
            let of = (new.consumer.clone(), new.record.eb_ref.topic.clone());
            let key = &new.record.partition_key;
            let parked = self.parked.entry(of).or_default();
            parked.entry(key.as_str().to_owned()).or_insert_with(|| (key.clone(), 0)).1 += 1;
        }
        Ok(())
    }

    /// Notes a resolution that lies at this byte; [`Index::close`] is to follow.
    pub(super) fn resolution(&mut self, id: DeadLetterId, at: u64) -> Result<(), String> {
        let open = usize::try_from(id.0.wrapping_sub(1)).ok().and_then(|n| self.letters.get_mut(n));
        match open {
            Some(lines) if lines.resolution == 0 => {
                lines.resolution = at;
                self.pending.push((id, lines.letter));
                Ok(())
            }
            Some(_) => Err(format!("letter {} is resolved twice", id.0)),
            None => Err(format!("letter {} is resolved, and was never put", id.0)),
        }
    }

    pub(super) fn take_pending(&mut self) -> Vec<(DeadLetterId, u64)> {
        std::mem::take(&mut self.pending)
    }

    /// Takes a resolved letter out of what is open.
    pub(super) fn close(&mut self, id: DeadLetterId, letter: &NewDeadLetter) {
        let hash = place(letter);
        if self.open.get(&hash) == Some(&id.0) {
            self.open.remove(&hash);
        }
        if let Some(count) = self.counts.get_mut(&letter.consumer) {
            *count = count.saturating_sub(1);
        }
        if letter.parks_key {
            let of = (letter.consumer.clone(), letter.record.eb_ref.topic.clone());
            if let Some(parked) = self.parked.get_mut(&of) {
                let key = letter.record.partition_key.as_str();
                if let Some((_, count)) = parked.get_mut(key) {
                    *count -= 1;
                    if *count == 0 {
                        parked.remove(key);
                    }
                }
            }
        }
    }

    /// The keys that open letters park, sorted.
    pub(super) fn parked(&self, of: &(ConsumerName, Topic)) -> Vec<PartitionKey> {
        self.parked.get(of).into_iter().flatten().map(|(_, (key, _))| key.clone()).collect()
    }

    pub(super) fn count(&self, consumer: Option<&ConsumerName>) -> u64 {
        match consumer {
            Some(of) => self.counts.get(of).copied().unwrap_or(0),
            None => self.counts.values().sum(),
        }
    }
}
