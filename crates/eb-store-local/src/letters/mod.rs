//! Dead letters as one file of JSON lines, for the consumers of one machine.
//!
//! ```text
//! <dir>/dead-letters/letters.jsonl   one line for each letter, and one for each resolution; only ever grows
//! <dir>/dead-letters/lock            held while a process looks or writes
//! ```
//!
//! A letter's envelope is in its line as it was published, byte for byte, so `jq` reads it:
//! `jq -c 'select(.line == "letter") | {id, reason, type: .event_type, envelope}' letters.jsonl`. FORMAT.md tells the lines and what
//! each damage comes to. **A put** is one write and one sync for all letters of the call, before the first `Ok`. **In memory** are, for
//! each letter, where its lines lie, and of open ones a hash of their place: some 50 bytes a letter. Pages are read from the file.
//! Every process reads what others have appended before it answers.

mod index;
mod line;

use std::path::PathBuf;
use std::sync::Arc;

use eb_contract::stores::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterStore, NewDeadLetter, Resolution, Resolved,
    check_resolution,
};
use eb_contract::{
    BoxFuture, BusIncarnation, ConsumerName, EbRef, Error, ErrorKind, PartitionKey, Result, Topic,
};
use eb_disk::DiskLock;
use eb_disk::offload::offload;
use parking_lot::Mutex;

use self::index::{Index, hash};
use self::line::Line;
use crate::files::{Folder, Journal, corrupt, io_error};
use crate::host::Host;

const FOLDER: &str = "dead-letters";
const FILE: &str = "letters.jsonl";

/// Dead letters in a file; see the [module](self). Clones share their state.
///
/// Blocking work runs on threads of its own. A call whose future is dropped is still carried out once it has begun.
#[derive(Clone)]
pub struct EmbeddedDeadLetters {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    folder: Folder,
    host: Host,
    /// What is in memory; dropped after anything that leaves doubt, and read again.
    open: Option<Open>,
}

struct Open {
    journal: Journal,
    index: Index,
}

impl std::fmt::Debug for EmbeddedDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedDeadLetters").finish_non_exhaustive()
    }
}

impl EmbeddedDeadLetters {
    /// Dead letters in `<dir>/dead-letters`. Touches nothing yet; the folder is made by the first put.
    #[must_use]
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self::open_on(dir, Host::default())
    }

    /// As [`EmbeddedDeadLetters::open`], on another disk and clock: for tests.
    #[must_use]
    pub fn open_on(dir: impl Into<PathBuf>, host: Host) -> Self {
        let folder = Folder::new(dir.into().join(FOLDER));
        Self { inner: Arc::new(Mutex::new(Inner { folder, host, open: None })) }
    }

    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        offload(op, move || work(&mut inner.lock())).await
    }
}

impl Inner {
    /// Takes the folder's lock and reads what others have written since. `None` where there is nothing, and nothing is to be made.
    fn enter(&mut self, op: &'static str, make: bool) -> Result<Option<Box<dyn DiskLock>>> {
        let disk = self.host.disk.clone();
        if make {
            self.folder.make(&*disk, op)?;
        }
        let Some(lock) = self.folder.lock(&*disk, op)? else {
            self.open = None;
            return if make { Err(self.folder.gone(op)) } else { Ok(None) };
        };
        let refreshed = self.refresh(op, make);
        if !matches!(refreshed, Ok(true)) {
            self.open = None;
        }
        Ok(refreshed?.then_some(lock))
    }

    fn refresh(&mut self, op: &'static str, make: bool) -> Result<bool> {
        let (disk, path) = (&*self.host.disk, self.folder.path().join(FILE));
        if self.open.is_none() {
            let journal = match Journal::open(disk, op, &path)? {
                Some(journal) => journal,
                None if make => {
                    Journal::create(disk, &path, &line::head())
                        .map_err(|e| io_error(op, &path, "the file of letters cannot be made", e))?;
                    Journal::open(disk, op, &path)?.ok_or_else(|| self.folder.gone(op))?
                }
                None => return Ok(false),
            };
            self.open = Some(Open { journal, index: Index::default() });
        }
        let Some(Open { journal, index }) = &mut self.open else { return Ok(false) };
        journal.catch_up(disk, op, self.host.clock.now(), &mut |at, text| {
            let bad = |why: String| corrupt(op, &path, at, why);
            match (line::read(text).map_err(bad)?, at) {
                (Line::Head { version }, 0) if version == line::VERSION => Ok(()),
                (Line::Head { version }, 0) => {
                    let what = format!("format version {version}, this program knows {}", line::VERSION);
                    let error = Error::new(ErrorKind::WrongVersion, op, what).at(path.display());
                    Err(error.advise("use a newer program"))
                }
                (Line::Head { .. }, _) | (_, 0) => {
                    Err(bad("its first line is not where it should be".to_owned()))
                }
                (Line::Letter(letter), _) => index.letter(&letter, at).map_err(bad),
                (Line::Resolved { id, .. }, _) => {
                    // A resolution is rare, and needs to know which letter it closes.
                    index.resolution(id, at).map_err(bad)
                }
            }
        })?;
        // Who was closed by a resolution that was read just now is looked up afterwards: the journal is free again.
        for (id, at) in index.take_pending() {
            let bad = |why: String| corrupt(op, &path, at, why);
            let text = journal.read(op, at)?;
            let Line::Letter(letter) = line::read(&text).map_err(bad)? else {
                return Err(bad("the line of a letter holds something else".to_owned()));
            };
            index.close(id, &letter.letter);
        }
        Ok(true)
    }

    fn opened(&mut self, op: &'static str) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::new(ErrorKind::Closed, op, "the letters were not read"))
    }

    fn put(&mut self, letters: &[NewDeadLetter]) -> Result<Vec<Result<DeadLetterId>>> {
        const OP: &str = "put dead letter";
        let _lock = self.enter(OP, true)?;
        let now = self.host.clock.now();
        let open = self.opened(OP)?;
        let (mut answers, mut lines) = (Vec::new(), Vec::new());
        let (base, durable) = (open.journal.len(), open.journal.durable());
        let mut new: Vec<(DeadLetter, u64)> = Vec::new();
        for letter in letters {
            if let Err(e) = letter.check() {
                answers.push(Err(e));
                continue;
            }
            let at = &letter.record.eb_ref;
            let there = open.open_of(OP, &letter.consumer, &letter.bus_incarnation, at).ok().flatten();
            let in_call = || new.iter().find(|(l, _)| same(&l.letter, letter)).map(|(l, _)| l.id);
            let id = there.or_else(in_call).unwrap_or_else(|| {
                let id = DeadLetterId(open.index.last() + 1 + new.len() as u64);
                let at = base + lines.len() as u64;
                let letter = DeadLetter { id, letter: letter.clone(), put_at: now, resolved: None };
                lines.extend(line::letter(durable, &letter));
                new.push((letter, at));
                id
            });
            answers.push(Ok(id));
        }
        // An open letter of another process may have been read before it was synced; an append writes the last line once more.
        if lines.is_empty() {
            open.journal.settle(OP)?;
        } else if let Err(e) = open.journal.append(OP, &lines) {
            self.open = None;
            return Err(e);
        }
        let path = self.folder.path().join(FILE);
        let open = self.opened(OP)?;
        for (letter, at) in &new {
            open.index.letter(letter, *at).map_err(|why| corrupt(OP, &path, *at, why))?;
        }
        Ok(answers)
    }

    fn resolve(&mut self, id: DeadLetterId, how: Resolution, reason: &str) -> Result<DeadLetter> {
        const OP: &str = "resolve dead letter";
        let Some(_lock) = self.enter(OP, false)? else { return Err(not_found(OP, id)) };
        let now = self.host.clock.now();
        let open = self.opened(OP)?;
        let mut letter = open.letter(OP, id)?;
        if letter.resolved.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, OP, "it is resolved already").at(id.0));
        }
        let resolved = Resolved { how, at: now, reason: reason.to_owned() };
        let at = open.journal.len();
        let bytes = line::resolved(open.journal.durable(), id, &resolved);
        if let Err(e) = open.journal.append(OP, &bytes) {
            self.open = None;
            return Err(e);
        }
        let path = self.folder.path().join(FILE);
        let open = self.opened(OP)?;
        open.index.resolution(id, at).map_err(|why| corrupt(OP, &path, at, why))?;
        open.index.take_pending();
        open.index.close(id, &letter.letter);
        letter.resolved = Some(resolved);
        Ok(letter)
    }

    fn list(&mut self, filter: &DeadLetterFilter, max: usize) -> Result<Vec<DeadLetter>> {
        const OP: &str = "list dead letters";
        let Some(_lock) = self.enter(OP, false)? else { return Ok(Vec::new()) };
        let open = self.opened(OP)?;
        let mut page = Vec::new();
        let mut id = filter.after.map_or(1, |after| after.0.saturating_add(1));
        while page.len() < max && id <= open.index.last() {
            if filter.resolved_too || open.index.is_open(DeadLetterId(id)) {
                let letter = open.letter(OP, DeadLetterId(id))?;
                if fits(filter, &letter.letter) {
                    page.push(letter);
                }
            }
            id += 1;
        }
        Ok(page)
    }
}

impl Open {
    /// The open letter of a record.
    fn open_of(
        &self,
        op: &'static str,
        consumer: &ConsumerName,
        incarnation: &BusIncarnation,
        record: &EbRef,
    ) -> Result<Option<DeadLetterId>> {
        let Some(id) = self.index.open_at(hash(consumer, incarnation, record)) else { return Ok(None) };
        let found = self.letter(op, id)?.letter;
        let this = found.consumer == *consumer
            && found.bus_incarnation == *incarnation
            && found.record.eb_ref == *record;
        Ok(this.then_some(id))
    }

    fn letter(&self, op: &'static str, id: DeadLetterId) -> Result<DeadLetter> {
        let (at, resolved) = self.index.lines(id).ok_or_else(|| not_found(op, id))?;
        let bad = |at: u64, why: String| corrupt(op, self.journal.path(), at, why);
        let text = self.journal.read(op, at)?;
        let Line::Letter(mut letter) = line::read(&text).map_err(|why| bad(at, why))? else {
            return Err(bad(at, "the line of a letter holds something else".to_owned()));
        };
        if let Some(at) = resolved {
            let text = self.journal.read(op, at)?;
            let Line::Resolved { resolved, .. } = line::read(&text).map_err(|why| bad(at, why))? else {
                return Err(bad(at, "the line of a resolution holds something else".to_owned()));
            };
            letter.resolved = Some(resolved);
        }
        Ok(*letter)
    }
}

fn same(a: &NewDeadLetter, b: &NewDeadLetter) -> bool {
    a.consumer == b.consumer && a.bus_incarnation == b.bus_incarnation && a.record.eb_ref == b.record.eb_ref
}

fn fits(filter: &DeadLetterFilter, letter: &NewDeadLetter) -> bool {
    filter.consumer.as_ref().is_none_or(|c| letter.consumer == *c)
        && filter.topic.as_ref().is_none_or(|t| letter.record.eb_ref.topic == *t)
        && filter.partition_key.as_ref().is_none_or(|k| letter.record.partition_key == *k)
}

fn not_found(op: &'static str, id: DeadLetterId) -> Error {
    Error::new(ErrorKind::NotFound, op, "there is no such dead letter").at(id.0)
}

impl DeadLetterStore for EmbeddedDeadLetters {
    fn put<'a>(&'a self, letters: &'a [NewDeadLetter]) -> BoxFuture<'a, Vec<Result<DeadLetterId>>> {
        Box::pin(async move {
            if letters.is_empty() {
                return Vec::new();
            }
            let all = letters.to_vec();
            match self.run("put dead letter", move |inner| inner.put(&all)).await {
                Ok(answers) => answers,
                Err(e) => letters.iter().map(|_| Err(e.clone())).collect(),
            }
        })
    }

    fn list<'a>(
        &'a self,
        filter: &'a DeadLetterFilter,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<DeadLetter>>> {
        let filter = filter.clone();
        Box::pin(self.run("list dead letters", move |inner| inner.list(&filter, max)))
    }

    fn get(&self, id: DeadLetterId) -> BoxFuture<'_, Result<DeadLetter>> {
        const OP: &str = "read dead letter";
        Box::pin(self.run(OP, move |inner| match inner.enter(OP, false)? {
            Some(_lock) => inner.opened(OP)?.letter(OP, id),
            None => Err(not_found(OP, id)),
        }))
    }

    fn resolve<'a>(
        &'a self,
        id: DeadLetterId,
        how: Resolution,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<DeadLetter>> {
        Box::pin(async move {
            check_resolution(reason)?;
            let reason = reason.to_owned();
            self.run("resolve dead letter", move |inner| inner.resolve(id, how, &reason)).await
        })
    }

    fn parked_keys<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        topic: &'a Topic,
    ) -> BoxFuture<'a, Result<Vec<PartitionKey>>> {
        const OP: &str = "list parked keys";
        let of = (consumer.clone(), topic.clone());
        Box::pin(self.run(OP, move |inner| match inner.enter(OP, false)? {
            Some(_lock) => Ok(inner.opened(OP)?.index.parked(&of)),
            None => Ok(Vec::new()),
        }))
    }

    fn open_of<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        incarnation: &'a BusIncarnation,
        records: &'a [EbRef],
    ) -> BoxFuture<'a, Result<Vec<Option<DeadLetterId>>>> {
        const OP: &str = "look for dead letters";
        let (consumer, incarnation, records) = (consumer.clone(), incarnation.clone(), records.to_vec());
        Box::pin(self.run(OP, move |inner| match inner.enter(OP, false)? {
            Some(_lock) => {
                let open = inner.opened(OP)?;
                let of = |record| open.open_of(OP, &consumer, &incarnation, record);
                records.iter().map(of).collect()
            }
            None => Ok(vec![None; records.len()]),
        }))
    }

    fn count_open<'a>(&'a self, consumer: Option<&'a ConsumerName>) -> BoxFuture<'a, Result<u64>> {
        const OP: &str = "count dead letters";
        let consumer = consumer.cloned();
        Box::pin(self.run(OP, move |inner| match inner.enter(OP, false)? {
            Some(_lock) => Ok(inner.opened(OP)?.index.count(consumer.as_ref())),
            None => Ok(0),
        }))
    }

    fn probe(&self) -> BoxFuture<'_, Result<()>> {
        const OP: &str = "probe dead letters";
        Box::pin(self.run(OP, |inner| {
            let _lock = inner.enter(OP, true)?;
            let path = inner.folder.path().join("probe");
            let disk = &*inner.host.disk;
            let made = eb_disk::replace_file(disk, &path, b"probe\n").and_then(|()| disk.remove(&path));
            made.map_err(|e| io_error(OP, &path, "a file cannot be made", e))
        }))
    }
}
