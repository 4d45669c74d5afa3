//! The schema policy: which versions of a payload are taken, and what they must look like.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use canonical_envelope::Envelope;
use serde::Deserialize;
use serde_saphyr::Spanned;
use sha2::{Digest as _, Sha256};

use super::payload::{Payload, PayloadJson};
use super::{ClassMap, hex};
use crate::reason::{Detail, ReasonCode};
use crate::yaml::{self, ConfigError};

/// A compiled payload schema.
type Validator = jsonschema::Validator<PayloadJson>;

/// In a schema's reference, replaced by each allowed version in turn.
const VERSION_PLACEHOLDER: &str = "{schema_version}";
/// How many faults of a payload are reported at most.
const MAX_DETAILS: usize = 16;

/// What happens to event types that have no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultAction {
    /// They are quarantined as [`ReasonCode::SchemaPolicyMissing`].
    Quarantine,
    /// They are admitted without a look at their payload.
    Admit,
}

/// The policies of all event types, their payload schemas compiled.
#[derive(Debug, Clone)]
pub struct SchemaPolicy {
    default_action: DefaultAction,
    by_type: HashMap<String, TypePolicy>,
}

#[derive(Debug, Clone)]
struct TypePolicy {
    version_required: bool,
    allowed_versions: Vec<String>,
    schemas: Schemas,
}

#[derive(Debug, Clone)]
enum Schemas {
    None,
    One(Arc<Validator>),
    ByVersion(HashMap<String, Arc<Validator>>),
}

/// Gives the bytes of a payload schema by its reference, which is a relative path without `..`.
pub type SchemaSource<'s> = dyn Fn(&str) -> Result<Vec<u8>, String> + 's;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<String>,
    default_action: DefaultAction,
    policies: Vec<Entry>,
    /// SHA-256 of each released payload schema, by its reference.
    #[serde(default)]
    payload_schema_digests: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    event_type: Spanned<String>,
    class: Option<Spanned<String>>,
    #[serde(default)]
    schema_version_required: bool,
    #[serde(default)]
    allowed_schema_versions: Vec<Spanned<String>>,
    payload_schema_ref: Option<Spanned<String>>,
}

impl SchemaPolicy {
    /// Reads a file, fetches the payload schemas that it names from `source`, checks each against its pinned digest
    /// and compiles it. `name` is what errors call the file.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of what is wrong: also for a schema that is not pinned, or whose bytes differ
    /// from the pinned ones (a released schema never changes; a new version is a new file).
    pub fn from_yaml(
        name: &str,
        bytes: &[u8],
        classes: &ClassMap,
        source: &SchemaSource<'_>,
    ) -> Result<Self, ConfigError> {
        let file: File = yaml::parse(name, bytes)?;
        super::check_version(name, &file.version)?;
        let mut loader = Loader { name, source, pins: &file.payload_schema_digests, loaded: HashMap::new() };
        let mut by_type = HashMap::new();
        for entry in &file.policies {
            let event_type = &entry.event_type.value;
            if let Some(class) = &entry.class {
                let mapped = classes.class_of(event_type).name();
                if mapped != class.value {
                    let message = format!("`{}`, but the class map says `{mapped}`", class.value);
                    return Err(ConfigError::new(name, message)
                        .key(format!("policies.{event_type}.class"))
                        .at(class.referenced));
                }
            }
            let policy = TypePolicy {
                version_required: entry.schema_version_required,
                allowed_versions: entry.allowed_schema_versions.iter().map(|v| v.value.clone()).collect(),
                schemas: loader.schemas(entry)?,
            };
            if by_type.insert(event_type.clone(), policy).is_some() {
                return Err(ConfigError::new(name, "has two policies")
                    .key(format!("policies.{event_type}"))
                    .at(entry.event_type.referenced));
            }
        }
        Ok(Self { default_action: file.default_action, by_type })
    }

    /// Checks version and payload of an envelope.
    ///
    /// # Errors
    /// The reason to quarantine it, with details.
    pub(crate) fn check(&self, envelope: &Envelope<'_>) -> Result<(), (ReasonCode, Vec<Detail>)> {
        let Some(policy) = self.by_type.get(envelope.event_type()) else {
            return match self.default_action {
                DefaultAction::Admit => Ok(()),
                DefaultAction::Quarantine => Err((
                    ReasonCode::SchemaPolicyMissing,
                    vec![Detail::new("event_type", "has no schema policy, and the default is to quarantine")],
                )),
            };
        };
        match envelope.schema_version() {
            None if policy.version_required => {
                let detail = Detail::new("schema_version", "is required for this event type");
                return Err((ReasonCode::SchemaVersionRequired, vec![detail]));
            }
            Some(version)
                if !policy.allowed_versions.is_empty()
                    && !policy.allowed_versions.iter().any(|v| v == version) =>
            {
                let allowed = policy.allowed_versions.join(", ");
                let detail = Detail::new("schema_version", format!("is not one of {allowed}"));
                return Err((ReasonCode::SchemaVersionNotAllowed, vec![detail]));
            }
            _ => {}
        }
        policy.check_payload(envelope).map_err(|details| (ReasonCode::SchemaFail, details))
    }
}

impl TypePolicy {
    fn check_payload(&self, envelope: &Envelope<'_>) -> Result<(), Vec<Detail>> {
        let validator = match &self.schemas {
            Schemas::None => return Ok(()),
            Schemas::One(validator) => validator,
            Schemas::ByVersion(by_version) => {
                // One schema per version: loading made sure that a version is required and each allowed one has its own.
                match envelope.schema_version().and_then(|v| by_version.get(v)) {
                    Some(validator) => validator,
                    None => return Err(vec![Detail::new("schema_version", "has no payload schema")]),
                }
            }
        };
        let Some(payload) = envelope.payload() else {
            return Err(vec![Detail::new("payload", "is required for this event type")]);
        };
        let payload: Payload<'_> = serde_json::from_str(payload)
            .map_err(|e| vec![Detail::new("payload", format!("cannot be checked: {e}"))])?;
        if validator.is_valid(&payload) {
            return Ok(());
        }
        let faults = validator.iter_errors(&payload).take(MAX_DETAILS);
        // Values stay out of the text: the evidence has them, and only there they belong.
        Err(faults
            .map(|e| Detail::new(format!("payload{}", e.instance_path()), e.masked().to_string()))
            .collect())
    }
}

struct Loader<'l> {
    name: &'l str,
    source: &'l SchemaSource<'l>,
    pins: &'l BTreeMap<String, Spanned<String>>,
    loaded: HashMap<String, Arc<Validator>>,
}

impl Loader<'_> {
    fn schemas(&mut self, entry: &Entry) -> Result<Schemas, ConfigError> {
        let Some(reference) = &entry.payload_schema_ref else { return Ok(Schemas::None) };
        if !reference.value.contains(VERSION_PLACEHOLDER) {
            return Ok(Schemas::One(self.load(entry, reference, &reference.value)?));
        }
        if !entry.schema_version_required || entry.allowed_schema_versions.is_empty() {
            let message = format!(
                "{VERSION_PLACEHOLDER} needs `schema_version_required: true` and `allowed_schema_versions`"
            );
            return Err(self.error(entry, reference, message));
        }
        let mut by_version = HashMap::new();
        for version in &entry.allowed_schema_versions {
            let path = reference.value.replace(VERSION_PLACEHOLDER, &version.value);
            by_version.insert(version.value.clone(), self.load(entry, reference, &path)?);
        }
        Ok(Schemas::ByVersion(by_version))
    }

    fn error(&self, entry: &Entry, reference: &Spanned<String>, message: String) -> ConfigError {
        ConfigError::new(self.name, message)
            .key(format!("policies.{}.payload_schema_ref", entry.event_type.value))
            .at(reference.referenced)
    }

    fn load(
        &mut self,
        entry: &Entry,
        reference: &Spanned<String>,
        path: &str,
    ) -> Result<Arc<Validator>, ConfigError> {
        if let Some(loaded) = self.loaded.get(path) {
            return Ok(Arc::clone(loaded));
        }
        if path.starts_with('/')
            || path.contains('\\')
            || path.split('/').any(|p| matches!(p, "" | "." | ".."))
        {
            return Err(self.error(entry, reference, format!("`{path}` is not a plain relative path")));
        }
        let bytes = (self.source)(path)
            .map_err(|e| self.error(entry, reference, format!("cannot read {path}: {e}")))?;
        let found = hex(&Sha256::digest(&bytes));
        let Some(pinned) = self.pins.get(path) else {
            let message = format!("{path} is not pinned; add `{path}: {found}` under payload_schema_digests");
            return Err(self.error(entry, reference, message));
        };
        if pinned.value != found {
            let message = format!(
                "the file has sha256 {found}, pinned is {}; a released schema never changes, a new version is a new file",
                pinned.value
            );
            return Err(ConfigError::new(self.name, message)
                .key(format!("payload_schema_digests.{path}"))
                .at(pinned.referenced));
        }
        let schema: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| self.error(entry, reference, format!("{path} is not JSON: {e}")))?;
        let compiled = jsonschema::options_for::<PayloadJson>()
            .offline()
            .build(&schema)
            .map_err(|e| self.error(entry, reference, format!("{path} is not a JSON Schema: {e}")))?;
        let compiled = Arc::new(compiled);
        self.loaded.insert(path.to_owned(), Arc::clone(&compiled));
        Ok(compiled)
    }
}
