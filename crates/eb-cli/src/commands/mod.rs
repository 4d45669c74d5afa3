//! One module per command.

mod beside;
mod checkpoint;
mod consumers;
mod dlq;
mod head;
mod health;
mod ingest;
mod lines;
mod lint;
mod manual;
mod profile;
mod publish;
mod receipt;
mod rollout;
mod schema;
pub(crate) mod subscribe;
mod tail;
mod topics;
mod verify;

use std::time::Duration;

use eb_contract::{Error, ErrorKind, Topic};
use eb_profile::{OpenError, Platform};
use ig_gate::Gate;
use indicatif::ProgressBar;

use crate::args::{Cli, Command, Global};
use crate::failure::{Failure, Outcome};
use crate::ui::Ui;

pub(crate) async fn run(ui: &mut Ui, cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    match command {
        Command::Ingest(args) => ingest::run(ui, &global, &args).await,
        Command::Publish(args) => publish::run(ui, &global, *args).await,
        Command::Tail(args) => tail::run(ui, &global, &args).await,
        Command::Topics { what } => topics::run(ui, &global, what).await,
        Command::Head(args) => head::run(ui, &global, args.topic.as_ref()).await,
        Command::Verify(args) => verify::run(ui, &global, &args).await,
        Command::Checkpoint(args) => checkpoint::run(ui, &global, args).await,
        Command::Subscribe(args) => subscribe::run(ui, &global, &args).await,
        Command::Consumers(args) => consumers::run(ui, &global, &args).await,
        Command::Dlq(what) => dlq::run(ui, &global, what).await,
        Command::Rollout(args) => rollout::run(ui, &global, args).await,
        Command::Receipt(args) => receipt::run(ui, &global, &args).await,
        Command::Profile(what) => profile::run(ui, &global, what).await,
        Command::Schema(what) => schema::run(ui, what),
        Command::Lint(args) => lint::run(ui, &args),
        Command::Health => health::run(ui, &global).await,
        Command::Completions { shell } => manual::completions(ui, shell),
        Command::Man { dir } => manual::man(ui, dir.as_deref()),
    }
}

/// Opens the platform for writing: its folders and topics are made where the profile says so.
async fn open(ui: &Ui, global: &Global) -> Result<Platform, Failure> {
    let platform = eb_profile::open(&global.profile).await?;
    say_notices(ui, &platform);
    Ok(platform)
}

/// Opens the gate. Where the admission index was lost, that reads the whole log: somebody who waits sees why.
async fn open_gate(ui: &Ui, platform: &Platform) -> Result<Gate, Failure> {
    let opening = platform.gate();
    tokio::pin!(opening);
    let gate = match tokio::time::timeout(PATIENCE, &mut opening).await {
        Ok(gate) => gate,
        Err(_) => {
            let spinner = if ui.may_draw() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
            spinner.set_message("bringing the admission index up to its log");
            spinner.enable_steady_tick(PATIENCE);
            let gate = opening.await;
            spinner.finish_and_clear();
            gate
        }
    };
    Ok(gate?.clone())
}

/// Opens the platform for reading: makes nothing, locks nothing.
async fn open_reading(ui: &Ui, global: &Global) -> Result<Platform, Failure> {
    let platform = try_open_reading(ui, global).await.map_err(|e| match e {
        OpenError::Bus(e) if *e.kind() == ErrorKind::NotFound => nothing_yet(e),
        other => other.into(),
    })?;
    Ok(platform)
}

/// As [`open_reading`], for those who answer a bus that is not there themselves.
async fn try_open_reading(ui: &Ui, global: &Global) -> Result<Platform, OpenError> {
    let platform = eb_profile::open_reading(&global.profile).await?;
    say_notices(ui, &platform);
    Ok(platform)
}

/// How long somebody waits without wondering why.
const PATIENCE: Duration = Duration::from_millis(200);

const FIRST_STEP: &str = "send a first event with `eb publish` or `eb ingest`";

/// A bus that nobody has written to.
fn nothing_yet(error: Error) -> Failure {
    Failure::from(error).advise(FIRST_STEP)
}

fn say_notices(ui: &Ui, platform: &Platform) {
    for notice in &platform.profile().notices {
        ui.note(notice);
    }
}

/// All topics, or the one that was asked for.
async fn chosen_topics(platform: &Platform, topic: Option<&Topic>) -> Result<Vec<Topic>, Failure> {
    match topic {
        Some(topic) => Ok(vec![topic.clone()]),
        None => Ok(platform.reader().topics().await?),
    }
}
