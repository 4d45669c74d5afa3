//! Faults at random, repeatably.

use super::log::Request;
use super::{Cut, Fate, Fault, Reaction};
use crate::Rng;

/// How often what goes wrong with `PutRecords` (and `PutRecord`), in percent of the calls or entries. Everything starts
/// at 0.
///
/// ```
/// # async fn example(fake: eb_testkit::kinesis_fake::KinesisFake) {
/// use eb_testkit::kinesis_fake::{Chaos, Op};
///
/// let chaos = Chaos { refused_entries: 30, reordered: 20, unanswered: 10, ..Chaos::default() };
/// fake.script_by(Op::PutRecords, chaos.rule(7));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chaos {
    /// Entries that are refused: throttled, or an internal failure.
    pub refused_entries: u64,
    /// Entries that are stored and reported as an internal failure.
    pub denied_entries: u64,
    /// Calls whose entries are accepted in another order.
    pub reordered: u64,
    /// Calls that are refused whole: throttled, a 500 or a 503.
    pub refused: u64,
    /// Calls that are lost before they are acted on: the connection is cut.
    pub lost: u64,
    /// Calls that are acted on, whose answer is cut or a 500.
    pub unanswered: u64,
    /// Calls that are acted on only after the client has given up. Each costs the client its whole timeout.
    pub late: u64,
}

impl Chaos {
    /// A rule for [`script_by`](super::KinesisFake::script_by) that repeats itself for the same seed and the same calls.
    pub fn rule(self, seed: u64) -> impl FnMut(&Request) -> Option<Reaction> + Send + 'static {
        let mut rng = Rng::new(seed);
        move |request| Some(self.reaction(&mut rng, request.entries.len()))
    }

    /// What one call of this many entries meets.
    #[must_use]
    pub fn reaction(&self, rng: &mut Rng, entries: usize) -> Reaction {
        let cut = *rng.pick(&[Cut::Reset, Cut::Close, Cut::HalfBody]);
        if rng.chance(self.lost) {
            return Reaction::lose(cut);
        }
        if rng.chance(self.refused) {
            let faults = [Fault::throttled(), Fault::internal(), Fault::unavailable()];
            return Reaction::refuse(rng.pick(&faults).clone());
        }
        let fates: Vec<_> = (0..entries).map(|_| self.fate(rng)).collect();
        let mut reaction = Reaction::plain().entries(fates);
        if rng.chance(self.reordered) {
            reaction = reaction.accept_in(shuffled(rng, entries));
        }
        if rng.chance(self.late) {
            reaction = reaction.once_abandoned();
        }
        if rng.chance(self.unanswered) {
            reaction =
                if rng.chance(25) { reaction.but_answer(Fault::internal()) } else { reaction.cut(cut) };
        }
        reaction
    }

    fn fate(&self, rng: &mut Rng) -> Fate {
        if rng.chance(self.refused_entries) {
            Fate::Refuse(rng.pick(&[Fault::throttled(), Fault::internal()]).clone())
        } else if rng.chance(self.denied_entries) {
            Fate::StoreAndDeny(Fault::internal())
        } else {
            Fate::Model
        }
    }
}

fn shuffled(rng: &mut Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, rng.index(last + 1));
    }
    order
}
