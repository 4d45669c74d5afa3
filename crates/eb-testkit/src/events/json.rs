//! JSON text from parts, in a fixed or in a random way of writing. Written apart from the code under test.

use crate::Rng;

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A number or a word, as it is.
    Raw(String),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Raw(number.to_string())
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Raw(is.to_string())
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

/// An object whose members keep their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Object(pub(super) Vec<(&'static str, Value)>);

impl Object {
    pub(super) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.push(key, value.into());
        self
    }

    pub(super) fn push(&mut self, key: &'static str, value: Value) {
        self.0.push((key, value));
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(k, _)| *k != key);
    }

    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.push(key, value),
        }
    }

    /// The payload of an envelope.
    pub(super) fn payload_mut(&mut self) -> &mut Self {
        self.0
            .iter_mut()
            .find_map(|(key, value)| match value {
                Value::Object(object) if *key == "payload" => Some(object),
                _ => None,
            })
            .expect("every generated event has a payload")
    }

    pub(super) fn compact(&self) -> Vec<u8> {
        let mut out = String::with_capacity(1024);
        Way::Compact.object(self, true, &mut out);
        out.into_bytes()
    }
}

/// A random way of writing the same: white space, order of the payload's members, escapes.
pub(super) struct Style<'r> {
    rng: &'r mut Rng,
    reorder: bool,
    escape: bool,
}

impl<'r> Style<'r> {
    pub(super) fn new(rng: &'r mut Rng) -> Self {
        let (reorder, escape) = (rng.chance(50), rng.chance(30));
        Self { rng, reorder, escape }
    }

    pub(super) fn write(self, envelope: &Object) -> Vec<u8> {
        let mut out = String::with_capacity(1400);
        Way::Random(self).object(envelope, true, &mut out);
        // Nothing else may have changed in a way that shows; a space always does.
        out.push(' ');
        out.into_bytes()
    }
}

enum Way<'r> {
    Compact,
    Random(Style<'r>),
}

impl Way<'_> {
    fn space(&mut self, out: &mut String) {
        if let Self::Random(style) = self {
            out.push_str(["", "", " ", "  ", "\t"][style.rng.index(5)]);
        }
    }

    fn object(&mut self, object: &Object, outermost: bool, out: &mut String) {
        let mut members: Vec<_> = object.0.iter().collect();
        if let Self::Random(style) = self
            && style.reorder
        {
            // The envelope's own order is kept or reversed, so that both are seen.
            let turn = if outermost { 0 } else { style.rng.index(members.len().max(1)) };
            members.rotate_left(turn);
            members.reverse();
        }
        out.push('{');
        for (i, (key, value)) in members.into_iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            self.space(out);
            self.string(key, out);
            self.space(out);
            out.push(':');
            self.space(out);
            self.value(value, out);
            self.space(out);
        }
        out.push('}');
    }

    fn value(&mut self, value: &Value, out: &mut String) {
        match value {
            Value::Raw(text) => out.push_str(text),
            Value::String(text) => self.string(text, out),
            Value::Object(object) => self.object(object, false, out),
            Value::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    self.space(out);
                    self.value(value, out);
                }
                self.space(out);
                out.push(']');
            }
        }
    }

    fn string(&mut self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            let escape = match self {
                Self::Random(style) => style.escape && style.rng.chance(5),
                Self::Compact => false,
            };
            match c {
                _ if escape || c < ' ' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
