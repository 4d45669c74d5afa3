//! The places of all values of one JSON text.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::string;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null (leave the field out instead)",
            Self::True | Self::False => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// One value and, in an object, its key. Places are bytes of the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// The key without its quotes, as written; empty in arrays.
    pub(super) key: (u32, u32),
    /// See [`head`].
    pub(super) key_head: u64,
    /// The value; a string with its quotes.
    pub(super) value: (u32, u32),
    /// The children in [`Document::nodes`]: first and how many. Objects keep all of them, arrays only where
    /// their hash form differs from their text.
    pub(super) children: (u32, u32),
    pub(crate) kind: Kind,
    /// The key has a backslash.
    pub(super) key_escaped: bool,
    /// The value's text is already its hash form; for a string, that it has no backslash.
    pub(super) verbatim: bool,
}

impl Node {
    pub(super) fn key_text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.key.0 as usize..self.key.1 as usize]
    }

    /// Orders by the unescaped key: by code points, which is also the order of its UTF-8 bytes.
    pub(super) fn cmp_key(&self, other: &Self, text: &str) -> Ordering {
        // Most keys differ early; this spares a call for each comparison.
        if self.key_head != other.key_head {
            return self.key_head.cmp(&other.key_head);
        }
        let (a, b) = (self.key_text(text), other.key_text(text));
        if self.key_escaped || other.key_escaped { string::chars(a).cmp(string::chars(b)) } else { a.cmp(b) }
    }
}

/// The first eight bytes of an unescaped key, zeros where it is shorter, so that keys with different heads are
/// ordered as their heads are.
#[inline]
pub(super) fn head(raw: &[u8], escaped: bool) -> u64 {
    if escaped {
        let mut utf8 = Vec::with_capacity(8 + 3);
        for c in string::chars(std::str::from_utf8(raw).unwrap_or_default()) {
            utf8.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            if utf8.len() >= 8 {
                break;
            }
        }
        return head(&utf8, false);
    }
    match raw.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut eight = [0; 8];
            eight[..raw.len()].copy_from_slice(raw);
            u64::from_be_bytes(eight)
        }
    }
}

/// One valid JSON text with the places of its values.
#[derive(Debug, Clone)]
pub(crate) struct Document<'a> {
    pub(super) text: &'a str,
    pub(super) nodes: Vec<Node>,
    pub(super) root: Node,
    /// Whether white space outside strings stands inside the root value.
    pub(super) spaced: bool,
}

impl<'a> Document<'a> {
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// The members of an object in key order.
    pub(crate) fn members(&self, node: &Node) -> &[Node] {
        if node.kind == Kind::Object { self.children(node) } else { &[] }
    }

    fn children(&self, node: &Node) -> &[Node] {
        let first = node.children.0 as usize;
        &self.nodes[first..first + node.children.1 as usize]
    }

    /// A value as written.
    pub(crate) fn raw(&self, node: &Node) -> &'a str {
        &self.text[node.value.0 as usize..node.value.1 as usize]
    }

    /// A member's key, unescaped.
    pub(crate) fn key(&self, node: &Node) -> Cow<'a, str> {
        let raw = node.key_text(self.text);
        if node.key_escaped { string::unescape(raw) } else { Cow::Borrowed(raw) }
    }

    /// A string's content, unescaped; for other kinds their text.
    pub(crate) fn content(&self, node: &Node) -> Cow<'a, str> {
        let raw = self.raw(node);
        if node.kind != Kind::String {
            return Cow::Borrowed(raw);
        }
        let inner = &raw[1..raw.len() - 1];
        if node.verbatim { Cow::Borrowed(inner) } else { string::unescape(inner) }
    }

    /// The member of an object by its unescaped key.
    pub(crate) fn member(&self, object: &Node, key: &str) -> Option<&Node> {
        let members = self.members(object);
        let wanted = head(key.as_bytes(), false);
        let at = members.binary_search_by(|node| {
            if node.key_head != wanted {
                return node.key_head.cmp(&wanted);
            }
            let raw = node.key_text(self.text);
            if node.key_escaped { string::chars(raw).cmp(key.chars()) } else { raw.cmp(key) }
        });
        members.get(at.ok()?)
    }

    /// Whether the root's text is compact.
    pub(crate) fn is_compact(&self) -> bool {
        !self.spaced
    }

    /// Appends the root as written but for white space outside strings.
    pub(crate) fn write_compact(&self, out: &mut Vec<u8>) {
        let raw = self.raw(&self.root);
        if self.spaced {
            out.reserve(raw.len());
            write_unspaced(raw, out);
        } else {
            out.extend_from_slice(raw.as_bytes());
        }
    }

    /// Appends a value's hash form: members sorted by key, compact, numbers as written, strings normalised.
    ///
    /// Recursion is bounded by the nesting limit that the text was read with.
    pub(crate) fn write_sorted(&self, node: &Node, out: &mut Vec<u8>) {
        if node.verbatim {
            out.extend_from_slice(self.raw(node).as_bytes());
            return;
        }
        match node.kind {
            Kind::String => {
                let raw = self.raw(node);
                string::write(string::chars(&raw[1..raw.len() - 1]), out);
            }
            Kind::Array => {
                out.push(b'[');
                for (i, child) in self.children(node).iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    self.write_sorted(child, out);
                }
                out.push(b']');
            }
            Kind::Object => {
                out.push(b'{');
                for (i, member) in self.children(node).iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    if member.key_escaped {
                        string::write(string::chars(member.key_text(self.text)), out);
                    } else {
                        // The quotes stand on both sides of the key in the text.
                        let (start, end) = (member.key.0 as usize - 1, member.key.1 as usize + 1);
                        out.extend_from_slice(&self.text.as_bytes()[start..end]);
                    }
                    out.push(b':');
                    self.write_sorted(member, out);
                }
                out.push(b'}');
            }
            Kind::Null | Kind::True | Kind::False | Kind::Number => {
                out.extend_from_slice(self.raw(node).as_bytes());
            }
        }
    }
}

/// Copies valid JSON without its white space outside strings.
fn write_unspaced(raw: &str, out: &mut Vec<u8>) {
    let bytes = raw.as_bytes();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string::end_of_valid(bytes, at + 1) + 1,
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.extend_from_slice(&bytes[from..at]);
                at += 1;
                from = at;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[from..]);
}
