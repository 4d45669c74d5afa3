//! What an envelope may measure.

/// What an envelope may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    max_bytes: usize,
    max_depth: usize,
}

impl Limits {
    /// The default for the size of an input: 1 MiB.
    pub const DEFAULT_BYTES: usize = 1 << 20;
    /// The most that the size of an input can be set to: 256 MiB.
    pub const MAX_BYTES: usize = 256 << 20;
    /// The default for the nesting of objects and arrays.
    pub const DEFAULT_DEPTH: usize = 100;
    /// The most that the nesting can be set to; readers' parsers commonly stop at 128.
    pub const MAX_DEPTH: usize = 120;

    /// Inputs of at most `max_bytes` bytes (white space included), nested at most `max_depth` deep (the envelope
    /// counts as 1, its payload as 2). Values past [`Limits::MAX_BYTES`] and [`Limits::MAX_DEPTH`] are lowered to
    /// these.
    #[must_use]
    pub const fn new(max_bytes: usize, max_depth: usize) -> Self {
        let max_bytes = if max_bytes > Self::MAX_BYTES { Self::MAX_BYTES } else { max_bytes };
        let max_depth = if max_depth > Self::MAX_DEPTH { Self::MAX_DEPTH } else { max_depth };
        Self { max_bytes, max_depth }
    }

    /// The most bytes of an input, inclusive.
    #[must_use]
    pub const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The deepest nesting, inclusive.
    #[must_use]
    pub const fn max_depth(&self) -> usize {
        self.max_depth
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Self::DEFAULT_BYTES, Self::DEFAULT_DEPTH)
    }
}
