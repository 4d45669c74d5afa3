//! What arrived, when, and what became of it.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;

use super::model::{Entry, StoredRecord};
use super::{Cut, Fault};

/// An operation of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the service's own names")]
pub enum Op {
    CreateStream,
    DeleteStream,
    DescribeStreamSummary,
    DescribeStream,
    ListShards,
    ListStreams,
    PutRecord,
    PutRecords,
    GetShardIterator,
    GetRecords,
    SplitShard,
    MergeShards,
    IncreaseStreamRetentionPeriod,
    DecreaseStreamRetentionPeriod,
    /// One that is not modelled; see [`Request::operation`].
    Other,
}

impl Op {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "CreateStream" => Self::CreateStream,
            "DeleteStream" => Self::DeleteStream,
            "DescribeStreamSummary" => Self::DescribeStreamSummary,
            "DescribeStream" => Self::DescribeStream,
            "ListShards" => Self::ListShards,
            "ListStreams" => Self::ListStreams,
            "PutRecord" => Self::PutRecord,
            "PutRecords" => Self::PutRecords,
            "GetShardIterator" => Self::GetShardIterator,
            "GetRecords" => Self::GetRecords,
            "SplitShard" => Self::SplitShard,
            "MergeShards" => Self::MergeShards,
            "IncreaseStreamRetentionPeriod" => Self::IncreaseStreamRetentionPeriod,
            "DecreaseStreamRetentionPeriod" => Self::DecreaseStreamRetentionPeriod,
            _ => Self::Other,
        }
    }
}

/// One request, as the fake saw it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its number among all requests, from 1, in the order of arrival.
    pub id: u64,
    /// The operation.
    pub op: Op,
    /// The operation's name as it was sent.
    pub operation: String,
    /// Its number among the requests of this operation, from 1.
    pub nth: usize,
    /// The stream it names, also by ARN or inside its shard iterator.
    pub stream: Option<String>,
    /// The shard it names, also inside its shard iterator.
    pub shard: Option<String>,
    /// The body without the entries of a put.
    pub body: Value,
    /// The records of `PutRecord` and `PutRecords`.
    pub entries: Vec<Entry>,
    /// When it had arrived in full.
    pub arrived: Instant,
    /// The same, by the fake's clock, in milliseconds of the epoch.
    pub arrived_millis: i64,
    /// How many requests of this operation were unanswered then, itself among them.
    pub in_flight: usize,
    /// What the fake did with the entries of a put, whatever it answered; empty until it has acted, and when it stored
    /// nothing because the whole call was refused.
    pub results: Vec<EntryResult>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub finished: Option<Instant>,
}

impl Request {
    /// Whether two requests were in flight at the same time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let before = |a: &Self, b: &Self| a.finished.is_some_and(|end| end <= b.arrived);
        !before(self, other) && !before(other, self)
    }
}

/// What the fake did with an entry of a put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryResult {
    /// The record, if it was stored.
    pub stored: Option<StoredRecord>,
    /// The error, if the entry was refused or a script said so.
    pub refused: Option<Fault>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    InFlight,
    /// It was answered in full, though the client may have stopped reading.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The error's type.
        error: Option<String>,
    },
    /// The answer was cut.
    Cut(Cut),
    /// The client had gone before there was an answer.
    Abandoned,
}

/// What of a request is known when it arrives.
pub(super) struct Arrival {
    pub(super) op: Op,
    pub(super) operation: String,
    pub(super) stream: Option<String>,
    pub(super) shard: Option<String>,
    pub(super) body: Value,
    pub(super) entries: Vec<Entry>,
    pub(super) millis: i64,
}

#[derive(Debug)]
pub(super) struct Log {
    requests: Vec<Request>,
    counts: HashMap<Op, Count>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    arrived: usize,
    in_flight: usize,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { requests: Vec::new(), counts: HashMap::new(), changes: watch::Sender::new(0) }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn requests(&self) -> &[Request] {
        &self.requests
    }

    pub(super) fn arrived(&self, op: Op) -> usize {
        self.counts.get(&op).map_or(0, |c| c.arrived)
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) -> Request {
        let count = self.counts.entry(arrival.op).or_default();
        count.arrived += 1;
        count.in_flight += 1;
        let request = Request {
            id: self.requests.len() as u64 + 1,
            op: arrival.op,
            operation: arrival.operation,
            nth: count.arrived,
            stream: arrival.stream,
            shard: arrival.shard,
            body: arrival.body,
            entries: arrival.entries,
            arrived: Instant::now(),
            arrived_millis: arrival.millis,
            in_flight: count.in_flight,
            results: Vec::new(),
            outcome: Outcome::InFlight,
            finished: None,
        };
        self.requests.push(request.clone());
        self.changes.send_modify(|n| *n += 1);
        request
    }

    pub(super) fn acted(&mut self, id: u64, results: Vec<EntryResult>) {
        if let Some(request) = self.request(id) {
            request.results = results;
        }
        self.changes.send_modify(|n| *n += 1);
    }

    pub(super) fn finish(&mut self, id: u64, outcome: Outcome) {
        if let Some(request) = self.request(id) {
            request.outcome = outcome;
            request.finished = Some(Instant::now());
            let op = request.op;
            self.counts.entry(op).and_modify(|c| c.in_flight -= 1);
        }
        self.changes.send_modify(|n| *n += 1);
    }

    fn request(&mut self, id: u64) -> Option<&mut Request> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        self.requests.get_mut(index)
    }
}
