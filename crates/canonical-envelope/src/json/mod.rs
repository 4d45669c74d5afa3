//! A JSON reader for one text: grammar, limits, duplicate keys and the places of all values in a single pass.
//!
//! It exists because the envelope needs what a general parser does not give together: every number and string as
//! it is written, duplicate keys found at every level, members in key order (for the hash and for look-ups), and a
//! nesting limit kept without recursion. It reads exactly the grammar of RFC 8259, and is stricter in one point:
//! an escaped surrogate without its other half is malformed, as it stands for no character.
//!
//! The result is a [`Document`]: a flat list of [`Node`]s, the members of each object side by side and **sorted by
//! key**. Working memory is at most about 10 times the text in the worst case (an array of one-digit numbers with
//! white space around them); typically it is under half of it.

mod document;
mod scan;
pub(crate) mod string;

pub(crate) use document::{Document, Kind, Node};
pub(crate) use scan::{Fault, Partial, scan};
