//! `eb checkpoint`

use eb_contract::stores::{Checkpoint, CheckpointStore, Lease, ResetRequest};
use eb_contract::{BusIncarnation, Cut, ErrorKind, Offset};
use eb_profile::Platform;

use crate::args::{Checkpoint as Args, CheckpointId, Global};
use crate::commands::open_reading;
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::Ui;

/// Whose name a commit bears that nobody else has committed before.
const OWNER: &str = "eb-cli";

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: Args) -> Outcome {
    let platform = open_reading(ui, global).await?;
    let store = platform.checkpoints();
    match args {
        Args::List { consumer } => {
            let all = store.list(consumer.as_ref()).await?;
            if all.is_empty() && !ui.is_json() {
                ui.note("no checkpoints yet; consumers make them, or `eb checkpoint set`");
            } else {
                show(ui, &all)?;
            }
        }
        Args::Get(id) => {
            let found = store.load(&id.consumer, &id.topic, id.partition).await?;
            let found = found.ok_or_else(|| missing(&id))?;
            show(ui, &[found])?;
        }
        Args::Set { id, at, expect_version, owner, epoch } => {
            let lease = owner.zip(epoch).map(|(owner, epoch)| Lease { owner, epoch });
            let stored = set(&platform, &*store, &id, &at, expect_version, lease).await?;
            show(ui, &[stored])?;
        }
        Args::Reset { id, at, reason } => {
            let request = ResetRequest {
                cut: cut(&platform, &id, &at).await?,
                bus_incarnation: incarnation(&platform, &id).await?,
                consumer: id.consumer,
                topic: id.topic,
                partition_id: id.partition,
                reason,
            };
            let stored = store.reset(&request).await?;
            show(ui, &[stored])?;
        }
    }
    Ok(Exit::Done)
}

async fn set(
    platform: &Platform,
    store: &dyn CheckpointStore,
    id: &CheckpointId,
    at: &str,
    expect_version: Option<u64>,
    lease: Option<Lease>,
) -> Result<Checkpoint, Failure> {
    let stored = store.load(&id.consumer, &id.topic, id.partition).await?;
    let version = expect_version.unwrap_or_else(|| stored.as_ref().map_or(0, |c| c.version));
    let stored_lease = stored.and_then(|c| c.lease);
    let lease = lease.or(stored_lease).unwrap_or_else(|| Lease { owner: OWNER.to_owned(), epoch: 0 });
    let checkpoint = Checkpoint {
        consumer: id.consumer.clone(),
        topic: id.topic.clone(),
        partition_id: id.partition,
        cut: cut(platform, id, at).await?,
        caught_up_at: None,
        version,
        bus_incarnation: incarnation(platform, id).await?,
        lease: None,
        committed_at: None,
    };
    let answer = store.commit(&[checkpoint], &lease).await.pop();
    let answer = answer.ok_or_else(|| Failure::failed("protocol_violation", "the store gave no answer"))?;
    answer.map_err(|e| {
        let advice = match e.kind() {
            ErrorKind::BackwardCommit { .. } | ErrorKind::WrongIncarnation => {
                "`eb checkpoint reset --reason …` moves it all the same"
            }
            ErrorKind::VersionConflict { .. } => "look with `eb checkpoint get`, then decide again",
            ErrorKind::Fenced => "give the newest --owner and --epoch, or use `eb checkpoint reset`",
            _ => return e.into(),
        };
        Failure::from(e).advise(advice)
    })
}

/// Reads a cut as written on the command line.
async fn cut(platform: &Platform, id: &CheckpointId, text: &str) -> Result<Cut, Failure> {
    let kind = platform.reader().capabilities().offset_kind;
    let offset = |text: &str| {
        Offset::parse(kind, text).map_err(|e| {
            Failure::usage(format!("--at: {e}"))
                .advise("write begin, head, end, OFFSET, next:OFFSET or after:OFFSET")
        })
    };
    Ok(match text {
        "begin" => Cut::Begin,
        "end" => Cut::End,
        "head" => platform.reader().head(&id.topic, id.partition).await?.cut,
        _ => match text.split_once(':') {
            Some(("after", rest)) => Cut::After(offset(rest)?).canonical(),
            Some(("next", rest)) => Cut::Next(offset(rest)?),
            _ => Cut::Next(offset(text)?),
        },
    })
}

async fn incarnation(platform: &Platform, id: &CheckpointId) -> Result<BusIncarnation, Failure> {
    let listed = platform.reader().partitions(&id.topic).await?;
    if !listed.partitions.iter().any(|p| p.id == id.partition) {
        let what = format!("{} has no partition {}", id.topic, id.partition);
        return Err(Failure::failed("not_found", what).advise("`eb head` lists them"));
    }
    Ok(listed.incarnation)
}

fn missing(id: &CheckpointId) -> Failure {
    let what = format!("{} has no checkpoint for {}/{}", id.consumer, id.topic, id.partition);
    Failure::failed("not_found", what).advise("`eb checkpoint list` shows what there is")
}

fn show(ui: &mut Ui, checkpoints: &[Checkpoint]) -> Result<(), Failure> {
    if ui.is_json() {
        return checkpoints.iter().try_for_each(|c| ui.json(c));
    }
    let rows: Vec<_> = checkpoints.iter().map(row).collect();
    ui.table(&["CONSUMER", "TOPIC", "PARTITION", "CUT", "VERSION", "OWNER", "COMMITTED"], &rows)
}

fn row(c: &Checkpoint) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        c.consumer.to_string(),
        c.topic.to_string(),
        c.partition_id.to_string(),
        c.cut.to_string(),
        c.version.to_string(),
        or_dash(c.lease.as_ref().map(|l| format!("{} ({})", l.owner, l.epoch))),
        or_dash(c.committed_at.map(|t| t.to_string())),
    ]
}
