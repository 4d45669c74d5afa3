//! JSON made at random, with an independent idea of what its forms must be.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

/// A JSON value whose numbers are text.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Plain(String),
    String(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{0,12}", "\\PC{0,8}", "[\\x00-\\x1f\"\\\\/\\x7f€𝕏é]{0,6}", Just("a.b".to_owned())]
}

pub(crate) fn json() -> impl Strategy<Value = Json> {
    let number =
        prop_oneof!["-?(0|[1-9][0-9]{0,20})", "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?"];
    let word = prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(str::to_owned);
    let leaf =
        prop_oneof![number.prop_map(Json::Plain), word.prop_map(Json::Plain), text().prop_map(Json::String)];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Json::Array),
            proptest::collection::btree_map(text(), inner, 0..8).prop_map(Json::Object),
        ]
    })
}

pub(crate) fn object() -> impl Strategy<Value = Json> {
    proptest::collection::btree_map(text(), json(), 0..10).prop_map(Json::Object)
}

impl Json {
    /// Members sorted by the bytes of their keys, no white space, strings in serde_json's form.
    pub(crate) fn sorted(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::String(text) => serde_json::to_string(text).unwrap(),
            Self::Array(values) => {
                format!("[{}]", values.iter().map(Self::sorted).collect::<Vec<_>>().join(","))
            }
            Self::Object(members) => {
                let members = members
                    .iter()
                    .map(|(k, v)| format!("{}:{}", serde_json::to_string(k).unwrap(), v.sorted()));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// How one JSON value may be written in many ways: consumed choice by choice.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    choices: Vec<u8>,
    at: usize,
}

pub(crate) fn style() -> impl Strategy<Value = Style> {
    vec(any::<u8>(), 1..64).prop_map(|choices| Style { choices, at: 0 })
}

/// One value written in one way: with white space, and the same without.
#[derive(Debug, Default, Clone)]
pub(crate) struct Written {
    pub(crate) spaced: String,
    pub(crate) compact: String,
}

impl Written {
    pub(crate) fn push(&mut self, text: &str) {
        self.spaced.push_str(text);
        self.compact.push_str(text);
    }
}

impl Style {
    fn choice(&mut self, of: u8) -> u8 {
        self.at = (self.at + 1) % self.choices.len();
        self.choices[self.at] % of
    }

    pub(crate) fn space(&mut self, out: &mut Written) {
        let space = ["", "", "", " ", "\n", "\t ", "\r\n    "][usize::from(self.choice(7))];
        out.spaced.push_str(space);
    }

    pub(crate) fn string(&mut self, content: &str, out: &mut Written) {
        out.push("\"");
        for c in content.chars() {
            let escape_all = self.choice(4) == 0;
            match c {
                '"' => out.push("\\\""),
                '\\' => out.push("\\\\"),
                '/' if escape_all => out.push("\\/"),
                '\n' if !escape_all => out.push("\\n"),
                '\t' if !escape_all => out.push("\\t"),
                c if escape_all || c < ' ' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let upper = self.choice(2) == 0;
                        out.push(&if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") });
                    }
                }
                c => out.push(c.encode_utf8(&mut [0; 4])),
            }
        }
        out.push("\"");
    }

    pub(crate) fn write(&mut self, json: &Json, out: &mut Written) {
        self.space(out);
        match json {
            Json::Plain(text) => out.push(text),
            Json::String(text) => self.string(text, out),
            Json::Array(values) => {
                out.push("[");
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(",");
                    }
                    self.write(value, out);
                }
                self.space(out);
                out.push("]");
            }
            Json::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                for i in (1..members.len()).rev() {
                    let with = usize::from(self.choice(u8::try_from(i + 1).unwrap()));
                    members.swap(i, with);
                }
                out.push("{");
                for (i, (key, value)) in members.into_iter().enumerate() {
                    if i > 0 {
                        out.push(",");
                    }
                    self.space(out);
                    self.string(key, out);
                    self.space(out);
                    out.push(":");
                    self.write(value, out);
                }
                self.space(out);
                out.push("}");
            }
        }
        self.space(out);
    }

    /// An envelope around a payload, written in this style.
    pub(crate) fn envelope(&mut self, event_type: &str, payload: &Json) -> Written {
        let mut out = Written::default();
        self.space(&mut out);
        out.push("{");
        for (key, value) in [
            ("event_id", "e-1".to_owned()),
            ("manifest_fingerprint", "a".repeat(64)),
            ("ts_utc", "2026-01-29T09:30:00.000001Z".to_owned()),
            ("event_type", event_type.to_owned()),
        ] {
            self.space(&mut out);
            self.string(key, &mut out);
            out.push(":");
            self.space(&mut out);
            self.string(&value, &mut out);
            self.space(&mut out);
            out.push(",");
        }
        out.push("\"payload\":");
        self.write(payload, &mut out);
        out.push("}");
        self.space(&mut out);
        out
    }
}
