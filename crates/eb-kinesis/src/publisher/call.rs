//! One `PutRecords` call, and what its answer means for each record.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use eb_contract::{
    Effect, Error, ErrorKind, Offset, OffsetKind, PartitionId, PublishRecord, Timestamp, Topic,
};

use super::OP;
use crate::{error, shards};

/// What became of one record of a call.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Stored there.
    Stored(PartitionId, Offset),
    /// Not stored; it may be sent again.
    Refused(Error),
    /// The service failed on it and may have stored it. Its answer is here, so nothing is on its way any more: sent again
    /// before anything else of its key, it leaves a copy at worst.
    Doubtful(Error),
    /// Not stored, and never will be.
    Failed(Error),
    /// It may be stored, or may be still: nobody knows.
    Lost(Error),
}

/// What became of a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// The service told of each record, at this time.
    Each(Timestamp, Vec<Outcome>),
    /// All records fared alike.
    All(Outcome),
    /// Nothing was sent, or nothing of the call was looked at: the service cannot be used at present.
    Unreachable(Error),
}

/// Sends the records, once. Dropping the future leaves open whether they are stored.
pub(super) async fn put(client: &Client, topic: &Topic, stream: &str, records: &[PublishRecord]) -> Answer {
    let entries: Vec<_> = records.iter().map(entry).collect();
    match client.put_records().stream_name(stream).set_records(Some(entries)).send().await {
        Ok(answer) if answer.records().len() == records.len() => {
            let now = Timestamp::now();
            Answer::Each(now, answer.records().iter().map(|entry| read_entry(topic, entry)).collect())
        }
        Ok(answer) => {
            let message =
                format!("{} records were sent and {} answers came", records.len(), answer.records().len());
            Answer::All(Outcome::Lost(error::violation(OP, topic, message).with_effect(Effect::Unknown)))
        }
        Err(e) => whole(error::publishing(OP, topic, &e)),
    }
}

fn entry(record: &PublishRecord) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder()
        .data(Blob::new(record.envelope.as_bytes()))
        .partition_key(record.partition_key.as_str())
        .build()
        .expect("only missing data can make an entry fail, and it is set")
}

/// The answer's own count of failures is not looked at: emulators set it wrongly, and each entry says it anyway.
fn read_entry(topic: &Topic, entry: &PutRecordsResultEntry) -> Outcome {
    let present = |text: Option<&str>| text.is_some_and(|t| !t.is_empty());
    if present(entry.error_code()) {
        if present(entry.sequence_number()) {
            return broken(topic, &format!("an entry is both stored and refused: {entry:?}"));
        }
        return refusal(error::by_code(OP, entry.error_code(), entry.error_message(), 200).at(topic));
    }
    let shard = entry.shard_id().and_then(shards::partition_of);
    let offset = entry.sequence_number().map(|text| Offset::parse(OffsetKind::KinesisSequence, text));
    match (shard, offset) {
        (Some(shard), Some(Ok(offset))) => Outcome::Stored(shard, offset),
        _ => broken(topic, &format!("an entry has no shard or no sequence number: {entry:?}")),
    }
}

fn broken(topic: &Topic, message: &str) -> Outcome {
    let message = message.chars().take(500).collect::<String>();
    Outcome::Lost(error::violation(OP, topic, message).with_effect(Effect::Unknown))
}

/// What an entry's error means.
fn refusal(error: Error) -> Outcome {
    match error.effect() {
        // An answer that is no refusal by name: the service failed on this record alone.
        Effect::Unknown => Outcome::Doubtful(error),
        Effect::None if error.is_retryable() => Outcome::Refused(error),
        Effect::None => Outcome::Failed(error),
    }
}

/// What a call's error means.
fn whole(error: Error) -> Answer {
    match (error.effect(), error.kind()) {
        (Effect::Unknown, _) => Answer::All(Outcome::Lost(error)),
        (Effect::None, ErrorKind::Throttled { .. }) => Answer::All(Outcome::Refused(error)),
        (Effect::None, _) if error.is_retryable() => Answer::Unreachable(error),
        (Effect::None, _) => Answer::All(Outcome::Failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        sequence: Option<&str>,
        shard: Option<&str>,
        code: Option<&str>,
    ) -> (&'static str, Option<Effect>) {
        let entry = PutRecordsResultEntry::builder()
            .set_sequence_number(sequence.map(str::to_owned))
            .set_shard_id(shard.map(str::to_owned))
            .set_error_code(code.map(str::to_owned))
            .build();
        match read_entry(&Topic::new("t").unwrap(), &entry) {
            Outcome::Stored(..) => ("stored", None),
            Outcome::Refused(e) => ("refused", Some(e.effect())),
            Outcome::Doubtful(e) => ("doubtful", Some(e.effect())),
            Outcome::Failed(e) => ("failed", Some(e.effect())),
            Outcome::Lost(e) => ("lost", Some(e.effect())),
        }
    }

    #[test]
    fn an_entry_says_what_became_of_its_record() {
        let (none, unknown) = (Some(Effect::None), Some(Effect::Unknown));
        let shard = Some("shardId-000000000003");
        assert_eq!(read(Some("7"), shard, None), ("stored", None));
        assert_eq!(read(Some("7"), shard, Some("")), ("stored", None));
        assert_eq!(read(None, None, Some("ProvisionedThroughputExceededException")), ("refused", none));
        assert_eq!(read(None, None, Some("InternalFailure")), ("doubtful", unknown));
        assert_eq!(read(None, None, Some("SomethingNew")), ("doubtful", unknown));
        assert_eq!(read(None, None, Some("KMSDisabledException")), ("failed", none));
        // What the service does not promise to send is never an ACK.
        assert_eq!(read(Some("7"), shard, Some("InternalFailure")), ("lost", unknown));
        assert_eq!(read(Some("7"), None, None), ("lost", unknown));
        assert_eq!(read(Some("7"), Some("shard-3"), None), ("lost", unknown));
        assert_eq!(read(Some("seven"), shard, None), ("lost", unknown));
        assert_eq!(read(Some("07"), shard, None), ("lost", unknown));
        assert_eq!(read(None, shard, None), ("lost", unknown));
        assert_eq!(read(None, None, None), ("lost", unknown));
    }
}
