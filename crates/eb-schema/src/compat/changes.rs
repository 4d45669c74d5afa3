//! What differs between two schemas, place by place, with what each difference breaks.

use serde::Serialize;
use serde_json::Value;

use super::Finding;
use super::include::shorten;
use crate::vocabulary::{self, Under, child};

/// How many changes are told.
const MAX_CHANGES: usize = 1_000;

/// What happened at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another value.
    Changed,
    /// It is as it was, and no longer holds because of changes elsewhere.
    Unchanged,
}

impl ChangeKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where, as a JSON pointer: into the new version, or into the old one for what was removed.
    pub pointer: String,
    /// What happened.
    pub change: ChangeKind,
    /// The old value, as JSON text of at most 60 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The new value, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// It has no say in what is valid.
    pub annotation: bool,
    /// Why events of the old version may be refused by the new one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaks_backward: Vec<Finding>,
    /// Why events of the new version may be refused by the old one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub breaks_forward: Vec<Finding>,
}

/// All differences, in the order of their places.
pub(super) fn of(old: &Value, new: &Value, backward: Vec<Finding>, forward: Vec<Finding>) -> Vec<Change> {
    let mut changes = Vec::new();
    differ(old, new, "", Place::Schema, &mut changes);
    changes.truncate(MAX_CHANGES);
    for finding in backward {
        let place = place_of(&mut changes, &finding.pointer);
        changes[place].breaks_backward.push(finding);
    }
    for finding in forward {
        let place = place_of(&mut changes, &finding.pointer);
        changes[place].breaks_forward.push(finding);
    }
    changes.sort_by(|a, b| a.pointer.cmp(&b.pointer));
    changes
}

/// What a value is in a schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Schema,
    Map,
    List,
    Data,
    Annotation,
}

fn differ(old: &Value, new: &Value, pointer: &str, place: Place, out: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let inner = |keyword: &str| match place {
        Place::Schema => match vocabulary::under(keyword) {
            Some(Under::Schema) => Place::Schema,
            Some(Under::Map) => Place::Map,
            Some(Under::List) => Place::List,
            Some(Under::Data) => Place::Data,
            Some(Under::Annotation) | None => Place::Annotation,
        },
        _ => Place::Schema,
    };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) if matches!(place, Place::Schema | Place::Map) => {
            for (key, was) in a {
                let here = child(pointer, key);
                match b.get(key) {
                    Some(is) => differ(was, is, &here, inner(key), out),
                    None => out.push(change(here, Some(was), None, inner(key))),
                }
            }
            for (key, is) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                out.push(change(child(pointer, key), None, Some(is), inner(key)));
            }
        }
        (Value::Array(a), Value::Array(b)) if place == Place::List => {
            for i in 0..a.len().max(b.len()) {
                let here = child(pointer, &i.to_string());
                match (a.get(i), b.get(i)) {
                    (Some(was), Some(is)) => differ(was, is, &here, Place::Schema, out),
                    (was, is) => out.push(change(here, was, is, Place::Schema)),
                }
            }
        }
        _ => out.push(change(pointer.to_owned(), Some(old), Some(new), place)),
    }
}

fn change(pointer: String, old: Option<&Value>, new: Option<&Value>, place: Place) -> Change {
    let change = match (old, new) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Changed,
    };
    Change {
        pointer,
        change,
        old: old.map(shorten),
        new: new.map(shorten),
        annotation: place == Place::Annotation,
        breaks_backward: Vec::new(),
        breaks_forward: Vec::new(),
    }
}

/// The change that a finding belongs to: at its place, or the nearest around or inside it; else an entry of its own.
fn place_of(changes: &mut Vec<Change>, pointer: &str) -> usize {
    let covers = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && !outer.is_empty()))
    };
    let near = |c: &Change| !c.annotation && (covers(&c.pointer, pointer) || covers(pointer, &c.pointer));
    let found = changes
        .iter()
        .enumerate()
        .filter(|(_, c)| near(c))
        .min_by_key(|(_, c)| c.pointer.len().abs_diff(pointer.len()))
        .map(|(i, _)| i);
    found.unwrap_or_else(|| {
        let mut own = change(pointer.to_owned(), None, None, Place::Schema);
        own.change = ChangeKind::Unchanged;
        changes.push(own);
        changes.len() - 1
    })
}
