//! YAML as a tree in which every key and value knows its place.
//!
//! A profile needs maps, scalars and nothing else, so what could surprise a reader is refused: lists, anchors, aliases, merge keys, tags,
//! directives, several documents, a key twice. Scalars stay text here; the one who asks for a number reads the number,
//! so that `${VAR}` may stand for one.

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use crate::error::{Place, ProfileError};

/// The most bytes of a profile.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// The deepest nesting of maps.
pub(crate) const MAX_DEPTH: usize = 8;
const TOO_DEEP: &str = "nested more than 8 deep";
/// The most keys and values of a profile.
pub(crate) const MAX_NODES: usize = 10_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing stands there, or a plain `~` or `null`.
    Null,
    Scalar(String),
    /// In the order of the file.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Place,
    pub(crate) value: Node,
}

/// Reads one document whose root is a map.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, ProfileError> {
    if text.len() > MAX_BYTES {
        let what = format!("{} bytes, the limit for a profile is {MAX_BYTES}", text.len());
        return Err(ProfileError::new(file, what));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = granit_parser::options! {
        strict_indentation: true,
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH + 8,
        block_nesting_limit: MAX_DEPTH + 8,
    };
    let events = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { file, open: Vec::new(), root: None, nodes: 0 };
    for event in events {
        let (event, span) = event.map_err(|e| {
            let at = Place { line: e.marker().line(), column: e.marker().col() + 1 };
            let what = match e.kind() {
                ErrorKind::RecursionLimitExceeded => TOO_DEEP.to_owned(),
                _ => format!("not YAML: {}", e.info()),
            };
            ProfileError::new(file, what).at(at)
        })?;
        builder.take(event, span)?;
    }
    match builder.root {
        Some(root) if matches!(root.value, Value::Map(_)) => Ok(root),
        Some(Node { at, .. }) => Err(ProfileError::new(file, "a profile is a map of keys and values").at(at)),
        None => Err(ProfileError::new(file, "the file is empty")
            .advise("start from config/platform/profiles/local.yaml")),
    }
}

struct Builder<'a> {
    file: &'a str,
    open: Vec<OpenMap>,
    root: Option<Node>,
    nodes: usize,
}

struct OpenMap {
    at: Place,
    entries: Vec<Entry>,
    key: Option<(String, Place)>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), ProfileError> {
        let at = Place { line: span.start.line(), column: span.start.col() + 1 };
        let refuse = |what: &str| Err(ProfileError::new(self.file, what).at(at));
        if event.is_node() {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return refuse("more than 10,000 keys and values");
            }
            if self.root.is_some() {
                return refuse("a second document; a profile is one");
            }
        }
        match event {
            Event::Scalar(_, _, anchor, _) | Event::MappingStart(_, anchor, _) if anchor != 0 => {
                refuse("anchors are not used in profiles")
            }
            Event::Scalar(_, _, _, Some(_)) | Event::MappingStart(_, _, Some(_)) => {
                refuse("tags are not used in profiles")
            }
            Event::Alias(_) => refuse("aliases are not used in profiles"),
            Event::SequenceStart(..) => refuse("a list, where a profile has only maps and single values"),
            Event::Scalar(text, style, _, _) => self.scalar(&text, style, at),
            Event::MappingStart(..) => {
                if let Some(open) = self.open.last()
                    && open.key.is_none()
                {
                    return refuse("a map as a key");
                }
                if self.open.len() == MAX_DEPTH {
                    return refuse(TOO_DEEP);
                }
                self.open.push(OpenMap { at, entries: Vec::new(), key: None });
                Ok(())
            }
            Event::MappingEnd => {
                if let Some(done) = self.open.pop() {
                    self.value(Node { at: done.at, value: Value::Map(done.entries) });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Place) -> Result<(), ProfileError> {
        if let Some(open) = self.open.last_mut()
            && open.key.is_none()
        {
            if let Some(earlier) = open.entries.iter().find(|e| e.key == text) {
                let what = format!("the key `{text}` stands twice, first in line {}", earlier.at.line);
                return Err(ProfileError::new(self.file, what).at(at));
            }
            if text == "<<" {
                return Err(ProfileError::new(self.file, "merge keys are not used in profiles").at(at));
            }
            open.key = Some((text.to_owned(), at));
            return Ok(());
        }
        let plain = style == ScalarStyle::Plain;
        let value = if plain && matches!(text, "" | "~" | "null") {
            Value::Null
        } else {
            Value::Scalar(text.to_owned())
        };
        self.value(Node { at, value });
        Ok(())
    }

    /// A finished value goes to the key that waits for it, or is the root.
    fn value(&mut self, value: Node) {
        match self.open.last_mut() {
            Some(open) => {
                if let Some((key, at)) = open.key.take() {
                    open.entries.push(Entry { key, at, value });
                }
            }
            None => self.root = Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse("p.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let root = parse("p.yaml", "# c\na:\n  b: ${X:-1}/y # d\n  'c': \"null\"\nd:\n").unwrap();
        let Value::Map(entries) = root.value else { panic!("{root:?}") };
        let Value::Map(inner) = &entries[0].value.value else { panic!("{entries:?}") };
        assert_eq!((inner[0].key.as_str(), inner[0].at), ("b", Place { line: 3, column: 3 }));
        assert_eq!(inner[0].value.at, Place { line: 3, column: 6 });
        assert_eq!(inner[0].value.value, Value::Scalar("${X:-1}/y".to_owned()));
        assert_eq!(inner[1].value.value, Value::Scalar("null".to_owned()));
        assert_eq!(entries[1].value.value, Value::Null);
    }

    #[test]
    fn what_a_profile_does_not_need_is_refused_with_its_place() {
        let cases = [
            ("", "p.yaml: the file is empty"),
            ("a", "p.yaml:1:1: a profile is a map"),
            ("a: 1\na: 2\n", "p.yaml:2:1: the key `a` stands twice, first in line 1"),
            ("a: [1]\n", "p.yaml:1:4: a list"),
            ("a: &x 1\n", "p.yaml:1:7: anchors"),
            ("a: !!int 1\n", "tags are not used"),
            ("a: 1\n---\nb: 1\n", "p.yaml:3:1: a second document"),
            ("? {a: 1}\n: 2\n", "a map as a key"),
            ("<<: 1\n", "p.yaml:1:1: merge keys"),
            ("a: {b: 1\n", "not YAML"),
            ("a: 'x\n", "not YAML"),
            ("%YAML 1.2\n---\na: 1\n", "not YAML"),
        ];
        for (text, expected) in cases {
            let got = error(text);
            assert!(got.contains(expected), "{text:?}: {got}");
        }
    }

    #[test]
    fn size_depth_and_number_are_bounded() {
        assert!(error(&" ".repeat(MAX_BYTES + 1)).contains("the limit for a profile"));
        for deep in ["{a: ".repeat(100_000 / 4), "a:\n".to_owned() + &nested(50)] {
            let got = error(&deep);
            assert!(got.contains("nest") || got.contains("deep"), "{got}");
        }
        let many: String = (0..MAX_NODES).map(|i| format!("k{i}: 1\n")).collect();
        assert!(error(&many).contains("10,000"));
    }

    fn nested(depth: usize) -> String {
        (1..depth).map(|d| format!("{}k:\n", " ".repeat(d))).collect()
    }
}
