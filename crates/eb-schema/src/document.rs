//! One schema file: strict JSON within limits, a valid schema, named as its place says.

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sha2::{Digest as _, Sha256};

use crate::fault::{Fault, Rule};
use crate::reach;
use crate::vocabulary::{self, child};

/// The most bytes of one schema file: 256 KiB.
pub const MAX_BYTES: usize = 256 << 10;
/// The deepest nesting of one schema file.
pub const MAX_DEPTH: usize = 64;
/// The most values of one schema file, keys not counted.
pub const MAX_VALUES: usize = 20_000;

/// What `$schema` says.
pub const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema that was read and checked by itself.
#[derive(Debug, Clone)]
pub struct Schema {
    value: Value,
    sha256: String,
}

impl Schema {
    /// Reads a schema's bytes. `file` is what faults call it; type and version are what its place says.
    ///
    /// # Errors
    /// Everything that is wrong with it, at least one fault.
    pub fn read(file: &str, event_type: &str, version: &str, bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        let value = parse(file, bytes).map_err(|fault| vec![fault])?;
        let mut faults = Vec::new();
        let Value::Object(root) = &value else {
            return Err(vec![
                Fault::new(file, Rule::Schema, "a payload is an object, and so is its schema").at(""),
            ]);
        };
        check_identity(file, root, event_type, version, &mut faults);
        check_keywords(file, &value, &mut faults);
        reach::check(file, &value, &mut faults);
        if !faults.is_empty() {
            // What is wrong already is not handed to a compiler: chains may be too long for its stack.
            return Err(faults);
        }
        if let Err(error) = jsonschema::options().offline().build(&value) {
            let what = format!("not a JSON Schema of draft 2020-12: {}", error.masked());
            faults.push(Fault::new(file, Rule::Schema, what).at(error.instance_path().to_string()));
        }
        if faults.is_empty() { Ok(Self { value, sha256: sha256(bytes) }) } else { Err(faults) }
    }

    /// The schema as JSON.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// SHA-256 of the file's bytes.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its title.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.value.get("title")?.as_str()
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, b| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn check_identity(
    file: &str,
    root: &Map<String, Value>,
    event_type: &str,
    version: &str,
    faults: &mut Vec<Fault>,
) {
    if root.get("$schema").and_then(Value::as_str) != Some(DRAFT) {
        faults
            .push(Fault::new(file, Rule::Identity, format!("`$schema` must be \"{DRAFT}\"")).at("/$schema"));
    }
    let agrees = |id: &str| {
        let id = id.strip_suffix(".json").unwrap_or(id);
        let id = id.strip_suffix(version).and_then(|id| id.strip_suffix([':', '/']));
        id.and_then(|id| id.strip_suffix(event_type))
            .is_some_and(|id| id.is_empty() || id.ends_with([':', '/']))
    };
    let id = root.get("$id").and_then(Value::as_str);
    if !id.is_some_and(agrees) {
        let what = match id {
            Some(id) => format!("`$id` is \"{id}\", but its place says {event_type} {version}"),
            None => "has no `$id`".to_owned(),
        };
        faults.push(
            Fault::new(file, Rule::Identity, what)
                .at("/$id")
                .advise(format!("such as \"urn:event-bus:schema:payload:{event_type}:{version}\"")),
        );
    }
}

/// What the draft would let pass, but no author means.
fn check_keywords(file: &str, root: &Value, faults: &mut Vec<Fault>) {
    let own = root.get("$id").and_then(Value::as_str);
    vocabulary::walk(root, "", &mut |pointer, schema| {
        for (keyword, value) in schema {
            let fault = match keyword.as_str() {
                "$id" | "$schema" if !pointer.is_empty() => {
                    Some(format!("`{keyword}` may stand at the top only: one file is one schema"))
                }
                "$ref" => value
                    .as_str()
                    .filter(|r| !within(r, own))
                    .map(|r| format!("`$ref` \"{r}\" leads out of the file")),
                _ if vocabulary::under(keyword).is_none() && !keyword.starts_with("x-") => {
                    Some(format!("`{keyword}` is no keyword of the draft and would check nothing"))
                }
                _ => None,
            };
            if let Some(what) = fault {
                faults.push(Fault::new(file, Rule::Schema, what).at(child(pointer, keyword)));
            }
        }
    });
}

/// Whether a reference stays within the file.
pub(crate) fn within(reference: &str, own_id: Option<&str>) -> bool {
    reference.starts_with('#')
        || own_id.is_some_and(|id| {
            reference.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
        })
}

/// Strict JSON: one value, no key twice, within the limits.
fn parse(file: &str, bytes: &[u8]) -> Result<Value, Fault> {
    if bytes.len() > MAX_BYTES {
        let what = format!("{} bytes, a schema has at most {MAX_BYTES}", bytes.len());
        return Err(Fault::new(file, Rule::Json, what));
    }
    let mut left = MAX_VALUES;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH, left: &mut left }.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|e| {
        let line = e.line();
        let fault = Fault::new(file, Rule::Json, format!("not JSON within the limits: {e}"));
        if line == 0 { fault } else { fault.line(line) }
    })
}

struct Strict<'l> {
    depth: usize,
    left: &'l mut usize,
}

impl Strict<'_> {
    fn inner(&mut self) -> Strict<'_> {
        Strict { depth: self.depth - 1, left: self.left }
    }

    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth == 0 {
            Err(E::custom(format_args!("nested more than {MAX_DEPTH} deep")))
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.checked_sub(1) {
            Some(left) => *self.left = left,
            None => return Err(D::Error::custom(format_args!("more than {MAX_VALUES} values"))),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner())? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.inner())?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} stands twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
