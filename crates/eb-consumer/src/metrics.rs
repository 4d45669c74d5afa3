//! What a consumer counts, through the `metrics` facade.
//!
//! | name | kind | labels besides `consumer` |
//! |---|---|---|
//! | `eb_consumer_events_total` | counter | `outcome`: `handled`, `skipped`, `known` (was handled before, or is a copy), `dead_letter` |
//! | `eb_consumer_failures_total` | counter | `kind`: `permanent`, `transient`, `unknown`, `panic`, `undecodable`, `timeout` |
//! | `eb_consumer_retries_total` | counter | |
//! | `eb_consumer_handle_seconds` | histogram | |
//! | `eb_consumer_step_seconds`, `eb_consumer_step_records` | histogram | |
//! | `eb_consumer_store_failures_total` | counter | `store`: `processed`, `checkpoint`, `dead_letter`, `lease`; `kind` |
//! | `eb_consumer_partitions` | gauge | `topic` |
//! | `eb_consumer_partitions_lost_total` | counter | `why`: `lease`, `fenced`, `moved`, `failed` |
//! | `eb_consumer_in_flight` | gauge | `topic`, `partition`: read and not finished |
//!
//! Handles are taken when the consumer starts: install the recorder before.

use eb_contract::{ConsumerName, Error, PartitionId, Topic};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use crate::routes::Ended;

pub(crate) struct ConsumerMetrics {
    consumer: String,
    pub(crate) handled: Counter,
    pub(crate) skipped: Counter,
    pub(crate) known: Counter,
    pub(crate) dead: Counter,
    pub(crate) retries: Counter,
    pub(crate) handle: Histogram,
    pub(crate) step_seconds: Histogram,
    pub(crate) step_records: Histogram,
}

impl ConsumerMetrics {
    pub(crate) fn new(consumer: &ConsumerName) -> Self {
        describe_counter!("eb_consumer_events_total", "records that were finished");
        describe_counter!("eb_consumer_failures_total", "calls of a handler that failed");
        describe_counter!("eb_consumer_retries_total", "records that will be tried again");
        describe_histogram!("eb_consumer_handle_seconds", metrics::Unit::Seconds, "time in a handler");
        describe_histogram!("eb_consumer_step_seconds", metrics::Unit::Seconds, "time to store a step");
        describe_histogram!("eb_consumer_step_records", "records of a step");
        describe_counter!("eb_consumer_store_failures_total", "calls of a store that failed");
        describe_gauge!("eb_consumer_partitions", "partitions held");
        describe_counter!("eb_consumer_partitions_lost_total", "partitions given up against one's will");
        describe_gauge!("eb_consumer_in_flight", "records read and not finished");
        let consumer = consumer.to_string();
        let outcome = |outcome: &'static str| counter!("eb_consumer_events_total", "consumer" => consumer.clone(), "outcome" => outcome);
        Self {
            handled: outcome("handled"),
            skipped: outcome("skipped"),
            known: outcome("known"),
            dead: outcome("dead_letter"),
            retries: counter!("eb_consumer_retries_total", "consumer" => consumer.clone()),
            handle: histogram!("eb_consumer_handle_seconds", "consumer" => consumer.clone()),
            step_seconds: histogram!("eb_consumer_step_seconds", "consumer" => consumer.clone()),
            step_records: histogram!("eb_consumer_step_records", "consumer" => consumer.clone()),
            consumer,
        }
    }

    pub(crate) fn failed(&self, ended: Ended) {
        let kind = match ended {
            Ended::Ok => return,
            Ended::Permanent => "permanent",
            Ended::Transient => "transient",
            Ended::Unknown => "unknown",
            Ended::Panicked => "panic",
            Ended::Undecodable => "undecodable",
            Ended::TimedOut => "timeout",
        };
        counter!("eb_consumer_failures_total", "consumer" => self.consumer.clone(), "kind" => kind)
            .increment(1);
    }

    pub(crate) fn store_failed(&self, store: &'static str, error: &Error) {
        counter!("eb_consumer_store_failures_total", "consumer" => self.consumer.clone(), "store" => store, "kind" => error.kind().code())
            .increment(1);
    }

    pub(crate) fn lost(&self, why: &'static str) {
        counter!("eb_consumer_partitions_lost_total", "consumer" => self.consumer.clone(), "why" => why)
            .increment(1);
    }

    pub(crate) fn partitions(&self, topic: &Topic) -> Gauge {
        gauge!("eb_consumer_partitions", "consumer" => self.consumer.clone(), "topic" => topic.to_string())
    }

    pub(crate) fn in_flight(&self, topic: &Topic, partition: PartitionId) -> Gauge {
        gauge!("eb_consumer_in_flight", "consumer" => self.consumer.clone(), "topic" => topic.to_string(), "partition" => partition.to_string())
    }
}
