//! Items of arrays.

use serde_json::Value;

use super::facts::{Facts, Sub, Types, count};
use super::include::{Engine, Report};
use super::node::{Node, identical};

/// How many items an array has at the most, as far as it follows.
pub(super) fn longest(facts: &Facts<'_>) -> Option<u64> {
    let never = |node: &Node<'_>| *node.value == Value::Bool(false);
    let closed = |c: &Node<'_>| {
        let prefix = c.list("prefixItems");
        let behind = c.under("items").is_some_and(|items| never(&items)).then_some(prefix.len());
        prefix.iter().position(never).or(behind).map(|n| n as u64)
    };
    facts.least("maxItems").into_iter().chain(facts.conjuncts.iter().filter_map(closed)).min()
}

/// What is required of the item at a place.
fn item<'s>(facts: &Facts<'s>, index: usize) -> Vec<Node<'s>> {
    let of = |c: &Node<'s>| c.list("prefixItems").into_iter().nth(index).or_else(|| c.under("items"));
    facts.conjuncts.iter().filter_map(of).collect()
}

/// `prefixItems` and `items` of `sup`, together.
pub(super) fn items<'s>(engine: &mut Engine<'s>, facts: &Facts<'s>, sup: &Node<'s>) -> Report {
    if !facts.types.has(Types::ARRAY) {
        return Report::new();
    }
    let prefix = sup.list("prefixItems");
    let rest = sup.under("items");
    let known =
        facts.conjuncts.iter().map(|c| c.list("prefixItems").len()).max().unwrap_or(0).max(prefix.len());
    let reachable = |index: usize| longest(facts).is_none_or(|longest| longest > index as u64);
    let murky = facts.murky || facts.has("contains") || facts.has("uniqueItems");
    let mut report = Report::new();
    // One beyond the last that is told apart stands for all the rest.
    for index in 0..=known {
        let Some(wanted) = prefix.get(index).or(rest.as_ref()) else { continue };
        if reachable(index) {
            let sub = Sub::all_of(item(facts, index), murky);
            report.extend(engine.inside(&sub, wanted));
        }
    }
    report
}

/// `uniqueItems` of `sup`.
pub(super) fn unique(engine: &Engine<'_>, facts: &Facts<'_>, sup: &Node<'_>) -> Report {
    let needless = !facts.types.has(Types::ARRAY)
        || sup.get("uniqueItems") != Some(&Value::Bool(true))
        || facts.values("uniqueItems").any(|v| *v == Value::Bool(true))
        || longest(facts).is_some_and(|n| n <= 1);
    if needless {
        return Report::new();
    }
    // Items that differ anyway, because each place wants another value, are beyond the rules.
    let murky = facts.murky || facts.has("prefixItems") || facts.has("contains");
    engine.broken(
        murky,
        sup,
        "uniqueItems",
        "unique_items_added",
        "arrays with equal items were taken".to_owned(),
    )
}

/// `contains` of `sup` with its counts.
pub(super) fn contains(engine: &Engine<'_>, facts: &Facts<'_>, sup: &Node<'_>) -> Report {
    let Some(wanted) = sup.under("contains") else { return Report::new() };
    let least = |node: &Node<'_>| node.get("minContains").and_then(count).unwrap_or(1);
    let most = |node: &Node<'_>| node.get("maxContains").and_then(count);
    if !facts.types.has(Types::ARRAY) || (least(sup) == 0 && most(sup).is_none()) {
        return Report::new();
    }
    let covers = |c: &Node<'_>| {
        c.under("contains").is_some_and(|has| identical(&has, &wanted))
            && least(c) >= least(sup)
            && most(sup).is_none_or(|limit| most(c).is_some_and(|has| has <= limit))
    };
    if facts.conjuncts.iter().any(covers) {
        return Report::new();
    }
    if least(sup) > 0 && facts.most("minItems").unwrap_or(0) == 0 && !facts.has("contains") {
        let what = "an empty array was taken".to_owned();
        return engine.broken(facts.murky, sup, "contains", "contains_added", what);
    }
    engine.unknown(sup, "contains", "whether every array that was taken contains as many")
}
