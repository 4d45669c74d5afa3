//! Records that are given up, and letters from before whose records are handled after all.

use eb_contract::stores::{DeadLetterId, DeadReason, NewDeadLetter};

use super::{Partition, Seq, State};
use crate::item::Item;

impl Partition {
    /// It becomes a dead letter, for this reason.
    pub(super) fn doom(&mut self, seq: Seq, item: &Item, reason: DeadReason, parks_key: bool) {
        self.settled(seq);
        let slot = self.window.slot(seq);
        slot.state = State::Dying;
        let name = |text: &str| text.chars().take(NewDeadLetter::MAX_NAME_CHARS).collect::<String>();
        let content = item.content.as_ref().ok();
        let letter = NewDeadLetter {
            consumer: self.whose.consumer.clone(),
            bus_incarnation: self.whose.incarnation.clone(),
            record: item.record.clone(),
            event_id: content.map(|c| name(&c.identity.event_id)),
            event_type: content.map(|c| name(&c.event_type)),
            reason,
            attempts: slot.attempts,
            failures: std::mem::take(&mut slot.failures),
            parks_key,
        };
        self.dying.push_back((seq, letter));
    }

    /// Letters to write now, at most `max`. Each is answered by [`Partition::letter_kept`] or [`Partition::letter_refused`].
    pub(crate) fn take_letters(&mut self, max: usize) -> Vec<(Seq, NewDeadLetter)> {
        let letters: Vec<_> = self.dying.drain(..max.min(self.dying.len())).collect();
        self.buried += letters.len();
        letters
    }

    /// The letter is durable.
    pub(crate) fn letter_kept(&mut self, seq: Seq, letter: &NewDeadLetter) {
        self.bury(seq);
        self.letters_stored([letter]);
    }

    /// The letter becomes durable with the step that is taken next.
    pub(crate) fn bury(&mut self, seq: Seq) {
        self.window.slot(seq).buried = true;
        if let Some(item) = self.window.slot(seq).item.clone() {
            self.remember(&item);
        }
        self.finish(seq, true);
    }

    /// These letters, which were taken, are durable.
    pub(crate) fn letters_stored<'l>(&mut self, letters: impl IntoIterator<Item = &'l NewDeadLetter>) {
        for letter in letters {
            self.buried -= 1;
            if letter.parks_key {
                self.parked_since_look = true;
                self.parked.insert(letter.record.partition_key.clone());
            }
        }
    }

    /// The letter may not be durable: it will be written again.
    pub(crate) fn letter_refused(&mut self, seq: Seq, letter: NewDeadLetter) {
        self.buried -= 1;
        self.dying.push_back((seq, letter));
    }

    /// A letter to be resolved now, for its record was handled after all. To be answered by [`Partition::letter_resolved`] or
    /// [`Partition::letter_stays`].
    pub(crate) fn take_exhumed(&mut self) -> Option<(Seq, DeadLetterId)> {
        let exhumed = self.exhumed.pop_front();
        self.resolving += usize::from(exhumed.is_some());
        exhumed
    }

    pub(crate) fn letter_resolved(&mut self, seq: Seq) {
        self.resolving -= 1;
        self.finish(seq, true);
        if let Some(item) = self.window.slot(seq).item.clone() {
            self.remember(&item);
        }
    }

    pub(crate) fn letter_stays(&mut self, seq: Seq, letter: DeadLetterId) {
        self.resolving -= 1;
        self.exhumed.push_back((seq, letter));
    }

    pub(crate) fn has_exhumed(&self) -> bool {
        !self.exhumed.is_empty()
    }

    /// Letters that are not durable yet, or not resolved.
    pub(crate) fn letters(&self) -> usize {
        self.dying.len() + self.buried + self.exhumed.len() + self.resolving
    }

    pub(crate) fn has_letters_to_write(&self) -> bool {
        !self.dying.is_empty()
    }
}
