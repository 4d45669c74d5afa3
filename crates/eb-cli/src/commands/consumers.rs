//! `eb consumers`

use eb_contract::stores::WorkPhase;
use eb_contract::{Cut, PartitionId, Timestamp, Topic};
use serde::Serialize;

use crate::args::Global;
use crate::args::consume::Consumers;
use crate::failure::{Exit, Outcome};
use crate::ui::Ui;

#[derive(Serialize)]
struct Line {
    consumer: String,
    topic: Topic,
    partition_id: PartitionId,
    committed: Option<Cut>,
    committed_at_utc: Option<Timestamp>,
    head: Option<Cut>,
    lag: Option<u64>,
    holder: Option<String>,
    lease_left_ms: Option<u64>,
    phase: Option<WorkPhase>,
    in_flight: Option<u64>,
    keys_retrying: Option<u64>,
    retries: Option<u64>,
    /// Of a group of the service alone.
    redelivered: Option<u64>,
    /// When the holder said so.
    reported_at_utc: Option<Timestamp>,
    dead_letters: u64,
}

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: &Consumers) -> Outcome {
    let consumers = eb_profile::open_consumers(&global.profile).await?;
    for notice in &consumers.profile().notices {
        ui.note(notice);
    }
    let rows = eb_consumer::overview(&consumers.source(), consumers.stores(), args.name.as_ref()).await?;
    let lines = rows.into_iter().map(|row| Line {
        phase: row.reported.map(|r| r.work.phase),
        in_flight: row.in_flight(),
        keys_retrying: row.reported.map(|r| r.work.keys_retrying),
        retries: row.retries(),
        redelivered: row.group.as_ref().map(|group| group.redelivered),
        reported_at_utc: row.reported.map(|r| r.at),
        consumer: row.consumer.to_string(),
        topic: row.topic,
        partition_id: row.partition_id,
        committed: row.committed,
        committed_at_utc: row.committed_at,
        head: row.head,
        lag: row.lag,
        lease_left_ms: row
            .holder
            .as_ref()
            .map(|(_, left)| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        holder: row.holder.map(|(lease, _)| lease.owner),
        dead_letters: row.dead_letters,
    });
    let lines: Vec<Line> = lines.collect();
    if ui.is_json() {
        lines.iter().try_for_each(|line| ui.json(line))?;
    } else if lines.is_empty() {
        ui.note("no consumers yet; `eb subscribe` is one");
    } else {
        let rows: Vec<_> = lines.iter().map(Line::row).collect();
        ui.table(&HEAD, &rows)?;
    }
    Ok(Exit::Done)
}

const HEAD: [&str; 11] = [
    "CONSUMER",
    "TOPIC",
    "PARTITION",
    "COMMITTED",
    "HEAD",
    "LAG",
    "IN FLIGHT",
    "RETRIES",
    "DEAD LETTERS",
    "PHASE",
    "HELD BY",
];

impl Line {
    fn row(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.consumer.clone(),
            self.topic.to_string(),
            self.partition_id.to_string(),
            or_dash(self.committed.map(|c| c.to_string())),
            or_dash(self.head.map(|c| c.to_string())),
            or_dash(self.lag.map(|n| n.to_string())),
            or_dash(self.in_flight.map(|n| n.to_string())),
            or_dash(self.retries.map(|n| n.to_string())),
            self.dead_letters.to_string(),
            or_dash(self.phase.map(|phase| phase.as_str().to_owned())),
            or_dash(self.holder.clone()),
        ]
    }
}
