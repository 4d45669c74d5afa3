//! `cargo xtask smoke`: the whole way of an event, on real files or services, checked at every step.
//!
//! Generated events (some repeated, some conflicting, some invalid, each labelled with the answer that a correct gate gives) go through
//! the gate; what was ACKed is read back at its `EbRef`; the tail is read; a replay from a known offset is done twice and
//! its digests compared; checkpoints make a round trip. Then everything is closed, opened again, and all of it repeated:
//! this time every event must be known already.
//!
//! A profile on Kinesis or Redis is run against LocalStack or Redis, and Postgres, started for the run unless they are up,
//! and then the same events go through the same gate onto the file bus: the digests over the per-key sequences of first occurrences must be equal.
//! On servers that were up before, what a run has made is removed when it has gone well.

mod checks;
mod leftovers;
mod report;
mod services;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use eb_profile::{BusKind, Env, KIND_OVERRIDE, Platform, Profile, Purpose};
use eb_testkit::events::{Event, Generator, Mix};

use crate::Outcome;
use checks::Facts;
use report::Report;
use services::Services;

/// What goes wrong in a step, in one line.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Options of `cargo xtask smoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Name or path of the platform profile
    #[arg(long, default_value = "local")]
    profile: String,
    /// How many events to generate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,
    /// Seed of the generator: the same seed gives the same events and the same digests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the run is kept (sets EB_RUNS); made anew by each smoke run
    #[arg(long, value_name = "FOLDER", default_value = "runs/smoke")]
    runs: PathBuf,
}

/// Marks a folder as one that a smoke run made and may delete.
const MARK: &str = ".made-by-smoke";

/// Shares in thousandths, high enough that twenty events hold some of each.
const MIX: Mix = Mix { repeated: 100, rewritten: 50, conflicting: 50, invalid: 100, large: 20, distance: 0 };

/// Runs the smoke test and prints its table.
pub(crate) fn run(options: &Options) -> Outcome {
    let runs = fresh_folder(&options.runs)?;
    let wanted = Profile::load(&options.profile)?;
    let services = Services::of(&wanted)?;
    let kinds = match wanted.wiring.event_bus_kind {
        // The same again on the file bus: nothing above the bus may tell one from the other.
        kind @ (BusKind::Kinesis | BusKind::Redis) => vec![kind, BusKind::File],
        kind => vec![kind],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::new(&options.profile, options.seed, &runs);
    let outcome = runtime.block_on(smoke(options, &kinds, &services, &runs, &mut report));
    // What a failed run has made may tell why it failed.
    let outcome = outcome.and_then(|()| runtime.block_on(services.clear()));
    if let Err(e) = &outcome {
        report.failed(e.as_ref());
    }
    report.print()?;
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn smoke(
    options: &Options,
    kinds: &[BusKind],
    services: &Services,
    runs: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let count = usize::try_from(options.events)?;
    let events: Vec<Event> = Generator::new(options.seed, MIX).take(count).collect();
    report.generated(&events);
    let mut digests = Vec::new();
    for kind in kinds {
        report.column(kind.as_str());
        let mut env = services.variables.clone();
        let own = if kinds.len() == 1 { runs.to_owned() } else { runs.join(kind.as_str()) };
        env.insert("EB_RUNS".to_owned(), own.display().to_string());
        if kinds.len() > 1 {
            env.insert(KIND_OVERRIDE.to_owned(), kind.as_str().to_owned());
        }
        digests.push(on_one_bus(&options.profile, &Env::only(env), &events, report).await?);
    }
    report.digests(&digests);
    match digests.as_slice() {
        [one, other] => checks::equal(one, other),
        _ => Ok(()),
    }
}

/// The whole way on one bus. Gives back the digests, which any bus must give.
async fn on_one_bus(
    profile: &str,
    env: &Env,
    events: &[Event],
    report: &mut Report,
) -> Result<Vec<checks::TopicDigest>, Failure> {
    let platform = Platform::open_with(profile, Purpose::Writing, env).await?;
    report.opened(&platform);
    let facts = checks::admit_all(&platform, events, report).await?;
    let first = round(&platform, &facts, report).await?;
    platform.close().await?;

    report.section("closed and opened again");
    let platform = Platform::open_with(profile, Purpose::Writing, env).await?;
    checks::admit_nothing_twice(&platform, events, &facts, report).await?;
    let second = round(&platform, &facts, report).await?;
    if first != second {
        return Err("the digests before and after reopening differ".into());
    }
    platform.close().await?;
    Ok(second)
}

/// Everything that reads: the same before and after reopening.
async fn round(
    platform: &Platform,
    facts: &Facts,
    report: &mut Report,
) -> Result<Vec<checks::TopicDigest>, Failure> {
    checks::read_back(platform, facts, report).await?;
    checks::tail(platform, facts, report).await?;
    checks::replay_twice(platform, facts, report).await?;
    checks::checkpoints(platform, facts, report).await?;
    checks::digests(platform, facts).await
}

/// An empty folder: one that an earlier smoke run made is deleted, anything else is left alone.
fn fresh_folder(runs: &Path) -> Result<PathBuf, Failure> {
    let runs = std::path::absolute(runs)?;
    if runs.exists() {
        let marked = runs.join(MARK).exists();
        if !marked && runs.read_dir()?.next().is_some() {
            let what = "holds something that no smoke run made; name another folder with --runs";
            return Err(format!("{} {what}", runs.display()).into());
        }
        std::fs::remove_dir_all(&runs)?;
    }
    std::fs::create_dir_all(&runs)?;
    std::fs::write(runs.join(MARK), "")?;
    Ok(runs)
}
