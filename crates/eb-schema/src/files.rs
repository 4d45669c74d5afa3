//! The files of a catalogue: read from a folder, or given from memory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::document::MAX_BYTES;
use crate::fault::{Fault, Rule};
use crate::lock::Lock;

/// The most files of one catalogue.
pub const MAX_FILES: usize = 20_000;
/// The most bytes of a lock that are read.
const MAX_LOCK_BYTES: usize = 4 << 20;

/// The bytes of a catalogue, before anything is made of them.
#[derive(Debug, Clone, Default)]
pub struct SchemaFiles {
    /// What to call the folder `events`.
    pub(crate) root: String,
    /// What to call the lock.
    pub(crate) lock_name: String,
    pub(crate) lock: Option<Vec<u8>>,
    /// By their path below the folder.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What could not be read, or does not belong there.
    pub(crate) faults: Vec<Fault>,
}

impl SchemaFiles {
    /// Files from memory: `<event type>/<version>.json` and their bytes. `root` is what to call the folder; the lock is called the
    /// same with `.lock` behind it.
    #[must_use]
    pub fn from_memory(
        root: &str,
        lock: Option<Vec<u8>>,
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        let lock_name = format!("{root}.lock");
        Self {
            root: root.to_owned(),
            lock_name,
            lock,
            files: files.into_iter().collect(),
            faults: Vec::new(),
        }
    }

    /// Reads the folder `events` and the lock beside it (`events.lock`). What cannot be read, and what does not belong there,
    /// becomes a fault; hidden files are passed over. Symbolic links are not followed.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let root = folder.display().to_string();
        let lock_path = lock_path(folder);
        let mut read = Self { root, lock_name: lock_path.display().to_string(), ..Self::default() };
        match read_bounded(&lock_path, MAX_LOCK_BYTES) {
            Ok(bytes) => read.lock = Some(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => read.unreadable(&lock_path, &e),
        }
        for (name, entry) in read.entries(folder) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => read.versions(&name, &entry.path()),
                Ok(_) => read.misplaced(&entry.path()),
                Err(e) => read.unreadable(&entry.path(), &e),
            }
        }
        read
    }

    fn versions(&mut self, event_type: &str, folder: &Path) {
        for (name, entry) in self.entries(folder) {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_file() && name.ends_with(".json") => {
                    if self.files.len() >= MAX_FILES {
                        let fault = Fault::new(
                            &self.root,
                            Rule::Unreadable,
                            format!("more than {MAX_FILES} schemas"),
                        );
                        if !self.faults.contains(&fault) {
                            self.faults.push(fault);
                        }
                        return;
                    }
                    match read_bounded(&path, MAX_BYTES) {
                        Ok(bytes) => drop(self.files.insert(format!("{event_type}/{name}"), bytes)),
                        Err(e) => self.unreadable(&path, &e),
                    }
                }
                Ok(_) => self.misplaced(&path),
                Err(e) => self.unreadable(&path, &e),
            }
        }
    }

    /// What lies in a folder, by name, hidden files left out.
    fn entries(&mut self, folder: &Path) -> Vec<(String, fs::DirEntry)> {
        let mut entries = Vec::new();
        let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        match listed {
            Ok(listed) => {
                for entry in listed {
                    match entry.file_name().into_string() {
                        Ok(name) if name.starts_with('.') => {}
                        Ok(name) => entries.push((name, entry)),
                        Err(_) => self.misplaced(&entry.path()),
                    }
                }
            }
            Err(e) => self.unreadable(folder, &e),
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.faults.push(Fault::new(
            path.display().to_string(),
            Rule::Unreadable,
            format!("cannot be read: {error}"),
        ));
    }

    fn misplaced(&mut self, path: &Path) {
        let fault = Fault::new(path.display().to_string(), Rule::Place, "no schema lies here");
        self.faults
            .push(fault.advise(
                "a schema is a plain file <event type>/<version>.json; hidden files are passed over",
            ));
    }
}

/// Where the lock of a folder lies: beside it, with `.lock` behind its name.
pub(crate) fn lock_path(folder: &Path) -> std::path::PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    folder.with_file_name(name)
}

fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Replaces the lock of a folder: written beside it, synced, renamed. A crash leaves the old one or the new one, and perhaps
/// `<lock>.new`, which the next call overwrites.
///
/// # Errors
/// As the file system says.
pub fn write_lock(folder: &Path, lock: &Lock) -> io::Result<()> {
    let path = lock_path(folder);
    let mut beside = path.clone().into_os_string();
    beside.push(".new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(lock.render().as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, &path)?;
    // So that the rename is there after a power cut, too; not every system can sync a folder.
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}
