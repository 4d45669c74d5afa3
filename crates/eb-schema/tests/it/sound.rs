//! The law: what is called compatible holds for every document, judged by the validator that the gate uses.

use eb_schema::{Answer, compare_values};
use jsonschema::canonical::Containment;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "ab"]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..6i64).prop_map(Value::from),
        (-4..8i64).prop_map(|n| json!(n as f64 / 2.0)),
        prop::sample::select(vec!["", "a", "b", "aa", "ab", "abc", "A"]).prop_map(Value::from),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn types() -> impl Strategy<Value = Value> {
    let all = vec!["null", "boolean", "integer", "number", "string", "array", "object"];
    prop::sample::subsequence(all, 1..4).prop_map(|names| match &names[..] {
        [one] => json!(one),
        _ => json!(names),
    })
}

/// One keyword with its value; `inner` for the schemas under it.
fn keyword(inner: BoxedStrategy<Value>) -> BoxedStrategy<(String, Value)> {
    let named = |name: &'static str, value: BoxedStrategy<Value>| {
        value.prop_map(move |v| (name.to_owned(), v)).boxed()
    };
    let small = || (0..4u64).prop_map(Value::from).boxed();
    let bound =
        || (-4..8i64).prop_map(|n| if n % 2 == 0 { json!(n / 2) } else { json!(n as f64 / 2.0) }).boxed();
    let map = |inner: &BoxedStrategy<Value>, names: BoxedStrategy<String>| {
        prop::collection::btree_map(names, inner.clone(), 0..3)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
            .boxed()
    };
    let list = |inner: &BoxedStrategy<Value>| {
        prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from).boxed()
    };
    let regex = || prop::sample::select(vec!["^a", "b", "^[a-z]+$", ""]).prop_map(str::to_owned);
    let names = || prop::collection::btree_set(name(), 0..3).prop_map(|s| json!(s)).boxed();
    let leaf = prop_oneof![
        3 => named("type", types().boxed()),
        1 => named("enum", prop::collection::btree_set(scalar().prop_map(|v| v.to_string()), 1..4)
            .prop_map(|s| s.iter().map(|t| serde_json::from_str::<Value>(t).unwrap()).collect()).boxed()),
        1 => named("const", scalar().boxed()),
        1 => named("minimum", bound()),
        1 => named("exclusiveMinimum", bound()),
        1 => named("maximum", bound()),
        1 => named("exclusiveMaximum", bound()),
        1 => named("multipleOf", prop::sample::select(vec![json!(1), json!(2), json!(0.5), json!(4)]).boxed()),
        1 => named("minLength", small()),
        1 => named("maxLength", small()),
        1 => named("pattern", regex().prop_map(Value::from).boxed()),
        1 => named("minItems", small()),
        1 => named("maxItems", small()),
        1 => named("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        1 => named("minProperties", small()),
        1 => named("maxProperties", small()),
        2 => named("required", names()),
        1 => named("dependentRequired", prop::collection::btree_map(name(), names(), 0..2)
            .prop_map(|m| Value::Object(m.into_iter().collect())).boxed()),
        1 => Just(("$ref".to_owned(), json!("#/$defs/x"))).boxed(),
    ];
    let nested = prop_oneof![
        4 => named("properties", map(&inner, name().boxed())),
        2 => named("additionalProperties", prop_oneof![Just(json!(false)), inner.clone()].boxed()),
        2 => named("patternProperties", map(&inner, regex().boxed())),
        1 => named("propertyNames", inner.clone()),
        2 => named("items", prop_oneof![Just(json!(false)), inner.clone()].boxed()),
        1 => named("prefixItems", list(&inner)),
        1 => named("contains", inner.clone()),
        1 => named("minContains", small()),
        1 => named("maxContains", small()),
        1 => named("allOf", list(&inner)),
        2 => named("anyOf", list(&inner)),
        2 => named("oneOf", list(&inner)),
        1 => named("not", inner.clone()),
        1 => named("if", inner.clone()),
        1 => named("then", inner.clone()),
        1 => named("else", inner.clone()),
        1 => named("dependentSchemas", map(&inner, name().boxed())),
        1 => named("unevaluatedProperties", inner.clone()),
        1 => named("unevaluatedItems", inner),
    ];
    prop_oneof![3 => leaf, 2 => nested].boxed()
}

fn subschema() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![1 => Just(json!(true)), 1 => Just(json!(false)), 6 => types().prop_map(|t| json!({ "type": t }))];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop::collection::vec(keyword(inner.boxed()), 0..4)
            .prop_map(|keywords| Value::Object(keywords.into_iter().collect()))
    })
    .boxed()
}

/// A step from one version to the next, the way people make them.
#[derive(Debug, Clone)]
enum Step {
    Set(String, Value),
    Drop(usize),
    /// The same somewhere below.
    Below(usize, Box<Step>),
}

fn step() -> BoxedStrategy<Step> {
    let flat = || {
        prop_oneof![
            3 => keyword(subschema()).prop_map(|(k, v)| Step::Set(k, v)),
            2 => (0..8usize).prop_map(Step::Drop),
        ]
    };
    prop_oneof![
        1 => flat(),
        1 => (0..8usize, flat()).prop_map(|(i, s)| Step::Below(i, Box::new(s))),
        1 => (0..8usize, 0..8usize, flat())
            .prop_map(|(i, j, s)| Step::Below(i, Box::new(Step::Below(j, Box::new(s))))),
    ]
    .boxed()
}

fn apply(schema: &mut Value, step: &Step) {
    match (step, schema) {
        (Step::Set(k, v), Value::Object(o)) => drop(o.insert(k.clone(), v.clone())),
        (Step::Drop(i), Value::Object(o)) if !o.is_empty() => {
            let key = o.keys().nth(i % o.len()).unwrap().clone();
            o.remove(&key);
        }
        (Step::Below(i, step), Value::Object(o)) if !o.is_empty() => {
            let i = i % o.len();
            apply(o.values_mut().nth(i).unwrap(), step);
        }
        (Step::Below(i, step), Value::Array(a)) if !a.is_empty() => {
            let i = i % a.len();
            apply(&mut a[i], step);
        }
        _ => {}
    }
}

fn whole(root: Value, x: &Value) -> Value {
    let mut root = match root {
        Value::Object(object) => object,
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    root.insert("$schema".to_owned(), json!(eb_schema::DRAFT));
    root.insert("$defs".to_owned(), json!({ "x": x }));
    Value::Object(root)
}

fn pair() -> impl Strategy<Value = (Value, Value)> {
    let stepped =
        (subschema(), subschema(), prop::collection::vec(step(), 0..3)).prop_map(|(root, x, steps)| {
            let old = whole(root, &x);
            let mut new = old.clone();
            steps.iter().for_each(|step| apply(&mut new, step));
            let x = new.get("$defs").and_then(|d| d.get("x")).cloned().unwrap_or(x);
            (old, whole(new, &x))
        });
    let unrelated =
        (subschema(), subschema(), subschema()).prop_map(|(a, b, x)| (whole(a, &x), whole(b, &x)));
    prop_oneof![4 => stepped, 1 => unrelated]
}

/// What the run saw: a test that never says yes shows nothing.
#[derive(Debug, Default)]
struct Seen {
    yes: usize,
    told_apart: usize,
    documents: usize,
    no: usize,
    unknown: usize,
    /// Said to break, and by the second opinion it does not: allowed, since a no is no proof, and to be kept rare.
    accused: usize,
}

#[test]
fn what_is_called_compatible_holds_for_every_document() {
    let cases = if std::env::var_os("EB_TEST_LONG").is_some() { 40_000 } else { 800 };
    let seen = std::cell::RefCell::new(Seen::default());
    let config =
        Config { cases, failure_persistence: None, max_global_rejects: cases * 20, ..Config::default() };
    let law = (pair(), prop::collection::vec(document(), 24));
    TestRunner::new(config)
        .run(&law, |((old, new), documents)| {
            let build = |schema: &Value| jsonschema::options().offline().build(schema);
            let (Ok(was), Ok(is)) = (build(&old), build(&new)) else {
                return Err(TestCaseError::reject("not a schema"));
            };
            let found = compare_values(&old, &new);
            let mut seen = seen.borrow_mut();
            for (answer, small, large, sets) in
                [(found.backward, &was, &is, (&old, &new)), (found.forward, &is, &was, (&new, &old))]
            {
                match answer {
                    Answer::Yes => {
                        seen.yes += 1;
                        seen.told_apart += usize::from(old != new);
                        for document in documents.iter().filter(|d| small.is_valid(d)) {
                            seen.documents += 1;
                            prop_assert!(
                                large.is_valid(document),
                                "{} is refused by {} but was taken by {}",
                                document,
                                sets.1,
                                sets.0
                            );
                        }
                    }
                    Answer::No => seen.no += 1,
                    Answer::CannotTell => seen.unknown += 1,
                }
                // A second opinion, made in another way: it never proves the opposite of a yes.
                let canonical =
                    |schema: &Value| jsonschema::canonical::options().offline().canonicalize(schema);
                if answer != Answer::CannotTell
                    && let (Ok(sub), Ok(sup)) = (canonical(sets.0), canonical(sets.1))
                    && let Ok(covers) = sup.covers(&sub)
                {
                    match (answer, covers) {
                        (Answer::Yes, Containment::No) => {
                            prop_assert!(false, "{} is not within {}", sets.0, sets.1);
                        }
                        (Answer::No, Containment::Yes) => {
                            if std::env::var_os("EB_TEST_LONG").is_some() {
                                println!("accused: {} within {}: {:?}", sets.0, sets.1, found.changes);
                            }
                            seen.accused += 1;
                        }
                        _ => {}
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    let seen = seen.into_inner();
    println!("seed: drawn by proptest; {seen:?}");
    let least = usize::try_from(cases).unwrap() / 20;
    assert!(seen.accused * 10 < seen.no, "{seen:?}");
    assert!(
        seen.told_apart > least && seen.documents > least && seen.no > least && seen.unknown > least,
        "{seen:?}"
    );
}
