//! What is in memory of one partition: the newest lease, and the marks past the checkpoint.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use eb_contract::stores::{EventIdentity, Lease, Mark};
use eb_contract::{BusIncarnation, Cut, Offset, OffsetKind, Timestamp};

use super::line::{Line, MarkIn};

/// How many lives of the bus are remembered; a bus begins a new one when it is made anew.
const MAX_LIVES: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct State {
    /// The newest lease that a step was recorded under.
    pub(super) fence: Option<Lease>,
    /// The time of the newest line; lines never go back in time.
    pub(super) at: Timestamp,
    /// The one used last comes last.
    pub(super) lives: Vec<Life>,
}

/// One life of the bus.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) id: BusIncarnation,
    /// The kind of its offsets, once one is known.
    pub(super) kind: Option<OffsetKind>,
    /// The cut that is known to be stored; `None` while no step was recorded.
    pub(super) committed: Option<Cut>,
    /// What is marked past that cut.
    pub(super) marks: BTreeMap<Place, Stored>,
}

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) event: Option<EventIdentity>,
    pub(super) at: Timestamp,
}

/// An offset among others of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) Offset);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or_else(|| self.0.kind().cmp(&other.0.kind()))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a line has told, for the second guard.
pub(super) enum Told {
    Marks {
        life: BusIncarnation,
        marks: Vec<Mark>,
    },
    /// Events behind a cut count no more.
    Forgotten,
    Nothing,
}

impl State {
    pub(super) fn new() -> Self {
        Self { fence: None, at: Timestamp::EPOCH, lives: Vec::new() }
    }

    pub(super) fn life(&self, id: &BusIncarnation) -> Option<&Life> {
        self.lives.iter().find(|life| life.id == *id)
    }

    fn life_mut(&mut self, id: &BusIncarnation) -> &mut Life {
        match self.lives.iter().position(|life| life.id == *id) {
            Some(at) => {
                let life = self.lives.remove(at);
                self.lives.push(life);
            }
            None => {
                if self.lives.len() == MAX_LIVES {
                    self.lives.remove(0);
                }
                let life = Life { id: id.clone(), kind: None, committed: None, marks: BTreeMap::new() };
                self.lives.push(life);
            }
        }
        let last = self.lives.len() - 1;
        &mut self.lives[last]
    }

    /// Applies a line that was read.
    pub(super) fn apply(&mut self, line: &Line<'_>) -> Result<Told, String> {
        match line {
            Line::Segment(head) => {
                let mut state = Self { fence: head.lease.clone(), at: head.at, lives: Vec::new() };
                for told in &head.lives {
                    let life = state.life_mut(&told.life);
                    (life.kind, life.committed) = (told.kind, told.committed);
                    for (mark, at) in &told.marks {
                        let mark = mark.read(told.kind)?;
                        life.marks.insert(Place(mark.offset), Stored { event: mark.event, at: *at });
                    }
                }
                *self = state;
                Ok(Told::Nothing)
            }
            Line::Step(s) => {
                let marks = read_all(&s.marks, s.kind)?;
                self.step(
                    &s.life,
                    &Lease { owner: s.owner.clone(), epoch: s.epoch },
                    s.committed,
                    s.kind,
                    s.at,
                );
                self.put(&s.life, &marks, s.at);
                Ok(Told::Marks { life: s.life.clone(), marks })
            }
            Line::Marks(m) => {
                let marks = read_all(&m.marks, m.kind)?;
                let life = self.life_mut(&m.life);
                life.kind = m.kind.or(life.kind);
                self.put(&m.life, &marks, m.at);
                Ok(Told::Marks { life: m.life.clone(), marks })
            }
            Line::Forget(f) => {
                self.forget_from(&f.life()?, &f.from, f.at);
                Ok(Told::Forgotten)
            }
        }
    }

    /// Notes who has recorded a step, and what is stored.
    pub(super) fn step(
        &mut self,
        life: &BusIncarnation,
        lease: &Lease,
        committed: Cut,
        kind: Option<OffsetKind>,
        at: Timestamp,
    ) {
        self.fence = Some(lease.clone());
        self.at = at;
        let life = self.life_mut(life);
        life.kind = kind.or(life.kind);
        life.committed = Some(committed);
        while life.marks.first_key_value().is_some_and(|(p, _)| committed.is_before(&p.0) == Some(false)) {
            life.marks.pop_first();
        }
    }

    /// Puts marks past the cut that is stored.
    pub(super) fn put<'a>(
        &mut self,
        life: &BusIncarnation,
        marks: impl IntoIterator<Item = &'a Mark>,
        at: Timestamp,
    ) {
        self.at = at;
        let life = self.life_mut(life);
        for mark in marks {
            life.kind.get_or_insert(mark.offset.kind());
            if life.committed.is_none_or(|cut| cut.is_before(&mark.offset) != Some(false)) {
                let stored = || Stored { event: mark.event.clone(), at };
                life.marks.entry(Place(mark.offset)).or_insert_with(stored);
            }
        }
    }

    /// How many marks at or behind the cut were known by place.
    pub(super) fn forget_from(&mut self, life: &BusIncarnation, from: &Cut, at: Timestamp) -> u64 {
        self.at = at;
        let life = self.life_mut(life);
        if life.committed.is_some_and(|cut| from.compare(&cut).is_some_and(Ordering::is_lt)) {
            life.committed = Some(*from);
        }
        let before = life.marks.len();
        life.marks.retain(|place, _| from.is_before(&place.0) != Some(true));
        (before - life.marks.len()) as u64
    }
}

pub(super) fn read_all(marks: &[MarkIn<'_>], kind: Option<OffsetKind>) -> Result<Vec<Mark>, String> {
    marks.iter().map(|m| m.read(kind)).collect()
}
