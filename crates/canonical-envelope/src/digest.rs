//! The two digests of an envelope.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::envelope::Envelope;
use crate::field::Field;
use crate::json::string;

/// Text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is written as 64 lower-case hexadecimal digits")]
pub struct NotADigest;

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Shown, read and serialised as 64 lower-case hexadecimal digits.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// A digest from its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(to_hex(&self.0, &mut [0; 64]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotADigest;

            fn from_str(text: &str) -> Result<Self, NotADigest> {
                from_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(to_hex(&self.0, &mut [0; 64]))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Hex;
                impl serde::de::Visitor<'_> for Hex {
                    type Value = [u8; 32];
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("64 lower-case hexadecimal digits")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<[u8; 32], E> {
                        from_hex(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Hex).map(Self)
            }
        }
    };
}

digest_type! {
    /// What makes two inputs the same event: SHA-256 over its identity. See [`DedupeKey::of`] for the bytes.
    DedupeKey
}

digest_type! {
    /// What makes two events with one identity equal: SHA-256 over
    /// [`Envelope::write_payload_hash_input`].
    PayloadHash
}

impl DedupeKey {
    /// The version of the bytes that go into the key. A view of the log that holds keys of another version is of
    /// no use.
    pub const VERSION: u32 = 1;

    /// The key of an event.
    ///
    /// SHA-256 over, without anything between:
    ///
    /// | bytes | content |
    /// |---|---|
    /// | 4 | [`DedupeKey::VERSION`], big endian |
    /// | 4 | length of `platform_run_id` in bytes, big endian; 0 where the envelope has none |
    /// | n | `platform_run_id`, unescaped, UTF-8 |
    /// | 4 + n | `event_type`, in the same way |
    /// | 4 + n | `event_id`, in the same way |
    ///
    /// ```
    /// use canonical_envelope::DedupeKey;
    ///
    /// // sha256("\0\0\0\x01" "\0\0\0\0" "\0\0\0\x03" "a.b" "\0\0\0\x01" "1")
    /// let key = DedupeKey::of(None, "a.b", "1");
    /// assert_eq!(key.to_string(), "40784e62875f5cbc3afa7f47ace013925fd1f53165417cdcd8cb187895f80500");
    /// ```
    #[must_use]
    pub fn of(platform_run_id: Option<&str>, event_type: &str, event_id: &str) -> Self {
        let mut sha = Sha256::new();
        sha.update(Self::VERSION.to_be_bytes());
        for part in [platform_run_id.unwrap_or_default(), event_type, event_id] {
            // No part of an envelope is anywhere near 4 GiB.
            sha.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            sha.update(part);
        }
        Self(sha.finalize().into())
    }
}

impl Envelope<'_> {
    /// The event's [`DedupeKey`].
    #[must_use]
    pub fn dedupe_key(&self) -> DedupeKey {
        DedupeKey::of(self.platform_run_id(), self.event_type(), self.event_id())
    }

    /// Appends what the payload hash is taken over: the canonical JSON object
    /// `{"event_type":…,"payload":…,"schema_version":…}`, without those of the members that the envelope does not
    /// have.
    ///
    /// Canonical here means, at every level: no white space; an object's members sorted by their unescaped keys, by
    /// code points (which is the order of their UTF-8 bytes); arrays in their order; numbers as written, so `1.0`,
    /// `1` and `1e0` differ; strings and keys unescaped and then written in one form, that of RFC 8785: `\"`, `\\`,
    /// `\b`, `\f`, `\n`, `\r`, `\t`, other characters below U+0020 as `\u00xx` in lower case, all others as
    /// themselves. So the order of members, white space and the choice of escapes do not change the hash; nothing
    /// else is forgiven.
    pub fn write_payload_hash_input(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"event_type\":");
        string::write_str(self.event_type(), out);
        if let Some(payload) = self.payload_node() {
            out.extend_from_slice(b",\"payload\":");
            self.document.write_sorted(payload, out);
        }
        if let Some(version) = self.text(Field::SchemaVersion) {
            out.extend_from_slice(b",\"schema_version\":");
            string::write_str(version, out);
        }
        out.push(b'}');
    }

    /// The [`PayloadHash`]. `scratch` is cleared and used as working memory; keep it from one event to the next.
    #[must_use]
    pub fn payload_hash(&self, scratch: &mut Vec<u8>) -> PayloadHash {
        scratch.clear();
        self.write_payload_hash_input(scratch);
        PayloadHash(Sha256::digest(&scratch[..]).into())
    }
}

fn to_hex<'b>(bytes: &[u8; 32], buffer: &'b mut [u8; 64]) -> &'b str {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in buffer.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    std::str::from_utf8(buffer).expect("hexadecimal digits are ASCII")
}

fn from_hex(text: &str) -> Result<[u8; 32], NotADigest> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Ok(b - b'0'),
        b'a'..=b'f' => Ok(b - b'a' + 10),
        _ => Err(NotADigest),
    };
    let text: &[u8; 64] = text.as_bytes().try_into().map_err(|_| NotADigest)?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}
