//! The schema policy: which versions of a payload are taken, and what they must look like.
//!
//! With `event_schemas: events` a payload is checked by the schema of its own type and version, `events/<event type>/<version>.json`,
//! whose bytes must be those that `events.lock` released (the layout and the lock are [`eb_schema`]'s). Every allowed version
//! needs one, unless the policy of the type says `payload_schema: none`. A type whose schemas lie elsewhere names them with
//! `payload_schema_ref` and pins each under `payload_schema_digests`; without `event_schemas` that is the only way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use canonical_envelope::Envelope;
use eb_schema::Lock;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::ClassMap;
use super::payload::{Payload, PayloadJson};
use crate::reason::{Detail, ReasonCode};
use crate::yaml::{self, ConfigError};

/// A compiled payload schema.
type Validator = jsonschema::Validator<PayloadJson>;

/// In a schema's reference, replaced by each allowed version in turn.
const VERSION_PLACEHOLDER: &str = "{schema_version}";
/// What mends a schema that is not as it was released.
const ADVICE: &str = "`eb schema check` shows everything; a released schema never changes, a new version is a new file, and `eb schema lock` releases it";
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
    /// The lock's bytes, where the policy has one: they are a part of it.
    lock: Option<Arc<str>>,
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
    /// The folder of versioned schemas; its lock lies beside it.
    event_schemas: Option<Spanned<String>>,
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
    payload_schema: Option<Spanned<PayloadSchema>>,
    payload_schema_ref: Option<Spanned<String>>,
}

/// Which schema checks a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PayloadSchema {
    /// The released one of its type and version.
    Released,
    /// None: any object will do.
    None,
}

impl SchemaPolicy {
    /// Reads a file, fetches lock and payload schemas from `source`, checks each schema against its released digest
    /// and compiles it. `name` is what errors call the file.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of what is wrong: also for a schema that is not released, or whose bytes differ
    /// from the released ones (a released schema never changes; a new version is a new file).
    pub fn from_yaml(
        name: &str,
        bytes: &[u8],
        classes: &ClassMap,
        source: &SchemaSource<'_>,
    ) -> Result<Self, ConfigError> {
        let file: File = yaml::parse(name, bytes)?;
        super::check_version(name, &file.version)?;
        let released =
            file.event_schemas.as_ref().map(|folder| Released::read(name, folder, source)).transpose()?;
        let pins = &file.payload_schema_digests;
        let mut loader = Loader { name, source, pins, released: released.as_ref(), loaded: HashMap::new() };
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
        let lock = released.map(|released| released.text.into());
        Ok(Self { default_action: file.default_action, by_type, lock })
    }

    /// The bytes of the lock that the policy stands on.
    pub(super) fn lock(&self) -> Option<&[u8]> {
        self.lock.as_deref().map(str::as_bytes)
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

/// The versioned schemas and what is released of them.
struct Released {
    folder: String,
    lock: Lock,
    text: String,
}

impl Released {
    fn read(name: &str, folder: &Spanned<String>, source: &SchemaSource<'_>) -> Result<Self, ConfigError> {
        let error = |what: String| ConfigError::new(name, what).key("event_schemas").at(folder.referenced);
        let path = plain(&folder.value).map_err(error)?;
        let lock_name = format!("{path}.lock");
        let bytes = source(&lock_name)
            .map_err(|e| error(format!("cannot read {lock_name}: {e}; `eb schema lock` makes it")))?;
        let lock = Lock::parse(&lock_name, &bytes).map_err(|fault| error(fault.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|e| error(format!("{lock_name}: {e}")))?;
        Ok(Self { folder: path.to_owned(), lock, text })
    }
}

/// A relative path that leads nowhere but down.
fn plain(path: &str) -> Result<&str, String> {
    let plain = !path.starts_with('/')
        && !path.contains('\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain { Ok(path) } else { Err(format!("`{path}` is not a plain relative path")) }
}

struct Loader<'l> {
    name: &'l str,
    source: &'l SchemaSource<'l>,
    pins: &'l BTreeMap<String, Spanned<String>>,
    released: Option<&'l Released>,
    loaded: HashMap<String, Arc<Validator>>,
}

impl Loader<'_> {
    fn schemas(&mut self, entry: &Entry) -> Result<Schemas, ConfigError> {
        if let (Some(said), Some(_)) = (&entry.payload_schema, &entry.payload_schema_ref) {
            let error =
                ConfigError::new(self.name, "stands beside payload_schema_ref; one of them is enough");
            return Err(error
                .key(format!("policies.{}.payload_schema", entry.event_type.value))
                .at(said.referenced));
        }
        if let Some(reference) = &entry.payload_schema_ref {
            return self.referred(entry, reference);
        }
        match (entry.payload_schema.as_ref().map(|said| said.value), self.released) {
            (Some(PayloadSchema::None), _) | (None, None) => Ok(Schemas::None),
            (Some(PayloadSchema::Released), None) => Err(self.error(
                entry,
                "payload_schema",
                "needs `event_schemas` at the top of the file".to_owned(),
            )),
            (_, Some(released)) => self.by_version(entry, released),
        }
    }

    /// The released schema of each allowed version.
    fn by_version(&self, entry: &Entry, released: &Released) -> Result<Schemas, ConfigError> {
        let event_type = &entry.event_type.value;
        if !entry.schema_version_required || entry.allowed_schema_versions.is_empty() {
            let message = "schemas by version need `schema_version_required: true` and `allowed_schema_versions`, or `payload_schema: none`";
            return Err(self.error(entry, "payload_schema", message.to_owned()));
        }
        let mut by_version = HashMap::new();
        for version in &entry.allowed_schema_versions {
            let error = |what: String| {
                ConfigError::new(self.name, what)
                    .key(format!("policies.{event_type}.allowed_schema_versions"))
                    .at(version.referenced)
            };
            let below = eb_schema::path_of(event_type, &version.value).map_err(|e| error(e.to_owned()))?;
            let path = format!("{}/{below}", released.folder);
            let Some(locked) = released.lock.get(event_type, &version.value) else {
                let known: Vec<_> = released.lock.versions(event_type).map(ToString::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!(
                    "{path} is not released: {}.lock has no line for it (released: {known}); {ADVICE}, or say `payload_schema: none`",
                    released.folder
                );
                return Err(error(message));
            };
            let bytes =
                (self.source)(&path).map_err(|e| error(format!("cannot read {path}: {e}; {ADVICE}")))?;
            let found = eb_schema::sha256(&bytes);
            if found != locked.sha256 {
                let message = format!(
                    "{path} has sha256 {found}, {}.lock:{} says {}; {ADVICE}",
                    released.folder, locked.line, locked.sha256
                );
                return Err(error(message));
            }
            let schema = eb_schema::Schema::read(&path, event_type, &version.value, &bytes)
                .map_err(|faults| error(faults.first().map(ToString::to_string).unwrap_or_default()))?;
            let compiled = compile(&path, schema.value()).map_err(error)?;
            by_version.insert(version.value.clone(), Arc::new(compiled));
        }
        Ok(Schemas::ByVersion(by_version))
    }

    /// Schemas that lie elsewhere.
    fn referred(&mut self, entry: &Entry, reference: &Spanned<String>) -> Result<Schemas, ConfigError> {
        if !reference.value.contains(VERSION_PLACEHOLDER) {
            return Ok(Schemas::One(self.load(entry, &reference.value)?));
        }
        if !entry.schema_version_required || entry.allowed_schema_versions.is_empty() {
            let message = format!(
                "{VERSION_PLACEHOLDER} needs `schema_version_required: true` and `allowed_schema_versions`"
            );
            return Err(self.error(entry, "payload_schema_ref", message));
        }
        let mut by_version = HashMap::new();
        for version in &entry.allowed_schema_versions {
            let path = reference.value.replace(VERSION_PLACEHOLDER, &version.value);
            by_version.insert(version.value.clone(), self.load(entry, &path)?);
        }
        Ok(Schemas::ByVersion(by_version))
    }

    /// At what the entry says under `key`, and else at the entry itself.
    fn error(&self, entry: &Entry, key: &str, message: String) -> ConfigError {
        let at = match key {
            "payload_schema" => entry.payload_schema.as_ref().map(|said| said.referenced),
            _ => entry.payload_schema_ref.as_ref().map(|reference| reference.referenced),
        };
        ConfigError::new(self.name, message)
            .key(format!("policies.{}.{key}", entry.event_type.value))
            .at(at.unwrap_or(entry.event_type.referenced))
    }

    fn load(&mut self, entry: &Entry, path: &str) -> Result<Arc<Validator>, ConfigError> {
        if let Some(loaded) = self.loaded.get(path) {
            return Ok(Arc::clone(loaded));
        }
        let error = |message: String| self.error(entry, "payload_schema_ref", message);
        plain(path).map_err(error)?;
        let bytes = (self.source)(path).map_err(|e| error(format!("cannot read {path}: {e}")))?;
        let found = eb_schema::sha256(&bytes);
        let Some(pinned) = self.pins.get(path) else {
            return Err(error(format!(
                "{path} is not pinned; add `{path}: {found}` under payload_schema_digests"
            )));
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
        let schema: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| error(format!("{path} is not JSON: {e}")))?;
        let compiled = Arc::new(compile(path, &schema).map_err(error)?);
        self.loaded.insert(path.to_owned(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

fn compile(path: &str, schema: &serde_json::Value) -> Result<Validator, String> {
    let compiled = jsonschema::options_for::<PayloadJson>().offline().build(schema);
    compiled.map_err(|e| format!("{path} is not a JSON Schema: {e}"))
}
