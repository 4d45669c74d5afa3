//! `eb rollout`

use std::time::Instant;

use eb_contract::Error;
use eb_profile::{Platform, Profile, Purpose};
use eb_rollout::{Comparison, Control, Readiness, Status};
use serde::Serialize;

use crate::args::{Global, Rollout as Args};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::Ui;

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness: Option<Readiness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Vec<Comparison>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u128>,
}

pub(crate) async fn run(ui: &mut Ui, global: &Global, args: Args) -> Outcome {
    let profile = Profile::load(&global.profile)?;
    profile.notices.iter().for_each(|notice| ui.note(notice));
    let of_rollout = profile.wiring.event_bus.rollout.as_ref();
    if matches!(args, Args::Advance { .. }) && of_rollout.is_some_and(|r| r.rollback_requested) {
        return Err(Failure::failed(
            "invalid_input",
            "EVENT_BUS_KIND in the environment asks for the rollback, and every program that starts with it makes it",
        )
        .advise("unset it, there and for all programs of the platform, then advance"));
    }
    let purpose = if matches!(args, Args::Status { .. }) { Purpose::Reading } else { Purpose::Writing };
    let platform = Platform::open(profile, purpose).await?;
    let control = platform.rollout().ok_or_else(|| {
        Failure::failed("invalid_input", "the profile's bus is no rollout")
            .advise("set wiring.event_bus_kind to rollout")
    })?;
    let shown = act(&control, args).await;
    drop(control);
    let closed = platform.close().await;
    let shown = shown?;
    show(ui, &shown)?;
    closed?;
    let unequal = shown.comparison.iter().flatten().find(|c| !c.is_equal());
    match unequal {
        Some(c) => Err(Failure::failed("differing", c.to_string())),
        None => Ok(Exit::Done),
    }
}

async fn act(control: &Control, args: Args) -> Result<Shown, Error> {
    let began = Instant::now();
    match args {
        Args::Status { compare } => Ok(Shown {
            readiness: Some(control.readiness().await?),
            comparison: if compare { Some(control.compare().await?) } else { None },
            status: control.status().await?,
            took_ms: None,
        }),
        Args::Advance { reason } => {
            let status = control.advance(&reason).await?;
            Ok(changed(status, began))
        }
        Args::Rollback { reason, to } => {
            let status = control.rollback(to, &reason).await?;
            Ok(changed(status, began))
        }
    }
}

fn changed(status: Status, began: Instant) -> Shown {
    Shown { status, readiness: None, comparison: None, took_ms: Some(began.elapsed().as_millis()) }
}

fn show(ui: &mut Ui, shown: &Shown) -> Result<(), Failure> {
    if ui.is_json() {
        return ui.json(shown);
    }
    let state = &shown.status.state;
    let mut rows = vec![
        ["phase".to_owned(), state.phase.to_string()],
        ["since".to_owned(), state.since.to_string()],
        ["why".to_owned(), state.reason.clone()],
        [
            "primary".to_owned(),
            format!(
                "{} ({})",
                state.primary(),
                state.buses[usize::from(state.primary() == eb_rollout::Side::New)]
            ),
        ],
        ["epoch".to_owned(), state.epoch.to_string()],
    ];
    if let Some(switching) = &state.switching {
        rows.push([
            "switching".to_owned(),
            format!("to {} by {}: {}", switching.to, switching.by, switching.reason),
        ]);
    }
    for topic in &shown.status.pending {
        rows.push([
            "pending".to_owned(),
            format!("where an epoch of {topic} ends is not known yet: its bus does not answer"),
        ]);
    }
    if let Some(mirror) = &shown.status.mirror {
        let who = mirror.leader.as_deref().unwrap_or("nobody");
        rows.push(["mirror".to_owned(), format!("by {who}")]);
        rows.push([
            "copied".to_owned(),
            format!(
                "{}, {} repaired, {} late copies, {} windows tried again",
                mirror.copied, mirror.repaired, mirror.duplicates, mirror.failures
            ),
        ]);
        rows.push(["lag".to_owned(), format!("{} ms", mirror.lag_ms)]);
        if let Some(error) = &mirror.error {
            rows.push(["failing".to_owned(), format!("for {} ms: {error}", mirror.failing_ms)]);
        }
        rows.extend(mirror.findings.iter().map(|f| ["differs".to_owned(), f.to_string()]));
    }
    rows.extend(shown.comparison.iter().flatten().map(|c| ["compared".to_owned(), c.to_string()]));
    if let Some(Readiness { next: Some(next), missing }) = &shown.readiness {
        let ready = if missing.is_empty() { "nothing is missing".to_owned() } else { missing.join("; ") };
        rows.push([format!("for {next}"), ready]);
    }
    if let Some(took) = shown.took_ms {
        rows.push(["took".to_owned(), format!("{took} ms")]);
    }
    rows.extend(
        shown
            .status
            .history
            .iter()
            .take(5)
            .map(|c| [format!("change {}", c.version), format!("{} {}", c.at, c.reason)]),
    );
    let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
    ui.table(&["WHAT", ""], &rows)
}
