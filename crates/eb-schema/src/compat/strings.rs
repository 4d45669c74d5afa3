//! Lengths and patterns of strings, and the other limits that count.

use serde_json::Value;

use super::facts::{Facts, Sub, Types, count};
use super::include::{Engine, Report};
use super::node::Node;

/// The type that a counting keyword is about, and what else in a schema may bound the same count.
fn about(keyword: &str) -> (Types, &'static [&'static str], &'static str) {
    match keyword {
        "minLength" | "maxLength" => (Types::STRING, &["pattern"], "strings"),
        "minItems" | "maxItems" => (Types::ARRAY, &["contains", "uniqueItems"], "arrays"),
        _ => (Types::OBJECT, &["propertyNames", "dependentRequired"], "objects"),
    }
}

/// A keyword of `sup` that bounds a count. `implied` is a bound that follows from other keywords.
pub(super) fn counted(
    engine: &Engine<'_>,
    facts: &Facts<'_>,
    sup: &Node<'_>,
    keyword: &'static str,
    implied: Option<u64>,
) -> Report {
    let (types, others, what) = about(keyword);
    if !facts.types.has(types) {
        return Report::new();
    }
    let Some(wanted) = sup.get(keyword).and_then(count) else {
        return engine.unknown(sup, keyword, "the limit is no count");
    };
    let lower = keyword.starts_with("min");
    let has = if lower {
        facts.most(keyword).into_iter().chain(implied).max()
    } else {
        facts.least(keyword).into_iter().chain(implied).min()
    };
    let holds = if lower { has.unwrap_or(0) >= wanted } else { has.is_some_and(|has| has <= wanted) };
    if holds {
        return Report::new();
    }
    let murky = facts.murky || others.iter().any(|other| facts.has(other));
    let (rule, side) = if lower { ("minimum_raised", "fewer") } else { ("maximum_lowered", "more") };
    engine.broken(murky, sup, keyword, rule, format!("{what} of {side} than {wanted} were taken"))
}

/// Strings that tell patterns apart often.
const PROBES: [&str; 12] =
    ["", " ", "a", "A", "0", "-", "é", "\n", "aA0-_.", "0000-00-00", "AAA", "\u{1F600}"];

/// `pattern` of `sup`.
pub(super) fn pattern<'s>(
    engine: &mut Engine<'s>,
    sub: &Sub<'s>,
    facts: &Facts<'s>,
    sup: &Node<'s>,
) -> Report {
    let Some(wanted) = sup.get("pattern") else { return Report::new() };
    if !facts.types.has(Types::STRING) || facts.values("pattern").any(|p| p == wanted) {
        return Report::new();
    }
    let at_least = usize::try_from(facts.most("minLength").unwrap_or(0)).unwrap_or(usize::MAX).min(1 << 10);
    let probes = PROBES.iter().map(|p| (*p).to_owned()).chain(["a", "0", " "].map(|c| c.repeat(at_least)));
    let mut shown = None;
    for probe in probes {
        let probe = Value::String(probe);
        let refused = engine.takes(sup, &probe) == Some(false);
        if refused && sub.nodes.iter().all(|node| engine.takes(node, &probe) == Some(true)) {
            shown = Some(probe);
            break;
        }
    }
    match shown {
        Some(example) => {
            // The string itself shows it where nothing around can forbid it.
            let what = format!("strings that do not match were taken, such as {example}");
            engine.broken(sub.murky, sup, "pattern", "pattern_added", what)
        }
        None => engine.unknown(sup, "pattern", "whether every string that was taken matches"),
    }
}
