//! The class map: which class an event type has, and which pins a class requires.

use std::collections::{BTreeMap, HashMap};

use canonical_envelope::{Envelope, Field};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::yaml::{self, ConfigError};

/// The class of event types that the map does not list.
pub const DEFAULT_CLASS: &str = "traffic";

/// The fields that a class may require.
pub const PINS: [Field; 7] = [
    Field::ManifestFingerprint,
    Field::ParameterHash,
    Field::Seed,
    Field::ScenarioId,
    Field::RunId,
    Field::PlatformRunId,
    Field::ScenarioRunId,
];

/// Classes and the event types in them.
#[derive(Debug, Clone)]
pub struct ClassMap {
    classes: Vec<Class>,
    by_type: HashMap<String, usize>,
    default: usize,
}

/// One class.
#[derive(Debug, Clone)]
pub struct Class {
    name: String,
    required_pins: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<String>,
    classes: BTreeMap<String, ClassEntry>,
    event_types: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassEntry {
    required_pins: Vec<Spanned<String>>,
}

impl ClassMap {
    /// Reads a file. `name` is what errors call it.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of what is wrong.
    pub fn from_yaml(name: &str, bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: File = yaml::parse(name, bytes)?;
        super::check_version(name, &file.version)?;
        let mut classes = Vec::new();
        for (class, entry) in file.classes {
            let pins = entry.required_pins.iter().map(|pin| {
                let field = Field::from_name(&pin.value).filter(|f| PINS.contains(f));
                field.ok_or_else(|| {
                    ConfigError::new(name, format!("`{}` is not a pin", pin.value))
                        .key(format!("classes.{class}.required_pins"))
                        .at(pin.referenced)
                        .suggest(&pin.value, PINS.iter().map(|f| f.name()))
                })
            });
            let required_pins = pins.collect::<Result<_, _>>()?;
            classes.push(Class { name: class, required_pins });
        }
        let find = |wanted: &str| classes.iter().position(|c| c.name == wanted);
        let default = find(DEFAULT_CLASS).ok_or_else(|| {
            let message =
                format!("class `{DEFAULT_CLASS}` is required: event types that are not listed belong to it");
            ConfigError::new(name, message).key("classes")
        })?;
        let mut by_type = HashMap::new();
        for (event_type, class) in &file.event_types {
            let index = find(&class.value).ok_or_else(|| {
                ConfigError::new(name, format!("unknown class `{}`", class.value))
                    .key(format!("event_types.{event_type}"))
                    .at(class.referenced)
                    .suggest(&class.value, classes.iter().map(|c| c.name.as_str()))
            })?;
            by_type.insert(event_type.clone(), index);
        }
        Ok(Self { classes, by_type, default })
    }

    /// All classes, by name.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The class of an event type.
    #[must_use]
    pub fn class_of(&self, event_type: &str) -> &Class {
        &self.classes[self.index_of(event_type)]
    }

    /// The place of an event type's class in [`ClassMap::classes`].
    pub(crate) fn index_of(&self, event_type: &str) -> usize {
        self.by_type.get(event_type).copied().unwrap_or(self.default)
    }
}

impl Class {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields that its events must have.
    #[must_use]
    pub fn required_pins(&self) -> &[Field] {
        &self.required_pins
    }

    /// The required pins that an envelope lacks.
    pub(crate) fn missing_pins<'s>(&'s self, envelope: &'s Envelope<'_>) -> impl Iterator<Item = Field> + 's {
        self.required_pins.iter().copied().filter(|pin| !envelope.has(*pin))
    }
}
