//! Deciding whether one schema takes no document that another refuses.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::facts::{Facts, Sub, Types};
use super::node::{Doc, Key, Node, identical};
use super::{Finding, Side, arrays, combined, numbers, objects, strings};
use crate::vocabulary::child;

/// What stands against an inclusion; empty where it holds.
pub(super) type Report = Vec<Finding>;

/// How many pairs of schemas are looked at before it cannot be told.
const MAX_STEPS: usize = 5_000;
/// How deep the questions may nest: well below what a thread's stack holds.
const MAX_NESTING: usize = 96;
/// How many findings are kept: nobody reads more.
const MAX_FINDINGS: usize = 200;
/// The names under which probes are compiled.
const PROBE_ID: &str = "urn:event-bus:probe";

/// Whether every document of `sub` is one of `sup`.
pub(super) fn decide<'s>(sub: &'s Value, sup: &'s Value, sub_side: Side, sup_side: Side) -> Report {
    let mut engine = Engine {
        sup_side,
        steps: 0,
        nesting: 0,
        level: 0,
        assumed: HashMap::new(),
        validators: HashMap::new(),
        patterns: HashMap::new(),
    };
    let sub = Sub::all_of(vec![Node::root(Doc { root: sub, side: sub_side })], false);
    let mut report = engine.includes(&sub, &Node::root(Doc { root: sup, side: sup_side }));
    report.truncate(MAX_FINDINGS);
    let mut kept: Report = Vec::new();
    for finding in report {
        if !kept.contains(&finding) {
            kept.push(finding);
        }
    }
    kept
}

/// A question that is being answered: who is in whom.
type Question = (Vec<Key>, Types, Vec<Key>, Key);

/// One run of the procedure.
pub(super) struct Engine<'s> {
    sup_side: Side,
    steps: usize,
    nesting: usize,
    /// How often an item or a property was entered on the way here.
    level: usize,
    /// Questions on the way here, and the level at which they were asked.
    assumed: HashMap<Question, usize>,
    validators: HashMap<Key, Option<jsonschema::Validator>>,
    patterns: HashMap<&'s str, Option<jsonschema::Validator>>,
}

impl<'s> Engine<'s> {
    /// Whether all of `sub` is taken by `sup`.
    pub(super) fn includes(&mut self, sub: &Sub<'s>, sup: &Node<'s>) -> Report {
        if self.steps >= MAX_STEPS || self.nesting >= MAX_NESTING {
            return self.unknown(sup, "", "the schemas are too intricate");
        }
        self.steps += 1;
        let mut keys: Vec<_> = sub.nodes.iter().map(Node::key).collect();
        keys.sort_by(|a, b| a.1.cmp(&b.1));
        let question = (keys, sub.only, sub.taken.clone(), sup.key());
        if let Some(asked) = self.assumed.get(&question) {
            // Documents end: within a part of one, the same question about the whole may be taken as answered.
            if *asked < self.level {
                return Report::new();
            }
            return self.unknown(sup, "", "it refers to itself without end");
        }
        self.assumed.insert(question.clone(), self.level);
        self.nesting += 1;
        let report = self.answer(sub, sup);
        self.nesting -= 1;
        self.assumed.remove(&question);
        report
    }

    /// The same for a part of the document: an item or a property.
    pub(super) fn inside(&mut self, sub: &Sub<'s>, sup: &Node<'s>) -> Report {
        self.level += 1;
        let report = self.includes(sub, sup);
        self.level -= 1;
        report
    }

    fn answer(&mut self, sub: &Sub<'s>, sup: &Node<'s>) -> Report {
        let facts = Facts::of(sub);
        if facts.is_never() || *sup.value == Value::Bool(true) || sub.nodes.iter().any(|n| identical(n, sup))
        {
            return Report::new();
        }
        let Some(keywords) = sup.object() else {
            return self.finding(
                sup,
                "schema_refuses_everything",
                "nothing is taken here".to_owned(),
                !facts.murky,
            );
        };
        if let Some(values) = &facts.finite
            && let Some(report) = self.each_value(sub, &facts, values, sup)
        {
            return report;
        }
        let report = self.each_keyword(sub, &facts, sup, keywords);
        if report.is_empty() {
            return report;
        }
        self.branch_by_branch(sub, &facts, sup, report)
    }

    /// Tries the values of a finite `sub`, `None` where a validator cannot be made.
    fn each_value(
        &mut self,
        sub: &Sub<'s>,
        facts: &Facts<'s>,
        values: &[Value],
        sup: &Node<'s>,
    ) -> Option<Report> {
        let mut report = Report::new();
        for value in values.iter().filter(|v| Types::of_value(v).within(facts.types)) {
            let mut taken = true;
            for node in &sub.nodes {
                taken = taken && self.takes(node, value)?;
            }
            if taken && !self.takes(sup, value)? {
                let keyword = ["enum", "const"].into_iter().find(|k| sup.get(k).is_some()).unwrap_or("");
                let what = format!("{} was taken", shorten(value));
                report.extend(self.broken(sub.murky, sup, keyword, "value_refused", what));
            }
        }
        Some(report)
    }

    fn each_keyword(
        &mut self,
        sub: &Sub<'s>,
        facts: &Facts<'s>,
        sup: &Node<'s>,
        keywords: &'s Map<String, Value>,
    ) -> Report {
        let mut report = Report::new();
        for (keyword, value) in keywords {
            report.extend(match keyword.as_str() {
                "type" => self.types(facts, sup, value),
                "enum" | "const" => {
                    let (keyword, what) = (
                        if keyword == "enum" { "enum" } else { "const" },
                        "values that are not listed were taken".to_owned(),
                    );
                    self.broken(facts.murky || !facts.choices.is_empty(), sup, keyword, "enum_added", what)
                }
                "minimum" => numbers::limit(self, facts, sup, "minimum"),
                "exclusiveMinimum" => numbers::limit(self, facts, sup, "exclusiveMinimum"),
                "maximum" => numbers::limit(self, facts, sup, "maximum"),
                "exclusiveMaximum" => numbers::limit(self, facts, sup, "exclusiveMaximum"),
                "multipleOf" => numbers::multiple_of(self, facts, sup),
                "minLength" => strings::counted(self, facts, sup, "minLength", None),
                "maxLength" => strings::counted(self, facts, sup, "maxLength", None),
                "pattern" => strings::pattern(self, sub, facts, sup),
                "minItems" => strings::counted(self, facts, sup, "minItems", None),
                "maxItems" => strings::counted(self, facts, sup, "maxItems", arrays::longest(facts)),
                "uniqueItems" => arrays::unique(self, facts, sup),
                "prefixItems" => arrays::items(self, facts, sup),
                "items" if !keywords.contains_key("prefixItems") => arrays::items(self, facts, sup),
                "contains" => arrays::contains(self, facts, sup),
                "required" => objects::required(self, facts, sup),
                "properties" => objects::properties(self, facts, sup),
                "patternProperties" => objects::other_properties(self, facts, sup),
                "additionalProperties" if !keywords.contains_key("patternProperties") => {
                    objects::other_properties(self, facts, sup)
                }
                "propertyNames" => objects::names(self, facts, sup),
                "minProperties" => {
                    strings::counted(self, facts, sup, "minProperties", objects::implied_counts(facts).1)
                }
                "maxProperties" => {
                    strings::counted(self, facts, sup, "maxProperties", objects::implied_counts(facts).0)
                }
                "dependentRequired" => objects::dependent(self, facts, sup),
                "dependentSchemas" => combined::dependent_schemas(self, sub, facts, sup),
                "allOf" => sup.list("allOf").iter().flat_map(|part| self.includes(sub, part)).collect(),
                "anyOf" => combined::one_of_many(self, sub, facts, sup, "anyOf"),
                "oneOf" => combined::one_of_many(self, sub, facts, sup, "oneOf"),
                "not" => combined::not(self, sub, facts, sup),
                "if" => combined::conditional(self, sub, facts, sup),
                "$ref" => match value.as_str().and_then(|r| sup.resolve(r)) {
                    Some(target) => self.includes(sub, &target),
                    None => self.unknown(sup, "$ref", "where the reference leads"),
                },
                "$dynamicRef" => self.unknown(sup, "$dynamicRef", "where a dynamic reference leads"),
                "unevaluatedProperties" => combined::unevaluated(self, facts, sup, "unevaluatedProperties"),
                "unevaluatedItems" => combined::unevaluated(self, facts, sup, "unevaluatedItems"),
                _ => Report::new(),
            });
        }
        report
    }

    /// Where `sub` offers a choice: every branch must be taken.
    fn branch_by_branch(
        &mut self,
        sub: &Sub<'s>,
        facts: &Facts<'s>,
        sup: &Node<'s>,
        whole: Report,
    ) -> Report {
        let Some(choice) = facts.choices.first() else { return whole };
        let mut taken = sub.taken.clone();
        taken.push(choice.key.clone());
        let mut report = Report::new();
        for branch in &choice.branches {
            let mut nodes = sub.nodes.clone();
            nodes.push(branch.clone());
            let murky = sub.murky || choice.exclusive;
            report.extend(self.includes(&Sub { nodes, only: sub.only, murky, taken: taken.clone() }, sup));
        }
        report
    }

    fn types(&self, facts: &Facts<'s>, sup: &Node<'s>, value: &Value) -> Report {
        let lost = facts.types.without(Types::of_keyword(value));
        if lost.is_empty() {
            return Report::new();
        }
        // A choice that was not made yet may leave fewer types.
        let murky = facts.murky || !facts.choices.is_empty();
        self.broken(murky, sup, "type", "type_narrowed", format!("{} was taken", lost.describe()))
    }

    /// Something that does not hold, unless it is `murky`.
    pub(super) fn broken(
        &self,
        murky: bool,
        at: &Node<'_>,
        keyword: &str,
        rule: &'static str,
        message: String,
    ) -> Report {
        vec![Finding { side: at.doc.side, pointer: place(at, keyword), rule, message, certain: !murky }]
    }

    pub(super) fn finding(
        &self,
        at: &Node<'_>,
        rule: &'static str,
        message: String,
        certain: bool,
    ) -> Report {
        vec![Finding { side: at.doc.side, pointer: at.pointer.clone(), rule, message, certain }]
    }

    /// Something that the rules do not reach.
    pub(super) fn unknown(&self, at: &Node<'_>, keyword: &str, what: &str) -> Report {
        let message = format!("cannot tell: {what}");
        vec![Finding {
            side: self.sup_side,
            pointer: place(at, keyword),
            rule: "cannot_tell",
            message,
            certain: false,
        }]
    }

    /// Whether a schema takes a value; `None` where it cannot be compiled.
    pub(super) fn takes(&mut self, node: &Node<'s>, value: &Value) -> Option<bool> {
        let validator = self.validators.entry(node.key()).or_insert_with(|| compile(node));
        validator.as_ref().map(|v| v.is_valid(value))
    }

    /// Whether a name matches a pattern; `None` where the pattern cannot be compiled.
    pub(super) fn matches(&mut self, pattern: &'s str, name: &str) -> Option<bool> {
        let validator = self.patterns.entry(pattern).or_insert_with(|| {
            jsonschema::options().offline().build(&serde_json::json!({ "pattern": pattern })).ok()
        });
        validator.as_ref().map(|v| v.is_valid(&Value::from(name)))
    }
}

fn place(at: &Node<'_>, keyword: &str) -> String {
    if keyword.is_empty() { at.pointer.clone() } else { child(&at.pointer, keyword) }
}

/// A validator of one place of a document, whose references stay those of the document.
fn compile(node: &Node<'_>) -> Option<jsonschema::Validator> {
    let build = |schema: &Value| jsonschema::options().offline().build(schema).ok();
    if node.pointer.is_empty() || !node.value.is_object() {
        return build(node.value);
    }
    let mut root = node.doc.root.clone();
    let object = root.as_object_mut()?;
    // A file without a name gets one; references by its own name go on to lead into it.
    let id =
        object.entry("$id").or_insert_with(|| Value::from("urn:event-bus:compared")).as_str()?.to_owned();
    let fragment: String = node.pointer.chars().map(uri_escaped).collect();
    build(
        &serde_json::json!({ "$id": PROBE_ID, "$ref": format!("{id}#{fragment}"), "$defs": { "root": root } }),
    )
}

/// A character of a JSON pointer in the fragment of a URI.
fn uri_escaped(c: char) -> String {
    if c.is_ascii_alphanumeric() || "-._~/!$&'()*+,;=:@?".contains(c) {
        return c.to_string();
    }
    c.encode_utf8(&mut [0; 4]).bytes().map(|b| format!("%{b:02X}")).collect()
}

/// A value short enough for a line.
pub(super) fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
