//! The single pass over a text.

use super::document::{Document, Kind, Node, head};
use super::string;

/// A key that stands twice in one object.
#[derive(Debug, Clone)]
pub(crate) struct DuplicateKey {
    /// The keys and array places that lead to it, the key itself last; unescaped, joined with dots.
    pub(crate) path: String,
}

/// Why a text was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed { byte: usize, what: &'static str },
    TooDeep { byte: usize },
}

/// What was read before a fault: the members of the root object that were complete.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    pub(crate) fault: Fault,
    /// A document whose root holds those members; `None` where the text does not start as an object.
    pub(crate) read: Option<Document<'a>>,
    /// The key of the root's member in which the fault lies.
    pub(crate) inside: Option<String>,
}

/// How many duplicate keys are reported one by one.
const MAX_DUPLICATES: usize = 8;

/// An array or object whose end has not come yet.
struct Open {
    /// Its node, with an empty end and no children so far.
    node: Node,
    /// Where its children start among the pending nodes.
    children: usize,
    /// How much white space had been seen when it was opened.
    spaces: usize,
}

/// A key as it stands in the text, without its quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    start: u32,
    end: u32,
    escaped: bool,
    head: u64,
}

/// That of array elements and of the root.
const NO_KEY: Key = Key { start: 0, end: 0, escaped: false, head: 0 };

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Bytes of white space seen so far.
    spaces: usize,
    max_depth: usize,
    open: Vec<Open>,
    /// The children read so far of all open containers, outermost first; in the end the root.
    pending: Vec<Node>,
    /// The children of all closed containers.
    nodes: Vec<Node>,
    last_key: Key,
    duplicates: Vec<DuplicateKey>,
}

/// What the scanner has just done.
#[derive(Clone, Copy)]
enum Step {
    /// Opened a container; its first child or its end must follow.
    Opened,
    /// Completed a value, the last of the pending ones.
    Completed,
}

/// Reads one JSON text of less than 4 GiB, nested at most `max_depth` deep (the root counts as 1), and finds its
/// duplicate keys (the first few). An object with duplicate keys keeps both members, side by side.
///
/// White space before and after the value is accepted. Takes `n log n` time at worst, and never recurses.
#[allow(clippy::result_large_err, reason = "the caller takes it apart at once")]
pub(crate) fn scan(text: &str, max_depth: usize) -> Result<(Document<'_>, Vec<DuplicateKey>), Partial<'_>> {
    let mut scanner = Scanner {
        text,
        at: 0,
        spaces: 0,
        max_depth,
        open: Vec::with_capacity(8),
        pending: Vec::with_capacity(32),
        nodes: Vec::with_capacity(32),
        last_key: NO_KEY,
        duplicates: Vec::new(),
    };
    match scanner.run() {
        Ok((root, spaced)) => Ok((Document { text, nodes: scanner.nodes, root, spaced }, scanner.duplicates)),
        Err(fault) => Err(scanner.into_partial(fault)),
    }
}

impl Node {
    fn new(key: Key, start: u32, end: u32, kind: Kind, verbatim: bool) -> Self {
        Self {
            key: (key.start, key.end),
            key_head: key.head,
            value: (start, end),
            children: (0, 0),
            kind,
            key_escaped: key.escaped,
            verbatim,
        }
    }
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Result<(Node, bool), Fault> {
        self.skip_space();
        let before = self.spaces;
        let mut step = self.value(NO_KEY)?;
        loop {
            step = match (step, self.open.last().map(|open| open.node.kind)) {
                (Step::Opened, _) => self.first_child()?,
                (Step::Completed, Some(kind)) => self.next_child(kind)?,
                (Step::Completed, None) => break,
            };
        }
        let spaced = self.spaces != before;
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.malformed("something follows the end of the value"));
        }
        let root = self.pending.pop().expect("a completed value is pending");
        Ok((root, spaced))
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn malformed(&self, what: &'static str) -> Fault {
        if self.at < self.text.len() {
            Fault::Malformed { byte: self.at, what }
        } else {
            Fault::Malformed { byte: self.at, what: "the text ends too early" }
        }
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
            self.spaces += 1;
        }
    }

    fn first_child(&mut self) -> Result<Step, Fault> {
        self.skip_space();
        match (self.open.last().map(|open| open.node.kind), self.peek()) {
            (Some(Kind::Object), Some(b'}')) | (Some(Kind::Array), Some(b']')) => Ok(self.close()),
            (Some(Kind::Object), _) => self.member(),
            _ => self.value(NO_KEY),
        }
    }

    fn next_child(&mut self, of: Kind) -> Result<Step, Fault> {
        self.skip_space();
        match (of, self.peek()) {
            (_, Some(b',')) => {
                self.at += 1;
                self.skip_space();
                if of == Kind::Object { self.member() } else { self.value(NO_KEY) }
            }
            (Kind::Object, Some(b'}')) | (Kind::Array, Some(b']')) => Ok(self.close()),
            (Kind::Object, _) => Err(self.malformed("expected , or } here")),
            _ => Err(self.malformed("expected , or ] here")),
        }
    }

    fn member(&mut self) -> Result<Step, Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.malformed("expected a key in double quotes here"));
        }
        let (start, end, escaped) = self.string()?;
        let (start, end) = (start + 1, end - 1);
        let raw = &self.text.as_bytes()[start as usize..end as usize];
        let key = Key { start, end, escaped, head: head(raw, escaped) };
        self.last_key = key;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.malformed("expected : after the key"));
        }
        self.at += 1;
        self.skip_space();
        self.value(key)
    }

    fn value(&mut self, key: Key) -> Result<Step, Fault> {
        let start = place(self.at);
        let (kind, end, verbatim) = match self.peek() {
            Some(b'"') => {
                let (_, end, escaped) = self.string()?;
                (Kind::String, end, !escaped)
            }
            Some(b'{') => return self.open(Kind::Object, key),
            Some(b'[') => return self.open(Kind::Array, key),
            Some(b'-' | b'0'..=b'9') => (Kind::Number, self.number()?, true),
            Some(b't') => (Kind::True, self.literal("true")?, true),
            Some(b'f') => (Kind::False, self.literal("false")?, true),
            Some(b'n') => (Kind::Null, self.literal("null")?, true),
            Some(0xef) if self.text[self.at..].starts_with('\u{feff}') => {
                return Err(self.malformed("a byte order mark; leave it out"));
            }
            _ => return Err(self.malformed("expected a value here")),
        };
        self.push(Node::new(key, start, end, kind, verbatim));
        Ok(Step::Completed)
    }

    /// Reads the string at the cursor; its places include the quotes.
    #[inline]
    fn string(&mut self) -> Result<(u32, u32, bool), Fault> {
        match string::scan(self.text.as_bytes(), self.at + 1) {
            Ok(end) => {
                let start = self.at;
                self.at = end.quote + 1;
                Ok((place(start), place(self.at), end.escaped))
            }
            Err(bad) => Err(Fault::Malformed { byte: bad.byte, what: bad.what }),
        }
    }

    fn literal(&mut self, word: &str) -> Result<u32, Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.malformed("expected a value here"));
        }
        self.at += word.len();
        Ok(place(self.at))
    }

    fn number(&mut self) -> Result<u32, Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.malformed("a number may not start with 0 before other digits"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(place(self.at))
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.malformed("expected a digit here")) } else { Ok(()) }
    }

    fn open(&mut self, kind: Kind, key: Key) -> Result<Step, Fault> {
        if self.open.len() >= self.max_depth {
            return Err(Fault::TooDeep { byte: self.at });
        }
        let start = place(self.at);
        self.at += 1;
        let node = Node::new(key, start, start, kind, false);
        self.open.push(Open { node, children: self.pending.len(), spaces: self.spaces });
        Ok(Step::Opened)
    }

    #[inline]
    fn push(&mut self, node: Node) {
        if node.key == (0, 0)
            && node.verbatim
            && let Some(open) = self.open.last()
            && let Some(previous) = self.pending[open.children..].last_mut()
            && previous.verbatim
            && previous.value.1 + 1 == node.value.0
        {
            // Neighbours that are copied as they are need one node together: a long array of numbers takes no
            // memory of its own.
            previous.value.1 = node.value.1;
        } else {
            self.pending.push(node);
        }
    }

    /// Completes the innermost open container, whose closing bracket is at the cursor.
    fn close(&mut self) -> Step {
        self.at += 1;
        let open = self.open.pop().expect("only called with a container open");
        let text = self.text;
        let mut node = open.node;
        node.value.1 = place(self.at);
        let children = &mut self.pending[open.children..];
        let mut verbatim = self.spaces == open.spaces && children.iter().all(|child| child.verbatim);
        if node.kind == Kind::Object {
            if !children.is_sorted_by(|a, b| a.cmp_key(b, text).is_lt()) {
                verbatim = false;
                children.sort_unstable_by(|a, b| a.cmp_key(b, text).then(a.key.0.cmp(&b.key.0)));
                if children.windows(2).any(|pair| pair[0].cmp_key(&pair[1], text).is_eq()) {
                    self.report_duplicates(open.children, &node);
                }
            }
            verbatim = verbatim && self.pending[open.children..].iter().all(|child| !child.key_escaped);
        }
        node.verbatim = verbatim;
        if node.kind == Kind::Object || !verbatim {
            let children = &self.pending[open.children..];
            node.children = (place(self.nodes.len()), place(children.len()));
            self.nodes.extend_from_slice(children);
        }
        self.pending.truncate(open.children);
        self.push(node);
        Step::Completed
    }

    #[cold]
    fn report_duplicates(&mut self, children: usize, object: &Node) {
        // A path is up to 100 keys long: a text full of duplicates must not cost one for each.
        if self.duplicates.len() == MAX_DUPLICATES {
            return;
        }
        let text = self.text;
        let mut prefix = String::new();
        let above = self.open.iter().map(|open| &open.node);
        for node in above.chain([object]).skip(1) {
            if node.key == (0, 0) {
                prefix.push_str("[]");
            } else {
                push_key(&mut prefix, node.key_text(text));
            }
        }
        let mut last: Option<&Node> = None;
        for pair in self.pending[children..].windows(2) {
            let again = pair[0].cmp_key(&pair[1], text).is_eq();
            if again && last.is_none_or(|node| node.cmp_key(&pair[1], text).is_ne()) {
                if self.duplicates.len() == MAX_DUPLICATES {
                    return;
                }
                let mut path = prefix.clone();
                push_key(&mut path, pair[1].key_text(text));
                self.duplicates.push(DuplicateKey { path });
                last = Some(&pair[1]);
            }
        }
    }

    #[cold]
    fn into_partial(self, fault: Fault) -> Partial<'a> {
        let text = self.text;
        let key_of = |(start, end): (u32, u32)| {
            let mut key = String::new();
            push_key(&mut key, &text[start as usize..end as usize]);
            key
        };
        let inside = match self.open.as_slice() {
            [] => None,
            [_] if self.last_key == NO_KEY => None,
            [_] => Some(key_of((self.last_key.start, self.last_key.end))),
            [_, child, ..] => Some(key_of(child.node.key)),
        };
        let read = self.open.first().filter(|root| root.node.kind == Kind::Object).map(|open| {
            let end = self.open.get(1).map_or(self.pending.len(), |child| child.children);
            let mut members = self.pending[open.children..end].to_vec();
            members.sort_unstable_by(|a, b| a.cmp_key(b, text));
            let mut nodes = self.nodes;
            let mut root = open.node;
            root.children = (place(nodes.len()), place(members.len()));
            nodes.extend_from_slice(&members);
            Document { text, nodes, root, spaced: false }
        });
        Partial { fault, read, inside }
    }
}

/// Appends a key to a path, so that a hostile key makes no endless message.
fn push_key(path: &mut String, raw: &str) {
    const MAX_CHARS: usize = 64;
    if !path.is_empty() {
        path.push('.');
    }
    let mut chars = string::chars(raw);
    path.extend(chars.by_ref().take(MAX_CHARS));
    if chars.next().is_some() {
        path.push('…');
    }
}

/// A place as it is kept; texts are shorter than 4 GiB, which the caller's size limit sees to.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
