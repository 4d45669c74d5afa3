//! The keywords of draft 2020-12 and what stands under them.

use serde_json::{Map, Value};

/// What stands under a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    /// A schema.
    Schema,
    /// A map from names to schemas.
    Map,
    /// A list of schemas.
    List,
    /// Data that takes part in validation.
    Data,
    /// Something that has no say in what is valid.
    Annotation,
}

/// What stands under a keyword, `None` for one that the draft does not know.
pub(crate) fn under(keyword: &str) -> Option<Under> {
    Some(match keyword {
        "additionalProperties"
        | "contains"
        | "else"
        | "if"
        | "items"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Under::Schema,
        "$defs" | "definitions" | "dependentSchemas" | "patternProperties" | "properties" => Under::Map,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Under::List,
        "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$ref" | "const" | "dependentRequired" | "enum"
        | "exclusiveMaximum" | "exclusiveMinimum" | "maxContains" | "maxItems" | "maxLength"
        | "maxProperties" | "maximum" | "minContains" | "minItems" | "minLength" | "minProperties"
        | "minimum" | "multipleOf" | "pattern" | "required" | "type" | "uniqueItems" => Under::Data,
        "$comment" | "$id" | "$schema" | "contentEncoding" | "contentMediaType" | "contentSchema"
        | "default" | "deprecated" | "description" | "examples" | "format" | "readOnly" | "title"
        | "writeOnly" => Under::Annotation,
        _ => return None,
    })
}

/// Calls `visit` with every schema that is an object, the root first, each with its JSON pointer.
pub(crate) fn walk<'v>(
    value: &'v Value,
    pointer: &str,
    visit: &mut impl FnMut(&str, &'v Map<String, Value>),
) {
    let Value::Object(schema) = value else { return };
    visit(pointer, schema);
    for (keyword, value) in schema {
        let here = child(pointer, keyword);
        match (under(keyword), value) {
            (Some(Under::Schema), value) => walk(value, &here, visit),
            (Some(Under::Map), Value::Object(map)) => {
                map.iter().for_each(|(name, value)| walk(value, &child(&here, name), visit));
            }
            (Some(Under::List), Value::Array(list)) => {
                list.iter()
                    .enumerate()
                    .for_each(|(i, value)| walk(value, &child(&here, &i.to_string()), visit));
            }
            _ => {}
        }
    }
}

/// A JSON pointer one step longer.
pub(crate) fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
