//! One partition's marks: its segments, and what is in memory of them.

use std::path::PathBuf;

use eb_contract::stores::{Lease, Mark, MarkScope, Progress, Seen};
use eb_contract::{BusIncarnation, Cut, Error, ErrorKind, OffsetKind, Result, Timestamp};
use eb_disk::{Disk, DiskLock};

use super::events::Events;
use super::line::{self, Line, StepOut};
use super::state::{Place, State, Told};
use super::{Key, MarksConfig, place, scope_of};
use crate::files::{Folder, Journal, corrupt, io_error};
use crate::host::Host;

/// Marks of one subscriber on one partition.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) key: Key,
    pub(super) folder: Folder,
    pub(super) host: Host,
    pub(super) config: MarksConfig,
    /// What is in memory; dropped after anything that leaves doubt, and read again.
    pub(super) open: Option<Open>,
}

/// The newest segment, and the state at its end.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) journal: Journal,
    pub(super) state: State,
    /// Read when the second guard is first asked.
    pub(super) events: Option<Events>,
    /// How long the segment's first line is.
    first: u64,
}

impl Scope {
    pub(super) fn new(key: Key, folder: PathBuf, host: Host, config: MarksConfig) -> Self {
        Self { key, folder: Folder::new(folder), host, config, open: None }
    }

    pub(super) fn place(&self) -> String {
        place(&self.key)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.host.disk
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.folder.path().join(format!("{number:010}.jsonl"))
    }

    /// The numbers of the segments, rising.
    pub(super) fn segments(&self, op: &'static str) -> Result<Vec<u64>> {
        let failed = |e| io_error(op, self.folder.path(), "the folder cannot be read", e);
        let number = |name: &str| name.strip_suffix(".jsonl").filter(|d| d.len() == 10)?.parse().ok();
        let entries = self.disk().list(self.folder.path()).map_err(failed)?;
        let mut numbers: Vec<u64> = entries.iter().filter_map(|e| number(&e.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Takes the folder's lock and reads what others have written since. `None` where there is nothing, and nothing is to be made.
    pub(super) fn enter(&mut self, op: &'static str, make: bool) -> Result<Option<Box<dyn DiskLock>>> {
        let host = self.host.clone();
        if make {
            self.folder.make(&*host.disk, op)?;
        }
        let Some(lock) = self.folder.lock(&*host.disk, op)? else {
            self.open = None;
            return if make { Err(self.folder.gone(op)) } else { Ok(None) };
        };
        match self.refresh(op, make) {
            Ok(true) => Ok(Some(lock)),
            Ok(false) => Ok(None),
            Err(e) => {
                self.open = None;
                Err(e)
            }
        }
    }

    fn refresh(&mut self, op: &'static str, make: bool) -> Result<bool> {
        if self.open.is_none() {
            let newest = self.segments(op)?.pop();
            match newest {
                Some(number) => self.open = Some(self.read(op, number)?),
                None if make => {
                    let first = line::segment(&self.key, 1, &State::new());
                    let path = self.path(1);
                    Journal::create(self.disk(), &path, &first)
                        .map_err(|e| io_error(op, &path, "the first segment cannot be made", e))?;
                    self.open = Some(self.read(op, 1)?);
                }
                None => return Ok(false),
            }
        }
        loop {
            let now = self.host.clock.now();
            let (disk, key) = (self.host.disk.clone(), self.key.clone());
            let Some(open) = &mut self.open else { return Ok(false) };
            open.catch_up(&*disk, op, &key, now)?;
            // Another process may have begun the next one.
            let next = open.number + 1;
            let path = self.path(next);
            match Journal::open(&*disk, op, &path)? {
                None => return Ok(true),
                Some(_) => self.open = Some(self.read(op, next)?),
            }
        }
    }

    fn read(&self, op: &'static str, number: u64) -> Result<Open> {
        let path = self.path(number);
        let journal = Journal::open(self.disk(), op, &path)?.ok_or_else(|| self.folder.gone(op))?;
        let mut open = Open { number, journal, state: State::new(), events: None, first: 0 };
        open.catch_up(self.disk(), op, &self.key, self.host.clock.now())?;
        Ok(open)
    }

    pub(super) fn opened(&mut self, op: &'static str) -> Result<&mut Open> {
        let message = "the marks were not read";
        self.open.as_mut().ok_or_else(|| Error::new(ErrorKind::Closed, op, message))
    }

    pub(super) fn record(&mut self, step: &Progress, lease: &Lease) -> Result<()> {
        const OP: &str = "record step";
        let scope = scope_of(&step.checkpoint);
        let _lock = self.enter(OP, true)?;
        let at = self.now(OP)?;
        let where_ = self.place();
        let open = self.opened(OP)?;
        if let Some(f) = &open.state.fence
            && (lease.epoch < f.epoch || lease.epoch == f.epoch && lease.owner != f.owner)
        {
            let what =
                format!("epoch {} of `{}` has taken over from epoch {}", f.epoch, f.owner, lease.epoch);
            return Err(Error::new(ErrorKind::Fenced, OP, what)
                .at(where_)
                .advise("stop this worker, another has taken over"));
        }
        let cuts = [&step.checkpoint.cut, &step.committed].map(Cut::offset_kind);
        let kind = open.kind(OP, &where_, &scope.bus_incarnation, cuts.into_iter().flatten(), &step.marks)?;
        let new = open.new_ones(&scope.bus_incarnation, &step.marks);
        let bytes = line::step(open.journal.durable(), at, &StepOut { step, lease, kind, marks: &new });
        self.append(OP, &bytes)?;
        let open = self.opened(OP)?;
        open.state.step(&scope.bus_incarnation, lease, step.committed, kind, at);
        open.put(&scope.bus_incarnation, &step.marks, at);
        self.roll_if_due(OP);
        Ok(())
    }

    pub(super) fn mark(&mut self, scope: &MarkScope, marks: &[Mark]) -> Result<()> {
        const OP: &str = "mark";
        let _lock = self.enter(OP, true)?;
        let at = self.now(OP)?;
        let where_ = self.place();
        let open = self.opened(OP)?;
        let kind = open.kind(OP, &where_, &scope.bus_incarnation, std::iter::empty(), marks)?;
        let new = open.new_ones(&scope.bus_incarnation, marks);
        if new.is_empty() {
            return Ok(());
        }
        let bytes = line::alone(open.journal.durable(), at, &scope.bus_incarnation, kind, &new);
        self.append(OP, &bytes)?;
        self.opened(OP)?.put(&scope.bus_incarnation, marks, at);
        self.roll_if_due(OP);
        Ok(())
    }

    pub(super) fn forget_from(&mut self, scope: &MarkScope, from: &Cut) -> Result<u64> {
        const OP: &str = "forget marks";
        let Some(_lock) = self.enter(OP, false)? else { return Ok(0) };
        let at = self.now(OP)?;
        let where_ = self.place();
        let open = self.opened(OP)?;
        open.kind(OP, &where_, &scope.bus_incarnation, from.offset_kind().into_iter(), &[])?;
        if open.state.life(&scope.bus_incarnation).is_none() {
            return Ok(0);
        }
        let bytes = line::forget(open.journal.durable(), at, &scope.bus_incarnation, from);
        self.append(OP, &bytes)?;
        let open = self.opened(OP)?;
        open.events = None;
        Ok(open.state.forget_from(&scope.bus_incarnation, from, at))
    }

    pub(super) fn seen(&mut self, scope: &MarkScope, records: &[Mark], by_event: bool) -> Result<Vec<Seen>> {
        const OP: &str = "look up marks";
        let Some(_lock) = self.enter(OP, false)? else { return Ok(vec![Seen::No; records.len()]) };
        let open = self.opened(OP)?;
        let life = open.state.life(&scope.bus_incarnation);
        let here = |r: &Mark| life.is_some_and(|life| life.marks.contains_key(&Place(r.offset)));
        let mut seen: Vec<Seen> =
            records.iter().map(|r| if here(r) { Seen::Here } else { Seen::No }).collect();
        if by_event {
            self.find_copies(OP, &scope.bus_incarnation, records, &mut seen, true)?;
        }
        Ok(seen)
    }

    /// Fills in, for those that are not seen yet, the copies that lie in this partition.
    pub(super) fn copies(
        &mut self,
        life: &BusIncarnation,
        records: &[Mark],
        seen: &mut [Seen],
    ) -> Result<()> {
        const OP: &str = "look up marks";
        let Some(_lock) = self.enter(OP, false)? else { return Ok(()) };
        self.find_copies(OP, life, records, seen, false)
    }

    /// `own` tells whether the records lie in this partition: none is its own copy.
    fn find_copies(
        &mut self,
        op: &'static str,
        life: &BusIncarnation,
        records: &[Mark],
        seen: &mut [Seen],
        own: bool,
    ) -> Result<()> {
        let partition_id = self.key.2;
        let events = self.events(op)?;
        for (record, seen) in records.iter().zip(seen).filter(|(_, seen)| **seen == Seen::No) {
            let found = record.event.as_ref().and_then(|e| events.find(life, &e.dedupe));
            if let Some(offset) = found.filter(|offset| !own || *offset != record.offset) {
                *seen = Seen::Copy { partition_id, offset };
            }
        }
        Ok(())
    }

    /// The time of the next line: never before the last one's.
    pub(super) fn now(&mut self, op: &'static str) -> Result<Timestamp> {
        let now = self.host.clock.now();
        Ok(self.opened(op)?.state.at.max(now))
    }

    /// Appends a line. After a failure what is in memory is read again.
    pub(super) fn append(&mut self, op: &'static str, bytes: &[u8]) -> Result<()> {
        let appended = self.opened(op)?.journal.append(op, bytes);
        if appended.is_err() {
            self.open = None;
        }
        appended
    }

    /// Begins the next segment where this one is large. The step is recorded already, so a failure only makes the segment
    /// larger still; the next step tries again.
    fn roll_if_due(&mut self, op: &'static str) {
        let Some(open) = &self.open else { return };
        // A long first line is not to be written again for every few steps.
        if open.journal.len() < self.config.segment_bytes.max(4 * open.first) {
            return;
        }
        if let Err(e) = self.roll(op).and_then(|()| self.drop_excess(op)) {
            tracing::warn!(marks = %self.place(), error = %e, "no new segment of marks could be begun");
        }
    }

    /// Begins the next segment with the state as it is.
    pub(super) fn roll(&mut self, op: &'static str) -> Result<()> {
        let key = self.key.clone();
        let (disk, open) = (self.host.disk.clone(), self.opened(op)?);
        let number = open.number + 1;
        let first = line::segment(&key, number, &open.state);
        let path = self.path(number);
        let made = Journal::create(&*disk, &path, &first)
            .map_err(|e| io_error(op, &path, "the next segment cannot be made", e))
            .and_then(|()| self.read(op, number));
        match made {
            Ok(mut next) => {
                let open = self.opened(op)?;
                next.events = open.events.take();
                *open = next;
                Ok(())
            }
            Err(e) => {
                // It may be there or not.
                self.open = None;
                Err(e)
            }
        }
    }

    /// Removes the oldest segments where they hold too much.
    fn drop_excess(&mut self, op: &'static str) -> Result<()> {
        let newest = self.opened(op)?.number;
        let mut older = Vec::new();
        for number in self.segments(op)?.into_iter().filter(|n| *n < newest) {
            if let Some(sealed) = Journal::open(self.disk(), op, &self.path(number))? {
                older.push((number, sealed.size(op)?));
            }
        }
        let mut total: u64 = older.iter().map(|(_, bytes)| bytes).sum();
        for (number, bytes) in older {
            if total <= self.config.max_bytes {
                break;
            }
            let path = self.path(number);
            self.disk()
                .remove(&path)
                .map_err(|e| io_error(op, &path, "an old segment cannot be removed", e))?;
            tracing::info!(marks = %self.place(), segment = number, bytes, "marks beyond max_bytes were removed, the oldest first");
            total -= bytes;
        }
        Ok(())
    }

    /// The events of the newest marks, read from the segments where they are not in memory.
    pub(super) fn events(&mut self, op: &'static str) -> Result<&Events> {
        if self.opened(op)?.events.is_none() {
            let events = self.read_events(op)?;
            self.opened(op)?.events = Some(events);
        }
        let message = "the events were not read";
        self.opened(op)?.events.as_ref().ok_or_else(|| Error::new(ErrorKind::Closed, op, message))
    }

    fn read_events(&self, op: &'static str) -> Result<Events> {
        // From the newest segment back, until there are enough; then in the order of the marks.
        let mut parts: Vec<Vec<(BusIncarnation, Vec<Mark>)>> = Vec::new();
        let mut count = 0;
        // Cuts from which on older marks are forgotten.
        let mut gone: Vec<(BusIncarnation, Cut)> = Vec::new();
        for number in self.segments(op)?.into_iter().rev() {
            if count >= self.config.max_events {
                break;
            }
            let mut part: Vec<(BusIncarnation, Vec<Mark>)> = Vec::new();
            let mut gone_here = Vec::new();
            self.each_line(op, number, &mut |line| {
                match line {
                    // What stands at the beginning of a segment was in a line before it, or is in memory.
                    Line::Segment(_) => {}
                    Line::Step(s) => part.push((s.life.clone(), super::state::read_all(&s.marks, s.kind)?)),
                    Line::Marks(m) => part.push((m.life.clone(), super::state::read_all(&m.marks, m.kind)?)),
                    Line::Forget(f) => {
                        let life = f.life()?;
                        for (_, marks) in part.iter_mut().filter(|(of, _)| *of == life) {
                            marks.retain(|m| f.from.is_before(&m.offset) != Some(true));
                        }
                        gone_here.push((life, f.from));
                    }
                }
                Ok(())
            })?;
            for (life, marks) in &mut part {
                for (_, from) in gone.iter().filter(|(of, _)| of == life) {
                    marks.retain(|m| from.is_before(&m.offset) != Some(true));
                }
            }
            gone.extend(gone_here);
            count += part.iter().map(|(_, marks)| marks.len()).sum::<usize>();
            parts.push(part);
        }
        let mut events = Events::new(self.config.max_events);
        for (life, marks) in parts.iter().rev().flatten() {
            events.put(life, marks);
        }
        for life in self.open.iter().flat_map(|open| &open.state.lives) {
            for (place, stored) in &life.marks {
                events.put(&life.id, [&Mark { offset: place.0, event: stored.event.clone() }]);
            }
        }
        Ok(events)
    }

    /// Reads the lines of a segment.
    pub(super) fn each_line(
        &self,
        op: &'static str,
        number: u64,
        each: &mut dyn FnMut(&Line<'_>) -> Result<(), String>,
    ) -> Result<()> {
        let path = self.path(number);
        let Some(mut journal) = Journal::open(self.disk(), op, &path)? else { return Ok(()) };
        journal.catch_up(self.disk(), op, self.host.clock.now(), &mut |at, text| {
            let read = line::read(text).and_then(|line| each(&line));
            read.map_err(|why| corrupt(op, &path, at, why))
        })
    }
}

impl Open {
    fn catch_up(&mut self, disk: &dyn Disk, op: &'static str, key: &Key, now: Timestamp) -> Result<()> {
        let (number, path) = (self.number, self.journal.path().to_owned());
        let (state, events, first) = (&mut self.state, &mut self.events, &mut self.first);
        self.journal.catch_up(disk, op, now, &mut |at, text| {
            let bad = |why: String| corrupt(op, &path, at, why);
            let line = line::read(text).map_err(bad)?;
            match (&line, at) {
                (Line::Segment(head), 0) => {
                    if head.version != line::VERSION {
                        let what =
                            format!("format version {}, this program knows {}", head.version, line::VERSION);
                        return Err(Error::new(ErrorKind::WrongVersion, op, what)
                            .at(path.display())
                            .advise("use a newer program"));
                    }
                    let of = (&head.subscriber, &head.topic, head.partition_id, head.segment);
                    if of != (&key.0, &key.1, key.2, number) {
                        let what = format!("it is segment {} of {} {}/{}", of.3, of.0, of.1, of.2);
                        return Err(bad(what));
                    }
                    *first = text.len() as u64;
                }
                (Line::Segment(_), _) => return Err(bad("a second first line".to_owned())),
                (_, 0) => return Err(bad("the first line is missing".to_owned())),
                _ => {}
            }
            match state.apply(&line).map_err(bad)? {
                Told::Marks { life, marks } => {
                    if let Some(events) = events {
                        events.put(&life, &marks);
                    }
                }
                Told::Forgotten => *events = None,
                Told::Nothing => {}
            }
            Ok(())
        })
    }

    fn put(&mut self, life: &BusIncarnation, marks: &[Mark], at: Timestamp) {
        if let Some(events) = &mut self.events {
            events.put(life, marks);
        }
        self.state.put(life, marks, at);
    }

    /// Those that are not marked yet, each once.
    fn new_ones<'a>(&self, life: &BusIncarnation, marks: &'a [Mark]) -> Vec<&'a Mark> {
        let known = self.state.life(life).map(|life| &life.marks);
        let is_new = |m: &&Mark| known.is_none_or(|known| !known.contains_key(&Place(m.offset)));
        let mut new: Vec<&Mark> = marks.iter().filter(is_new).collect();
        // Of several for one place the first stands.
        let rising = new.is_sorted_by(|a, b| a.offset < b.offset);
        if !rising {
            new.sort_by_key(|m| Place(m.offset));
            new.dedup_by(|later, first| later.offset == first.offset);
        }
        new
    }

    /// The one kind of offset of a life.
    fn kind(
        &self,
        op: &'static str,
        place: &str,
        life: &BusIncarnation,
        cuts: impl Iterator<Item = OffsetKind>,
        marks: &[Mark],
    ) -> Result<Option<OffsetKind>> {
        let stored = self.state.life(life).and_then(|life| life.kind);
        let mut kinds = cuts.chain(marks.iter().map(|m| m.offset.kind()));
        let kind = stored.or_else(|| kinds.next());
        if kinds.any(|k| Some(k) != kind) {
            let what = "its offsets are not of the one kind that the scope has";
            return Err(Error::new(ErrorKind::InvalidInput, op, what).at(place));
        }
        Ok(kind)
    }
}
