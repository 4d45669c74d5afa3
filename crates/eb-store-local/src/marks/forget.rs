//! Retention: old marks go, the oldest first, over all partitions of a subscriber.
//!
//! Marks lie on disk in the order of their time, so the oldest segment of each partition is where forgetting begins. A segment that
//! holds more than is to go is written anew with what is left; the newest is followed by a new one first. What is still needed past the
//! checkpoint is in the newest segment anyway, and is not counted.

use eb_contract::stores::Mark;
use eb_contract::{BusIncarnation, ConsumerName, Result, Timestamp, Topic};
use eb_disk::replace_file;
use std::collections::BTreeSet;

use super::line::{self, Line};
use super::scope::Scope;
use super::state::{Life, Place, read_all};
use super::{Inner, Key};
use crate::files::{Journal, corrupt, io_error};

const OP: &str = "forget marks";

impl Inner {
    pub(super) fn forget_before(
        &self,
        subscriber: &ConsumerName,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let mut keys: Vec<Key> = Vec::new();
        for topic in self.folders(OP, &self.root.join(subscriber.as_str()))? {
            if let Ok(topic) = Topic::new(&topic) {
                keys.extend(self.partitions(OP, subscriber, &topic)?);
            }
        }
        // Partitions by the time of their oldest line.
        let mut queue: BTreeSet<(Timestamp, Key)> = BTreeSet::new();
        for key in keys {
            if let Some(at) = self.scope(&key).lock().oldest(before)? {
                queue.insert((at, key));
            }
        }
        let mut left = limit;
        let mut total = 0;
        while let Some((_, key)) = queue.pop_first() {
            if left == 0 {
                break;
            }
            let until = queue.first().map_or(before, |(at, _)| *at);
            let scope = self.scope(&key);
            let mut scope = scope.lock();
            let gone = scope.forget(before, until, left)?;
            left -= gone;
            total += gone as u64;
            if let Some(at) = scope.oldest(before)? {
                queue.insert((at, key));
            }
        }
        Ok(total)
    }
}

/// What is left of a segment.
#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    /// Marks that go and count.
    gone: usize,
    /// Those among them that no checkpoint stands for, so that they are in memory.
    alone: Vec<(BusIncarnation, Place)>,
    /// Whether any marks are left.
    holds: bool,
}

impl Scope {
    /// The time of the oldest line of marks, where that is before `before`.
    fn oldest(&mut self, before: Timestamp) -> Result<Option<Timestamp>> {
        let Some(_lock) = self.enter(OP, false)? else { return Ok(None) };
        for number in self.segments(OP)? {
            let mut oldest = None;
            self.each_line(OP, number, &mut |line| {
                oldest = oldest.or(time_of_marks(line));
                Ok(())
            })?;
            if oldest.is_some() {
                return Ok(oldest.filter(|at| *at < before));
            }
        }
        Ok(None)
    }

    /// Forgets up to `limit` marks of the oldest segment that were recorded before `before` and not after `until`, and says how many.
    fn forget(&mut self, before: Timestamp, until: Timestamp, limit: usize) -> Result<usize> {
        let Some(_lock) = self.enter(OP, false)? else { return Ok(0) };
        let Some(number) = self.segments(OP)?.first().copied() else { return Ok(0) };
        let mut rest = self.rest(number, before, until, limit)?;
        let open = self.opened(OP)?;
        let (newest, alone) = (open.number, std::mem::take(&mut rest.alone));
        if number == newest || !alone.is_empty() {
            // The newest is written to, so what is old goes from one that is not; and what is in memory stands at the beginning of the
            // next segment.
            for (life, place) in &alone {
                if let Some(life) = open.state.lives.iter_mut().find(|l| l.id == *life) {
                    life.marks.remove(place);
                }
            }
            self.roll(OP)?;
        }
        self.opened(OP)?.events = None;
        let path = self.path(number);
        if rest.holds {
            replace_file(self.disk(), &path, &rest.bytes)
                .map_err(|e| io_error(OP, &path, "the segment cannot be written anew", e))?;
        } else {
            let removed = self.disk().remove(&path).and_then(|()| self.disk().sync_dir(self.folder.path()));
            removed.map_err(|e| io_error(OP, &path, "the segment cannot be removed", e))?;
        }
        Ok(rest.gone)
    }

    fn rest(&mut self, number: u64, before: Timestamp, until: Timestamp, limit: usize) -> Result<Rest> {
        let path = self.path(number);
        let mut rest = Rest::default();
        let Some(mut journal) = Journal::open(self.disk(), OP, &path)? else { return Ok(rest) };
        let lives = self.opened(OP)?.state.lives.clone();
        journal.catch_up(self.disk(), OP, self.host.clock.now(), &mut |at, text| {
            let bad = |why: String| corrupt(OP, &path, at, why);
            let line = line::read(text).map_err(bad)?;
            let old = time_of_marks(&line).is_some_and(|time| time < before && time <= until);
            let (life, marks) = match &line {
                Line::Step(s) if old => (&s.life, read_all(&s.marks, s.kind).map_err(bad)?),
                Line::Marks(m) if old => (&m.life, read_all(&m.marks, m.kind).map_err(bad)?),
                _ => {
                    rest.holds |= time_of_marks(&line).is_some();
                    rest.bytes.extend_from_slice(text);
                    rest.bytes.push(b'\n');
                    return Ok(());
                }
            };
            let left = rest.let_go(lives.iter().find(|l| l.id == *life), marks, limit);
            if !left.is_empty() {
                rest.holds = true;
                // The segment is replaced whole, so all that comes before is durable.
                let durable = rest.bytes.len() as u64;
                rest.bytes.extend(line::remains(durable, &line, &left));
            }
            Ok(())
        })?;
        Ok(rest)
    }
}

impl Rest {
    /// Lets marks go until there are `limit`; those that are left.
    fn let_go(&mut self, life: Option<&Life>, marks: Vec<Mark>, limit: usize) -> Vec<Mark> {
        let mut left = Vec::new();
        for mark in marks {
            let place = Place(mark.offset);
            let in_memory = life.is_some_and(|l| l.marks.contains_key(&place));
            let alone = life.is_some_and(|l| l.committed.is_none());
            if in_memory && !alone {
                // Past the checkpoint: it is kept at the beginning of the newest segment.
                continue;
            }
            if self.gone == limit {
                left.push(mark);
                continue;
            }
            self.gone += 1;
            if let Some(life) = life.filter(|_| in_memory) {
                self.alone.push((life.id.clone(), place));
            }
        }
        left
    }
}

/// The time of a line that holds marks.
fn time_of_marks(line: &Line<'_>) -> Option<Timestamp> {
    match line {
        Line::Step(s) if !s.marks.is_empty() => Some(s.at),
        Line::Marks(m) if !m.marks.is_empty() => Some(m.at),
        _ => None,
    }
}
