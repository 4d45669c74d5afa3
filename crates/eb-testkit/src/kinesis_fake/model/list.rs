//! The operations that describe and list.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::World;
use super::admin::open_shards;
use super::fields::{count, required, seconds, stream_of, text, timestamp};
use super::stream::{Shard, Stream, shard_id};
use crate::kinesis_fake::Fault;
use crate::kinesis_fake::sequence::millis;

impl World {
    pub(super) fn describe_summary(&mut self, body: &Value) -> Result<Value, Fault> {
        self.settle(body)?;
        let stream = self.stream(body)?;
        let mut summary = description(stream);
        summary["OpenShardCount"] = open_shards(stream).into();
        summary["ConsumerCount"] = 0.into();
        summary["MaxRecordSizeInKiB"] = (stream.record_bytes / 1024).into();
        Ok(json!({"StreamDescriptionSummary": summary}))
    }

    pub(super) fn describe(&mut self, body: &Value) -> Result<Value, Fault> {
        self.settle(body)?;
        let (now, page) = (self.clock.now(), self.limits.list_page);
        let limit = count(body, "Limit", 10_000)?.unwrap_or(100).min(page);
        let stream = self.stream(body)?;
        let after = text(body, "ExclusiveStartShardId")?;
        let listed: Vec<_> = listed(stream, now).filter(|i| is_after(*i, after)).collect();
        let shards: Vec<_> = listed.iter().take(limit).map(|i| shard(stream, *i)).collect();
        let mut answer = description(stream);
        answer["HasMoreShards"] = (shards.len() < listed.len()).into();
        answer["Shards"] = shards.into();
        Ok(json!({"StreamDescription": answer}))
    }

    pub(super) fn list_shards(&mut self, body: &Value) -> Result<Value, Fault> {
        let (now, page) = (self.clock.now(), self.limits.list_page);
        let life = millis(self.limits.token_life);
        let most = count(body, "MaxResults", 10_000)?.unwrap_or(1_000).min(page);
        let token = text(body, "NextToken")?.map(|t| Token::decode(t, now, life)).transpose()?;
        if token.is_some() && (stream_of(body)?.is_some() || !body["ShardFilter"].is_null()) {
            return Err(Fault::invalid_argument(
                "NextToken and StreamName, StreamARN or ShardFilter cannot be provided together.",
            ));
        }
        let (name_body, filter, after) = match token {
            Some(t) => (json!({"StreamName": t.stream}), t.filter, t.after),
            None => (
                body.clone(),
                body["ShardFilter"].clone(),
                text(body, "ExclusiveStartShardId")?.map(str::to_owned),
            ),
        };
        let stream = self.usable_stream(&name_body)?;
        let mut fitting = Vec::new();
        for index in listed(stream, now).filter(|i| is_after(*i, after.as_deref())) {
            if matches(stream, index, &filter, now)? {
                fitting.push(index);
            }
        }
        let shards: Vec<_> = fitting.iter().take(most).map(|i| shard(stream, *i)).collect();
        let mut answer = json!({"Shards": shards});
        if fitting.len() > most {
            let after = Some(shard_id(fitting[most - 1]));
            answer["NextToken"] = Token { stream: stream.name.clone(), filter, after }.encode(now).into();
        }
        Ok(answer)
    }

    pub(super) fn list_streams(&mut self, body: &Value) -> Result<Value, Fault> {
        let (now, page) = (self.clock.now(), self.limits.list_page);
        let life = millis(self.limits.token_life);
        let limit = count(body, "Limit", 10_000)?.unwrap_or(100).min(page);
        let token = text(body, "NextToken")?.map(|t| Token::decode(t, now, life)).transpose()?;
        let after = match token {
            Some(token) => Some(token.stream),
            None => text(body, "ExclusiveStartStreamName")?.map(str::to_owned),
        };
        let fitting: Vec<_> =
            self.streams.values().filter(|s| after.as_ref().is_none_or(|a| s.name > *a)).collect();
        let shown = &fitting[..limit.min(fitting.len())];
        let names: Vec<_> = shown.iter().map(|s| s.name.as_str()).collect();
        let summaries: Vec<_> = shown
            .iter()
            .map(|s| {
                json!({
                    "StreamName": s.name,
                    "StreamARN": s.arn(),
                    "StreamStatus": s.status.name(),
                    "StreamModeDetails": {"StreamMode": "PROVISIONED"},
                    "StreamCreationTimestamp": seconds(s.created),
                })
            })
            .collect();
        let more = fitting.len() > shown.len();
        let mut answer = json!({"StreamNames": names, "StreamSummaries": summaries, "HasMoreStreams": more});
        if let (true, Some(last)) = (more, shown.last()) {
            let token = Token { stream: last.name.clone(), filter: Value::Null, after: None };
            answer["NextToken"] = token.encode(now).into();
        }
        Ok(answer)
    }
}

/// What a pagination token says inside.
struct Token {
    stream: String,
    filter: Value,
    after: Option<String>,
}

impl Token {
    fn encode(&self, now: i64) -> String {
        STANDARD.encode(json!([self.stream, self.filter, self.after, now]).to_string())
    }

    fn decode(text: &str, now: i64, life: i64) -> Result<Self, Fault> {
        let invalid = || Fault::invalid_argument("NextToken is invalid.");
        let bytes = STANDARD.decode(text).map_err(|_| invalid())?;
        let fields: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        if now - fields[3].as_i64().ok_or_else(invalid)? > life {
            return Err(Fault::expired_next_token());
        }
        Ok(Self {
            stream: fields[0].as_str().ok_or_else(invalid)?.to_owned(),
            filter: fields[1].clone(),
            after: fields[2].as_str().map(str::to_owned),
        })
    }
}

fn listed(stream: &Stream, now: i64) -> impl Iterator<Item = usize> {
    (0..stream.shards.len()).filter(move |i| stream.is_listed(*i, now))
}

fn is_after(index: usize, id: Option<&str>) -> bool {
    id.is_none_or(|id| shard_id(index).as_str() > id)
}

fn matches(stream: &Stream, index: usize, filter: &Value, now: i64) -> Result<bool, Fault> {
    if filter.is_null() {
        return Ok(true);
    }
    let shard = &stream.shards[index];
    let horizon = stream.horizon(now);
    let at = || {
        let at = timestamp(filter, "Timestamp")?
            .ok_or_else(|| Fault::invalid_argument("This ShardFilter needs a Timestamp."))?;
        if at > now {
            return Err(Fault::invalid_argument(
                "The Timestamp of a ShardFilter must not lie in the future.",
            ));
        }
        Ok(at.max(horizon))
    };
    let open_at = |t: i64| shard.created <= t && shard.closed.is_none_or(|closed| closed > t);
    Ok(match required(filter, "Type")? {
        "AFTER_SHARD_ID" => is_after(index, Some(required(filter, "ShardId")?)),
        "AT_TRIM_HORIZON" => open_at(horizon),
        "FROM_TRIM_HORIZON" => true,
        "AT_LATEST" => shard.is_open(),
        "AT_TIMESTAMP" => open_at(at()?),
        "FROM_TIMESTAMP" => {
            let from = at()?;
            shard.closed.is_none_or(|closed| closed >= from)
        }
        other => return Err(Fault::validation(format!("'{other}' is no type of ShardFilter"))),
    })
}

fn description(stream: &Stream) -> Value {
    json!({
        "StreamName": stream.name,
        "StreamARN": stream.arn(),
        "StreamStatus": stream.status.name(),
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": stream.retention_hours,
        "StreamCreationTimestamp": seconds(stream.created),
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    })
}

pub(super) fn hash_key_range(shard: &Shard) -> Value {
    json!({
        "StartingHashKey": shard.hash_keys.start().to_string(),
        "EndingHashKey": shard.hash_keys.end().to_string(),
    })
}

fn shard(stream: &Stream, index: usize) -> Value {
    let shard = &stream.shards[index];
    let mut numbers = json!({"StartingSequenceNumber": shard.starting.as_str()});
    if let Some(ending) = &shard.ending {
        numbers["EndingSequenceNumber"] = ending.as_str().into();
    }
    let mut answer = json!({
        "ShardId": shard_id(index),
        "HashKeyRange": hash_key_range(shard),
        "SequenceNumberRange": numbers,
    });
    for (field, parent) in ["ParentShardId", "AdjacentParentShardId"].iter().zip(&shard.parents) {
        answer[*field] = shard_id(*parent).into();
    }
    answer
}
