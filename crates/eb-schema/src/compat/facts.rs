//! What is known of a schema that is taken as a conjunction.

use std::collections::HashSet;

use serde_json::Value;

use super::node::{Key, Node};
use super::numbers::{self, Bound};

/// A set of JSON types. Numbers are split, since `integer` is a part of `number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const NONE: Self = Self(0);
    pub(super) const NULL: Self = Self(1);
    pub(super) const BOOLEAN: Self = Self(2);
    pub(super) const INTEGER: Self = Self(4);
    pub(super) const FRACTION: Self = Self(8);
    pub(super) const STRING: Self = Self(16);
    pub(super) const ARRAY: Self = Self(32);
    pub(super) const OBJECT: Self = Self(64);
    pub(super) const NUMBER: Self = Self(4 | 8);
    pub(super) const ALL: Self = Self(127);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// One by one.
    pub(super) fn each(self) -> impl Iterator<Item = Self> {
        (0..7).map(|bit| Self(1 << bit)).filter(move |one| self.has(*one))
    }

    pub(super) fn of_keyword(value: &Value) -> Self {
        let one = |name: &Value| match name.as_str() {
            Some("null") => Self::NULL,
            Some("boolean") => Self::BOOLEAN,
            Some("integer") => Self::INTEGER,
            Some("number") => Self::NUMBER,
            Some("string") => Self::STRING,
            Some("array") => Self::ARRAY,
            Some("object") => Self::OBJECT,
            _ => Self::NONE,
        };
        match value {
            Value::Array(names) => names.iter().fold(Self::NONE, |all, name| all.or(one(name))),
            name => one(name),
        }
    }

    pub(super) fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(n) => match n.as_f64() {
                Some(f) if f.fract() == 0.0 => Self::INTEGER,
                _ => Self::FRACTION,
            },
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    /// In words.
    pub(super) fn describe(self) -> String {
        let names = [
            (Self::NULL, "null"),
            (Self::BOOLEAN, "boolean"),
            (Self::NUMBER, "number"),
            (Self::INTEGER, "integer"),
            (Self::FRACTION, "number that is not whole"),
            (Self::STRING, "string"),
            (Self::ARRAY, "array"),
            (Self::OBJECT, "object"),
        ];
        let mut left = self;
        let mut words = Vec::new();
        for (types, name) in names {
            if types.within(left) {
                words.push(name);
                left = left.without(types);
            }
        }
        words.join(", ")
    }
}

/// The smaller side of a question: every one of these schemas at once.
#[derive(Debug, Clone)]
pub(super) struct Sub<'s> {
    pub(super) nodes: Vec<Node<'s>>,
    /// Values of these types only.
    pub(super) only: Types,
    /// Something outside may make it smaller than it looks.
    pub(super) murky: bool,
    /// `anyOf` and `oneOf` of which a branch was taken already.
    pub(super) taken: Vec<Key>,
}

impl<'s> Sub<'s> {
    pub(super) fn all_of(nodes: Vec<Node<'s>>, murky: bool) -> Self {
        Self { nodes, only: Types::ALL, murky, taken: Vec::new() }
    }
}

/// A choice that a conjunct offers.
#[derive(Debug, Clone)]
pub(super) struct Choice<'s> {
    pub(super) key: Key,
    pub(super) branches: Vec<Node<'s>>,
    /// Only one of them may hold.
    pub(super) exclusive: bool,
}

/// What follows from a [`Sub`].
#[derive(Debug)]
pub(super) struct Facts<'s> {
    /// Objects of keywords that all hold: the schemas themselves, their `$ref`, their `allOf`.
    pub(super) conjuncts: Vec<Node<'s>>,
    pub(super) types: Types,
    /// All values there are, some of which other keywords may still refuse.
    pub(super) finite: Option<Vec<Value>>,
    pub(super) choices: Vec<Choice<'s>>,
    /// Keywords that were not understood may make it smaller than it looks.
    pub(super) murky: bool,
}

impl<'s> Facts<'s> {
    pub(super) fn of(sub: &Sub<'s>) -> Self {
        let mut facts = Self {
            conjuncts: Vec::new(),
            types: sub.only,
            finite: None,
            choices: Vec::new(),
            murky: sub.murky,
        };
        let mut seen = HashSet::new();
        sub.nodes.iter().for_each(|node| facts.take(node, &sub.taken, &mut seen));
        facts.drop_impossible_types();
        if facts.finite.is_none() && facts.types.within(Types::NULL.or(Types::BOOLEAN)) {
            facts.finite = Some(vec![Value::Null, Value::Bool(false), Value::Bool(true)]);
        }
        facts
    }

    /// Whether nothing at all is taken.
    pub(super) fn is_never(&self) -> bool {
        self.types.is_empty()
    }

    fn take(&mut self, node: &Node<'s>, taken: &[Key], seen: &mut HashSet<Key>) {
        // A conjunct that was taken already adds nothing.
        if !seen.insert(node.key()) {
            return;
        }
        let Some(object) = node.object() else {
            if *node.value == Value::Bool(false) {
                self.types = Types::NONE;
            }
            return;
        };
        self.conjuncts.push(node.clone());
        for (keyword, value) in object {
            match keyword.as_str() {
                "type" => self.types = self.types.and(Types::of_keyword(value)),
                "const" => self.finite = Some(vec![value.clone()]),
                "enum" if self.finite.is_none() => self.finite = value.as_array().cloned(),
                "$ref" => match value.as_str().and_then(|r| node.resolve(r)) {
                    Some(target) => self.take(&target, taken, seen),
                    None => self.murky = true,
                },
                "allOf" => node.list("allOf").iter().for_each(|part| self.take(part, taken, seen)),
                "anyOf" | "oneOf" => self.offer(node, keyword, taken),
                "$dynamicRef"
                | "not"
                | "if"
                | "dependentSchemas"
                | "unevaluatedProperties"
                | "unevaluatedItems" => {
                    self.murky = true;
                }
                _ => {}
            }
        }
        if let Some(values) = &self.finite {
            let types = values.iter().fold(Types::NONE, |all, v| all.or(Types::of_value(v)));
            self.types = self.types.and(types);
        }
    }

    fn offer(&mut self, node: &Node<'s>, keyword: &str, taken: &[Key]) {
        let key = (node.doc.side, node.at(keyword));
        let exclusive = keyword == "oneOf";
        if taken.contains(&key) {
            // The branch that was taken says less than that the others do not hold.
            self.murky |= exclusive;
        } else {
            self.choices.push(Choice { key, branches: node.list(keyword), exclusive });
        }
    }

    fn drop_impossible_types(&mut self) {
        let crossed =
            |low: &str, high: &str| matches!((self.most(low), self.least(high)), (Some(l), Some(h)) if l > h);
        let mut gone = Types::NONE;
        for (low, high, types) in [
            ("minLength", "maxLength", Types::STRING),
            ("minItems", "maxItems", Types::ARRAY),
            ("minProperties", "maxProperties", Types::OBJECT),
        ] {
            if crossed(low, high) {
                gone = gone.or(types);
            }
        }
        if numbers::is_empty(self) {
            gone = gone.or(Types::NUMBER);
        }
        self.types = self.types.without(gone);
    }

    /// The largest value of a keyword that counts.
    pub(super) fn most(&self, keyword: &str) -> Option<u64> {
        self.counts(keyword).max()
    }

    /// The smallest value of a keyword that counts.
    pub(super) fn least(&self, keyword: &str) -> Option<u64> {
        self.counts(keyword).min()
    }

    fn counts(&self, keyword: &str) -> impl Iterator<Item = u64> {
        self.conjuncts.iter().filter_map(|c| c.get(keyword)).filter_map(count)
    }

    /// All values of a keyword.
    pub(super) fn values(&self, keyword: &str) -> impl Iterator<Item = &'s Value> {
        self.conjuncts.iter().filter_map(move |c| c.get(keyword))
    }

    pub(super) fn has(&self, keyword: &str) -> bool {
        self.conjuncts.iter().any(|c| c.get(keyword).is_some())
    }

    /// Whether every object has this property.
    pub(super) fn requires(&self, name: &str) -> bool {
        self.values("required").filter_map(Value::as_array).flatten().any(|v| v.as_str() == Some(name))
    }

    /// The names that every object has.
    pub(super) fn required(&self) -> impl Iterator<Item = &'s str> {
        self.values("required").filter_map(Value::as_array).flatten().filter_map(Value::as_str)
    }

    pub(super) fn lower(&self) -> Option<Bound> {
        numbers::lower(self)
    }

    pub(super) fn upper(&self) -> Option<Bound> {
        numbers::upper(self)
    }
}

/// A number that counts, which may be written as `2.0`.
pub(super) fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let f = value.as_f64()?;
        // Exact: whole and far below 2^53.
        (f >= 0.0 && f.fract() == 0.0 && f <= 9_007_199_254_740_992.0).then_some(f as u64)
    })
}
