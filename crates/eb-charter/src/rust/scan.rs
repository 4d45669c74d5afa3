//! Tokens of macros: what a parser of Rust leaves to them.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// A call `receiver.publish(a, b)` in tokens.
pub(super) struct TokenCall {
    pub(super) span: Span,
    pub(super) method: String,
    /// The identifier before the dot.
    pub(super) receiver: Option<String>,
}

/// A JSON object in tokens: its keys with their string values.
pub(super) struct TokenObject {
    pub(super) span: Span,
    pub(super) keys: Vec<(String, Option<(String, Span)>)>,
}

/// Calls of two arguments to one of `methods`, at any depth.
pub(super) fn calls(tokens: &TokenStream, methods: &[&str], out: &mut Vec<TokenCall>) {
    let all: Vec<TokenTree> = tokens.clone().into_iter().collect();
    for (i, token) in all.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            calls(&group.stream(), methods, out);
            continue;
        }
        let TokenTree::Ident(name) = token else { continue };
        let method = name.to_string();
        let after_dot = i > 0 && matches!(&all[i - 1], TokenTree::Punct(p) if p.as_char() == '.');
        if !after_dot || !methods.contains(&method.as_str()) {
            continue;
        }
        if let Some(TokenTree::Group(arguments)) = all.get(i + 1)
            && arguments.delimiter() == Delimiter::Parenthesis
            && argument_count(&arguments.stream()) == 2
        {
            let receiver = match i.checked_sub(2).map(|before| &all[before]) {
                Some(TokenTree::Ident(name)) => Some(name.to_string()),
                _ => None,
            };
            out.push(TokenCall { span: name.span(), method, receiver });
        }
    }
}

fn argument_count(tokens: &TokenStream) -> usize {
    let mut count = 0;
    let mut pending = false;
    for token in tokens.clone() {
        if matches!(&token, TokenTree::Punct(p) if p.as_char() == ',') {
            count += usize::from(pending);
            pending = false;
        } else {
            pending = true;
        }
    }
    count + usize::from(pending)
}

/// Objects of JSON written as tokens (`json!({ "key": value })`), at any depth.
pub(super) fn objects(tokens: &TokenStream, out: &mut Vec<TokenObject>) {
    for token in tokens.clone() {
        let TokenTree::Group(group) = token else { continue };
        if group.delimiter() == Delimiter::Brace {
            let all: Vec<TokenTree> = group.stream().into_iter().collect();
            let keys = all.windows(2).enumerate().filter_map(|(i, pair)| {
                let key = string(&pair[0])?;
                let colon = matches!(&pair[1], TokenTree::Punct(p) if p.as_char() == ':');
                // A key stands first, or behind a comma.
                let first = i == 0 || matches!(&all[i - 1], TokenTree::Punct(p) if p.as_char() == ',');
                let value = all.get(i + 2).and_then(|v| Some((string(v)?, v.span())));
                (colon && first).then_some((key, value))
            });
            let keys: Vec<_> = keys.collect();
            if !keys.is_empty() {
                out.push(TokenObject { span: group.span_open(), keys });
            }
        }
        objects(&group.stream(), out);
    }
}

/// Every string literal, at any depth.
pub(super) fn strings(tokens: &TokenStream, out: &mut Vec<(String, Span)>) {
    for token in tokens.clone() {
        match &token {
            TokenTree::Group(group) => strings(&group.stream(), out),
            TokenTree::Literal(literal) => out.extend(string(&token).map(|text| (text, literal.span()))),
            _ => {}
        }
    }
}

fn string(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    match syn::parse_str::<syn::Lit>(&literal.to_string()) {
        Ok(syn::Lit::Str(text)) => Some(text.value()),
        Ok(syn::Lit::ByteStr(bytes)) => String::from_utf8(bytes.value()).ok(),
        _ => None,
    }
}

/// How deep the brackets of a file nest.
pub(super) fn depth(tokens: &TokenStream, limit: usize) -> usize {
    if limit == 0 {
        return 0;
    }
    let inner = tokens.clone().into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(1 + depth(&group.stream(), limit - 1)),
        _ => None,
    });
    inner.max().unwrap_or(0)
}

/// The value behind `"event_type":` in the text of a JSON object, and whether `"event_id":` stands there, too. Braces and quotes may be
/// escaped as they are in `format!` strings.
pub(super) fn text_event(text: &str) -> Option<TextEvent> {
    let text = text.replace("\\\"", "\"");
    let value = |key: &str| {
        let at = text.find(&format!("\"{key}\""))?;
        let rest = text[at + key.len() + 2..].trim_start().strip_prefix(':')?;
        Some(rest.trim_start().strip_prefix('"').and_then(|v| v.split_once('"')).map(|(v, _)| v.to_owned()))
    };
    let event_type = value("event_type")?;
    let has = |key: &str| value(key).is_some();
    Some(TextEvent {
        // `{type}` is filled in by the program.
        event_type: event_type.filter(|t| !t.contains(['{', '}', '\\'])),
        is_envelope: has("event_id") && has("manifest_fingerprint"),
        lacks: super::REQUIRED.into_iter().filter(|key| !has(key)).collect(),
    })
}

/// An event in a string.
pub(super) struct TextEvent {
    pub(super) event_type: Option<String>,
    pub(super) is_envelope: bool,
    pub(super) lacks: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_in_a_string_is_seen() {
        let event = text_event(
            r#"{"event_id":"e","event_type" : "a.b.added","manifest_fingerprint":"","producer":"p"}"#,
        )
        .unwrap();
        assert_eq!(event.event_type.as_deref(), Some("a.b.added"));
        assert!(event.is_envelope);
        assert_eq!(event.lacks, ["source_module", "schema_version"]);
        assert!(text_event(r#"{{"event_type":"{kind}"}}"#).unwrap().event_type.is_none());
        assert!(text_event("the event_type of an event").is_none());
    }
}
