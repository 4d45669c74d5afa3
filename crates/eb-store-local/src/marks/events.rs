//! The second guard's memory: where the newest events of a partition lie.

use std::collections::HashMap;

use eb_contract::stores::Mark;
use eb_contract::{BusIncarnation, Offset, OffsetKind};
use xxhash_rust::xxh3::xxh3_128;

/// Events by life of the bus, in two generations: when the young one is full, the old one goes. So at least
/// `limit` of the newest are known, and at most twice as many.
#[derive(Debug)]
pub(super) struct Events {
    limit: usize,
    young: HashMap<Key, Spot>,
    old: HashMap<Key, Spot>,
}

/// A hash of life and dedupe key: 128 bits, of which no two of some million are ever equal by chance.
type Key = u128;

/// An offset in little space.
#[derive(Debug, Clone)]
enum Spot {
    Number(OffsetKind, u64),
    Stream(u64, u64),
    Large(Box<Offset>),
}

impl Spot {
    fn of(offset: &Offset) -> Self {
        match offset.as_u64() {
            None if let Some((milliseconds, sequence)) = offset.as_redis() => {
                Self::Stream(milliseconds, sequence)
            }
            Some(n) if Offset::from_u64(offset.kind(), n) == *offset => Self::Number(offset.kind(), n),
            _ => Self::Large(Box::new(*offset)),
        }
    }

    fn offset(&self) -> Offset {
        match self {
            Self::Number(kind, n) => Offset::from_u64(*kind, *n),
            Self::Stream(milliseconds, sequence) => Offset::redis(*milliseconds, *sequence),
            Self::Large(offset) => **offset,
        }
    }
}

fn key(life: &BusIncarnation, dedupe: &[u8; 32]) -> Key {
    let mut bytes = Vec::with_capacity(32 + life.as_str().len());
    bytes.extend_from_slice(dedupe);
    bytes.extend_from_slice(life.as_str().as_bytes());
    xxh3_128(&bytes)
}

impl Events {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// Marks that are newer than all before; the first record of an event stays its place.
    pub(super) fn put<'a>(&mut self, life: &BusIncarnation, marks: impl IntoIterator<Item = &'a Mark>) {
        for mark in marks {
            let Some(event) = &mark.event else { continue };
            let key = key(life, &event.dedupe);
            if self.young.contains_key(&key) {
                continue;
            }
            let spot = self.old.remove(&key).unwrap_or_else(|| Spot::of(&mark.offset));
            if self.young.len() >= self.limit {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(key, spot);
        }
    }

    /// Where an event lies.
    pub(super) fn find(&self, life: &BusIncarnation, dedupe: &[u8; 32]) -> Option<Offset> {
        let key = key(life, dedupe);
        self.young.get(&key).or_else(|| self.old.get(&key)).map(Spot::offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eb_contract::stores::EventIdentity;

    fn mark(offset: Offset, event: u8) -> Mark {
        Mark { offset, event: Some(EventIdentity { dedupe: [event; 32], event_id: "e".into() }) }
    }

    #[test]
    fn the_newest_events_are_known_and_memory_is_bounded() {
        let life = BusIncarnation::new("life").unwrap();
        let mut events = Events::new(10);
        for n in 0..100 {
            events.put(&life, [&mark(Offset::redis(u64::from(n), 7), n)]);
        }
        for n in 90..100 {
            assert_eq!(events.find(&life, &[n; 32]), Some(Offset::redis(u64::from(n), 7)));
        }
        assert!(events.young.len() + events.old.len() <= 20);
        assert_eq!(events.find(&BusIncarnation::new("other").unwrap(), &[99; 32]), None);
    }

    #[test]
    fn offsets_of_every_size_come_back() {
        let large = Offset::parse(OffsetKind::KinesisSequence, &"9".repeat(129)).unwrap();
        for offset in [
            large,
            Offset::from_u64(OffsetKind::FileLine, u64::MAX),
            Offset::redis(5, 0),
            Offset::redis(u64::MAX, 1),
            Offset::from_u64(OffsetKind::External, 0),
        ] {
            assert_eq!(Spot::of(&offset).offset(), offset);
        }
    }
}
