//! `eb topics`

use eb_contract::{BusIncarnation, ErrorKind, Timestamp, Topic};
use eb_profile::{OpenError, Platform, Profile, Purpose};
use serde::Serialize;

use crate::args::{Global, Topics as What};
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

pub(crate) async fn run(ui: &mut Ui, global: &Global, what: Option<What>) -> Outcome {
    match what {
        None | Some(What::List) => list(ui, global).await,
        Some(What::Create { topic, shards }) => create(ui, global, topic, shards).await,
    }
}

async fn create(ui: &mut Ui, global: &Global, topic: Option<Topic>, shards: Option<u32>) -> Outcome {
    let profile = Profile::load(&global.profile)?;
    profile.notices.iter().for_each(|notice| ui.note(notice));
    let known = profile.wiring.event_bus.topics.clone();
    let wanted = match topic {
        Some(topic) => {
            let of_profile = known.iter().find(|(t, _)| *t == topic).map(|(_, partitions)| *partitions);
            vec![(topic, shards.or(of_profile).unwrap_or(1))]
        }
        None if known.is_empty() => {
            return Err(Failure::usage("the profile names no topics").advise("name the topic to make"));
        }
        None => known,
    };
    let platform = Platform::open(profile, Purpose::Writing).await?;
    let mut lines = Vec::new();
    for (topic, partitions) in wanted {
        platform.admin().create_topic(&topic, partitions).await?;
        lines.push(describe(&platform, topic).await?);
    }
    platform.close().await?;
    show(ui, &lines)?;
    Ok(Exit::Done)
}

async fn list(ui: &mut Ui, global: &Global) -> Outcome {
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
    } else {
        show(ui, &lines)?;
    }
    Ok(Exit::Done)
}

fn show(ui: &mut Ui, lines: &[Line]) -> Result<(), Failure> {
    if ui.is_json() {
        return lines.iter().try_for_each(|line| ui.json(line));
    }
    let rows: Vec<_> = lines.iter().map(Line::row).collect();
    ui.table(&["TOPIC", "PARTITIONS", "RECORDS", "LAST PUBLISHED"], &rows)
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
