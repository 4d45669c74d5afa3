//! Names that cannot hold a bad value.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name was refused. The text is one line and quotes at most 64 characters of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    what: &'static str,
    why: String,
}

impl InvalidName {
    fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {}", self.what, self.why)
    }
}

impl std::error::Error for InvalidName {}

/// Checks a name that may become a path component: 1 to 128 of `[A-Za-z0-9._-]`, not `.` or `..`.
fn check_path_safe(what: &'static str, s: &str) -> Result<(), InvalidName> {
    if s.is_empty() {
        return Err(InvalidName::new(what, "it is empty"));
    }
    if s.len() > 128 {
        return Err(InvalidName::new(what, format!("{} bytes, the limit is 128", s.len())));
    }
    if s == "." || s == ".." {
        return Err(InvalidName::new(what, format!("`{s}` is a reserved path name")));
    }
    match s.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(c) => {
            let shown: String = s.chars().take(64).collect();
            Err(InvalidName::new(what, format!("{c:?} in {shown:?}; use only A-Z a-z 0-9 . _ -")))
        }
        None => Ok(()),
    }
}

macro_rules! path_safe_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 128 characters of `[A-Za-z0-9._-]`, not `.` or `..`, so it is safe as one path component.
        /// Cloning shares the text.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`InvalidName`] when it is empty, too long, reserved or holds another character.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                check_path_safe($what, name)?;
                Ok(Self(Arc::from(name)))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                Self::new(s)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

path_safe_name! {
    /// The name of a topic: a stream of records split into partitions.
    Topic, "topic name"
}

path_safe_name! {
    /// The name under which a consumer keeps its checkpoints.
    ConsumerName, "consumer name"
}

path_safe_name! {
    /// The name of a [register](crate::stores::RegisterStore).
    RegisterName, "register name"
}

/// The number of a partition within its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key that decides a record's partition and within which order holds: 1 to 256 characters of any UTF-8.
///
/// Chosen by the gate's partitioning profile, never by a backend. Cloning shares the bytes; a key read from a log
/// is a slice of the block it was read with.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey(ByteString);

impl PartitionKey {
    /// The most characters a key may have.
    pub const MAX_CHARS: usize = 256;

    /// Checks and takes a key.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty or longer than [`PartitionKey::MAX_CHARS`].
    pub fn new(key: impl Into<ByteString>) -> Result<Self, InvalidName> {
        let key = key.into();
        if key.is_empty() {
            return Err(InvalidName::new("partition key", "it is empty"));
        }
        // Only a text of more than 256 bytes can have more than 256 characters.
        if key.len() > Self::MAX_CHARS {
            let chars = key.chars().count();
            if chars > Self::MAX_CHARS {
                return Err(InvalidName::new(
                    "partition key",
                    format!("{chars} characters, the limit is 256"),
                ));
            }
        }
        Ok(Self(key))
    }

    /// Checks and takes a key without copying it.
    ///
    /// # Errors
    /// [`InvalidName`] when the bytes are not UTF-8, or as for [`PartitionKey::new`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, InvalidName> {
        match ByteString::try_from(bytes) {
            Ok(text) => Self::new(text),
            Err(_) => Err(InvalidName::new("partition key", "it is not UTF-8")),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PartitionKey {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        Self::new(s)
    }
}

impl Serialize for PartitionKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PartitionKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(ByteString::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Which life of a bus a position belongs to.
///
/// A log that was deleted and made anew, or a stream recreated under the same name, has another incarnation, and
/// positions of the old one mean nothing in it. 1 to 256 printable ASCII characters without spaces; opaque.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BusIncarnation(Arc<str>);

impl BusIncarnation {
    /// Checks and takes an incarnation.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, longer than 256 or holds a space, control or non-ASCII character.
    pub fn new(id: &str) -> Result<Self, InvalidName> {
        if id.is_empty() || id.len() > 256 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidName::new(
                "bus incarnation",
                "it must be 1 to 256 printable ASCII characters",
            ));
        }
        Ok(Self(Arc::from(id)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BusIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for BusIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for BusIncarnation {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BusIncarnation {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_never_leaves_its_folder() {
        for bad in ["", ".", "..", "a/b", "a\\b", "../x", "a\0b", "a b", "ä", &"x".repeat(129)] {
            assert!(Topic::new(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["a", "...", "fp.bus.traffic.v1", "A-_.9", &"x".repeat(128)] {
            assert_eq!(Topic::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_key_is_counted_in_characters() {
        assert!(PartitionKey::new("").is_err());
        assert!(PartitionKey::new("ä".repeat(256)).is_ok());
        assert!(PartitionKey::new("ä".repeat(257)).is_err());
        assert!(PartitionKey::from_bytes(Bytes::from_static(b"\xff")).is_err());
    }
}
