//! Properties of objects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::facts::{Facts, Sub, Types};
use super::include::{Engine, Report};
use super::node::{Node, identical};

/// The most ways in which names that nobody lists may match patterns, before it cannot be told.
const MAX_CASES: usize = 64;

/// What may make up for a break that concerns properties.
fn murky(facts: &Facts<'_>) -> bool {
    facts.murky
        || ["propertyNames", "dependentRequired", "minProperties", "maxProperties"]
            .iter()
            .any(|k| facts.has(k))
}

/// All names that either side lists.
fn listed<'s>(facts: &Facts<'s>, sup: &Node<'s>) -> BTreeSet<&'s str> {
    facts.conjuncts.iter().flat_map(|c| c.names("properties")).chain(sup.names("properties")).collect()
}

/// What is required of the property with this name.
fn property<'s>(engine: &mut Engine<'s>, facts: &Facts<'s>, name: &str) -> Vec<Node<'s>> {
    let mut all = Vec::new();
    for conjunct in &facts.conjuncts {
        let mut additional = true;
        if let Some(schema) = conjunct.named("properties", name) {
            all.push(schema);
            additional = false;
        }
        for pattern in conjunct.names("patternProperties") {
            match engine.matches(pattern, name) {
                Some(true) => {
                    all.extend(conjunct.named("patternProperties", pattern));
                    additional = false;
                }
                Some(false) => {}
                // Not knowing that it applies leaves more documents: that is the safe side.
                None => additional = false,
            }
        }
        if additional {
            all.extend(conjunct.under("additionalProperties"));
        }
    }
    all
}

/// What is required of properties that no side lists, by cases that cover them all. With `matching`, only of names that match
/// that pattern; else of names that match none of the patterns of `sup`.
fn unlisted<'s>(facts: &Facts<'s>, sup: &Node<'s>, matching: Option<&str>) -> Option<Vec<Vec<Node<'s>>>> {
    let of_sup: BTreeSet<_> = sup.names("patternProperties").collect();
    let mut cases = vec![Vec::new()];
    for conjunct in &facts.conjuncts {
        let mut ways: Vec<Option<Node<'s>>> = Vec::new();
        match matching {
            Some(pattern) if conjunct.named("patternProperties", pattern).is_some() => {
                ways.push(conjunct.named("patternProperties", pattern));
            }
            _ => {
                let others = conjunct
                    .names("patternProperties")
                    .filter(|p| matching.is_some() || !of_sup.contains(p))
                    .filter_map(|p| conjunct.named("patternProperties", p));
                ways.push(conjunct.under("additionalProperties"));
                ways.extend(others.map(Some));
            }
        }
        if cases.len() * ways.len() > MAX_CASES {
            return None;
        }
        cases = cases
            .iter()
            .flat_map(|case: &Vec<Node<'s>>| {
                ways.iter().map(move |way| case.iter().cloned().chain(way.clone()).collect())
            })
            .collect();
    }
    Some(cases)
}

/// `properties` of `sup`.
pub(super) fn properties<'s>(engine: &mut Engine<'s>, facts: &Facts<'s>, sup: &Node<'s>) -> Report {
    let mut report = Report::new();
    if !facts.types.has(Types::OBJECT) {
        return report;
    }
    for name in sup.names("properties") {
        let Some(wanted) = sup.named("properties", name) else { continue };
        let has = property(engine, facts, name);
        let is_new = !facts.conjuncts.iter().any(|c| c.named("properties", name).is_some());
        let sub = Sub::all_of(has, murky(facts));
        let inner = engine.inside(&sub, &wanted);
        if is_new && sub.nodes.is_empty() && !inner.is_empty() {
            // One reason instead of one for each keyword of the new property.
            let what = format!("events could hold anything under \"{name}\" while the object was open");
            let certain = inner.iter().any(|f| f.certain);
            report.extend(engine.finding(&wanted, "property_added_to_open_content_model", what, certain));
        } else {
            report.extend(inner);
        }
    }
    report
}

/// `patternProperties` and `additionalProperties` of `sup`: all other names.
pub(super) fn other_properties<'s>(engine: &mut Engine<'s>, facts: &Facts<'s>, sup: &Node<'s>) -> Report {
    let mut report = Report::new();
    if !facts.types.has(Types::OBJECT) {
        return report;
    }
    let names = listed(facts, sup);
    let patterns: Vec<&'s str> = sup.names("patternProperties").collect();
    for pattern in &patterns {
        let Some(wanted) = sup.named("patternProperties", pattern) else { continue };
        for name in &names {
            match engine.matches(pattern, name) {
                Some(false) => {}
                Some(true) => {
                    let has = property(engine, facts, name);
                    report.extend(engine.inside(&Sub::all_of(has, murky(facts)), &wanted));
                }
                None => report.extend(engine.unknown(&wanted, "", "whether the pattern matches")),
            }
        }
        report.extend(rest(engine, facts, sup, &wanted, Some(pattern)));
    }
    let Some(wanted) = sup.under("additionalProperties") else { return report };
    for name in &names {
        if sup.named("properties", name).is_some() {
            continue;
        }
        let mut matched = Some(false);
        for pattern in &patterns {
            match engine.matches(pattern, name) {
                Some(true) => matched = Some(true),
                None if matched == Some(false) => matched = None,
                _ => {}
            }
        }
        if matched == Some(true) {
            continue;
        }
        let sub = Sub::all_of(property(engine, facts, name), murky(facts));
        let inner = engine.inside(&sub, &wanted);
        if *wanted.value == Value::Bool(false) && !inner.is_empty() {
            let what =
                format!("events could have \"{name}\", and nothing beside the listed properties is taken");
            let certain = matched == Some(false) && inner.iter().any(|f| f.certain);
            let place =
                facts.conjuncts.iter().find_map(|c| c.named("properties", name)).unwrap_or(wanted.clone());
            report.extend(engine.finding(
                &place,
                "property_removed_from_closed_content_model",
                what,
                certain,
            ));
        } else {
            report.extend(inner);
        }
    }
    report.extend(rest(engine, facts, sup, &wanted, None));
    report
}

/// The names that nobody lists.
fn rest<'s>(
    engine: &mut Engine<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
    wanted: &Node<'s>,
    matching: Option<&str>,
) -> Report {
    let Some(cases) = unlisted(facts, sup, matching) else {
        return engine.unknown(wanted, "", "too many patterns of names at once");
    };
    let mut report = Report::new();
    for case in cases {
        // A case of several patterns may be one that no name falls into.
        let unsure = murky(facts) || matching.is_some() || facts.has("patternProperties");
        let sub = Sub::all_of(case, unsure);
        let inner = engine.inside(&sub, wanted);
        if inner.is_empty() {
            continue;
        }
        if sub.nodes.is_empty() {
            let what = match matching {
                Some(pattern) => format!("events could hold anything under names that match {pattern:?}"),
                None => "events could have properties that are not listed, with any value".to_owned(),
            };
            let certain = inner.iter().any(|f| f.certain);
            report.extend(engine.finding(wanted, "additional_properties_narrowed", what, certain));
            // Every other case says less.
            break;
        }
        report.extend(inner);
    }
    report
}

/// `required` of `sup`.
pub(super) fn required(engine: &Engine<'_>, facts: &Facts<'_>, sup: &Node<'_>) -> Report {
    let mut report = Report::new();
    if !facts.types.has(Types::OBJECT) {
        return report;
    }
    let names = sup.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for name in names.filter(|name| !facts.requires(name)) {
        let what = format!("events without \"{name}\" were taken");
        report.extend(engine.broken(murky(facts), sup, "required", "required_property_added", what));
    }
    report
}

/// `dependentRequired` of `sup`.
pub(super) fn dependent<'s>(engine: &mut Engine<'s>, facts: &Facts<'s>, sup: &Node<'s>) -> Report {
    let mut report = Report::new();
    let Some(Value::Object(wanted)) = sup.get("dependentRequired") else { return report };
    if !facts.types.has(Types::OBJECT) {
        return report;
    }
    for (name, needs) in wanted {
        let present = Sub::all_of(property(engine, facts, name), false);
        if Facts::of(&present).is_never() {
            continue;
        }
        for need in needs.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let has = |v: &Value| {
                v.get(name)
                    .and_then(Value::as_array)
                    .is_some_and(|list| list.iter().any(|n| n.as_str() == Some(need)))
            };
            if need == name || facts.requires(need) || facts.values("dependentRequired").any(has) {
                continue;
            }
            let what = format!("events with \"{name}\" but without \"{need}\" were taken");
            report.extend(engine.broken(
                murky(facts),
                sup,
                "dependentRequired",
                "dependent_required_added",
                what,
            ));
        }
    }
    report
}

/// The names that an object may have where it is closed and has no patterns.
fn closed_names<'s>(facts: &Facts<'s>) -> Option<Vec<&'s str>> {
    let closed = facts.conjuncts.iter().find(|c| {
        c.get("additionalProperties") == Some(&Value::Bool(false))
            && c.names("patternProperties").next().is_none()
    })?;
    Some(closed.names("properties").collect())
}

/// How many properties an object has at the most and at the least, as far as it follows from their names.
pub(super) fn implied_counts(facts: &Facts<'_>) -> (Option<u64>, Option<u64>) {
    let required: BTreeSet<_> = facts.required().collect();
    (closed_names(facts).map(|names| names.len() as u64), Some(required.len() as u64))
}

/// `propertyNames` of `sup`.
pub(super) fn names<'s>(engine: &mut Engine<'s>, facts: &Facts<'s>, sup: &Node<'s>) -> Report {
    let Some(wanted) = sup.under("propertyNames") else { return Report::new() };
    if !facts.types.has(Types::OBJECT) || facts.values("maxProperties").any(|v| v.as_f64() == Some(0.0)) {
        return Report::new();
    }
    let same = |c: &Node<'_>| c.under("propertyNames").is_some_and(|has| identical(&has, &wanted));
    if facts.conjuncts.iter().any(same) {
        return Report::new();
    }
    if let Some(names) = closed_names(facts) {
        let mut report = Report::new();
        for name in names {
            if engine.takes(&wanted, &Value::from(name)) != Some(true) {
                let present = Sub::all_of(property(engine, facts, name), false);
                if !Facts::of(&present).is_never() {
                    let what = format!("events could have \"{name}\"");
                    report.extend(engine.broken(
                        murky(facts),
                        sup,
                        "propertyNames",
                        "property_names_narrowed",
                        what,
                    ));
                }
            }
        }
        return report;
    }
    let has = facts.conjuncts.iter().filter_map(|c| c.under("propertyNames")).collect();
    let sub = Sub { only: Types::STRING, ..Sub::all_of(has, true) };
    engine.inside(&sub, &wanted)
}
