//! Comparing two versions of a schema. The rules are in the crate's documentation.

mod arrays;
mod changes;
mod combined;
mod facts;
mod include;
mod node;
mod numbers;
mod objects;
mod strings;

use serde::Serialize;
use serde_json::Value;

use crate::document::Schema;

pub use changes::{Change, ChangeKind};

/// Whether a direction of compatibility holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was proven.
    Yes,
    /// A rule says that it does not.
    No,
    /// Neither: never to be taken for compatible.
    CannotTell,
}

impl Answer {
    /// In words: `yes`, `no`, `cannot tell`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::CannotTell => "cannot tell",
        }
    }

    fn of(findings: &[Finding]) -> Self {
        match findings {
            [] => Self::Yes,
            _ if findings.iter().any(|f| f.certain) => Self::No,
            _ => Self::CannotTell,
        }
    }
}

/// One of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The earlier one.
    Old,
    /// The later one.
    New,
}

/// Why a direction does not hold, or cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which version [`Finding::pointer`] leads somewhere.
    pub side: Side,
    /// Where, as a JSON pointer; empty is the whole schema.
    pub pointer: String,
    /// Which rule: a word that does not change, for machines.
    pub rule: &'static str,
    /// Why, in one line.
    pub message: String,
    /// `false` where something else in the schema might make up for it, or the rules do not reach.
    pub certain: bool,
}

/// Two versions compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether every document of the old version is one of the new version.
    pub backward: Answer,
    /// Whether every document of the new version is one of the old version.
    pub forward: Answer,
    /// What differs, by its place, with what it breaks.
    pub changes: Vec<Change>,
}

impl Comparison {
    /// One word: `full`, `backward`, `forward` for what was proven, `none` where both directions are broken, and else `cannot_tell`.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match (self.backward, self.forward) {
            (Answer::Yes, Answer::Yes) => "full",
            (Answer::Yes, _) => "backward",
            (_, Answer::Yes) => "forward",
            (Answer::No, Answer::No) => "none",
            _ => "cannot_tell",
        }
    }
}

/// Compares two versions.
#[must_use]
pub fn compare(old: &Schema, new: &Schema) -> Comparison {
    compare_values(old.value(), new.value())
}

/// Compares two schemas of draft 2020-12 that were not read by [`Schema::read`]. They must be valid schemas: of what is not,
/// the answer says nothing. Depth is not bounded here.
#[must_use]
pub fn compare_values(old: &Value, new: &Value) -> Comparison {
    let backward = include::decide(old, new, Side::Old, Side::New);
    let forward = include::decide(new, old, Side::New, Side::Old);
    Comparison {
        backward: Answer::of(&backward),
        forward: Answer::of(&forward),
        changes: changes::of(old, new, backward, forward),
    }
}
