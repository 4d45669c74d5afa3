//! `eb health`

use eb_profile::OpenError;
use ig_gate::{Health, HealthStatus};

use crate::args::Global;
use crate::commands::{beside, open, open_gate};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

/// Asks the gate, which no other process must have open.
async fn of_gate(ui: &Ui, global: &Global) -> Result<(Health, Result<(), OpenError>), Failure> {
    let platform = open(ui, global).await?;
    let health = open_gate(ui, &platform).await?.health().await;
    Ok((health, platform.close().await))
}

pub(crate) async fn run(ui: &mut Ui, global: &Global) -> Outcome {
    let (health, closed) = match of_gate(ui, global).await {
        Err(e) if e.is_in_use() => (beside::health(ui, global, &e).await?, Ok(())),
        asked => asked?,
    };
    if ui.is_json() {
        ui.json(&health)?;
    } else {
        let rows: Vec<_> = health
            .checks
            .iter()
            .map(|c| vec![c.name.clone(), c.status.to_string(), c.detail.clone()])
            .collect();
        ui.table(&["CHECK", "STATUS", "DETAIL"], &rows)?;
        let style = match health.status {
            HealthStatus::Ready => ui::GOOD,
            HealthStatus::Degraded => ui::WARN,
            HealthStatus::Failing => ui::BAD,
        };
        let status = ui.style(style, &health.status.to_string());
        ui.line(&status)?;
    }
    ui.flush()?;
    closed.map_err(Failure::from)?;
    match health.status {
        HealthStatus::Ready | HealthStatus::Degraded => Ok(Exit::Done),
        HealthStatus::Failing => {
            Err(Failure::failed("failing", "the gate does not admit")
                .advise("see the checks that are failing"))
        }
    }
}
