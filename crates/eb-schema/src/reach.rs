//! References within a file: that each leads to a schema, and how far one may go on from schema to schema.
//!
//! Whoever compiles a schema, checks a document by it or compares it with another follows its parts and references, each step on the thread's stack.
//! The depth of the text bounds the parts, but not a chain of references. What bounds both is the longest way through the file: the schemas that lead
//! into no cycle are peeled off from the ends, each with the longest way that begins there; those that are left, being part of a cycle or leading
//! into one, may all lie on one way. The sum is never less than the longest way.

use std::collections::HashMap;

use serde_json::Value;

use crate::fault::{Fault, Rule};
use crate::vocabulary::{self, child};

/// The longest way from schema to schema, through parts and references: 512.
pub const MAX_REACH: usize = 512;

/// Checks the references of a file that stays within itself.
pub(crate) fn check(file: &str, root: &Value, faults: &mut Vec<Fault>) {
    let mut places = HashMap::new();
    let mut anchors = HashMap::new();
    vocabulary::walk(root, "", &mut |pointer, schema| {
        let number = places.len();
        places.insert(pointer.to_owned(), number);
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(name) = schema.get(keyword).and_then(Value::as_str) {
                anchors.insert(name.to_owned(), number);
            }
        }
    });
    let own = root.get("$id").and_then(Value::as_str).unwrap_or_default();
    let mut edges = vec![Vec::new(); places.len()];
    vocabulary::walk(root, "", &mut |pointer, schema| {
        let here = places[pointer];
        if let Some(parent) = parent(pointer, &places) {
            edges[parent].push(here);
        }
        for keyword in ["$ref", "$dynamicRef"] {
            let Some(reference) = schema.get(keyword).and_then(Value::as_str) else { continue };
            let fragment = reference.strip_prefix(own).unwrap_or(reference);
            let fragment = decoded(fragment.strip_prefix('#').unwrap_or(fragment));
            let target = if fragment.is_empty() {
                places.get("")
            } else {
                places.get(&fragment).or(anchors.get(&fragment))
            };
            // `true` and `false` are schemas, too, and end every way.
            let is_leaf =
                || fragment.starts_with('/') && root.pointer(&fragment).is_some_and(Value::is_boolean);
            match target {
                Some(target) => edges[here].push(*target),
                None if is_leaf() || !crate::document::within(reference, Some(own)) => {}
                None => faults.push(
                    Fault::new(
                        file,
                        Rule::Schema,
                        format!("`{keyword}` \"{reference}\" leads to no schema of this file"),
                    )
                    .at(child(pointer, keyword)),
                ),
            }
        }
    });
    let longest = longest_way(&edges);
    if longest > MAX_REACH {
        let what = format!(
            "parts and references go on for up to {longest} schemas, at most {MAX_REACH} are followed"
        );
        faults.push(
            Fault::new(file, Rule::Schema, what)
                .at("")
                .advise("shorten the chains of `$ref`, or make cycles smaller"),
        );
    }
}

/// The schema that a schema is a part of.
fn parent(pointer: &str, places: &HashMap<String, usize>) -> Option<usize> {
    let mut above = pointer;
    loop {
        above = &above[..above.rfind('/')?];
        if let Some(parent) = places.get(above) {
            return Some(*parent);
        }
    }
}

/// A fragment of a URI without its escapes; as it is, where they make no text.
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape =
            after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escape.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| fragment.to_owned())
}

/// At least as long as the longest way without a repetition.
fn longest_way(edges: &[Vec<usize>]) -> usize {
    let mut into = vec![Vec::new(); edges.len()];
    let mut open: Vec<usize> = edges.iter().map(Vec::len).collect();
    for (from, targets) in edges.iter().enumerate() {
        targets.iter().for_each(|to| into[*to].push(from));
    }
    let mut length = vec![1; edges.len()];
    let mut ends: Vec<usize> = (0..edges.len()).filter(|i| open[*i] == 0).collect();
    let mut peeled = 0;
    while let Some(end) = ends.pop() {
        peeled += 1;
        for from in &into[end] {
            length[*from] = length[*from].max(length[end] + 1);
            open[*from] -= 1;
            if open[*from] == 0 {
                ends.push(*from);
            }
        }
    }
    let left = edges.len() - peeled;
    let behind = length
        .iter()
        .zip(&open)
        .filter(|(_, open)| **open == 0)
        .map(|(length, _)| *length)
        .max()
        .unwrap_or(0);
    left + behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_never_told_too_short() {
        assert_eq!(longest_way(&[vec![1, 2], vec![2], vec![]]), 3);
        // A cycle of two with a tail of two.
        assert_eq!(longest_way(&[vec![1], vec![0, 2], vec![3], vec![]]), 4);
        assert_eq!(longest_way(&[]), 0);
    }

    #[test]
    fn escapes_in_fragments_are_undone() {
        assert_eq!(decoded("/$defs/a%20b%2Fc%C3%A4"), "/$defs/a b/cä");
        assert_eq!(decoded("/100%"), "/100%");
    }
}
