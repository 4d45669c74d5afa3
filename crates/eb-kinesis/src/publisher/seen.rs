//! The sequence numbers that keys ended with.

use std::collections::HashMap;

use eb_contract::Offset;

/// The newest sequence number of each key that was lately ACKed, by the key's hash.
///
/// A key is remembered until as many other keys as a generation holds have been ACKed after it, twice that number at
/// most; by then its next record is far behind its last one. Memory is bounded by two generations, about 6 MB.
#[derive(Debug, Default)]
pub(super) struct Seen {
    young: HashMap<u128, Offset>,
    old: HashMap<u128, Offset>,
}

impl Seen {
    /// Keys of one generation.
    const GENERATION: usize = 32_768;

    /// Remembers that the key was ACKed at `offset`, if that lies behind what is known; otherwise says what is.
    pub(super) fn rise(&mut self, key: u128, offset: Offset) -> Result<(), Offset> {
        if let Some(known) = self.young.get_mut(&key) {
            return if offset > *known {
                *known = offset;
                Ok(())
            } else {
                Err(*known)
            };
        }
        let known = self.old.get(&key).copied();
        if let Some(known) = known
            && offset.partial_cmp(&known) != Some(std::cmp::Ordering::Greater)
        {
            return Err(known);
        }
        if self.young.len() >= Self::GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, offset);
        Ok(())
    }

    /// Forgets everything: the stream was made anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eb_contract::OffsetKind;

    fn at(n: u64) -> Offset {
        Offset::from_u64(OffsetKind::KinesisSequence, n)
    }

    #[test]
    fn a_number_that_does_not_rise_is_told_with_the_one_before() {
        let mut seen = Seen::default();
        assert_eq!(seen.rise(1, at(10)), Ok(()));
        assert_eq!(seen.rise(2, at(5)), Ok(()), "another key");
        assert_eq!(seen.rise(1, at(10)), Err(at(10)));
        assert_eq!(seen.rise(1, at(9)), Err(at(10)));
        assert_eq!(seen.rise(1, at(11)), Ok(()));
        seen.clear();
        assert_eq!(seen.rise(1, at(1)), Ok(()));
    }

    #[test]
    fn keys_are_forgotten_only_after_many_others_and_memory_is_bounded() {
        let mut seen = Seen::default();
        let generation = Seen::GENERATION as u128;
        seen.rise(0, at(7)).unwrap();
        (1..generation).for_each(|key| seen.rise(key, at(1)).unwrap());
        assert_eq!(seen.rise(generation, at(1)), Ok(()), "the next generation has begun");
        assert_eq!(seen.rise(0, at(7)), Err(at(7)), "the one before is remembered");
        (generation + 1..3 * generation + 1).for_each(|key| seen.rise(key, at(1)).unwrap());
        assert_eq!(seen.rise(0, at(7)), Ok(()), "two generations later it is not");
        assert!(seen.young.len() + seen.old.len() <= 2 * Seen::GENERATION);
    }
}
