//! `eb head`

use eb_contract::{BusIncarnation, Cut, OffsetKind, PartitionId, Timestamp, Topic};
use serde::Serialize;

use crate::args::Global;
use crate::commands::{chosen_topics, open_reading};
use crate::failure::{Exit, Outcome};
use crate::ui::Ui;

#[derive(Serialize)]
struct Line {
    topic: Topic,
    partition_id: PartitionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    native_id: Option<String>,
    closed: bool,
    /// The cut behind the last record: what a caught-up consumer's checkpoint says.
    head: Cut,
    last_offset: Option<String>,
    offset_kind: OffsetKind,
    last_published_at_utc: Option<Timestamp>,
    bus_incarnation: BusIncarnation,
}

pub(crate) async fn run(ui: &mut Ui, global: &Global, topic: Option<&Topic>) -> Outcome {
    let platform = open_reading(ui, global).await?;
    let reader = platform.reader();
    let offset_kind = reader.capabilities().offset_kind;
    let mut lines = Vec::new();
    for topic in chosen_topics(&platform, topic).await? {
        let listed = reader.partitions(&topic).await?;
        for partition in listed.partitions {
            let head = reader.head(&topic, partition.id).await?;
            lines.push(Line {
                topic: topic.clone(),
                partition_id: partition.id,
                native_id: partition.native_id,
                closed: partition.closed,
                head: head.cut,
                last_offset: head.last.map(|o| o.to_string()),
                offset_kind,
                last_published_at_utc: head.last_published_at,
                bus_incarnation: listed.incarnation.clone(),
            });
        }
    }
    if ui.is_json() {
        lines.iter().try_for_each(|line| ui.json(line))?;
    } else {
        let rows: Vec<_> = lines.iter().map(Line::row).collect();
        ui.table(&["TOPIC", "PARTITION", "HEAD", "LAST OFFSET", "LAST PUBLISHED"], &rows)?;
    }
    Ok(Exit::Done)
}

impl Line {
    fn row(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.topic.to_string(),
            self.partition_id.to_string(),
            if self.closed { format!("{} (closed)", self.head) } else { self.head.to_string() },
            or_dash(self.last_offset.clone()),
            or_dash(self.last_published_at_utc.map(|t| t.to_string())),
        ]
    }
}
