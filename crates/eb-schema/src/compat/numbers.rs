//! Bounds of numbers, compared exactly.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::facts::{Facts, Types};
use super::include::{Engine, Report};
use super::node::Node;

/// The whole numbers that a float holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON number, exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Num {
    Whole(i128),
    /// Not whole, or too large to be told.
    Float(f64),
}

impl Num {
    fn of(number: &Number) -> Option<Self> {
        if let Some(n) = number.as_i64() {
            return Some(Self::Whole(n.into()));
        }
        if let Some(n) = number.as_u64() {
            return Some(Self::Whole(n.into()));
        }
        let f = number.as_f64()?;
        // Exact: whole and within 2^53.
        Some(if f.fract() == 0.0 && f.abs() <= EXACT { Self::Whole(f as i128) } else { Self::Float(f) })
    }

    fn cmp(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Whole(a), Self::Float(b)) => whole_to_float(a, b),
            (Self::Float(a), Self::Whole(b)) => whole_to_float(b, a).reverse(),
        }
    }
}

fn whole_to_float(a: i128, b: f64) -> Ordering {
    // 2^126: beyond every whole number that JSON text gives us.
    const FAR: f64 = 85_070_591_730_234_615_865_843_651_857_942_052_864.0;
    if b >= FAR {
        return Ordering::Less;
    }
    if b <= -FAR {
        return Ordering::Greater;
    }
    let floor = b.floor();
    a.cmp(&(floor as i128)).then(if b > floor { Ordering::Less } else { Ordering::Equal })
}

/// A bound and whether it is itself left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    at: Num,
    exclusive: bool,
}

impl Bound {
    /// For whole numbers: the first whole number that is allowed, seen upwards (`up`) or downwards.
    fn to_whole(self, up: bool) -> Self {
        let step = if up { 1 } else { -1 };
        match self.at {
            Num::Whole(n) if self.exclusive => {
                Self { at: Num::Whole(n.saturating_add(step)), exclusive: false }
            }
            Num::Float(f) if f.abs() < EXACT => {
                let next = if up { f.ceil() } else { f.floor() };
                Self { at: Num::Whole(next as i128), exclusive: false }
            }
            _ => self,
        }
    }

    /// Whether a lower bound allows no more than `other` does.
    fn above(self, other: Self) -> bool {
        match self.at.cmp(other.at) {
            Ordering::Greater => true,
            Ordering::Equal => self.exclusive || !other.exclusive,
            Ordering::Less => false,
        }
    }

    /// Whether an upper bound allows no more than `other` does.
    fn below(self, other: Self) -> bool {
        match self.at.cmp(other.at) {
            Ordering::Less => true,
            Ordering::Equal => self.exclusive || !other.exclusive,
            Ordering::Greater => false,
        }
    }
}

fn bound(value: &Value, exclusive: bool) -> Option<Bound> {
    let Value::Number(number) = value else { return None };
    Some(Bound { at: Num::of(number)?, exclusive })
}

fn bounds(
    facts: &Facts<'_>,
    inclusive: &'static str,
    exclusive: &'static str,
) -> impl Iterator<Item = Bound> {
    let inclusive: Vec<_> = facts.values(inclusive).filter_map(|v| bound(v, false)).collect();
    let exclusive: Vec<_> = facts.values(exclusive).filter_map(|v| bound(v, true)).collect();
    inclusive.into_iter().chain(exclusive)
}

fn whole_only(facts: &Facts<'_>) -> bool {
    !facts.types.has(Types::FRACTION)
}

pub(super) fn lower(facts: &Facts<'_>) -> Option<Bound> {
    let all = bounds(facts, "minimum", "exclusiveMinimum");
    let tightest = all.reduce(|a, b| if a.above(b) { a } else { b })?;
    Some(if whole_only(facts) { tightest.to_whole(true) } else { tightest })
}

pub(super) fn upper(facts: &Facts<'_>) -> Option<Bound> {
    let all = bounds(facts, "maximum", "exclusiveMaximum");
    let tightest = all.reduce(|a, b| if a.below(b) { a } else { b })?;
    Some(if whole_only(facts) { tightest.to_whole(false) } else { tightest })
}

/// Whether no number lies between the bounds.
pub(super) fn is_empty(facts: &Facts<'_>) -> bool {
    match (lower(facts), upper(facts)) {
        (Some(low), Some(high)) => match low.at.cmp(high.at) {
            Ordering::Greater => true,
            Ordering::Equal => low.exclusive || high.exclusive,
            Ordering::Less => false,
        },
        _ => false,
    }
}

/// `minimum`, `exclusiveMinimum`, `maximum`, `exclusiveMaximum` of `sup`.
pub(super) fn limit(engine: &Engine<'_>, facts: &Facts<'_>, sup: &Node<'_>, keyword: &'static str) -> Report {
    if !facts.types.has(Types::NUMBER) {
        return Report::new();
    }
    let Some(wanted) = sup.get(keyword).and_then(|v| bound(v, keyword.starts_with("exclusive"))) else {
        return engine.unknown(sup, keyword, "the bound is no number that can be compared");
    };
    let (holds, rule) = if keyword.ends_with("inimum") {
        (facts.lower().is_some_and(|low| low.above(wanted)), "minimum_raised")
    } else {
        (facts.upper().is_some_and(|high| high.below(wanted)), "maximum_lowered")
    };
    if holds {
        return Report::new();
    }
    let value = sup.get(keyword).map(Value::to_string).unwrap_or_default();
    let side = if rule == "minimum_raised" { "below" } else { "above" };
    let edge = if wanted.exclusive { "or at " } else { "" };
    engine.broken(
        facts.murky || facts.has("multipleOf"),
        sup,
        keyword,
        rule,
        format!("numbers {edge}{side} {value} were taken"),
    )
}

/// `multipleOf` of `sup`.
pub(super) fn multiple_of(engine: &Engine<'_>, facts: &Facts<'_>, sup: &Node<'_>) -> Report {
    if !facts.types.has(Types::NUMBER) {
        return Report::new();
    }
    let Some(wanted) = sup.get("multipleOf") else { return Report::new() };
    let whole = |value: &Value| match value {
        Value::Number(n) => match Num::of(n) {
            Some(Num::Whole(n)) if n > 0 && n <= EXACT as i128 => Some(n),
            _ => None,
        },
        _ => None,
    };
    let of = whole(wanted);
    // By a power of two floats divide exactly.
    let divides = |number: f64| {
        let wanted = wanted.as_f64().filter(|w| *w > 0.0 && w.log2().fract() == 0.0 && w.log2().abs() < 64.0);
        wanted.is_some_and(|w| (number / w).fract() == 0.0)
    };
    if whole_only(facts) && divides(1.0) {
        return Report::new();
    }
    let mut seen = false;
    for has in facts.values("multipleOf") {
        seen = true;
        let exact = whole(has).is_some_and(|has| has <= 1 << 32) && has.as_f64().is_some_and(divides);
        if has == wanted || exact || matches!((whole(has), of), (Some(has), Some(of)) if has % of == 0) {
            return Report::new();
        }
    }
    if seen {
        return engine.unknown(sup, "multipleOf", "not a multiple of what it was");
    }
    engine.broken(
        facts.murky,
        sup,
        "multipleOf",
        "multiple_of_added",
        format!("numbers that are no multiple of {wanted} were taken"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_and_floats_compare_exactly() {
        let num = |text: &str| Num::of(&text.parse().unwrap()).unwrap();
        // Equal as floats, not as numbers.
        assert_eq!(num("9007199254740993").cmp(num("9007199254740992.0")), Ordering::Greater);
        assert_eq!(num("18446744073709551615").cmp(num("1.8446744073709552e19")), Ordering::Less);
        assert_eq!(num("1").cmp(num("1.0")), Ordering::Equal);
        assert_eq!(num("-1").cmp(num("-1.5")), Ordering::Greater);
        assert_eq!(num("0").cmp(num("1e300")), Ordering::Less);
        assert_eq!(num("0").cmp(num("-1e300")), Ordering::Greater);
    }
}
