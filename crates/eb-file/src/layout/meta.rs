//! What `bus.json` and `topic.json` say.

use std::path::Path;

use eb_contract::{BusIncarnation, Error, ErrorKind, Result, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use crate::error::corrupt;

pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BusFile {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) created_at_utc: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicFile {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) topic: Topic,
    pub(super) partitions: u32,
    pub(super) incarnation: String,
    pub(super) created_at_utc: Timestamp,
}

/// Only what every version has, so that a later one is named instead of being called damaged.
#[derive(Deserialize)]
struct Versioned {
    format: String,
    version: u32,
}

/// What `topic.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMeta {
    /// The topic.
    pub topic: Topic,
    /// How many partitions it has, at least 1.
    pub partitions: u32,
    /// Which life of the topic this is.
    pub incarnation: [u8; 16],
}

impl TopicMeta {
    /// The incarnation as 32 hex digits.
    ///
    /// # Panics
    /// Never: hex digits are always an incarnation.
    #[must_use]
    pub fn bus_incarnation(&self) -> BusIncarnation {
        let hex = format!("{:032x}", u128::from_be_bytes(self.incarnation));
        BusIncarnation::new(&hex).expect("32 hex digits are printable ASCII")
    }
}

pub(super) fn parse_meta<T: for<'de> Deserialize<'de>>(
    op: &'static str,
    path: &Path,
    bytes: &[u8],
    format: &str,
) -> Result<T> {
    let bad =
        |e: serde_json::Error| corrupt(op, path, None, None, format!("it is not what it should be: {e}"));
    let head: Versioned = serde_json::from_slice(bytes).map_err(bad)?;
    if head.format != format {
        return Err(corrupt(
            op,
            path,
            None,
            None,
            format!("its format is {:?}, not {format:?}", head.format),
        ));
    }
    if head.version != VERSION {
        let what = format!("format version {}, this program knows {VERSION}", head.version);
        return Err(Error::new(ErrorKind::WrongVersion, op, what)
            .at(path.display())
            .advise("use a newer program"));
    }
    serde_json::from_slice(bytes).map_err(bad)
}

pub(super) fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("plain structs of strings and numbers always serialise");
    bytes.push(b'\n');
    bytes
}
