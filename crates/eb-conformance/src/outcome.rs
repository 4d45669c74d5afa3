//! How a scenario ends.

use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;

use eb_contract::{Error, Result};

/// What a scenario or a factory's call ends with.
pub type Outcome<T = ()> = std::result::Result<T, Failure>;

/// Why a scenario failed, and where in the suite (or in a factory) that was found. Any error turns into one by `?`.
#[derive(Debug, Clone)]
pub struct Failure {
    message: String,
    at: &'static Location<'static>,
}

impl Failure {
    /// A failure in words.
    #[must_use]
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: Location::caller() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (found at {}:{})", self.message, self.at.file(), self.at.line())
    }
}

impl<E: StdError> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut message = format!("unexpected error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::new(message)
    }
}

/// Fails the scenario unless the condition holds.
macro_rules! ensure {
    ($cond:expr, $($why:tt)+) => {
        if !std::convert::identity::<bool>($cond) {
            return Err($crate::Failure::new(format!($($why)+)));
        }
    };
}

/// Fails the scenario unless both are equal.
macro_rules! ensure_eq {
    ($got:expr, $expected:expr, $($why:tt)+) => {
        match (&$got, &$expected) {
            (got, expected) => {
                if got != expected {
                    return Err($crate::Failure::new(format!(
                        "{}: got {}, expected {}",
                        format_args!($($why)+),
                        $crate::outcome::brief(got),
                        $crate::outcome::brief(expected)
                    )));
                }
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq};

/// What a value looks like, cut off where nobody would read on.
pub(crate) fn brief(value: &(impl fmt::Debug + ?Sized)) -> String {
    const MOST: usize = 400;
    let text = format!("{value:?}");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Fails unless both lists are equal, naming the first place where they differ.
#[track_caller]
pub(crate) fn same_list<T: PartialEq + fmt::Debug>(what: &str, got: &[T], expected: &[T]) -> Outcome {
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    let at = match differs {
        None if got.len() == expected.len() => return Ok(()),
        Some(at) => at,
        None => got.len().min(expected.len()),
    };
    let show = |list: &[T]| list.get(at).map_or("nothing".to_owned(), |value| brief(value));
    Err(Failure::new(format!(
        "{what}: {} items, expected {}; item {at} is {}, expected {}",
        got.len(),
        expected.len(),
        show(got),
        show(expected)
    )))
}

/// The error of a call that must fail with this kind ([`eb_contract::ErrorKind::code`]).
#[track_caller]
pub(crate) fn refused<T>(what: &str, result: Result<T>, code: &str) -> Outcome<Error> {
    match result {
        Ok(_) => Err(Failure::new(format!("{what}: succeeded, `{code}` was expected"))),
        Err(e) if e.kind().code() == code => Ok(e),
        Err(e) => Err(Failure::new(format!("{what}: answered `{}` ({e}), not `{code}`", e.kind().code()))),
    }
}
