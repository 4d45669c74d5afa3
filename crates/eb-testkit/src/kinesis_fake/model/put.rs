//! `PutRecord` and `PutRecords`.

use serde_json::{Value, json};

use super::fields::text;
use super::stream::{self, Stream};
use super::{Done, Entry, World};
use crate::kinesis_fake::limits::Limits;
use crate::kinesis_fake::log::EntryResult;
use crate::kinesis_fake::script::{Fate, Put};
use crate::kinesis_fake::{Fault, Op, SequenceNumber};

impl World {
    pub(super) fn put(
        &mut self,
        op: Op,
        body: &Value,
        entries: &[Entry],
        request: u64,
        script: &Put,
    ) -> Result<Done, Fault> {
        if op == Op::PutRecord {
            self.put_record(body, entries, request, script)
        } else {
            self.put_records(body, entries, request, script)
        }
    }

    fn put_record(
        &mut self,
        body: &Value,
        entries: &[Entry],
        request: u64,
        script: &Put,
    ) -> Result<Done, Fault> {
        let (now, limits) = (self.clock.now(), self.limits.clone());
        let stream = self.usable_stream(body)?;
        check(entries, &limits, stream)?;
        if let Some(ordering) = text(body, "SequenceNumberForOrdering")? {
            let known = SequenceNumber::parse(ordering).is_some_and(|n| n <= stream.highest());
            if !known {
                return Err(Fault::invalid_argument(format!(
                    "SequenceNumberForOrdering {ordering} did not come from this stream."
                )));
            }
        }
        let results = apply(stream, entries, request, script, &limits, now)?;
        let answer = match results.first() {
            Some(EntryResult { refused: Some(fault), .. }) => Err(fault.clone()),
            Some(EntryResult { stored: Some(r), .. }) => Ok(json!({
                "ShardId": r.shard_id,
                "SequenceNumber": r.sequence_number.as_str(),
                "EncryptionType": "NONE",
            })),
            _ => Err(Fault::internal()),
        };
        Ok(Done { answer, results })
    }

    fn put_records(
        &mut self,
        body: &Value,
        entries: &[Entry],
        request: u64,
        script: &Put,
    ) -> Result<Done, Fault> {
        let (now, limits) = (self.clock.now(), self.limits.clone());
        if entries.is_empty() || entries.len() > limits.put_records {
            return Err(Fault::validation(format!(
                "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have \
                 length less than or equal to {} and greater than or equal to 1; it has {}",
                limits.put_records,
                entries.len()
            )));
        }
        let stream = self.usable_stream(body)?;
        check(entries, &limits, stream)?;
        let bytes: usize = entries.iter().map(size).sum();
        if bytes > limits.put_bytes {
            return Err(Fault::invalid_argument(format!(
                "Records size exceeds {} bytes limit: {bytes}",
                limits.put_bytes
            )));
        }
        let results = apply(stream, entries, request, script, &limits, now)?;
        let failed = results.iter().filter(|r| r.refused.is_some()).count();
        let records: Vec<_> = results.iter().map(result_entry).collect();
        let answer = json!({"FailedRecordCount": failed, "Records": records, "EncryptionType": "NONE"});
        Ok(Done { answer: Ok(answer), results })
    }
}

/// Stores what the script and the shards' rates let through, in the script's order; results are in the entries'.
fn apply(
    stream: &mut Stream,
    entries: &[Entry],
    request: u64,
    script: &Put,
    limits: &Limits,
    now: i64,
) -> Result<Vec<EntryResult>, Fault> {
    let mut results = vec![EntryResult::default(); entries.len()];
    for index in script.order(entries.len()) {
        let entry = &entries[index];
        let fate = script.fate(index);
        let hash_key = hash_key_of(entry)?;
        let result = &mut results[index];
        if let Fate::Refuse(fault) = fate {
            result.refused = Some(fault);
            continue;
        }
        match stream.store(entry, hash_key, limits.write_rate, now, (request, index)) {
            Ok(record) => result.stored = Some(record),
            Err(fault) => result.refused = Some(fault),
        }
        if let Fate::StoreAndDeny(fault) = fate {
            result.refused.get_or_insert(fault);
        }
    }
    Ok(results)
}

fn result_entry(result: &EntryResult) -> Value {
    match (&result.refused, &result.stored) {
        (Some(fault), _) => json!({"ErrorCode": fault.code, "ErrorMessage": fault.message}),
        (None, Some(r)) => json!({"ShardId": r.shard_id, "SequenceNumber": r.sequence_number.as_str()}),
        (None, None) => json!({}),
    }
}

/// What no record of a call may break; one that does refuses the call.
fn check(entries: &[Entry], limits: &Limits, stream: &Stream) -> Result<(), Fault> {
    for (index, entry) in entries.iter().enumerate() {
        let characters = entry.partition_key.chars().count();
        if !(1..=256).contains(&characters) {
            return Err(Fault::validation(format!(
                "1 validation error detected: Value at 'records.{}.member.partitionKey' failed to satisfy constraint: \
                 Member must have length less than or equal to 256 and greater than or equal to 1",
                index + 1
            )));
        }
        // The interface's own bound on a blob; a stream's lower bound is the stream's affair.
        if entry.data.len() > limits.put_bytes {
            return Err(Fault::validation(format!(
                "1 validation error detected: Value at 'records.{}.member.data' failed to satisfy constraint: Member \
                 must have length less than or equal to {}",
                index + 1,
                limits.put_bytes
            )));
        }
        if size(entry) > stream.record_bytes {
            return Err(Fault::invalid_argument(format!(
                "Record {index} has {} bytes; the stream's maximum record size is {}.",
                size(entry),
                stream.record_bytes
            )));
        }
        hash_key_of(entry)?;
    }
    Ok(())
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.partition_key.len()
}

pub(super) fn hash_key_of(entry: &Entry) -> Result<u128, Fault> {
    match &entry.explicit_hash_key {
        None => Ok(stream::hash_key(&entry.partition_key)),
        Some(text) => text.parse().map_err(|_| {
            Fault::invalid_argument(format!(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was \
                 {text}"
            ))
        }),
    }
}
