//! The rules of compatibility, each by a pair of schemas.

use eb_schema::{Answer, Comparison, compare_values};
use serde_json::{Value, json};

use Answer::{CannotTell, No, Yes};

fn compared(old: &Value, new: &Value) -> Comparison {
    compare_values(old, new)
}

/// Each: what it shows, old, new, backward, forward.
fn check(cases: &[(&str, Value, Value, Answer, Answer)]) {
    for (what, old, new, backward, forward) in cases {
        let found = compared(old, new);
        assert_eq!((found.backward, found.forward), (*backward, *forward), "{what}: {:#?}", found.changes);
        let back = compared(new, old);
        assert_eq!((back.backward, back.forward), (*forward, *backward), "{what}, the other way round");
    }
}

fn open(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn closed(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

#[test]
fn content_models_decide_what_a_new_property_breaks() {
    let (a, ab) =
        (json!({"a": {"type": "string"}}), json!({"a": {"type": "string"}, "b": {"type": "string"}}));
    let partly =
        |p: &Value| json!({"type": "object", "properties": p, "additionalProperties": {"type": "string"}});
    let partly_number =
        |p: &Value| json!({"type": "object", "properties": p, "additionalProperties": {"type": "number"}});
    check(&[
        ("a property added to an open model", open(&a), open(&ab), No, Yes),
        (
            "a property that takes everything added to an open model",
            open(&a),
            open(&json!({"a": {"type": "string"}, "b": true})),
            Yes,
            Yes,
        ),
        ("a property added to a closed model", closed(&a), closed(&ab), Yes, No),
        ("closing an open model", open(&a), closed(&a), No, Yes),
        ("a property that is covered by a partially open model", partly(&a), partly(&ab), Yes, Yes),
        ("a property that is not covered by it", partly_number(&a), partly_number(&ab), No, No),
        ("opening a partially open model", partly(&a), open(&a), Yes, No),
        (
            "a property never allowed",
            closed(&a),
            closed(&json!({"a": {"type": "string"}, "b": false})),
            Yes,
            Yes,
        ),
    ]);
}

#[test]
fn types_widen_and_narrow() {
    check(&[
        ("integer to number", json!({"type": "integer"}), json!({"type": "number"}), Yes, No),
        ("a type added", json!({"type": "string"}), json!({"type": ["null", "string"]}), Yes, No),
        ("another type", json!({"type": "string"}), json!({"type": "integer"}), No, No),
        ("any type", json!({"type": "string"}), json!({}), Yes, No),
        (
            "all types named",
            json!({"type": ["null", "boolean", "number", "string", "array", "object"]}),
            json!(true),
            Yes,
            Yes,
        ),
        (
            "annotations",
            json!({"title": "a", "format": "date"}),
            json!({"title": "b", "x-owner": "me"}),
            Yes,
            Yes,
        ),
    ]);
}

#[test]
fn required_properties_and_enumerations() {
    check(&[
        (
            "a required property more",
            json!({"type": "object", "required": ["a"]}),
            json!({"type": "object", "required": ["b", "a"]}),
            No,
            Yes,
        ),
        ("an enumeration extended", json!({"enum": ["a", "b"]}), json!({"enum": ["c", "b", "a"]}), Yes, No),
        ("an enumeration added", json!({"type": "string"}), json!({"enum": ["a"]}), No, Yes),
        (
            "an enumeration whose loss no type notices",
            json!({"type": "string", "enum": ["a", 1]}),
            json!({"enum": ["a", 2]}),
            Yes,
            No,
        ),
        ("a constant into an enumeration", json!({"const": 1}), json!({"enum": [1.0, 2]}), Yes, No),
        (
            "an enumeration within bounds",
            json!({"enum": [1, 2, 3]}),
            json!({"type": "integer", "minimum": 1}),
            Yes,
            No,
        ),
        ("booleans are finite", json!({"type": "boolean"}), json!({"enum": [true, false]}), Yes, Yes),
        (
            "dependent properties",
            json!({"type": "object"}),
            json!({"type": "object", "dependentRequired": {"a": ["b"]}}),
            No,
            Yes,
        ),
    ]);
}

#[test]
fn bounds_are_compared_exactly() {
    let n = |bounds: Value| {
        let mut schema = json!({"type": "number"});
        schema.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        schema
    };
    check(&[
        ("a minimum lowered", n(json!({"minimum": 1})), n(json!({"minimum": 0})), Yes, No),
        ("a maximum raised", n(json!({"maximum": 1})), n(json!({"maximum": 1.5})), Yes, No),
        ("an exclusive bound", n(json!({"exclusiveMinimum": 1})), n(json!({"minimum": 1})), Yes, No),
        (
            "integers step over",
            json!({"type": "integer", "exclusiveMinimum": 4}),
            json!({"type": "integer", "minimum": 5}),
            Yes,
            Yes,
        ),
        (
            "beyond floats",
            n(json!({"minimum": 9_007_199_254_740_993_u64})),
            n(json!({"minimum": 9_007_199_254_740_992.0})),
            Yes,
            No,
        ),
        (
            "multiples",
            json!({"type": "integer", "multipleOf": 10}),
            json!({"type": "integer", "multipleOf": 5}),
            Yes,
            CannotTell,
        ),
        (
            "lengths",
            json!({"type": "string", "maxLength": 5}),
            json!({"type": "string", "maxLength": 6.0}),
            Yes,
            No,
        ),
        (
            "every integer is a multiple of a half",
            json!({"type": "integer"}),
            json!({"type": "integer", "multipleOf": 0.5}),
            Yes,
            Yes,
        ),
        ("no number at all", json!({"type": "string"}), json!({"type": "string", "minimum": 5}), Yes, Yes),
    ]);
}

#[test]
fn patterns_are_the_same_or_broken_by_an_example_or_unknown() {
    let p = |pattern: &str| json!({"type": "string", "pattern": pattern});
    check(&[
        ("a pattern added", json!({"type": "string"}), p("^[A-Z]{3}$"), No, Yes),
        ("a pattern narrowed", p("^[A-Z]{2}"), p("^[A-Z]{3}$"), CannotTell, CannotTell),
        ("a pattern that takes everything", json!({"type": "string"}), p(""), CannotTell, Yes),
    ]);
    let found = compared(&json!({"type": "string"}), &p("^[A-Z]{3}$"));
    let finding = &found.changes[0].breaks_backward[0];
    assert_eq!((finding.pointer.as_str(), finding.rule), ("/pattern", "pattern_added"));
    assert!(finding.message.ends_with("such as \"\""), "{finding:?}");
}

#[test]
fn items_of_arrays() {
    check(&[
        (
            "items narrowed",
            json!({"type": "array"}),
            json!({"type": "array", "items": {"type": "string"}}),
            No,
            Yes,
        ),
        (
            "an item more",
            json!({"type": "array", "prefixItems": [{"type": "string"}]}),
            json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}]}),
            No,
            Yes,
        ),
        (
            "closed behind its items",
            json!({"type": "array", "prefixItems": [true], "items": false}),
            json!({"type": "array", "maxItems": 1}),
            Yes,
            Yes,
        ),
        (
            "items that never come",
            json!({"type": "array", "maxItems": 1}),
            json!({"type": "array", "maxItems": 1, "prefixItems": [true, false]}),
            Yes,
            Yes,
        ),
        ("all different", json!({"type": "array"}), json!({"type": "array", "uniqueItems": true}), No, Yes),
        (
            "something within",
            json!({"type": "array"}),
            json!({"type": "array", "contains": {"const": 1}}),
            No,
            Yes,
        ),
    ]);
}

#[test]
fn alternatives_are_followed_and_otherwise_not_guessed() {
    let nullable = json!({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]});
    let kind = |name: &str, of: &str| json!({"type": "object", "required": ["kind"], "properties": {"kind": {"const": name}, "at": {"type": of}}});
    check(&[
        ("type by type", json!({"type": ["null", "string"], "maxLength": 3}), nullable.clone(), Yes, Yes),
        (
            "an alternative more",
            nullable.clone(),
            json!({"anyOf": [{"type": "null"}, {"type": "number"}, {"type": "string"}]}),
            Yes,
            No,
        ),
        (
            "one of two by a tag",
            json!({"oneOf": [kind("a", "string")]}),
            json!({"oneOf": [kind("a", "string"), kind("b", "number")]}),
            Yes,
            CannotTell,
        ),
        (
            "one of two that overlap",
            json!({"oneOf": [{"minimum": 1}]}),
            json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]}),
            CannotTell,
            CannotTell,
        ),
        (
            "all of them",
            json!({"allOf": [{"type": "string"}, {"maxLength": 3}]}),
            json!({"type": "string", "maxLength": 4}),
            Yes,
            No,
        ),
        ("not", json!({"type": "string"}), json!({"type": "string", "not": {"const": "x"}}), CannotTell, Yes),
        (
            "not of another type",
            json!({"type": "string"}),
            json!({"type": "string", "not": {"type": "null"}}),
            Yes,
            Yes,
        ),
        (
            "a condition",
            json!({"type": "object"}),
            json!({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}),
            CannotTell,
            Yes,
        ),
        (
            "unevaluated",
            json!({"type": "object"}),
            json!({"type": "object", "unevaluatedProperties": false}),
            CannotTell,
            Yes,
        ),
    ]);
}

#[test]
fn references_are_followed_also_when_they_come_back() {
    let tree = |leaf: &str| {
        json!({
            "$ref": "#/$defs/tree",
            "$defs": {"tree": {"type": "object", "properties": {
                "leaf": {"type": leaf},
                "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            }}},
        })
    };
    let found = compared(&tree("integer"), &tree("number"));
    assert_eq!((found.backward, found.forward), (Yes, No));
    let break_ = found.changes.iter().flat_map(|c| &c.breaks_forward).next().unwrap();
    assert_eq!(break_.pointer, "/$defs/tree/properties/leaf/type");
    let itself = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
    assert_eq!(compared(&json!({"type": "string"}), &itself).backward, CannotTell);
    assert_eq!(compared(&json!(true), &json!({"$ref": "#/$defs/none"})).backward, CannotTell);
}

#[test]
fn each_change_has_its_place_and_whom_it_breaks() {
    let old = json!({"title": "A", "type": "object", "required": ["a"], "properties": {"a": {"type": "string", "maxLength": 5}, "a/b": {"type": "integer"}}});
    let new = json!({"title": "B", "type": "object", "required": ["a", "c"], "properties": {"a": {"type": "string", "maxLength": 9}, "a/b": {"type": "string"}}});
    let found = compared(&old, &new);
    assert_eq!(found.level(), "none");
    let told: Vec<_> = found
        .changes
        .iter()
        .map(|c| {
            (c.pointer.as_str(), c.annotation, !c.breaks_backward.is_empty(), !c.breaks_forward.is_empty())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("/properties/a/maxLength", false, false, true),
            ("/properties/a~1b/type", false, true, true),
            ("/required", false, true, false),
            ("/title", true, false, false),
        ]
    );
}

#[test]
fn intricate_schemas_end_in_an_answer() {
    // Every choice doubles the cases.
    let any = |i: usize| json!({"anyOf": [{"required": [format!("a{i}")]}, {"required": [format!("b{i}")]}]});
    let old = json!({"allOf": (0..40).map(any).collect::<Vec<_>>()});
    let new = json!({"type": "object", "minProperties": 41});
    assert_ne!(compared(&old, &new).backward, Yes);
    let deep = |leaf: &str| {
        (0..60).fold(json!({"type": leaf}), |inner, _| json!({"type": "object", "properties": {"a": inner}}))
    };
    assert_eq!(compared(&deep("integer"), &deep("number")).backward, Yes);
}
