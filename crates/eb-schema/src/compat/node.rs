//! Schemas in their document.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Side;
use crate::vocabulary::{self, Under, child};

/// A whole schema file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doc<'s> {
    pub(super) root: &'s Value,
    pub(super) side: Side,
}

/// A schema somewhere in a document.
#[derive(Debug, Clone)]
pub(super) struct Node<'s> {
    pub(super) doc: Doc<'s>,
    pub(super) value: &'s Value,
    pub(super) pointer: String,
}

/// What a node is told apart by.
pub(super) type Key = (Side, String);

impl<'s> Node<'s> {
    pub(super) fn root(doc: Doc<'s>) -> Self {
        Self { doc, value: doc.root, pointer: String::new() }
    }

    pub(super) fn key(&self) -> Key {
        (self.doc.side, self.pointer.clone())
    }

    pub(super) fn object(&self) -> Option<&'s Map<String, Value>> {
        self.value.as_object()
    }

    pub(super) fn get(&self, keyword: &str) -> Option<&'s Value> {
        self.value.get(keyword)
    }

    /// The schema under a keyword.
    pub(super) fn under(&self, keyword: &str) -> Option<Self> {
        Some(Self { doc: self.doc, value: self.get(keyword)?, pointer: child(&self.pointer, keyword) })
    }

    /// The schema under a name in a keyword's map.
    pub(super) fn named(&self, keyword: &str, name: &str) -> Option<Self> {
        let value = self.get(keyword)?.get(name)?;
        Some(Self { doc: self.doc, value, pointer: child(&child(&self.pointer, keyword), name) })
    }

    /// The schemas of a keyword's list.
    pub(super) fn list(&self, keyword: &str) -> Vec<Self> {
        let items = self.get(keyword).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let place = child(&self.pointer, keyword);
        let node = |(i, value): (usize, &'s Value)| Self {
            doc: self.doc,
            value,
            pointer: child(&place, &i.to_string()),
        };
        items.iter().enumerate().map(node).collect()
    }

    /// The names of a keyword's map.
    pub(super) fn names(&self, keyword: &str) -> impl Iterator<Item = &'s str> + use<'s> {
        self.get(keyword).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Where a `$ref` leads, `None` where that is not a schema in this file.
    pub(super) fn resolve(&self, reference: &str) -> Option<Self> {
        let root = self.doc.root;
        let own = root.get("$id").and_then(Value::as_str);
        let fragment = match reference.strip_prefix('#') {
            Some(fragment) => fragment,
            None => {
                let rest = reference.strip_prefix(own?)?;
                if rest.is_empty() { "" } else { rest.strip_prefix('#')? }
            }
        };
        // Escapes of a URI and anchors are left to "cannot tell".
        if fragment.contains('%') || !(fragment.is_empty() || fragment.starts_with('/')) {
            return None;
        }
        let value = root.pointer(fragment)?;
        Some(Self { doc: self.doc, value, pointer: fragment.to_owned() })
    }

    /// Where in this schema a keyword stands.
    pub(super) fn at(&self, keyword: &str) -> String {
        child(&self.pointer, keyword)
    }
}

/// Whether two schemas say the same, following references. Annotations do not count.
pub(super) fn identical(a: &Node<'_>, b: &Node<'_>) -> bool {
    same_schema(a, b, &mut HashSet::new())
}

fn same_schema(a: &Node<'_>, b: &Node<'_>, seen: &mut HashSet<(Key, Key)>) -> bool {
    let (Some(left), Some(right)) = (a.object(), b.object()) else { return a.value == b.value };
    // Two that are being compared already say the same unless a difference is found elsewhere.
    if !seen.insert((a.key(), b.key())) {
        return true;
    }
    let relevant = |keyword: &str| {
        !matches!(keyword, "$defs" | "definitions")
            && vocabulary::under(keyword).is_some_and(|under| under != Under::Annotation)
    };
    let count = |map: &Map<String, Value>| map.keys().filter(|k| relevant(k)).count();
    count(left) == count(right)
        && left.keys().filter(|k| relevant(k)).all(|keyword| same_keyword(keyword, a, b, seen))
}

fn same_keyword(keyword: &str, a: &Node<'_>, b: &Node<'_>, seen: &mut HashSet<(Key, Key)>) -> bool {
    let (Some(left), Some(right)) = (a.get(keyword), b.get(keyword)) else { return false };
    match vocabulary::under(keyword) {
        Some(Under::Schema) => match (a.under(keyword), b.under(keyword)) {
            (Some(left), Some(right)) => same_schema(&left, &right, seen),
            _ => false,
        },
        Some(Under::Map) => {
            let (left, right): (HashSet<_>, HashSet<_>) =
                (a.names(keyword).collect(), b.names(keyword).collect());
            left == right
                && left.iter().all(|name| match (a.named(keyword, name), b.named(keyword, name)) {
                    (Some(left), Some(right)) => same_schema(&left, &right, seen),
                    _ => false,
                })
        }
        Some(Under::List) => {
            let (left, right) = (a.list(keyword), b.list(keyword));
            left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| same_schema(l, r, seen))
        }
        _ => match keyword {
            // What a dynamic reference means depends on how one came here.
            "$dynamicRef" => false,
            "$ref" => {
                let left = left.as_str().and_then(|r| a.resolve(r));
                let right = right.as_str().and_then(|r| b.resolve(r));
                match (left, right) {
                    (Some(left), Some(right)) => same_schema(&left, &right, seen),
                    _ => false,
                }
            }
            "required" | "type" | "enum" => as_set(left) == as_set(right),
            _ => left == right,
        },
    }
}

/// The order of these lists means nothing.
fn as_set(value: &Value) -> Vec<String> {
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let mut texts: Vec<_> = items.iter().map(Value::to_string).collect();
    texts.sort();
    texts.dedup();
    texts
}
