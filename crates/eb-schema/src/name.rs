//! Names that become paths: event types and versions.

use std::cmp::Ordering;
use std::fmt;

/// The longest event type: with room for a file system's own limit.
const MAX_TYPE_BYTES: usize = 200;
const MAX_NUMBER: u32 = 999_999_999;

/// The version of a schema: one to three numbers. Versions compare as numbers, `1.0` equals `1`.
#[derive(Debug, Clone)]
pub struct Version {
    numbers: [u32; 3],
    text: String,
}

impl Version {
    /// Reads a version.
    ///
    /// # Errors
    /// In words, what a version looks like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const SHAPE: &str =
            "a version is one to three numbers parted by dots, such as 1.2.0, without leading zeros";
        let mut numbers = [0; 3];
        for (i, part) in text.split('.').enumerate() {
            let plain = !part.is_empty()
                && part.len() <= 9
                && part.bytes().all(|b| b.is_ascii_digit())
                && (part == "0" || !part.starts_with('0'));
            let slot = numbers.get_mut(i).filter(|_| plain).ok_or(SHAPE)?;
            *slot = part.parse().ok().filter(|n| *n <= MAX_NUMBER).ok_or(SHAPE)?;
        }
        Ok(Self { numbers, text: text.to_owned() })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first number: a new one owes its predecessors nothing.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.numbers[0]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

/// Checks that an event type may be a folder's name.
///
/// # Errors
/// In words, what it may consist of.
pub fn check_event_type(name: &str) -> Result<(), &'static str> {
    let segment =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if name.len() <= MAX_TYPE_BYTES && name.split('.').all(segment) {
        Ok(())
    } else {
        Err("an event type is 1 to 200 of A-Z a-z 0-9 _ - in segments parted by single dots")
    }
}

/// Where a version lies below the folder `events`: `<event type>/<version>.json`.
///
/// # Errors
/// In words, for an event type or version that cannot be a path.
pub fn path_of(event_type: &str, version: &str) -> Result<String, &'static str> {
    check_event_type(event_type)?;
    Version::parse(version)?;
    Ok(format!("{event_type}/{version}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let v = |text| Version::parse(text).unwrap();
        assert!(v("1.9.0") < v("1.10.0") && v("2") > v("1.999999999.3"));
        assert_eq!(v("1"), v("1.0.0"));
        assert_eq!(v("1.0").to_string(), "1.0");
        for wrong in ["", "1.", ".1", "1.2.3.4", "01", "1.x", "v1", "-1", "1.0.0-rc1", "1234567890", "１"] {
            assert!(Version::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_never_leave_the_folder() {
        assert_eq!(path_of("card.refund.issued", "1.0.0").unwrap(), "card.refund.issued/1.0.0.json");
        for wrong in ["", ".", "..", "a..b", ".a", "a.", "a/b", "a\\b", "a b", "ä", "a\0"] {
            assert!(path_of(wrong, "1").is_err(), "{wrong}");
        }
        assert!(path_of(&"a".repeat(201), "1").is_err());
        assert!(path_of("a.b", "../1").is_err());
    }
}
