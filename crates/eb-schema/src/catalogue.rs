//! All schemas of a folder with their lock.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use crate::compat::{Answer, Comparison, Finding, compare};
use crate::document::{Schema, sha256};
use crate::fault::{Fault, Rule};
use crate::files::SchemaFiles;
use crate::lock::Lock;
use crate::name::{Version, check_event_type};

/// Which compatibility a version owes to the one before it with the same first number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Requirement {
    /// None.
    None,
    /// Old events are events of the new version.
    #[default]
    Backward,
    /// New events are events of the old version.
    Forward,
    /// Both.
    Full,
}

impl Requirement {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Backward, Self::Forward, Self::Full];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Backward => "backward",
            Self::Forward => "forward",
            Self::Full => "full",
        }
    }

    /// Whether a comparison meets it. "Cannot tell" does not.
    #[must_use]
    pub fn is_met(self, comparison: &Comparison) -> bool {
        let backward = matches!(self, Self::None | Self::Forward) || comparison.backward == Answer::Yes;
        let forward = matches!(self, Self::None | Self::Backward) || comparison.forward == Answer::Yes;
        backward && forward
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|r| r.as_str() == text);
        known.ok_or_else(|| "one of none, backward, forward, full".to_owned())
    }
}

/// A version as `eb schema list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The event type.
    pub event_type: String,
    /// The version.
    pub version: String,
    /// Whether the lock has it.
    pub released: bool,
    /// Of the file, `None` where it is gone or cannot be read as a schema.
    pub sha256: Option<String>,
    /// What the schema calls itself.
    pub title: Option<String>,
    /// The version before it, `None` for the first.
    pub previous: Option<String>,
    /// What was proven against that one: [`Comparison::level`].
    pub compatibility: Option<&'static str>,
}

/// What `eb schema lock` is about to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The lock with the new lines.
    pub lock: Lock,
    /// Type and version of each new line.
    pub added: Vec<(String, Version)>,
}

/// A file at the place of a version.
#[derive(Debug)]
struct File {
    path: String,
    sha256: String,
    schema: Result<Schema, Vec<Fault>>,
}

/// The schemas of a folder, read and checked one by one, and what is released.
#[derive(Debug)]
pub struct Catalogue {
    root: String,
    lock_name: String,
    lock: Lock,
    types: BTreeMap<String, BTreeMap<Version, File>>,
    faults: Vec<Fault>,
}

impl Catalogue {
    /// Reads a folder `events` and the lock beside it.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        Self::new(SchemaFiles::read(folder))
    }

    /// Makes a catalogue of files. What is wrong with them is kept for [`Catalogue::check`].
    #[must_use]
    pub fn new(files: SchemaFiles) -> Self {
        let SchemaFiles { root, lock_name, lock, files, mut faults } = files;
        let lock = match lock.map(|bytes| Lock::parse(&lock_name, &bytes)) {
            None => Lock::default(),
            Some(Ok(lock)) => lock,
            Some(Err(fault)) => {
                faults.push(fault);
                Lock::default()
            }
        };
        let mut catalogue = Self { root, lock_name, lock, types: BTreeMap::new(), faults };
        for (path, bytes) in files {
            catalogue.take(&path, &bytes);
        }
        catalogue
    }

    fn take(&mut self, path: &str, bytes: &[u8]) {
        let shown = format!("{}/{path}", self.root);
        let place = path.split_once('/').and_then(|(t, file)| Some((t, file.strip_suffix(".json")?)));
        let named =
            place.ok_or("a schema lies at <event type>/<version>.json").and_then(|(event_type, version)| {
                check_event_type(event_type)?;
                Ok((event_type, Version::parse(version)?))
            });
        let (event_type, version) = match named {
            Ok(named) => named,
            Err(what) => return self.faults.push(Fault::new(shown, Rule::Place, what)),
        };
        let schema = Schema::read(&shown, event_type, version.as_str(), bytes);
        let file = File { path: shown.clone(), sha256: sha256(bytes), schema };
        let versions = self.types.entry(event_type.to_owned()).or_default();
        if let Some((twin, _)) = versions.get_key_value(&version) {
            let what = format!("the same version as {twin}.json");
            self.faults.push(Fault::new(shown, Rule::Place, what));
            return;
        }
        versions.insert(version, file);
    }

    /// How many event types there are.
    #[must_use]
    pub fn type_count(&self) -> usize {
        self.types.len()
    }

    /// How many versions there are.
    #[must_use]
    pub fn version_count(&self) -> usize {
        self.types.values().map(BTreeMap::len).sum()
    }

    /// The event types that have a folder.
    pub fn event_types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// The versions of an event type, lowest first.
    pub fn versions(&self, event_type: &str) -> impl Iterator<Item = &Version> {
        self.types.get(event_type).into_iter().flat_map(BTreeMap::keys)
    }

    /// What to call the folder.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The lock.
    #[must_use]
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The schema of a version.
    ///
    /// # Errors
    /// Its own faults, or one that says that it is not there and what is.
    pub fn get(&self, event_type: &str, version: &str) -> Result<&Schema, Vec<Fault>> {
        let Some(versions) = self.types.get(event_type) else {
            let known: Vec<_> = self.event_types().take(20).collect();
            let what = format!("no schemas of {event_type}");
            return Err(vec![
                Fault::new(&self.root, Rule::Place, what).advise(format!("there are {}", known.join(", "))),
            ]);
        };
        let found = Version::parse(version).ok().and_then(|v| versions.get(&v));
        match found {
            Some(file) => file.schema.as_ref().map_err(Clone::clone),
            None => {
                let known: Vec<_> = versions.keys().map(Version::as_str).collect();
                let what = format!("{event_type} has no version {version}");
                Err(vec![
                    Fault::new(&self.root, Rule::Place, what)
                        .advise(format!("there are {}", known.join(", "))),
                ])
            }
        }
    }

    /// Every version, also released ones whose file is gone.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut all = Vec::new();
        for (event_type, versions) in &self.types {
            let mut before: Option<(&Version, &File)> = None;
            for (version, file) in versions {
                let comparison = before
                    .and_then(|(_, b)| Some(compare(b.schema.as_ref().ok()?, file.schema.as_ref().ok()?)));
                all.push(Listed {
                    event_type: event_type.clone(),
                    version: version.to_string(),
                    released: self.lock.get(event_type, version.as_str()).is_some(),
                    sha256: Some(file.sha256.clone()),
                    title: file.schema.as_ref().ok().and_then(Schema::title).map(str::to_owned),
                    previous: before.map(|(v, _)| v.to_string()),
                    compatibility: comparison.as_ref().map(Comparison::level),
                });
                before = Some((version, file));
            }
        }
        for (event_type, version, _) in self.gone() {
            all.push(Listed {
                event_type: event_type.to_owned(),
                version: version.to_string(),
                released: true,
                sha256: None,
                title: None,
                previous: None,
                compatibility: None,
            });
        }
        all
    }

    /// Released versions whose file is gone, with the line of the lock.
    fn gone(&self) -> impl Iterator<Item = (&str, &Version, usize)> {
        self.lock.iter().filter_map(|(event_type, version, released)| {
            let there = self.types.get(event_type).and_then(|v| v.get_key_value(version));
            let same = there.is_some_and(|(found, _)| found.as_str() == version.as_str());
            (!same).then_some((event_type, version, released.line))
        })
    }

    /// Everything that is wrong: nothing, if every file is a schema that agrees with its place, the lock holds and each version has
    /// the required compatibility.
    #[must_use]
    pub fn check(&self, require: Requirement) -> Vec<Fault> {
        let mut faults = self.check_before_release(require);
        for (event_type, version, file) in self.files() {
            if self.lock.get(event_type, version.as_str()).is_none() && file.schema.is_ok() {
                let fault = Fault::new(&file.path, Rule::Unlocked, format!("not in {}", self.lock_name));
                faults.push(fault.advise("`eb schema lock` releases it"));
            }
        }
        faults
    }

    /// As [`Catalogue::check`], but versions that are not released yet are no fault.
    #[must_use]
    pub fn check_before_release(&self, require: Requirement) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        for (event_type, version, line) in self.gone() {
            let what = format!("{event_type}/{version}.json was released and is gone from {}", self.root);
            faults.push(
                Fault::new(&self.lock_name, Rule::Vanished, what)
                    .line(line)
                    .advise("restore the file: events of that version may be in the log"),
            );
        }
        for (event_type, version, file) in self.files() {
            if let Some(released) = self.lock.get(event_type, version.as_str())
                && released.sha256 != file.sha256
            {
                let what = format!(
                    "a released schema changed: sha256 {}, {}:{} says {}",
                    file.sha256, self.lock_name, released.line, released.sha256
                );
                faults.push(
                    Fault::new(&file.path, Rule::Changed, what).advise(
                        "restore the file; put the change into a new version and run `eb schema lock`",
                    ),
                );
            }
            if let Err(own) = &file.schema {
                faults.extend(own.iter().cloned());
            }
        }
        faults.extend(self.incompatible(require));
        faults
    }

    fn files(&self) -> impl Iterator<Item = (&str, &Version, &File)> {
        self.types
            .iter()
            .flat_map(|(t, versions)| versions.iter().map(move |(v, file)| (t.as_str(), v, file)))
    }

    fn incompatible(&self, require: Requirement) -> Vec<Fault> {
        let mut faults = Vec::new();
        for versions in self.types.values() {
            let pairs = versions.iter().zip(versions.iter().skip(1));
            for ((before, old), (version, new)) in pairs.filter(|((b, _), (v, _))| b.major() == v.major()) {
                let (Ok(was), Ok(is)) = (&old.schema, &new.schema) else { continue };
                let comparison = compare(was, is);
                if require.is_met(&comparison) {
                    continue;
                }
                faults.extend(breaks(require, &comparison).map(|(direction, finding)| {
                    let what = format!("not {direction} compatible with {before}: {}", finding.message);
                    Fault::new(&new.path, Rule::Incompatible, what)
                        .at(&finding.pointer)
                        .advise(format!("mend it, or release it as {}", version.major() + 1))
                }));
            }
        }
        faults
    }

    /// The lock with a line for each version that has none yet, and which those are.
    ///
    /// # Errors
    /// What [`Catalogue::check_before_release`] finds: a version is released only where nothing is wrong, since it is for good.
    pub fn lock_new(&self, require: Requirement) -> Result<Release, Vec<Fault>> {
        let faults = self.check_before_release(require);
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut lock = self.lock.clone();
        let mut added = Vec::new();
        for (event_type, version, file) in self.files() {
            if lock.get(event_type, version.as_str()).is_none() {
                lock.add(event_type, version, file.sha256.clone());
                added.push((event_type.to_owned(), version.clone()));
            }
        }
        Ok(Release { lock, added })
    }
}

/// What of a comparison stands against a requirement.
fn breaks(require: Requirement, comparison: &Comparison) -> impl Iterator<Item = (&'static str, &Finding)> {
    let backward = matches!(require, Requirement::Backward | Requirement::Full);
    let forward = matches!(require, Requirement::Forward | Requirement::Full);
    comparison.changes.iter().flat_map(move |change| {
        let of = |wanted: bool, findings: &'static str| wanted.then_some(findings);
        let b = of(backward, "backward")
            .into_iter()
            .flat_map(|d| change.breaks_backward.iter().map(move |f| (d, f)));
        let f = of(forward, "forward")
            .into_iter()
            .flat_map(|d| change.breaks_forward.iter().map(move |f| (d, f)));
        b.chain(f)
    })
}
