//! Sequence numbers and the clock of the fake.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest sequence number that the service's interface allows, in digits.
const LONGEST: usize = 129;

/// A sequence number: decimal digits, compared as the integer that they are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Arc<str>);

impl SequenceNumber {
    /// Takes `0`, or up to 129 digits that do not start with 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        (digits && (text == "0" || !text.starts_with('0'))).then(|| Self(text.into()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the sequence numbers of a fake look like. Whatever the style, they rise strictly within a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SequenceStyle {
    /// They gain digits as they go: the first has one, the fortieth some seven, the three-hundredth more than an
    /// unsigned 128-bit integer holds. Comparing them as text, or as a machine integer, goes wrong soon.
    #[default]
    Growing,
    /// 56 digits, as the service gives today.
    Aws,
}

impl SequenceStyle {
    /// The `n`-th number of a stream; rises with `n`.
    pub(super) fn number(self, n: u64) -> SequenceNumber {
        let text = match self {
            // n·10^z(n) rises with n because z never falls.
            Self::Growing => {
                let zeros = usize::try_from(n / 8).map_or(100, |z| z.min(100));
                format!("{n}{:0<zeros$}", "")
            }
            Self::Aws => format!("4966{n:052}"),
        };
        SequenceNumber(text.into())
    }
}

/// The fake's time: milliseconds of the Unix epoch, running with the machine's clock or standing still.
#[derive(Debug)]
pub(super) struct Clock {
    base: i64,
    running_since: Option<Instant>,
}

impl Clock {
    pub(super) fn running() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Self { base: now, running_since: Some(Instant::now()) }
    }

    pub(super) fn now(&self) -> i64 {
        self.base + self.running_since.map_or(0, |since| millis(since.elapsed()))
    }

    pub(super) fn freeze(&mut self, at: i64) {
        *self = Self { base: at, running_since: None };
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.base += millis(by);
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_outgrow_machine_integers() {
        for style in [SequenceStyle::Growing, SequenceStyle::Aws] {
            let numbers: Vec<_> = (1..2_000).map(|n| style.number(n)).collect();
            assert!(numbers.windows(2).all(|w| w[0] < w[1]), "{style:?}");
            assert!(numbers.iter().all(|n| SequenceNumber::parse(n.as_str()).as_ref() == Some(n)));
        }
        let growing = |n| SequenceStyle::Growing.number(n);
        assert!(growing(9).as_str() > growing(10).as_str(), "as text they would fall");
        assert!(growing(320).as_str().parse::<u128>().is_err());
        assert_eq!(SequenceStyle::Aws.number(1).as_str().len(), 56);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "01", "-1", "1e5", "TRIM_HORIZON", &"9".repeat(130)] {
            assert_eq!(SequenceNumber::parse(text), None, "{text}");
        }
        assert!(SequenceNumber::parse("0").is_some());
    }
}
