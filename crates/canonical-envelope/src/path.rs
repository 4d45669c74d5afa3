//! Looking up one value of an envelope by its dotted path.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::envelope::Envelope;
use crate::field::Field;
use crate::json::Kind;

/// The place of a value in an envelope: a field's name (`run_id`), or `payload` and the keys that lead to the value,
/// joined with dots (`payload.merchant.id`). Keys that hold a dot, and places in arrays, cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPath {
    text: Box<str>,
    field: Field,
}

/// Text that names no place of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPathError {
    /// The first part is no field of the envelope.
    #[error("{0:?} is not a field of the envelope; data of the event's own is named payload.…")]
    UnknownField(String),
    /// Only the payload has values inside.
    #[error("{0} has no values inside; only payload has")]
    NotInside(&'static str),
    /// The payload as a whole is no scalar.
    #[error("payload is an object; name a value in it, as in payload.merchant_id")]
    WholePayload,
    /// Two dots side by side, or one at the end.
    #[error("{0:?} has an empty part")]
    EmptyPart(String),
}

impl KeyPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The field that it names or, for a value in the payload, [`Field::Payload`].
    #[must_use]
    pub fn field(&self) -> Field {
        self.field
    }
}

impl FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<Self, KeyPathError> {
        if text.split('.').any(str::is_empty) {
            return Err(KeyPathError::EmptyPart(text.to_owned()));
        }
        let (first, inside) = match text.split_once('.') {
            Some((first, _)) => (first, true),
            None => (text, false),
        };
        let field = Field::from_name(first).ok_or_else(|| KeyPathError::UnknownField(first.to_owned()))?;
        match (field, inside) {
            (Field::Payload, false) => Err(KeyPathError::WholePayload),
            (Field::Payload, true) | (_, false) => Ok(Self { text: text.into(), field }),
            (_, true) => Err(KeyPathError::NotInside(field.name())),
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A value that is neither null nor an object nor an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// A number as written.
    Number(&'a str),
    /// A boolean.
    Bool(bool),
}

impl<'a> Scalar<'a> {
    /// The value as a key: a string's characters, a number as written, `true` or `false`. `None` for the empty
    /// string.
    #[must_use]
    pub fn into_key(self) -> Option<Cow<'a, str>> {
        match self {
            Self::String(text) if text.is_empty() => None,
            Self::String(text) => Some(text),
            Self::Number(digits) => Some(Cow::Borrowed(digits)),
            Self::Bool(true) => Some(Cow::Borrowed("true")),
            Self::Bool(false) => Some(Cow::Borrowed("false")),
        }
    }
}

impl<'a> Envelope<'a> {
    /// The scalar at a place, found by its keys without reading the rest; `None` where there is nothing, null, an
    /// object or an array.
    #[must_use]
    pub fn scalar(&self, path: &KeyPath) -> Option<Scalar<'a>> {
        let document = &self.document;
        let node = path.text.split('.').try_fold(document.root(), |node, key| document.member(node, key))?;
        match node.kind {
            Kind::String => Some(Scalar::String(document.content(node))),
            Kind::Number => Some(Scalar::Number(document.raw(node))),
            Kind::True => Some(Scalar::Bool(true)),
            Kind::False => Some(Scalar::Bool(false)),
            Kind::Null | Kind::Array | Kind::Object => None,
        }
    }
}
