//! The receipt of an ACK.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Offset, OffsetKind, PartitionId, Timestamp, Topic};

/// Where a durable record lies. It exists only after the record would survive a power cut.
///
/// JSON: `{"topic":"…","partition_id":0,"offset":"12","offset_kind":"file_line","published_at_utc":"…Z"}`; on input
/// `partition` is taken for `partition_id`. Identity is topic, partition and offset (within one incarnation of the
/// bus): `published_at_utc` is information and does not take part in equality.
#[derive(Debug, Clone)]
pub struct EbRef {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition_id: PartitionId,
    /// The offset and its kind.
    pub offset: Offset,
    /// When it was published, by the clock that the backend documents. Never decreasing within a file partition.
    pub published_at_utc: Timestamp,
}

impl PartialEq for EbRef {
    fn eq(&self, other: &Self) -> bool {
        (self.partition_id, self.offset, &self.topic) == (other.partition_id, other.offset, &other.topic)
    }
}

impl Eq for EbRef {}

impl Hash for EbRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.partition_id, self.offset, &self.topic).hash(state);
    }
}

impl fmt::Display for EbRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition_id, self.offset)
    }
}

#[derive(Serialize)]
struct WireOut<'a> {
    topic: &'a Topic,
    partition_id: PartitionId,
    offset: String,
    offset_kind: OffsetKind,
    published_at_utc: Timestamp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireIn {
    topic: Topic,
    #[serde(alias = "partition")]
    partition_id: PartitionId,
    offset: String,
    offset_kind: OffsetKind,
    published_at_utc: Timestamp,
}

impl Serialize for EbRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        WireOut {
            topic: &self.topic,
            partition_id: self.partition_id,
            offset: self.offset.to_string(),
            offset_kind: self.offset.kind(),
            published_at_utc: self.published_at_utc,
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for EbRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wire = WireIn::deserialize(d)?;
        Ok(Self {
            topic: wire.topic,
            partition_id: wire.partition_id,
            offset: Offset::parse(wire.offset_kind, &wire.offset).map_err(serde::de::Error::custom)?,
            published_at_utc: wire.published_at_utc,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_the_plans() {
        let text = r#"{"topic":"fp.bus.traffic.v1","partition_id":0,"offset":"12","offset_kind":"file_line","published_at_utc":"2026-01-29T10:00:00.000001Z"}"#;
        let parsed: EbRef = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
        let older = text.replace("partition_id", "partition");
        assert_eq!(serde_json::from_str::<EbRef>(&older).unwrap(), parsed);
        assert!(serde_json::from_str::<EbRef>(&text.replace("\"12\"", "12")).is_err(), "offsets are strings");
    }
}
