//! A payload as its schema sees it: a tree that borrows its strings from the text.
//!
//! Checking a payload is the dearest part of an admission. Against `serde_json::Value` this tree saves a copy of each
//! string and key and a sorted map for each object.

use std::borrow::Cow;
use std::fmt;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// One value of a payload.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Payload<'t> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'t, str>),
    Array(Vec<Payload<'t>>),
    /// In the order of the text. The envelope's parser has refused keys that stand twice.
    Object(Vec<(Cow<'t, str>, Payload<'t>)>),
}

impl<'de: 't, 't> Deserialize<'de> for Payload<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Payload<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Payload::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Payload::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Payload::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Payload::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Number::from_f64(value).map(Payload::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Payload::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Payload::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Payload::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::with_capacity(8);
        while let Some(Key(key)) = members.next_key()? {
            object.push((key, members.next_value()?));
        }
        Ok(Payload::Object(object))
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(Build)? {
            Payload::String(key) => Ok(Self(key)),
            _ => Err(serde::de::Error::custom("a key must be a string")),
        }
    }
}

/// [`Payload`] as a representation that schemas can be compiled for.
pub(super) struct PayloadJson;

impl Json for PayloadJson {
    type Node<'a> = &'a Payload<'a>;
    type PreparedKey = String;
    type StringBuffer = Payload<'static>;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        buffer: &mut Payload<'static>,
        string: &str,
        f: impl FnOnce(Self::Node<'_>) -> T,
    ) -> T {
        *buffer = Payload::String(Cow::Owned(string.to_owned()));
        f(buffer)
    }
}

impl<'a> Node<'a, PayloadJson> for &'a Payload<'a> {
    type Object = Members<'a>;
    type Array = Items<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Members<'a>> {
        match self {
            Payload::Object(members) => Some(Members(members)),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Items<'a>> {
        match self {
            Payload::Array(items) => Some(Items(items)),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Payload::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<&'a Number> {
        match self {
            Payload::Number(number) => Some(number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Payload::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Payload::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Payload::Null => JsonType::Null,
            Payload::Bool(_) => JsonType::Boolean,
            Payload::Number(_) => JsonType::Number,
            Payload::String(_) => JsonType::String,
            Payload::Array(_) => JsonType::Array,
            Payload::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Payload::String(text), Value::String(expected)) => text == expected,
            (Payload::String(_), _) | (_, Value::String(_)) => false,
            _ => jsonschema::json::cmp::equal(&self.to_value(), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Payload::Null => Value::Null,
            Payload::Bool(value) => Value::Bool(*value),
            Payload::Number(number) => Value::Number(number.clone()),
            Payload::String(text) => Value::String(text.clone().into_owned()),
            Payload::Array(items) => items.iter().map(|item| item.to_value().into_owned()).collect(),
            Payload::Object(members) => members
                .iter()
                .map(|(key, value)| (key.clone().into_owned(), value.to_value().into_owned()))
                .collect(),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Payload<'a>>(self) as usize))
    }
}

/// An object's members.
#[derive(Clone, Copy)]
pub(super) struct Members<'a>(&'a [(Cow<'a, str>, Payload<'a>)]);

impl<'a> Object<'a, PayloadJson> for Members<'a> {
    type Node = &'a Payload<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<&'a Payload<'a>> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter())
    }
}

pub(super) struct MembersIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, Payload<'a>)>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, &'a Payload<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_ref(), value))
    }
}

/// An array's items.
#[derive(Clone, Copy)]
pub(super) struct Items<'a>(&'a [Payload<'a>]);

impl<'a> Array<'a, PayloadJson> for Items<'a> {
    type Node = &'a Payload<'a>;
    type ElementsIter = std::slice::Iter<'a, Payload<'a>>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> std::slice::Iter<'a, Payload<'a>> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e6..1e6f64).prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-d\"\\\\é]{1,2}", inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn schemas() -> Vec<Value> {
        [
            r#"{"type":"object","required":["a"],"properties":{"a":{"type":"integer"}},"additionalProperties":false}"#,
            r#"{"anyOf":[{"type":"array","uniqueItems":true,"items":{"minimum":0}},{"propertyNames":{"maxLength":1}}]}"#,
            r#"{"enum":[null,true,1,"a",[1],{"a":1}]}"#,
            r#"{"not":{"const":0},"type":["number","string","object"],"minLength":2,"multipleOf":0.5}"#,
            r#"{"patternProperties":{"^a":{"type":"string"}},"maxProperties":2,"contains":{"type":"null"}}"#,
        ]
        .map(|text| serde_json::from_str(text).unwrap())
        .to_vec()
    }

    proptest! {
        #[test]
        fn a_schema_judges_the_tree_as_it_judges_a_value(value in json()) {
            let text = value.to_string();
            let tree: Payload<'_> = serde_json::from_str(&text).unwrap();
            let back: Value = serde_json::from_str(&text).unwrap();
            let node = &tree;
            prop_assert_eq!(node.to_value().into_owned(), back.clone());
            for schema in schemas() {
                let plain = jsonschema::options().build(&schema).unwrap();
                let ours = jsonschema::options_for::<PayloadJson>().build(&schema).unwrap();
                prop_assert_eq!(ours.is_valid(&tree), plain.is_valid(&back), "{} by {}", text, schema);
                prop_assert_eq!(ours.iter_errors(&tree).count(), plain.iter_errors(&back).count());
            }
        }
    }
}
