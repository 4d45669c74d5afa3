//! Records for the unit tests.

use eb_contract::{
    EbRef, EnvelopeRef, Offset, OffsetKind, PartitionId, PartitionKey, Record, Timestamp, Topic,
};

pub(crate) fn record(offset: u64, key: &str, envelope: &str) -> Record {
    Record {
        eb_ref: EbRef {
            topic: Topic::new("t").unwrap(),
            partition_id: PartitionId(0),
            offset: Offset::from_u64(OffsetKind::MemoryIndex, offset),
            published_at_utc: Timestamp::EPOCH,
        },
        partition_key: PartitionKey::new(key.to_owned()).unwrap(),
        envelope: EnvelopeRef::new(envelope.to_owned()).unwrap(),
    }
}

pub(crate) fn event(offset: u64, key: &str, id: &str) -> Record {
    let fingerprint = "a".repeat(64);
    let envelope = format!(
        r#"{{"event_id":"{id}","event_type":"card.transaction.authorised","ts_utc":"2026-01-29T09:30:00.000001Z","manifest_fingerprint":"{fingerprint}","payload":{{"n":{offset}}}}}"#
    );
    record(offset, key, &envelope)
}
