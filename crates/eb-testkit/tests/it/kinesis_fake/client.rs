//! As much of a client as the fake's own tests need: one request per connection, written by hand.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eb_testkit::kinesis_fake::KinesisFake;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const T: &str = "t";

/// What came back: the status and the JSON body, or how the connection ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Whole(u16, Value),
    /// A head, and a body shorter than the head says.
    Half,
    /// Closed without a byte.
    Closed,
    /// Reset.
    Reset,
}

impl Reply {
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        match self {
            Self::Whole(200, body) => body,
            other => panic!("no success: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn error(self) -> (u16, String) {
        match self {
            Self::Whole(status, body) if status != 200 => {
                (status, body["__type"].as_str().unwrap().to_owned())
            }
            other => panic!("no error: {other:?}"),
        }
    }
}

pub(super) async fn start(shards: u32) -> KinesisFake {
    let fake = KinesisFake::start().await.unwrap();
    fake.create_stream(T, shards);
    fake
}

/// Sends a request and leaves the connection open without reading.
pub(super) async fn send(fake: &KinesisFake, operation: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(fake.address()).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: Kinesis_20131202.{operation}\r\n\
         content-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub(super) async fn call(fake: &KinesisFake, operation: &str, body: Value) -> Reply {
    receive(send(fake, operation, &body.to_string()).await).await
}

pub(super) async fn receive(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(reply) = parse(&bytes, false) {
            return reply;
        }
        match stream.read(&mut buffer).await {
            Ok(0) if bytes.is_empty() => return Reply::Closed,
            Ok(0) => return parse(&bytes, true).unwrap(),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Reply::Reset,
            Err(e) => panic!("{e}"),
        }
    }
}

fn parse(bytes: &[u8], ended: bool) -> Option<Reply> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length: usize = head
        .lines()
        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
        .unwrap()
        .parse()
        .unwrap();
    match body.len() {
        n if n == length => {
            Some(Reply::Whole(status, serde_json::from_str(body).unwrap_or_else(|_| body.into())))
        }
        _ if ended => Some(Reply::Half),
        _ => None,
    }
}

pub(super) async fn put_records(fake: &KinesisFake, keys: &[&str]) -> Reply {
    call(fake, "PutRecords", batch(keys)).await
}

/// A batch whose data repeat the keys.
pub(super) fn batch(keys: &[&str]) -> Value {
    let records: Vec<_> =
        keys.iter().map(|k| json!({"PartitionKey": k, "Data": STANDARD.encode(k)})).collect();
    json!({"StreamName": T, "Records": records})
}

/// An iterator into the first shard.
pub(super) async fn iterator(fake: &KinesisFake, kind: &str, number: Option<&str>) -> Reply {
    let body = json!({
        "StreamName": T,
        "ShardId": "shardId-000000000000",
        "ShardIteratorType": kind,
        "StartingSequenceNumber": number,
    });
    call(fake, "GetShardIterator", body).await
}

pub(super) async fn get(fake: &KinesisFake, iterator: &Value) -> Reply {
    call(fake, "GetRecords", json!({"ShardIterator": iterator})).await
}

/// The data of the records of an answer.
pub(super) fn data(page: &Value) -> Vec<String> {
    let decode =
        |r: &Value| String::from_utf8(STANDARD.decode(r["Data"].as_str().unwrap()).unwrap()).unwrap();
    page["Records"].as_array().unwrap().iter().map(decode).collect()
}
