//! `eb topics`

use eb_contract::{BusIncarnation, ErrorKind, Timestamp, Topic};
use eb_profile::{OpenError, Platform};
use serde::Serialize;

use crate::args::Global;
use crate::commands::{FIRST_STEP, try_open_reading};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

#[derive(Serialize)]
struct Line {
    topic: Topic,
    partitions: usize,
    /// `None` where offsets do not count records.
    records: Option<u64>,
    last_published_at_utc: Option<Timestamp>,
    bus_incarnation: BusIncarnation,
}

pub(crate) async fn run(ui: &mut Ui, global: &Global) -> Outcome {
    let platform = match try_open_reading(ui, global).await {
        Ok(platform) => platform,
        // A platform that nobody has written to yet has no topics; that is an answer.
        Err(OpenError::Bus(e)) if *e.kind() == ErrorKind::NotFound => {
            ui.note(&format!("no topics yet; {FIRST_STEP}"));
            return Ok(Exit::Done);
        }
        Err(e) => return Err(e.into()),
    };
    let mut lines = Vec::new();
    for topic in platform.reader().topics().await? {
        lines.push(describe(&platform, topic).await?);
    }
    if lines.is_empty() {
        ui.note(&format!("no topics yet; {FIRST_STEP}"));
    } else if ui.is_json() {
        lines.iter().try_for_each(|line| ui.json(line))?;
    } else {
        let rows: Vec<_> = lines.iter().map(Line::row).collect();
        ui.table(&["TOPIC", "PARTITIONS", "RECORDS", "LAST PUBLISHED"], &rows)?;
    }
    Ok(Exit::Done)
}

async fn describe(platform: &Platform, topic: Topic) -> Result<Line, Failure> {
    let reader = platform.reader();
    let listed = reader.partitions(&topic).await?;
    let mut records = Some(0);
    let mut last = None;
    for partition in &listed.partitions {
        let head = reader.head(&topic, partition.id).await?;
        let here = match head.last {
            Some(offset) if offset.kind().is_dense() => offset.as_u64().map(|n| n + 1),
            Some(_) => None,
            None => Some(0),
        };
        records = records.zip(here).map(|(all, here)| all + here);
        last = last.max(head.last_published_at);
    }
    Ok(Line {
        topic,
        partitions: listed.partitions.len(),
        records,
        last_published_at_utc: last,
        bus_incarnation: listed.incarnation,
    })
}

impl Line {
    fn row(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            self.topic.to_string(),
            self.partitions.to_string(),
            or_dash(self.records.map(ui::count)),
            or_dash(self.last_published_at_utc.map(|t| t.to_string())),
        ]
    }
}
