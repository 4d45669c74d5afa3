//! The lock file: which versions are released, and what their bytes are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::fault::{Fault, Rule};
use crate::name::{Version, check_event_type};

const HEADER: &str = "\
# Released event schemas. A line here is for good: the file's bytes never change, and neither does the line.
# A change is a new version in a file of its own; `eb schema lock` adds its line.
# The lines are those of sha256sum: `cd events && sha256sum -c ../events.lock`.
";

/// The most bytes of a lock: 4 MiB, some 40,000 versions.
const MAX_BYTES: usize = 4 << 20;

/// A released version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// SHA-256 of the file's bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The 1-based line of the lock; 0 for one that was added since it was read.
    pub line: usize,
}

/// The released versions, by event type and version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    entries: BTreeMap<String, BTreeMap<Version, Released>>,
}

impl Lock {
    /// Reads a lock. `name` is what faults call it.
    ///
    /// # Errors
    /// [`Rule::Lock`] with the line of the first thing that is not in order.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Fault> {
        let fault = |line: usize, what: String| {
            Fault::new(name, Rule::Lock, what)
                .line(line)
                .advise("lines are `<sha256>  <event type>/<version>.json`, sorted by type and version; take both sides of a merge")
        };
        if bytes.len() > MAX_BYTES {
            return Err(Fault::new(
                name,
                Rule::Lock,
                format!("{} bytes, a lock has at most {MAX_BYTES}", bytes.len()),
            ));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Fault::new(name, Rule::Lock, format!("not UTF-8 at byte {}", e.valid_up_to())))?;
        let mut lock = Self::default();
        let mut before: Option<(&str, Version)> = None;
        for (i, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = i + 1;
            let (event_type, version, sha256) = entry(line).map_err(|what| fault(number, what))?;
            let here = (event_type, version);
            if let Some(before) = &before
                && *before >= here
            {
                let what = if *before == here { "stands twice" } else { "out of order" };
                return Err(fault(number, format!("{}/{}.json {what}", here.0, here.1)));
            }
            let released = Released { sha256: sha256.to_owned(), line: number };
            lock.entries.entry(here.0.to_owned()).or_default().insert(here.1.clone(), released);
            before = Some(here);
        }
        Ok(lock)
    }

    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for (event_type, version, released) in self.iter() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}  {event_type}/{version}.json", released.sha256);
        }
        text
    }

    /// What is locked under this type and version. A version written in another way (`1.0` for `1.0.0`) is another file and
    /// is not found.
    #[must_use]
    pub fn get(&self, event_type: &str, version: &str) -> Option<&Released> {
        let version = Version::parse(version).ok()?;
        let (known, released) = self.entries.get(event_type)?.get_key_value(&version)?;
        (known.as_str() == version.as_str()).then_some(released)
    }

    /// Every released version: type, version, digest; by type, then by version.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Version, &Released)> {
        self.entries.iter().flat_map(|(t, versions)| versions.iter().map(move |(v, r)| (t.as_str(), v, r)))
    }

    /// The released versions of a type, lowest first.
    pub fn versions(&self, event_type: &str) -> impl Iterator<Item = &Version> {
        self.entries.get(event_type).into_iter().flat_map(BTreeMap::keys)
    }

    /// How many versions are released.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.values().map(BTreeMap::len).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a version; one that is there already stays as it is.
    pub(crate) fn add(&mut self, event_type: &str, version: &Version, sha256: String) {
        let versions = self.entries.entry(event_type.to_owned()).or_default();
        versions.entry(version.clone()).or_insert(Released { sha256, line: 0 });
    }

    /// What an earlier lock had released that this one lacks or says otherwise. `name` is what faults call this one.
    #[must_use]
    pub fn lost_since(&self, earlier: &Self, name: &str) -> Vec<Fault> {
        let lost = earlier.iter().filter_map(|(event_type, version, was)| {
            let path = format!("{event_type}/{version}.json");
            let fault = match self.get(event_type, version.as_str()) {
                None => {
                    Fault::new(name, Rule::Vanished, format!("{path} was released and is gone from the lock"))
                }
                Some(is) if is.sha256 != was.sha256 => Fault::new(
                    name,
                    Rule::Changed,
                    format!(
                        "{path} was released with sha256 {}, now the lock says {}",
                        was.sha256, is.sha256
                    ),
                )
                .line(is.line),
                Some(_) => return None,
            };
            Some(fault.advise("restore the file and its line; a change is a new version"))
        });
        lost.collect()
    }
}

fn entry(line: &str) -> Result<(&str, Version, &str), String> {
    let (sha256, path) = line.split_once("  ").ok_or("not `<sha256>  <path>`")?;
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("a digest is 64 lower-case hexadecimal digits".to_owned());
    }
    let (event_type, file) = path.split_once('/').ok_or("a path is <event type>/<version>.json")?;
    let version = file.strip_suffix(".json").ok_or("a path ends in .json")?;
    check_event_type(event_type)?;
    Ok((event_type, Version::parse(version)?, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(digit: char, path: &str) -> String {
        format!("{}  {path}\n", digit.to_string().repeat(64))
    }

    #[test]
    fn a_lock_reads_back_as_it_was_written() {
        let text = line('a', "a.b/1.9.json") + &line('b', "a.b/1.10.json") + &line('c', "a.c/1.json");
        let lock = Lock::parse("events.lock", text.as_bytes()).unwrap();
        assert_eq!(lock.len(), 3);
        assert_eq!(lock.get("a.b", "1.10").unwrap().line, 2);
        assert!(lock.get("a.b", "1.10.0").is_none(), "another file");
        let again = Lock::parse("events.lock", lock.render().as_bytes()).unwrap();
        assert_eq!(again.render(), lock.render());
        assert!(again.lost_since(&lock, "events.lock").is_empty());
    }

    #[test]
    fn what_is_not_in_order_is_refused_with_its_line() {
        for (text, expected) in [
            (line('a', "a.b/2.json") + &line('a', "a.b/1.json"), "events.lock:2: a.b/1.json out of order"),
            (
                line('a', "a.b/1.json") + &line('b', "a.b/1.0.json"),
                "events.lock:2: a.b/1.0.json stands twice",
            ),
            ("<<<<<<< HEAD\n".to_owned(), "events.lock:1: not `<sha256>  <path>`"),
            (line('A', "a.b/1.json"), "events.lock:1: a digest is 64"),
            (line('a', "../b/1.json"), "events.lock:1: an event type is"),
            (line('a', "a.b/1.txt"), "events.lock:1: a path ends in .json"),
        ] {
            let fault = Lock::parse("events.lock", text.as_bytes()).unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    #[test]
    fn what_an_earlier_lock_released_must_still_be_there() {
        let read = |text: String| Lock::parse("events.lock", text.as_bytes()).unwrap();
        let earlier = read(line('a', "a.b/1.json") + &line('b', "a.b/2.json"));
        let later = read(line('c', "a.b/1.json") + &line('d', "a.b/3.json"));
        let lost = later.lost_since(&earlier, "events.lock");
        assert_eq!(lost.iter().map(|f| f.rule).collect::<Vec<_>>(), [Rule::Changed, Rule::Vanished]);
        assert_eq!(lost[0].line, Some(1));
    }
}
