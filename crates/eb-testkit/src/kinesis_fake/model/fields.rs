//! The fields of requests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Entry;
use crate::kinesis_fake::{Fault, Op};

pub(super) fn text<'a>(body: &'a Value, field: &str) -> Result<Option<&'a str>, Fault> {
    match &body[field] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(Fault::serialization(format!("{field} is no string"))),
    }
}

pub(super) fn required<'a>(body: &'a Value, field: &str) -> Result<&'a str, Fault> {
    text(body, field)?.ok_or_else(|| {
        Fault::validation(format!(
            "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

pub(super) fn integer(body: &Value, field: &str) -> Result<Option<i64>, Fault> {
    match &body[field] {
        Value::Null => Ok(None),
        value => {
            value.as_i64().map(Some).ok_or_else(|| Fault::serialization(format!("{field} is no integer")))
        }
    }
}

/// A count within `1..=most`, or nothing.
pub(super) fn count(body: &Value, field: &str, most: usize) -> Result<Option<usize>, Fault> {
    let Some(n) = integer(body, field)? else { return Ok(None) };
    usize::try_from(n)
        .ok()
        .filter(|n| (1..=most).contains(n))
        .map(Some)
        .ok_or_else(|| Fault::invalid_argument(format!("{field} is {n}; it must be between 1 and {most}.")))
}

/// Seconds of the epoch with a fraction, as milliseconds.
pub(super) fn timestamp(body: &Value, field: &str) -> Result<Option<i64>, Fault> {
    match &body[field] {
        Value::Null => Ok(None),
        value => {
            let seconds =
                value.as_f64().ok_or_else(|| Fault::serialization(format!("{field} is no number")))?;
            Ok(Some((seconds * 1_000.0).round() as i64))
        }
    }
}

pub(super) fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

pub(super) fn hash_key(body: &Value, field: &str) -> Result<u128, Fault> {
    let text = required(body, field)?;
    text.parse().map_err(|_| Fault::invalid_argument(format!("{field} {text} is no 128-bit integer.")))
}

/// The name of the stream that a request is about.
pub(in crate::kinesis_fake) fn stream_of(body: &Value) -> Result<Option<String>, Fault> {
    if let Some(arn) = text(body, "StreamARN")? {
        let name = arn
            .rsplit_once(":stream/")
            .map(|(_, name)| name.to_owned())
            .ok_or_else(|| Fault::invalid_argument(format!("{arn} is no stream's ARN.")))?;
        return Ok(Some(name));
    }
    Ok(text(body, "StreamName")?.map(str::to_owned))
}

/// The stream and the shard that a request is about, where it says so.
pub(in crate::kinesis_fake) fn shard_of(body: &Value) -> (Option<String>, Option<String>) {
    if let Some((_, stream, shard)) = body["ShardIterator"].as_str().and_then(super::read::names_in) {
        return (Some(stream), Some(shard));
    }
    let shard = body["ShardId"].as_str().or(body["ShardToSplit"].as_str()).or(body["ShardToMerge"].as_str());
    // A request that names its stream wrongly is refused by the operation; the log just lacks the name.
    (stream_of(body).ok().flatten(), shard.map(str::to_owned))
}

/// Takes the records out of a put's body.
pub(in crate::kinesis_fake) fn entries(op: Op, body: &mut Value) -> Result<Vec<Entry>, Fault> {
    match op {
        Op::PutRecord => {
            let entry = entry(body)?;
            if let Some(fields) = body.as_object_mut() {
                fields.remove("Data");
            }
            Ok(vec![entry])
        }
        Op::PutRecords => match body.as_object_mut().and_then(|fields| fields.remove("Records")) {
            Some(Value::Array(records)) => records.iter().map(entry).collect(),
            Some(_) => Err(Fault::serialization("Records is no list")),
            None => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

fn entry(body: &Value) -> Result<Entry, Fault> {
    let data = STANDARD
        .decode(required(body, "Data")?)
        .map_err(|e| Fault::serialization(format!("Data is not base64: {e}")))?;
    Ok(Entry {
        data: data.into(),
        partition_key: required(body, "PartitionKey")?.to_owned(),
        explicit_hash_key: text(body, "ExplicitHashKey")?.map(str::to_owned),
    })
}
