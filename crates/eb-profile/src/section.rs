//! Reading typed settings out of the tree, so that each knows where it came from and each error where it stands.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ig_gate::yaml::nearest;

use crate::error::{Place, ProfileError};
use crate::interpolate::{self, Env, Expanded, VariableUse};
use crate::secret::{MASK, Secret};
use crate::yaml::{Entry, Node, Value};

/// Where a setting's value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the profile, with the variables that took part.
    Profile {
        /// Where the value stands.
        at: Place,
        /// The variables in it.
        variables: Vec<VariableUse>,
    },
    /// It is not in the profile: what the program takes then.
    Default,
    /// An environment variable that overrides the profile.
    Override {
        /// Its name.
        variable: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile { at, variables } => {
                write!(f, "line {}", at.line)?;
                for v in variables {
                    let how = if v.set { "from the environment" } else { "not set, default taken" };
                    write!(f, ", {} {how}", v.name)?;
                }
                Ok(())
            }
            Self::Default => f.write_str("default"),
            Self::Override { variable } => write!(f, "{variable} in the environment"),
        }
    }
}

/// A setting as resolved, for showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key with its path.
    pub key: String,
    /// The value; a mask for secrets.
    pub value: String,
    /// Whether the value is masked.
    pub secret: bool,
    /// Where it came from.
    pub origin: Origin,
}

/// What one reading of a profile shares.
pub(crate) struct Reading<'a> {
    pub(crate) file: &'a str,
    pub(crate) env: &'a Env,
    pub(crate) settings: RefCell<Vec<Setting>>,
}

impl Reading<'_> {
    pub(crate) fn error(&self, at: Place, key: &str, message: impl Into<String>) -> ProfileError {
        ProfileError::new(self.file, message).at(at).key(key)
    }

    pub(crate) fn record(&self, key: &str, value: String, secret: bool, origin: Origin) {
        let value = if secret { MASK.to_owned() } else { value };
        self.settings.borrow_mut().push(Setting { key: key.to_owned(), value, secret, origin });
    }
}

/// A map of the profile whose keys have been checked.
pub(crate) struct Section<'a> {
    pub(crate) reading: &'a Reading<'a>,
    path: String,
    pub(crate) at: Place,
    entries: &'a [Entry],
}

/// A single value: text with its variables replaced, and its place.
pub(crate) struct Scalar<'a> {
    reading: &'a Reading<'a>,
    pub(crate) key: String,
    pub(crate) at: Place,
    expanded: Expanded,
}

impl<'a> Section<'a> {
    /// The root, with these keys and no others.
    pub(crate) fn root(
        reading: &'a Reading<'a>,
        node: &'a Node,
        known: &[&str],
    ) -> Result<Self, ProfileError> {
        Self::open(reading, String::new(), node, node.at, Some(known))
    }

    fn open(
        reading: &'a Reading<'a>,
        path: String,
        node: &'a Node,
        at: Place,
        known: Option<&[&str]>,
    ) -> Result<Self, ProfileError> {
        let Value::Map(entries) = &node.value else {
            let what = match known {
                Some(known) => format!("a map with {} belongs here", known.join(", ")),
                None => "a map belongs here".to_owned(),
            };
            return Err(reading.error(node.at, &path, what));
        };
        let section = Self { reading, path, at, entries };
        if let Some(known) = known {
            for entry in entries {
                if !known.contains(&entry.key.as_str()) {
                    let error = reading.error(entry.at, &section.full(&entry.key), "unknown key");
                    return Err(error.advise(suggestion(&entry.key, known)));
                }
            }
        }
        Ok(section)
    }

    /// A key with this section's path.
    pub(crate) fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|e| e.key == key && e.value.value != Value::Null)
    }

    pub(crate) fn missing(&self, key: &str, why: &str) -> ProfileError {
        self.reading.error(self.at, &self.full(key), format!("missing{why}"))
    }

    /// A section that must be there.
    pub(crate) fn section(&self, key: &str, known: &[&str]) -> Result<Section<'a>, ProfileError> {
        self.optional_section(key, Some(known))?.ok_or_else(|| self.missing(key, ""))
    }

    /// A section that may be missing; `known` is `None` where its keys are names of the profile's own.
    pub(crate) fn optional_section(
        &self,
        key: &str,
        known: Option<&[&str]>,
    ) -> Result<Option<Section<'a>>, ProfileError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        Self::open(self.reading, self.full(key), &entry.value, entry.at, known).map(Some)
    }

    /// A section that counts as empty where it is missing.
    pub(crate) fn section_or_empty(&self, key: &str, known: &[&str]) -> Result<Section<'a>, ProfileError> {
        let missing = || Section { reading: self.reading, path: self.full(key), at: self.at, entries: &[] };
        Ok(self.optional_section(key, Some(known))?.unwrap_or_else(missing))
    }

    /// The keys in the order of the file.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'a str, Place)> {
        self.entries.iter().map(|e| (e.key.as_str(), e.at))
    }

    /// A single value that may be missing.
    pub(crate) fn optional(&self, key: &str) -> Result<Option<Scalar<'a>>, ProfileError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let full = self.full(key);
        let Value::Scalar(raw) = &entry.value.value else {
            return Err(self.reading.error(entry.value.at, &full, "one value belongs here, not a map"));
        };
        let expanded = interpolate::expand(raw, self.reading.env).map_err(|fault| {
            // A block scalar's text starts on a later line: name the value's start then.
            let column = if raw.contains('\n') { 0 } else { fault.at };
            let at = Place { column: entry.value.at.column + column, ..entry.value.at };
            let error = self.reading.error(at, &full, fault.message);
            fault.advice.into_iter().fold(error, ProfileError::advise)
        })?;
        Ok(Some(Scalar { reading: self.reading, key: full, at: entry.value.at, expanded }))
    }

    /// A single value that must be there.
    pub(crate) fn required(&self, key: &str) -> Result<Scalar<'a>, ProfileError> {
        self.optional(key)?.ok_or_else(|| self.missing(key, ""))
    }

    /// A whole number, or what the program takes where there is none.
    pub(crate) fn number_or(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, ProfileError> {
        match self.optional(key)? {
            Some(value) => value.number(range),
            None => Ok(self.defaulted(key, default)),
        }
    }

    /// `true` or `false`, or what the program takes where there is neither.
    pub(crate) fn boolean_or(&self, key: &str, default: bool) -> Result<bool, ProfileError> {
        match self.optional(key)? {
            Some(value) => value.boolean(),
            None => Ok(self.defaulted(key, default)),
        }
    }

    /// A text, or what the program takes where there is none.
    pub(crate) fn text_or(&self, key: &str, max_chars: usize, default: &str) -> Result<String, ProfileError> {
        match self.optional(key)? {
            Some(value) => value.text(max_chars),
            None => Ok(self.defaulted(key, default.to_owned())),
        }
    }

    /// One of several words; the first of them where there is none.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Result<T, ProfileError> {
        match (self.optional(key)?, choices) {
            (Some(value), _) => value.one_of(choices),
            (None, [(name, value), ..]) => {
                self.defaulted(key, *name);
                Ok(*value)
            }
            (None, []) => Err(self.missing(key, "")),
        }
    }

    /// Records a value that the profile leaves to the program.
    pub(crate) fn defaulted<T: fmt::Display>(&self, key: &str, value: T) -> T {
        self.reading.record(&self.full(key), value.to_string(), false, Origin::Default);
        value
    }
}

impl Scalar<'_> {
    /// Whether its variables have left nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.expanded.text.is_empty()
    }

    /// An error about this value. The message must not quote it where it may be secret; see [`Scalar::shown`].
    pub(crate) fn error(&self, message: impl Into<String>) -> ProfileError {
        self.reading.error(self.at, &self.key, message)
    }

    /// The value for a message: short, and masked where it is secret.
    pub(crate) fn shown(&self) -> String {
        if self.expanded.secret {
            return MASK.to_owned();
        }
        self.expanded.text.chars().take(64).collect()
    }

    fn record(&self, secret: bool) {
        let origin = Origin::Profile { at: self.at, variables: self.expanded.variables.clone() };
        let secret = secret || self.expanded.secret;
        self.reading.record(&self.key, self.expanded.text.clone(), secret, origin);
    }

    /// Text of 1 to `max_chars` characters without control characters.
    pub(crate) fn text(self, max_chars: usize) -> Result<String, ProfileError> {
        if self.expanded.text.is_empty() {
            return Err(self.error("it is empty"));
        }
        if self.expanded.text.chars().any(char::is_control) {
            return Err(self.error("it holds a control character"));
        }
        let chars = self.expanded.text.chars().count();
        if chars > max_chars {
            return Err(self.error(format!("{chars} characters, the limit is {max_chars}")));
        }
        self.record(false);
        Ok(self.expanded.text)
    }

    /// A path, from `base` on where it is relative.
    pub(crate) fn path_from(mut self, base: &Path) -> Result<PathBuf, ProfileError> {
        let path = base.join(&self.expanded.text);
        // Shown as resolved; an empty one is refused below.
        if !self.expanded.text.is_empty() {
            self.expanded.text = path.display().to_string();
        }
        self.text(interpolate::MAX_EXPANDED_BYTES)?;
        Ok(path)
    }

    /// A secret.
    pub(crate) fn secret(self) -> Result<Secret, ProfileError> {
        self.secret_if(|_| Ok(()))
    }

    /// A secret that has a form of its own. What the check says must not quote it.
    pub(crate) fn secret_if(
        self,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Result<Secret, ProfileError> {
        if self.expanded.text.is_empty() {
            return Err(self.error("it is empty"));
        }
        check(&self.expanded.text).map_err(|what| self.error(what))?;
        self.record(true);
        Ok(Secret::new(self.expanded.text))
    }

    /// A whole number within a range.
    pub(crate) fn number(self, range: RangeInclusive<u64>) -> Result<u64, ProfileError> {
        let parsed = self.expanded.text.parse::<u64>().ok().filter(|n| range.contains(n));
        let Some(number) = parsed else {
            let (low, high) = (range.start(), range.end());
            return Err(self.error(format!("`{}` is not a whole number from {low} to {high}", self.shown())));
        };
        self.record(false);
        Ok(number)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(self) -> Result<bool, ProfileError> {
        let value = match self.expanded.text.as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(self.error(format!("`{}` is neither true nor false", self.shown()))),
        };
        self.record(false);
        Ok(value)
    }

    /// One of several words.
    pub(crate) fn one_of<T: Copy>(self, choices: &[(&'static str, T)]) -> Result<T, ProfileError> {
        let found = choices.iter().find(|(name, _)| *name == self.expanded.text);
        let Some((_, value)) = found else {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let error = self.error(format!("`{}` is not one of them", self.shown()));
            return Err(error.advise(suggestion(&self.expanded.text, &names)));
        };
        self.record(false);
        Ok(*value)
    }
}

/// "did you mean …" where one is near, and else what there is.
pub(crate) fn suggestion(wrong: &str, known: &[&str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
