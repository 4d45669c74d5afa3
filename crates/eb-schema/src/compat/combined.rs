//! `anyOf`, `oneOf`, `not`, `if`, `dependentSchemas`, `unevaluated…` of the larger side.

use serde_json::Value;

use super::facts::{Facts, Sub, Types};
use super::include::{Engine, Report};
use super::node::{Node, identical};

/// `anyOf` and `oneOf` of `sup`.
pub(super) fn one_of_many<'s>(
    engine: &mut Engine<'s>,
    sub: &Sub<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
    keyword: &'static str,
) -> Report {
    let branches = sup.list(keyword);
    let exclusive = keyword == "oneOf";
    let same = |c: &Node<'s>| {
        let has = c.list(keyword);
        has.len() == branches.len() && has.iter().zip(&branches).all(|(a, b)| identical(a, b))
    };
    if facts.conjuncts.iter().any(same) || follows(engine, sub, &branches, exclusive) {
        return Report::new();
    }
    let mut report = Report::new();
    for one in facts.types.each() {
        let part = Sub { only: sub.only.and(one), ..sub.clone() };
        if !follows(engine, &part, &branches, exclusive) {
            report.extend(why_not(engine, &part, facts, sup, &branches, keyword, one));
        }
    }
    report
}

/// Whether all of it goes into one branch, and into no other where that matters.
fn follows<'s>(engine: &mut Engine<'s>, sub: &Sub<'s>, branches: &[Node<'s>], exclusive: bool) -> bool {
    for (i, branch) in branches.iter().enumerate() {
        if !engine.includes(sub, branch).is_empty() {
            continue;
        }
        let alone = || branches.iter().enumerate().all(|(j, other)| i == j || disjoint(sub, other));
        if !exclusive || alone() {
            return true;
        }
    }
    false
}

fn why_not<'s>(
    engine: &mut Engine<'s>,
    part: &Sub<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
    branches: &[Node<'s>],
    keyword: &'static str,
    one: Types,
) -> Report {
    let takes = |branch: &&Node<'s>| {
        let alone = Sub { only: one, ..Sub::all_of(vec![(*branch).clone()], false) };
        !Facts::of(&alone).is_never()
    };
    let open: Vec<_> = branches.iter().filter(takes).collect();
    match open[..] {
        [] => {
            let what = format!("{} was taken, and none of the alternatives takes one", one.describe());
            engine.broken(facts.murky || !facts.choices.is_empty(), sup, keyword, "sum_type_narrowed", what)
        }
        [only] => engine.includes(part, only),
        _ => engine.unknown(sup, keyword, "whether every value that was taken fits one of the alternatives"),
    }
}

/// Whether they have no document in common, as far as types, enumerations and required properties tell.
fn disjoint<'s>(sub: &Sub<'s>, other: &Node<'s>) -> bool {
    let a = Facts::of(sub);
    let b = Facts::of(&Sub::all_of(vec![other.clone()], false));
    let common = a.types.and(b.types);
    if common.is_empty() || apart(&a, &b) {
        return true;
    }
    common.within(Types::OBJECT)
        && a.required().filter(|name| b.requires(name)).any(|name| {
            let of = |facts: &Facts<'s>| {
                let nodes = facts.conjuncts.iter().filter_map(|c| c.named("properties", name)).collect();
                Facts::of(&Sub::all_of(nodes, false))
            };
            let (a, b) = (of(&a), of(&b));
            a.types.and(b.types).is_empty() || apart(&a, &b)
        })
}

/// Whether two finite sets share nothing.
fn apart(a: &Facts<'_>, b: &Facts<'_>) -> bool {
    let (Some(a), Some(b)) = (&a.finite, &b.finite) else { return false };
    a.iter().all(|x| b.iter().all(|y| !jsonschema::json::cmp::equal(x, y)))
}

/// `not` of `sup`.
pub(super) fn not<'s>(engine: &mut Engine<'s>, sub: &Sub<'s>, facts: &Facts<'s>, sup: &Node<'s>) -> Report {
    let Some(refused) = sup.under("not") else { return Report::new() };
    let same = |c: &Node<'s>| c.under("not").is_some_and(|has| identical(&has, &refused));
    if facts.conjuncts.iter().any(same) || disjoint(sub, &refused) {
        return Report::new();
    }
    engine.unknown(sup, "not", "whether something that was taken is refused")
}

/// `if`, `then` and `else` of `sup`.
pub(super) fn conditional<'s>(
    engine: &mut Engine<'s>,
    sub: &Sub<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
) -> Report {
    let same = |c: &Node<'s>| {
        ["if", "then", "else"].iter().all(|keyword| match (c.under(keyword), sup.under(keyword)) {
            (None, None) => true,
            (Some(a), Some(b)) => identical(&a, &b),
            _ => false,
        })
    };
    if facts.conjuncts.iter().any(same) {
        return Report::new();
    }
    let outcomes = ["then", "else"].map(|keyword| sup.under(keyword));
    let both = outcomes.iter().flatten().all(|outcome| engine.includes(sub, outcome).is_empty());
    if both { Report::new() } else { engine.unknown(sup, "if", "which documents the condition holds for") }
}

/// `dependentSchemas` of `sup`.
pub(super) fn dependent_schemas<'s>(
    engine: &mut Engine<'s>,
    sub: &Sub<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
) -> Report {
    let mut report = Report::new();
    if !facts.types.has(Types::OBJECT) {
        return report;
    }
    for name in sup.names("dependentSchemas") {
        let Some(wanted) = sup.named("dependentSchemas", name) else { continue };
        let same =
            |c: &Node<'s>| c.named("dependentSchemas", name).is_some_and(|has| identical(&has, &wanted));
        if !facts.conjuncts.iter().any(same) && !engine.includes(sub, &wanted).is_empty() {
            report.extend(engine.unknown(&wanted, "", "whether every event with the property fits"));
        }
    }
    report
}

/// `unevaluatedProperties` and `unevaluatedItems` of `sup`: they depend on everything beside them.
pub(super) fn unevaluated<'s>(
    engine: &Engine<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
    keyword: &'static str,
) -> Report {
    let harmless = matches!(sup.get(keyword), Some(Value::Bool(true)));
    let types = if keyword == "unevaluatedItems" { Types::ARRAY } else { Types::OBJECT };
    if harmless || !facts.types.has(types) || facts.conjuncts.iter().any(|c| identical(c, sup)) {
        return Report::new();
    }
    engine.unknown(sup, keyword, "what is left unevaluated")
}
