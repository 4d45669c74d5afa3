//! The bus's reference to one canonical envelope.

use std::fmt;

use bytes::Bytes;
use serde::de::IgnoredAny;

/// What an [`EnvelopeRef`] may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeLimits {
    /// The most bytes, inclusive.
    pub max_bytes: usize,
    /// The deepest nesting of objects and arrays, the envelope itself counting as 1; at most
    /// [`EnvelopeLimits::MAX_DEPTH`].
    pub max_depth: usize,
}

impl EnvelopeLimits {
    /// The default for `max_bytes`: 1 MiB.
    pub const DEFAULT_BYTES: usize = 1 << 20;
    /// The deepest nesting that any limit may allow; readers' parsers commonly stop at 128, and a log line wraps
    /// the envelope once more.
    pub const MAX_DEPTH: usize = 120;
}

impl Default for EnvelopeLimits {
    fn default() -> Self {
        Self { max_bytes: Self::DEFAULT_BYTES, max_depth: Self::MAX_DEPTH }
    }
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeError {
    /// More bytes than the limit.
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// Not UTF-8 from this byte on.
    NotUtf8 {
        /// The 0-based byte.
        at: usize,
    },
    /// A line feed or carriage return, which would break a line-oriented log.
    RawNewline {
        /// The 0-based byte.
        at: usize,
    },
    /// Objects and arrays nested deeper than the limit.
    TooDeep {
        /// How deep they nest.
        depth: usize,
        /// How deep they may.
        limit: usize,
    },
    /// Not exactly one JSON object.
    NotOneObject {
        /// 1-based column in bytes, as the parser reports it.
        column: usize,
        /// What the parser says.
        why: String,
    },
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => write!(f, "{bytes} bytes, the limit is {limit}"),
            Self::NotUtf8 { at } => write!(f, "not UTF-8 at byte {at}"),
            Self::RawNewline { at } => {
                write!(f, "a raw line break at byte {at}; write the object on one line")
            }
            Self::TooDeep { depth, limit } => write!(f, "nested {depth} deep, the limit is {limit}"),
            Self::NotOneObject { column, why } => {
                write!(f, "not one complete JSON object at column {column}: {why}")
            }
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// One canonical envelope as bytes: exactly one complete JSON object in UTF-8 on one line, within limits.
///
/// The envelope itself is defined by the `canonical-envelope` crate; a bus knows no more of it than this. The bytes
/// come back from a reader exactly as they went in. Cloning shares them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EnvelopeRef(Bytes);

impl EnvelopeRef {
    /// Checks the bytes against the default limits.
    ///
    /// # Errors
    /// [`EnvelopeError`], with the place of what is wrong.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, EnvelopeError> {
        Self::with_limits(bytes, EnvelopeLimits::default())
    }

    /// Checks the bytes against `limits`.
    ///
    /// # Errors
    /// [`EnvelopeError`], with the place of what is wrong.
    pub fn with_limits(bytes: impl Into<Bytes>, limits: EnvelopeLimits) -> Result<Self, EnvelopeError> {
        let bytes = bytes.into();
        if bytes.len() > limits.max_bytes {
            return Err(EnvelopeError::TooLarge { bytes: bytes.len(), limit: limits.max_bytes });
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| EnvelopeError::NotUtf8 { at: e.valid_up_to() })?;
        if let Some(at) = text.bytes().position(|b| b == b'\n' || b == b'\r') {
            return Err(EnvelopeError::RawNewline { at });
        }
        let not_object =
            |e: &serde_json::Error| EnvelopeError::NotOneObject { column: e.column(), why: reason(e) };
        if text.as_bytes().first() != Some(&b'{') || text.as_bytes().last() != Some(&b'}') {
            return Err(EnvelopeError::NotOneObject {
                column: 1,
                why: "it must start with { and end with }".to_owned(),
            });
        }
        // Checks the grammar without recursion and without turning numbers into anything: 1e400 stays what it is.
        serde_json::from_str::<IgnoredAny>(text).map_err(|e| not_object(&e))?;
        let depth = depth(text.as_bytes());
        let limit = limits.max_depth.min(EnvelopeLimits::MAX_DEPTH);
        if depth > limit {
            return Err(EnvelopeError::TooDeep { depth, limit });
        }
        Ok(Self(bytes))
    }

    /// Takes bytes that the caller has just made by a strict parser of its own: one complete JSON object in UTF-8 on
    /// one line, nested within `limits`. For the gate, whose canonical form is that: only the size is checked (in
    /// debug builds everything).
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`].
    pub fn from_canonical(bytes: Bytes, limits: EnvelopeLimits) -> Result<Self, EnvelopeError> {
        if bytes.len() > limits.max_bytes {
            return Err(EnvelopeError::TooLarge { bytes: bytes.len(), limit: limits.max_bytes });
        }
        debug_assert_eq!(Self::with_limits(bytes.clone(), limits).err(), None, "not in canonical form");
        Ok(Self(bytes))
    }

    /// Takes bytes that were an `EnvelopeRef` when they were published, and that the backend has since found
    /// unchanged (by a checksum, or by the service's own promise). For backends only: nothing is checked.
    #[must_use]
    pub fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, given up.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The text.
    ///
    /// # Errors
    /// Only when a backend broke its promise in [`EnvelopeRef::from_stored`].
    pub fn as_str(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes; never so for one that was checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for EnvelopeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads may hold what does not belong in a log file, and may be a megabyte.
        write!(f, "EnvelopeRef({} bytes)", self.0.len())
    }
}

/// The parser's message without its own place, which is reported apart.
fn reason(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// How deep objects and arrays nest in valid JSON text.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => _ = bytes.next(),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
    }

    #[test]
    fn exactly_one_object_is_an_envelope() {
        for good in
            ["{}", r#"{"a":[1,"\n",{"b":null}],"s":18446744073709551615,"x":1e400}"#, r#"{"ä":"𝕏\u0000[[["}"#]
        {
            assert_eq!(EnvelopeRef::new(good.to_owned()).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in
            ["", "[]", "1", "{}{}", "{} ", " {}", "{", r#"{"a":}"#, r#"{"a":1,}"#, "{}\n", "{\n}", "{'a':1}"]
        {
            assert!(EnvelopeRef::new(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(matches!(EnvelopeRef::new(&b"{\"a\":\"\xff\"}"[..]), Err(EnvelopeError::NotUtf8 { at: 6 })));
    }

    #[test]
    fn limits_hold_to_the_byte_and_to_the_level() {
        let limits = EnvelopeLimits { max_bytes: 20, max_depth: 3 };
        let of = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
        assert!(EnvelopeRef::with_limits(of(20), limits).is_ok());
        assert_eq!(
            EnvelopeRef::with_limits(of(21), limits),
            Err(EnvelopeError::TooLarge { bytes: 21, limit: 20 })
        );
        assert!(EnvelopeRef::with_limits(nested(3), limits).is_ok());
        assert!(EnvelopeRef::with_limits(nested(4), limits).is_err());
        assert!(EnvelopeRef::new(nested(EnvelopeLimits::MAX_DEPTH)).is_ok());
        assert!(EnvelopeRef::new(nested(EnvelopeLimits::MAX_DEPTH + 1)).is_err());
        assert!(EnvelopeRef::new(nested(100_000)).is_err(), "hostile depth neither overflows nor passes");
    }
}
